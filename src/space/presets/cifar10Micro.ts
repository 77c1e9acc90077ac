import type { MbconvSpace } from '../space.js';

/** For experiments (docs/evidence.md): a run takes minutes on one core. 0.3 to 2.1 MFLOPs as trained. */
export const cifar10Micro: MbconvSpace = {
  name: 'cifar10-micro',
  classes: 10,
  resolutions: [12, 16, 20, 24, 28, 32],
  trainResolutions: [12, 16, 20, 24],
  stem: { channels: [16], kernel: 3, stride: 1 },
  stages: [
    { operator: 'mbconv', expansion: 2, stride: 2, channels: [16], depths: [1], kernels: [3] },
    { operator: 'mbconv', expansion: 4, stride: 2, channels: [24, 32], depths: [1, 2], kernels: [3, 5] },
    { operator: 'mbconv', expansion: 4, stride: 2, channels: [48, 56, 64], depths: [1, 2], kernels: [3, 5] },
  ],
  head: { channels: [128, 160] },
  squeezeExcitation: 0.25,
  batchNormEpsilon: 1e-3,
};
