import { bundleDtypes, bundleFormats, defaultBundle } from '../src/bundle/formats.js';
import { containers } from '../src/encoding/container.js';
import { z } from 'zod';
import { frontierChildren } from '../src/checkpoint/checkpoint.js';
import { costNames, type ChildRecord, type Frontier } from '../src/checkpoint/frontier.js';
import { parseLatencyTable, type LatencyTable } from '../src/cost/latency.js';
import type { DeadlineAsked } from './deadlines.js';
import { frontierOnDevice } from '../src/search/devices.js';
import { BignasError, shown } from '../src/errors.js';
import { childWithin, parseBound, parseSeconds } from '../src/search/budget.js';
import { isFamilyName } from '../src/search/find.js';
import type { ChildDescription } from '../src/bundle/child.js';
import type { Served } from './served.js';
import { parseJson } from './json.js';

/**
 * What the routes' queries may hold, each said once: the same schemas check the requests and describe the interface. A query's values
 * are texts; what they mean is read by the modules that know (budgets, architectures).
 */
const budget = (what: string, examples: string[]) => z.string().optional().meta({ description: `most ${what} of the child; not beside \`arch\``, examples });

/** Which child: by name, id or text, or the most accurate within budgets; of all where nothing is said. */
const whichChild = {
  arch: z.string().optional().meta({ description: 'a family name, an id of the checkpoint, or the text of an architecture', examples: ['M'] }),
  flops: budget('multiply-adds an image', ['600M', '1.2G', '5.4e6']),
  params: budget('trainable parameters', ['5M']),
  bytes: budget('bytes of the ONNX model', ['20MB']),
  memory: budget('bytes of activations at a time, for one image', ['8MiB']),
  latency: budget('time for one image on `device`', ['20ms']),
  device: z.string().optional().describe("whose latency counts, by its table's name (`--latency-table`); the checkpoint's own where it has one"),
};

/** Which child, and in what time. */
export const choiceQuery = z.strictObject({
  ...whichChild,
  deadline: z.string().optional().meta({ examples: ['50ms', '2s'], description: 'time to answer in: the most accurate child that makes it under the load of now; not beside `arch`' }),
  min_accuracy: z
    .string()
    .regex(/^(0(\.\d+)?|1(\.0+)?)$/, 'expected a fraction from 0 to 1')
    .optional()
    .describe('least top-1 accuracy of the child, such as 0.8; only beside `deadline`'),
});

export const predictQuery = choiceQuery.extend({
  top: z
    .string()
    .regex(/^[1-9]\d{0,4}$/, 'expected a whole number from 1')
    .default('5')
    .describe('how many classes of each image come back, the most probable first'),
});

export const sliceQuery = z.strictObject({
  ...whichChild,
  format: z.string().default(defaultBundle.format).meta({ description: `what the model is written for: ${bundleFormats.join(', ')}`, examples: [...bundleFormats] }),
  dtype: z.string().default(defaultBundle.dtype).meta({ description: `of the weights: ${bundleDtypes.join(', ')}; int8 of onnx alone`, examples: [...bundleDtypes] }),
  preprocess: z.string().default('false').describe('true: the model takes images as they are and prepares them itself'),
  container: z.string().optional().meta({ description: `${containers.join(' or ')}; unless it is said, \`Accept\` decides`, examples: [...containers] }),
  have: z
    .string()
    .optional()
    .meta({ description: 'a child whose unfolded bundle the client holds, by name, id or text: the answer is a delta, what the asked child has beyond it; only of safetensors in float32', examples: ['S'] }),
  overlap: z.enum(['true', 'false']).default('false').describe('beside `have`, true: also from a child that does not nest in the asked one'),
});

export type SliceQuery = z.infer<typeof sliceQuery>;

export const noQuery = z.strictObject({});

/**
 * A route's query, checked.
 * @throws BignasError PARAMETER_INVALID: a parameter that is unknown (with those that are legal), given twice, or not of its form
 */
export function parseQuery<S extends z.ZodObject>(schema: S, query: unknown): z.infer<S> {
  const legal = Object.keys(schema.shape);
  const result = schema.safeParse(query);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  if (issue.code === 'unrecognized_keys') {
    const names = issue.keys.map((key) => shown(key)).join(', ');
    const expected = legal.length > 0 ? `only ${legal.map((name) => `\`${name}\``).join(', ')}` : 'no parameters';
    throw new BignasError('PARAMETER_INVALID', `Expected ${expected}, got ${names}.`, { legal });
  }
  const name = String(issue.path[0]);
  const value = (query as Record<string, unknown>)[name];
  const why = Array.isArray(value) ? 'expected it once' : issue.message;
  throw new BignasError('PARAMETER_INVALID', `\`${name}\`: ${why}, got ${shown(value)}.`, { parameter: name, legal });
}

/** What a query may say of the child and of the time. */
export type DeadlineQuery = ChildQuery & { readonly deadline?: string | undefined; readonly min_accuracy?: string | undefined };

