import { costNames, type ChildRecord, type CostName } from '../checkpoint/frontier.js';
import { BignasError, shown } from '../errors.js';
import { bestOf, type Budget } from './select.js';

const countUnits: Readonly<Record<string, number>> = { '': 1, k: 1e3, K: 1e3, M: 1e6, G: 1e9, T: 1e12 };
const timeUnits: Readonly<Record<string, number>> = { s: 1, ms: 1e-3, us: 1e-6, µs: 1e-6 };
const byteUnits: Readonly<Record<string, number>> = {
  '': 1, B: 1, kB: 1e3, KB: 1e3, MB: 1e6, GB: 1e9, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30,
};

/**
 * A number of things from text: `600M`, `1.2G`, `5.4e6`.
 * @param name the parameter, for the message
 * @throws BignasError BUDGET_MALFORMED
 */
export function parseCount(name: string, text: string): number {
  return parseQuantity(text, countUnits) ?? malformed(name, text, '600M', countUnits);
}

/** Bytes from text: `64MiB`, `20MB`, `1000`. @throws BignasError BUDGET_MALFORMED */
export function parseBytes(name: string, text: string): number {
  return parseQuantity(text, byteUnits) ?? malformed(name, text, '64MiB', byteUnits);
}

function parseQuantity(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const match = /^(\d{1,18}(?:\.\d{0,18})?(?:[eE][+-]?\d{1,3})?) ?([A-Za-zµ]*)$/.exec(text);
  if (!match) return undefined;
  const [, digits, unit] = match as unknown as [string, string, string];
  if (!Object.hasOwn(units, unit)) return undefined;
  const value = Number(digits) * units[unit]!;
  return value > 0 && Number.isFinite(value) ? value : undefined;
}

/** Seconds from text: `20ms`, `1.5s`. @throws BignasError BUDGET_MALFORMED */
export function parseSeconds(name: string, text: string): number {
  const value = parseQuantity(text, timeUnits);
  return value ?? malformed(name, text, '20ms', timeUnits);
}

/** A bound on a cost, in the unit that the cost has. @throws BignasError BUDGET_MALFORMED */
export function parseBound(cost: CostName, text: string): number {
  switch (cost) {
    case 'flops':
    case 'params':
      return parseCount(cost, text);
    case 'bytes':
    case 'memory':
      return parseBytes(cost, text);
    case 'latency':
      return parseSeconds(cost, text);
  }
}

/** Bounds that hold together, from text: `flops=600M,memory=4MiB`. @throws BignasError BUDGET_MALFORMED */
export function parseBudget(text: string): Budget {
  return Object.fromEntries(
    text.split(',').map((bound): [CostName, number] => {
      const [cost, value] = bound.split('=').map((part) => part.trim()) as [CostName, string | undefined];
      if (!costNames.includes(cost) || value === undefined)
        throw new BignasError('BUDGET_MALFORMED', `Expected bounds such as flops=600M,memory=4MiB on ${costNames.join(', ')}, got ${shown(text)}.`, { legal: costNames });
      return [cost, parseBound(cost, value)];
    }),
  );
}

function malformed(name: string, text: string, example: string, units: Readonly<Record<string, number>>): never {
  throw new BignasError('BUDGET_MALFORMED', `Expected \`${name}\` to be a positive number such as ${example}, got ${shown(text)}.`, {
    parameter: name,
    example,
    units: Object.keys(units).filter((unit) => unit !== ''),
  });
}

/**
 * The most accurate of the children within every bound.
 * @param children such as all of a frontier
 * @throws BignasError BUDGET_TOO_SMALL where none fits; its details name the child that misses the bounds by the least.
 * COST_UNKNOWN for a bound on a cost that no child has
 */
export function childWithin(children: readonly ChildRecord[], budget: Budget): ChildRecord {
  return bestOf(children, budget) ?? tooSmall(children, budget);
}

function tooSmall(all: readonly ChildRecord[], budget: Budget): never {
  const bounds = Object.entries(budget) as [CostName, number][];
  const children = all.filter(({ costs }) => bounds.every(([cost]) => costs[cost] !== undefined));
  if (children.length === 0)
    throw new BignasError(
      'COST_UNKNOWN',
      'No child of this checkpoint has a latency. Have the server predict it from a device\'s table (`bignas-serve --latency-table FILE`), bring your own table (`POST /slice?latency=20ms` with its JSON), or measure it by `bignas-search --latency`.',
      { parameter: 'latency' },
    );
  /** By what factor a child exceeds the bound that it misses by the most. */
  const excess = ({ costs }: ChildRecord): number => Math.max(...bounds.map(([cost, limit]) => costs[cost]!.value / limit));
  const nearest = children.reduce((a, b) => (excess(b) < excess(a) ? b : a));
  const asked = bounds.map(([cost, limit]) => `${cost}=${limit}`).join(' and ');
  const needs = bounds.map(([cost]) => `${cost}=${nearest.costs[cost]!.value}`).join(' and ');
  throw new BignasError('BUDGET_TOO_SMALL', `No child fits ${asked}; the nearest needs ${needs} (${nearest.architecture}).`, {
    budget,
    nearest: {
      architecture: nearest.architecture,
      id: nearest.id,
      costs: Object.fromEntries(bounds.map(([cost]) => [cost, nearest.costs[cost]!.value])),
    },
  });
}
