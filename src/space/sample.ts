import { key, stream } from '../random.js';
import type { Architecture, MbconvArchitecture } from './architecture.js';
import type { MbconvSpace, SearchSpace } from './space.js';
import { isNetworkSpace } from './kind.js';

/**
 * A random architecture: resolution (unless given), every stage's depth, every layer's kernel and channels, each uniform over its
 * legal values and independent of the others. A function of the keys and the layer's index alone (the paper's appendix C): a layer
 * draws the same whatever depth another stage has.
 */
export function sampleArchitecture(space: MbconvSpace, keys: readonly number[], resolution?: number): MbconvArchitecture;
export function sampleArchitecture(space: SearchSpace, keys: readonly number[], resolution?: number): Architecture;
export function sampleArchitecture(space: SearchSpace, keys: readonly number[], resolution?: number): Architecture {
  const pick = (legal: readonly number[], ...where: number[]): number =>
    legal[stream(key('architecture'), ...keys, ...where).integer(legal.length)]!;
  if (isNetworkSpace(space)) return { resolution: resolution ?? pick(space.resolutions, 0), width: pick(space.widths, 1) };
  return {
    resolution: resolution ?? pick(space.resolutions, 0),
    stem: pick(space.stem.channels, 1),
    stages: space.stages.map((stage, i) =>
      Array.from({ length: pick(stage.depths, 3, i) }, (_, j) => ({
        kernel: pick(stage.kernels, 4, i, j),
        channels: pick(stage.channels, 5, i, j),
      })),
    ),
    head: pick(space.head.channels, 2),
  };
}