/** A child, and why it is this one. */
export interface ChosenChild {
  readonly child: ChildDescription;
  readonly choice: 'asked for' | 'most accurate within the budget' | 'most accurate' | 'most accurate in time';
}

/** What a query may say of the child. */
export type ChildQuery = { readonly [K in keyof typeof whichChild]?: string | undefined };

/**
 * The child that a query asks for; the most accurate one where it says nothing.
 * @param table of the client's own device, whose latencies count instead of the checkpoint's
 * @param resolution that the child must have; one that is asked for by name has its own
 * @throws BignasError PARAMETER_INVALID for `arch` beside a budget, or an unknown device, and what reading either of them throws
 */
export function childOf(served: Served, query: ChildQuery, { table, resolution }: { readonly table?: LatencyTable; readonly resolution?: number | undefined } = {}): ChosenChild {
  const { checkpoint, describe } = served;
  const { manifest } = checkpoint;
  const given = costNames.filter((name) => query[name] !== undefined);
  if (query.arch !== undefined) {
    if (given.length > 0)
      throw new BignasError('PARAMETER_INVALID', `Expected either \`arch\` or a budget, got \`arch\` and ${given.map((name) => `\`${name}\``).join(', ')}.`, {
        parameter: 'arch',
      });
    const child = served.find(query.arch);
    // A child of two names has the one that it was asked by.
    return { child: isFamilyName(query.arch) ? { ...child, name: query.arch } : child, choice: 'asked for' };
  }
  const limits = Object.fromEntries(given.map((name) => [name, parseBound(name, query[name]!)]));
  const frontier = table ? frontierOnDevice(manifest.space, checkpoint.frontier, table) : frontierFor(served, query.device);
  const { architecture, costs } = childWithin(childrenAt(served, frontier, resolution), limits);
  return { child: { ...describe(architecture), costs }, choice: given.length > 0 ? 'most accurate within the budget' : 'most accurate' };
}

/**
 * What a query with a deadline allows, and from which children; undefined where it has none.
 * @throws BignasError PARAMETER_INVALID, BUDGET_MALFORMED
 */
export function deadlineOf(served: Served, query: DeadlineQuery, resolution?: number): { readonly asked: DeadlineAsked; readonly children: readonly ChildRecord[] } | undefined {
  if (query.deadline === undefined) {
    if (query.min_accuracy !== undefined) throw new BignasError('PARAMETER_INVALID', 'Expected `min_accuracy` beside `deadline`: without one the most accurate child is taken anyway.', { parameter: 'min_accuracy' });
    return undefined;
  }
  if (query.arch !== undefined) throw new BignasError('PARAMETER_INVALID', 'Expected either `arch` or `deadline`: a deadline chooses the child.', { parameter: 'deadline' });
  const budget = Object.fromEntries(costNames.flatMap((name) => (query[name] === undefined ? [] : [[name, parseBound(name, query[name])]])));
  return {
    asked: { deadline: 1000 * parseSeconds('deadline', query.deadline), minAccuracy: Number(query.min_accuracy ?? 0), budget },
    children: childrenAt(served, frontierFor(served, query.device), resolution),
  };
}

/** The frontier's children, of one resolution where a client's tensor has one already. */
function childrenAt({ describe }: Served, frontier: Frontier, resolution: number | undefined): ChildRecord[] {
  const all = frontierChildren(frontier);
  if (resolution === undefined) return all;
  const resolutionOf = ({ architecture }: ChildRecord): number => describe(architecture).resolution;
  const fitting = all.filter((child) => resolutionOf(child) === resolution);
  if (fitting.length > 0) return fitting;
  const legal = [...new Set(all.map(resolutionOf))].sort((a, b) => a - b);
  throw new BignasError('TENSOR_INVALID', `Expected the tensor to have the resolution of one of the frontier's children, ${legal.join(', ')} pixels, got ${resolution}. Or name an architecture of that resolution.`, { legal });
}

/** The frontier with the latencies that a query means. */
function frontierFor({ checkpoint, devices }: Served, device: string | undefined): Frontier {
  if (device === undefined) {
    // Where one table was given and the checkpoint has no latencies, there is nothing else to mean.
    const [only, ...others] = devices.values();
    return only && others.length === 0 && !checkpoint.frontier.family.biggest.costs.latency ? only : checkpoint.frontier;
  }
  const frontier = devices.get(device);
  if (frontier) return frontier;
  const legal = [...devices.keys()];
  throw new BignasError('PARAMETER_INVALID', `Expected \`device\` to be one that this server has a latency table of${legal.length > 0 ? `: ${legal.join(', ')}` : ' (it has none: start it with --latency-table)'}, got ${shown(device)}.`, {
    parameter: 'device',
    legal,
  });
}

/** A latency table in a request's body. @throws BignasError LATENCY_TABLE_INVALID */
export function readLatencyTable(body: Uint8Array): LatencyTable {
  return parseLatencyTable(parseJson(body, 'the body to be a latency table in JSON', 'LATENCY_TABLE_INVALID'));
}
