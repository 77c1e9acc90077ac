import type { MbconvSpace } from '../space.js';
import { range } from './range.js';

/** The paper's Table 1. */
export const imagenet: MbconvSpace = {
  name: 'imagenet',
  classes: 1000,
  resolutions: range(192, 336, 16),
  trainResolutions: [192, 224, 288, 320],
  stem: { channels: range(32, 40, 8), kernel: 3, stride: 2 },
  stages: [
    { operator: 'mbconv', expansion: 1, stride: 1, channels: range(16, 24, 8), depths: range(1, 2), kernels: [3] },
    { operator: 'mbconv', expansion: 6, stride: 2, channels: range(24, 32, 8), depths: range(2, 3), kernels: [3] },
    { operator: 'mbconv', expansion: 6, stride: 2, channels: range(40, 48, 8), depths: range(2, 3), kernels: [3, 5] },
    { operator: 'mbconv', expansion: 6, stride: 2, channels: range(80, 88, 8), depths: range(2, 4), kernels: [3, 5] },
    { operator: 'mbconv', expansion: 6, stride: 1, channels: range(112, 128, 8), depths: range(2, 6), kernels: [3, 5] },
    { operator: 'mbconv', expansion: 6, stride: 2, channels: range(192, 216, 8), depths: range(2, 6), kernels: [3, 5] },
    { operator: 'mbconv', expansion: 6, stride: 1, channels: range(320, 352, 8), depths: range(1, 2), kernels: [3, 5] },
  ],
  head: { channels: range(1280, 1408, 8) },
  squeezeExcitation: 0.25,
  batchNormEpsilon: 1e-3,
};
