import type { Graph } from '../graph.js';
import { Blocks, divisible } from './blocks.js';
import type { Network, NetworkOptions } from './network.js';

/** Expansion, kernel, output channels, layers and stride of EfficientNet-B0's stages (Tan & Le, 2019, table 1). */
const stages: readonly (readonly [number, number, number, number, number])[] = [
  [1, 3, 16, 1, 1], [6, 3, 24, 2, 2], [6, 5, 40, 2, 2], [6, 3, 80, 3, 2], [6, 5, 112, 3, 1], [6, 5, 192, 4, 2], [6, 3, 320, 1, 1],
];

/** EfficientNet: B0 with its widths and depths multiplied (compound scaling, section 3.3); layers are rounded up. */
function efficientNet(wide: number, deep: number, { classes, resolution }: NetworkOptions): Graph {
  const n = new Blocks(1e-3);
  let x = n.conv('stem', n.b.input(resolution, 3), divisible(32 * wide), 3, 2, 'swish');
  stages.forEach(([expansion, kernel, channels, layers, stride], i) => {
    for (let j = 0; j < Math.ceil(layers * deep); j++)
      x = n.invertedResidual(`stage${i + 1}.layer${j + 1}`, x, {
        out: divisible(channels * wide), expanded: expansion * x.full, kernel, stride: j === 0 ? stride : 1, activation: 'swish', bottleneck: Math.max(1, Math.floor(x.full / 4)),
      });
  });
  return n.classify(n.conv('head', x, divisible(1280 * wide), 1, 1, 'swish'), classes);
}

export const efficientNets = {
  'efficientnet-b0': {
    title: 'EfficientNet-B0',
    published: { flops: 390e6, params: 5.3e6, resolution: 224, accuracy: 0.771, source: 'Tan & Le, 2019, table 2' },
    build: (options) => efficientNet(1, 1, options),
  },
  'efficientnet-b1': {
    title: 'EfficientNet-B1',
    published: { flops: 700e6, params: 7.8e6, resolution: 240, accuracy: 0.791, source: 'Tan & Le, 2019, table 2' },
    build: (options) => efficientNet(1, 1.1, options),
  },
  'efficientnet-b2': {
    title: 'EfficientNet-B2',
    published: { flops: 1e9, params: 9.2e6, resolution: 260, accuracy: 0.801, source: 'Tan & Le, 2019, table 2', bignas: 1050e6 },
    build: (options) => efficientNet(1.1, 1.2, options),
  },
} as const satisfies Record<string, Network>;
