import type { ChildRecord } from '../checkpoint/frontier.js';
import type { Budget } from './select.js';

/** Budgets that stand for a whole front, for each cost. */
const targetsPerCost = { flops: 8, params: 4 } as const;

/** Budgets over the whole range of the children's costs, at equal ratios: what a search looks for where nobody asks for one budget. */
export function searchTargets(children: readonly ChildRecord[]): Budget[] {
  return (Object.entries(targetsPerCost) as [keyof typeof targetsPerCost, number][]).flatMap(([cost, count]) => {
    const values = children.map(({ costs }) => costs[cost].value);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    return Array.from({ length: count }, (_, i): Budget => ({ [cost]: least * (most / least) ** ((i + 1) / count) }));
  });
}
