import type { ChildRecord } from '../checkpoint/frontier.js';
import type { Budget } from './select.js';

/** Budgets that stand for a whole front, for each cost that is known; bytes go with the parameters. */
const targetsPerCost = { flops: 8, params: 4, memory: 2, latency: 4 } as const;

/** Budgets over the whole range of the children's costs, at equal ratios: what a search looks for where nobody asks for one budget. */
export function searchTargets(children: readonly ChildRecord[]): Budget[] {
  return (Object.entries(targetsPerCost) as [keyof typeof targetsPerCost, number][]).flatMap(([cost, count]) => {
    const values = children.flatMap(({ costs }) => costs[cost]?.value ?? []);
    if (values.length === 0) return [];
    const [least, most] = [Math.min(...values), Math.max(...values)];
    return Array.from({ length: count }, (_, i): Budget => ({ [cost]: least * (most / least) ** ((i + 1) / count) }));
  });
}
