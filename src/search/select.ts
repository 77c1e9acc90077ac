import type { ChildRecord, CostName } from '../checkpoint/frontier.js';

/** Upper bounds on a child's cost; absent ones do not bound. */
export type Budget = Readonly<Partial<Record<CostName, number>>>;

/**
 * Better first: the more accurate; of those that are equally so the one that costs less; where it is unknown, the one of more multiply-adds. Then the id, so that
 * the order is total.
 */
export function byAccuracy(a: ChildRecord, b: ChildRecord): number {
  const value = (child: ChildRecord): number => child.accuracy?.value ?? -1;
  if (value(a) !== value(b)) return value(b) - value(a);
  const byId = a.id < b.id ? -1 : 1;
  if (!a.accuracy) return b.costs.flops.value - a.costs.flops.value || byId;
  for (const cost of ['flops', 'params', 'memory'] as const) if (a.costs[cost].value !== b.costs[cost].value) return a.costs[cost].value - b.costs[cost].value;
  return byId;
}

/** A child whose cost is not known does not fit. */
export function fits(child: ChildRecord, budget: Budget): boolean {
  return Object.entries(budget).every(([cost, limit]) => (child.costs[cost as CostName]?.value ?? Infinity) <= limit);
}

/** The most accurate child of the frontier within every bound, or undefined where none fits. */
export function bestOf(children: readonly ChildRecord[], budget: Budget): ChildRecord | undefined {
  return children.filter((child) => fits(child, budget)).sort(byAccuracy)[0];
}

/** More accurate, or of more multiply-adds where neither was measured. */
function beats(child: ChildRecord, best: ChildRecord): boolean {
  if (!child.accuracy && !best.accuracy) return child.costs.flops.value > best.costs.flops.value;
  return (child.accuracy?.value ?? -1) > (best.accuracy?.value ?? -1);
}

/** The children that no other beats: in ascending cost, each more accurate than all before it. Those whose cost is not known are left out. */
export function paretoFront(children: readonly ChildRecord[], cost: CostName): ChildRecord[] {
  const known = children.filter(({ costs }) => costs[cost] !== undefined);
  const ascending = known.sort((a, b) => a.costs[cost]!.value - b.costs[cost]!.value || byAccuracy(a, b));
  const front: ChildRecord[] = [];
  for (const child of ascending) {
    const best = front.at(-1);
    if (!best || beats(child, best)) front.push(child);
  }
  return front;
}
