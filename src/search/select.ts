import type { ChildRecord, Frontier } from '../checkpoint/frontier.js';
import { frontierChildren } from '../checkpoint/checkpoint.js';

/** Upper bounds on a child's cost; absent ones do not bound. */
export type Budget = Readonly<Partial<Record<keyof ChildRecord['costs'], number>>>;

/** Better first: the more accurate; where that is equal or unknown, the one of more multiply-adds, then the id, so that the order is total. */
export function byAccuracy(a: ChildRecord, b: ChildRecord): number {
  const value = (child: ChildRecord): number => child.accuracy?.value ?? -1;
  return value(b) - value(a) || b.costs.flops.value - a.costs.flops.value || (a.id < b.id ? -1 : 1);
}

export function fits(child: ChildRecord, budget: Budget): boolean {
  return Object.entries(budget).every(([cost, limit]) => child.costs[cost as keyof Budget].value <= limit);
}

/** The most accurate child of the frontier within every bound, or undefined where none fits. */
export function bestWithin(frontier: Frontier, budget: Budget): ChildRecord | undefined {
  return frontierChildren(frontier)
    .filter((child) => fits(child, budget))
    .sort(byAccuracy)[0];
}

/** More accurate, or of more multiply-adds where neither was measured. */
function beats(child: ChildRecord, best: ChildRecord): boolean {
  if (!child.accuracy && !best.accuracy) return child.costs.flops.value > best.costs.flops.value;
  return (child.accuracy?.value ?? -1) > (best.accuracy?.value ?? -1);
}

/** The children that no other beats: in ascending cost, each more accurate than all before it. */
export function paretoFront(children: readonly ChildRecord[], cost: keyof Budget): ChildRecord[] {
  const ascending = [...children].sort((a, b) => a.costs[cost].value - b.costs[cost].value || byAccuracy(a, b));
  const front: ChildRecord[] = [];
  for (const child of ascending) {
    const best = front.at(-1);
    if (!best || beats(child, best)) front.push(child);
  }
  return front;
}
