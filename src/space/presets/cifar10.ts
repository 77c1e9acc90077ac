import type { MbconvSpace } from '../space.js';
import { range } from './range.js';

/** For 32×32 images: about 2 to 18 MFLOPs. */
export const cifar10: MbconvSpace = {
  name: 'cifar10',
  classes: 10,
  resolutions: range(20, 36, 2),
  trainResolutions: [20, 24, 28, 32],
  stem: { channels: [16], kernel: 3, stride: 1 },
  stages: [
    { operator: 'mbconv', expansion: 1, stride: 1, channels: [8], depths: [1], kernels: [3] },
    { operator: 'mbconv', expansion: 3, stride: 2, channels: [16], depths: range(1, 2), kernels: [3] },
    { operator: 'mbconv', expansion: 4, stride: 2, channels: range(24, 32, 8), depths: range(1, 3), kernels: [3, 5] },
    { operator: 'mbconv', expansion: 4, stride: 1, channels: range(48, 64, 8), depths: range(2, 4), kernels: [3, 5] },
    { operator: 'mbconv', expansion: 6, stride: 2, channels: range(80, 112, 8), depths: range(1, 2), kernels: [3, 5] },
  ],
  head: { channels: range(256, 320, 8) },
  squeezeExcitation: 0.25,
  batchNormEpsilon: 1e-3,
};
