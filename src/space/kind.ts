import type { NetworkSpace, SearchSpace } from './space.js';

/** Whether a space is one of a network's widths. */
export function isNetworkSpace(space: SearchSpace): space is NetworkSpace {
  return 'network' in space;
}
