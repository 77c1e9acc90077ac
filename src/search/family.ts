import { costNames, familyNames, type ChildRecord, type FamilyName, type Frontier } from '../checkpoint/frontier.js';
import { costsOf } from '../checkpoint/checkpoint.js';
import { flops } from '../cost/cost.js';
import { buildGraph } from '../graph/buildGraph.js';
import { biggest, formatArchitecture, smallest, type Architecture } from '../space/architecture.js';
import { architectureId } from '../space/identity.js';
import { imagenet } from '../space/presets/imagenet.js';
import type { SearchSpace } from '../space/space.js';
import { bestOf, byAccuracy, fits, paretoFront, type Budget } from './select.js';

/** The paper's family in `imagenet`, multiply-adds (figure 1: BigNASModel-S, M, L, XL). */
const imagenetFamily = { S: 242e6, M: 418e6, L: 586e6, XL: 1040e6 } as const;

/** Multiply-adds of S, M, L and XL: in other spaces at the same geometric positions between the smallest and the biggest child. */
export function familyBudgets(space: SearchSpace): Readonly<Record<keyof typeof imagenetFamily, number>> {
  const [low, high] = [smallest, biggest].map((end) => flops(buildGraph(imagenet, end(imagenet)))) as [number, number];
  const [from, to] = [smallest, biggest].map((end) => flops(buildGraph(space, end(space)))) as [number, number];
  const place = (budget: number): number => Math.round(from * (to / from) ** (Math.log(budget / low) / Math.log(high / low)));
  const { S, M, L, XL } = imagenetFamily;
  return { S: place(S), M: place(M), L: place(L), XL: place(XL) };
}

/** A child's record: its id, canonical text and costs; `accuracy` null where it has not been measured. */
export function recordOf(space: SearchSpace, architecture: Architecture, accuracy: ChildRecord['accuracy'] = null): ChildRecord {
  return {
    id: architectureId(space, architecture),
    architecture: formatArchitecture(architecture),
    costs: costsOf(buildGraph(space, architecture)),
    accuracy,
  };
}

/**
 * The frontier over children that were measured (or that were not: then the more multiply-adds, the better). The family takes the best
 * child within each budget; the front holds the Pareto-optimal ones over each cost, and the best within each of `wanted`: a budget of several
 * bounds may be answered by a child that is on no single cost's front.
 * @param children the smallest and the biggest child must be among them
 */
export function frontierOf(space: SearchSpace, children: readonly ChildRecord[], wanted: readonly Budget[] = []): Frontier {
  const budgets = familyBudgets(space);
  const named = (architecture: Architecture): ChildRecord => {
    const id = architectureId(space, architecture);
    const child = children.find((record) => record.id === id);
    if (!child) throw new Error(`${formatArchitecture(architecture)} must be among the measured children.`);
    return child;
  };
  const member = (name: FamilyName): ChildRecord => {
    if (name === 'smallest') return named(smallest(space));
    if (name === 'biggest') return named(biggest(space));
    return children.filter((child) => fits(child, { flops: budgets[name] })).sort(byAccuracy)[0]!;
  };
  const family = Object.fromEntries(familyNames.map((name) => [name, member(name)])) as Frontier['family'];
  const front = [...costNames.flatMap((cost) => paretoFront(children, cost)), ...wanted.flatMap((budget) => bestOf(children, budget) ?? [])];
  const unique = [...new Map(front.map((child) => [child.id, child])).values()];
  return { family, front: unique.sort((a, b) => a.costs.flops.value - b.costs.flops.value || (a.id < b.id ? -1 : 1)) };
}
