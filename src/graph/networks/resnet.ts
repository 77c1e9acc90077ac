import type { Value } from '../builder.js';
import type { Graph } from '../graph.js';
import { Blocks } from './blocks.js';
import type { Network, NetworkOptions } from './network.js';

/** Layers and channels of ResNet-50's stages (He et al., 2016, table 1). A stage's first layer has its stride at the first 1×1 convolution. */
const stages: readonly (readonly [number, number])[] = [[3, 64], [4, 128], [6, 256], [3, 512]];

function resNet50({ classes, resolution }: NetworkOptions): Graph {
  const n = new Blocks(1e-5);
  let x = n.conv('stem', n.b.input(resolution, 3), 64, 7, 2, 'relu');
  x = n.b.maxPool('stem.pool', x, 3, 2);
  stages.forEach(([layers, channels], i) => {
    for (let j = 0; j < layers; j++) x = bottleneck(n, `stage${i + 1}.layer${j + 1}`, x, channels, i > 0 && j === 0 ? 2 : 1);
  });
  return n.classify(x, classes);
}

function bottleneck(n: Blocks, name: string, input: Value, channels: number, stride: number): Value {
  let x = n.conv(`${name}.reduce`, input, channels, 1, stride, 'relu');
  x = n.conv(`${name}.middle`, x, channels, 3, 1, 'relu');
  x = n.conv(`${name}.expand`, x, 4 * channels, 1, 1);
  const skip = input.full === 4 * channels ? input : n.conv(`${name}.skip`, input, 4 * channels, 1, stride);
  return n.b.activation(`${name}.relu`, n.b.add(`${name}.add`, x, skip), 'relu');
}

export const resNets = {
  'resnet-50': {
    title: 'ResNet-50',
    published: { flops: 3.8e9, params: 25.6e6, resolution: 224, accuracy: 0.76, source: 'He et al., 2016, table 1 (accuracy as BigNAS cites it)' },
    build: resNet50,
  },
} as const satisfies Record<string, Network>;
