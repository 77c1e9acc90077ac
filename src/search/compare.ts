import type { ChildRecord } from '../checkpoint/frontier.js';
import { flops } from '../cost/cost.js';
import { buildGraph } from '../graph/buildGraph.js';
import { key } from '../random.js';
import { formatArchitecture, type Architecture } from '../space/architecture.js';
import { sampleArchitecture } from '../space/sample.js';
import type { MbconvSpace, SearchSpace } from '../space/space.js';
import { isNetworkSpace } from '../space/kind.js';
import { mutate } from './mutate.js';

/** Random children stand this near to the multiply-adds asked for, a fraction. */
export const randomTolerance = 0.03;

/**
 * A random child of given multiply-adds: a random one, changed at random as long as that brings it nearer. Its accuracy plays no part.
 * @returns undefined where the space has none near, or the way did not lead there
 */
export function randomChildAt(space: SearchSpace, target: number, keys: readonly number[]): Architecture | undefined {
  const distance = (architecture: Architecture): number => Math.abs(Math.log(flops(buildGraph(space, architecture)) / target));
  let child = sampleArchitecture(space, keys);
  let away = distance(child);
  for (let draw = 0; draw < 1000 && away > randomTolerance; draw++) {
    const next = mutate(space, child, 0.15, [key('random walk'), ...keys, draw]);
    const nextAway = distance(next);
    if (nextAway > away) continue;
    [child, away] = [next, nextAway];
  }
  return away <= randomTolerance ? child : undefined;
}

/**
 * Different random children of given multiply-adds, `count` of them or as many as are found.
 * @param except the text of one that is not among them: the child that they are compared with
 */
export function randomChildrenAt(space: SearchSpace, target: number, count: number, seed: number, except?: string): Architecture[] {
  const children = new Map<string, Architecture>();
  for (let draw = 0; draw < 10 * count && children.size < count; draw++) {
    const child = randomChildAt(space, target, [seed, key('random child'), Math.round(target), draw]);
    if (child && formatArchitecture(child) !== except) children.set(formatArchitecture(child), child);
  }
  return [...children.values()];
}

/** One way to make a network bigger, without a search: its children in ascending size. */
export interface Scaling {
  readonly name: string;
  readonly children: readonly Architecture[];
}

/**
 * Single-size scaling of one architecture within the space, for comparison with searching: compound (EfficientNet: depth, width and
 * resolution grow together), and each dimension alone with the others at their most (MobileNet's width and resolution multipliers). Kernels are the
 * largest throughout.
 */
export function scalings(space: SearchSpace, steps = 9): Scaling[] {
  const legal = space.resolutions.filter((r) => r >= space.trainResolutions[0]! && r <= space.trainResolutions.at(-1)!);
  const place = (list: readonly number[], at: number): number => list[Math.round(at * (list.length - 1))]!;
  const scaled = (depth: number, width: number, at: number): Architecture => {
    const resolution = place(legal, at);
    return isNetworkSpace(space) ? { resolution, width: place(space.widths, width) } : layered(space, resolution, depth, width);
  };
  const layered = (blocks: MbconvSpace, resolution: number, depth: number, width: number): Architecture => ({
    resolution,
    stem: place(blocks.stem.channels, width),
    stages: blocks.stages.map((stage) => {
      const layer = { kernel: stage.kernels.at(-1)!, channels: place(stage.channels, width) };
      return Array.from({ length: place(stage.depths, depth) }, () => layer);
    }),
    head: place(blocks.head.channels, width),
  });
  const along = (name: string, at: (t: number) => Architecture): Scaling => {
    const children = Array.from({ length: steps }, (_, i) => at(i / (steps - 1)));
    return { name, children: [...new Map(children.map((child) => [formatArchitecture(child), child])).values()] };
  };
  return [
    along('compound', (t) => scaled(t, t, t)),
    along('width', (t) => scaled(1, t, 1)),
    along('depth', (t) => scaled(t, 1, 1)),
    along('resolution', (t) => scaled(1, 1, t)),
  ].filter(({ children }) => children.length > 1); // what a space does not vary is no scaling
}

/** How a searched child stands among random ones of its multiply-adds. */
export interface RandomComparison {
  readonly flops: number;
  /** Top-1 accuracies, fractions. */
  readonly searched: number;
  readonly random: { readonly children: number; readonly median: number; readonly least: number; readonly most: number };
  /** searched − median. */
  readonly margin: number;
  /**
   * Standard error of the margin: of two accuracies measured on so many images (binomial), as if they were independent (both are measured on the same
   * images, so the true one is smaller), and of the median of so many random children, from their spread.
   */
  readonly noise: number;
}

/** Variance of a median over that of a mean, of many normal draws. */
const MEDIAN_VARIANCE = Math.PI / 2;

/** Of the population that the values are drawn from; 0 of a single one. */
function varianceOf(values: readonly number[]): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, values.length - 1);
}

/** @param random measured children, at least one */
export function compareWithRandom(searched: ChildRecord, random: readonly ChildRecord[]): RandomComparison {
  const values = random.map(({ accuracy }) => accuracy!.value).sort((a, b) => a - b);
  const middle = values.length / 2;
  const median = (values[Math.ceil(middle) - 1]! + values[Math.floor(middle)]!) / 2;
  const { value, images } = searched.accuracy!;
  const variance = (p: number): number => (p * (1 - p)) / images;
  return {
    flops: searched.costs.flops.value,
    searched: value,
    random: { children: values.length, median, least: values[0]!, most: values.at(-1)! },
    margin: value - median,
    noise: Math.sqrt(variance(value) + variance(median) + MEDIAN_VARIANCE * (varianceOf(values) / values.length)),
  };
}
