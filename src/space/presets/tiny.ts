import type { MbconvSpace } from '../space.js';
import { range } from './range.js';

/** For tests: every kind of wiring in a network of a few thousand weights. Stage 1 and 2 keep the channel range, stage 3 does not. */
export const tiny: MbconvSpace = {
  name: 'tiny',
  classes: 4,
  resolutions: range(7, 16),
  trainResolutions: [8, 10, 12, 14],
  stem: { channels: [4, 8], kernel: 3, stride: 2 },
  stages: [
    { operator: 'mbconv', expansion: 1, stride: 1, channels: [4, 8], depths: [1, 2], kernels: [3] },
    { operator: 'mbconv', expansion: 2, stride: 2, channels: [4, 8], depths: [1, 2], kernels: [3, 5] },
    { operator: 'mbconv', expansion: 3, stride: 1, channels: [8, 12], depths: [1, 2, 3], kernels: [3, 5] },
  ],
  head: { channels: [16, 24] },
  squeezeExcitation: 0.25,
  batchNormEpsilon: 1e-3,
};
