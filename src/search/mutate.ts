import { key, stream, type Stream } from '../random.js';
import type { Architecture, Layer, MbconvArchitecture, NetworkArchitecture } from '../space/architecture.js';
import type { MbconvSpace, SearchSpace } from '../space/space.js';
import { isNetworkSpace } from '../space/kind.js';

/**
 * A mutated architecture (the fine half of the search, the paper's section 3.2): resolution, every stage's depth, every layer's channels
 * and kernel change to another legal value with probability `rate` each. A layer that a deeper stage gains starts as the stage's last. A
 * function of the keys alone; may by chance be the architecture that it came from.
 */
export function mutate(space: MbconvSpace, from: MbconvArchitecture, rate: number, keys: readonly number[]): MbconvArchitecture;
export function mutate(space: SearchSpace, from: Architecture, rate: number, keys: readonly number[]): Architecture;
export function mutate(space: SearchSpace, from: Architecture, rate: number, keys: readonly number[]): Architecture {
  const draws = stream(key('mutation'), ...keys);
  const gene = (value: number, legal: readonly number[]): number => (draws.uniform() < rate ? other(value, legal, draws) : value);
  const resolution = gene(from.resolution, space.resolutions);
  if (isNetworkSpace(space)) return { resolution, width: gene((from as NetworkArchitecture).width, space.widths) };
  const parent = from as MbconvArchitecture;
  return {
    resolution,
    stem: gene(parent.stem, space.stem.channels),
    stages: space.stages.map((stage, i) => {
      const layers = parent.stages[i]!;
      const depth = gene(layers.length, stage.depths);
      return Array.from({ length: depth }, (_, j): Layer => {
        const { kernel, channels } = layers[j] ?? layers.at(-1)!;
        return { kernel: gene(kernel, stage.kernels), channels: gene(channels, stage.channels) };
      });
    }),
    head: gene(parent.head, space.head.channels),
  };
}

/** Another legal value, where there is one. */
function other(value: number, legal: readonly number[], draws: Stream): number {
  const others = legal.filter((v) => v !== value);
  return others.length === 0 ? value : others[draws.integer(others.length)]!;
}
