import { BignasError, shown } from '../errors.js';
import { parseCount } from './budget.js';
import type { Budget } from './select.js';

const costs = ['flops', 'params'] as const;

/** Bounds that hold together, from text: `flops=600M,params=5M`. @throws BignasError BUDGET_MALFORMED */
export function parseBudget(text: string): Budget {
  return Object.fromEntries<number>(
    text.split(',').map((bound): [string, number] => {
      const [cost, value] = bound.split('=').map((part) => part.trim());
      if (!costs.includes(cost as (typeof costs)[number]) || value === undefined)
        throw new BignasError('BUDGET_MALFORMED', `Expected bounds such as flops=600M,params=5M on ${costs.join(', ')}, got ${shown(text)}.`);
      return [cost!, parseCount(cost!, value)];
    }),
  );
}
