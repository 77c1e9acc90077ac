import { width, type Value, type Width } from '../builder.js';
import type { Graph } from '../graph.js';
import { Blocks, divisible } from './blocks.js';
import type { Network, NetworkOptions } from './network.js';

const epsilon = 1e-3;

/**
 * MobileNetV1 (Howard et al., 2017, table 1): depthwise separable convolutions.
 * @param multiplier of every width: that in use, and that of the weights it is cut from (Yu et al., 2019: lower-index channels)
 */
function mobileNetV1(multiplier: Width, { classes, resolution }: NetworkOptions): Graph {
  const wide = (channels: number): Width => width(Math.round(channels * multiplier.used), Math.round(channels * multiplier.full));
  const n = new Blocks(epsilon);
  let x = n.conv('stem', n.b.input(resolution, 3), wide(32), 3, 2, 'relu');
  const layers: readonly (readonly [number, number])[] = [
    [64, 1], [128, 2], [128, 1], [256, 2], [256, 1], [512, 2], [512, 1], [512, 1], [512, 1], [512, 1], [512, 1], [1024, 2], [1024, 1],
  ];
  layers.forEach(([channels, stride], i) => {
    x = n.depthwise(`layer${i + 1}.depthwise`, x, 3, stride, 'relu');
    x = n.conv(`layer${i + 1}.pointwise`, x, wide(channels), 1, 1, 'relu');
  });
  return n.classify(x, classes);
}

/** Output channels, layers and stride of MobileNetV2's stages (Sandler et al., 2018, table 2); the first expands by 1, the others by 6. */
const v2Stages: readonly (readonly [number, number, number])[] = [[16, 1, 1], [24, 2, 2], [32, 3, 2], [64, 4, 2], [96, 3, 1], [160, 3, 2], [320, 1, 1]];

function mobileNetV2(multiplier: number, { classes, resolution }: NetworkOptions): Graph {
  const n = new Blocks(epsilon);
  let x = n.conv('stem', n.b.input(resolution, 3), divisible(32 * multiplier), 3, 2, 'relu6');
  v2Stages.forEach(([channels, layers, stride], i) => {
    for (let j = 0; j < layers; j++)
      x = n.invertedResidual(`stage${i + 1}.layer${j + 1}`, x, {
        out: divisible(channels * multiplier), expanded: i === 0 ? x.full : 6 * x.full, kernel: 3, stride: j === 0 ? stride : 1, activation: 'relu6',
      });
  });
  x = n.conv('head', x, divisible(1280 * Math.max(1, multiplier)), 1, 1, 'relu6');
  return n.classify(x, classes);
}

/**
 * Channels that AutoSlim found for MobileNetV2 (Yu & Huang, 2019; its authors' published configuration of 505 M): the stem, then the expansion and the output of each
 * layer (the first has no expansion), then the head.
 */
const autoSlim505 = [
  32, 16, 144, 24, 176, 24, 192, 48, 240, 48, 144, 48, 264, 88, 288, 88, 336, 88, 432, 88, 576, 144, 576, 144, 648, 144, 864, 240, 1440, 240, 1440, 240, 1440, 480, 1920,
];

function autoSlim({ classes, resolution }: NetworkOptions): Graph {
  const n = new Blocks(epsilon);
  const [stem, first, ...rest] = autoSlim505 as [number, number, ...number[]];
  const strides = [2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1];
  let x = n.conv('stem', n.b.input(resolution, 3), stem, 3, 2, 'relu6');
  x = n.invertedResidual('layer1', x, { out: first, expanded: stem, kernel: 3, stride: 1, activation: 'relu6' });
  strides.forEach((stride, i) => {
    x = n.invertedResidual(`layer${i + 2}`, x, { out: rest[2 * i + 1]!, expanded: rest[2 * i]!, kernel: 3, stride, activation: 'relu6' });
  });
  return n.classify(n.conv('head', x, rest.at(-1)!, 1, 1, 'relu6'), classes);
}

/**
 * Kernel, expansion factor of the block's input, output channels, squeeze-and-excitation, hard swish, stride of MobileNetV3-Large (Howard et al., 2019, table 1, which
 * has the products; the authors' code has factors, which differ where widths are multiplied and rounded).
 */
const v3Layers: readonly (readonly [number, number, number, boolean, boolean, number])[] = [
  [3, 1, 16, false, false, 1], [3, 4, 24, false, false, 2], [3, 3, 24, false, false, 1],
  [5, 3, 40, true, false, 2], [5, 3, 40, true, false, 1], [5, 3, 40, true, false, 1],
  [3, 6, 80, false, true, 2], [3, 2.5, 80, false, true, 1], [3, 184 / 80, 80, false, true, 1], [3, 184 / 80, 80, false, true, 1],
  [3, 6, 112, true, true, 1], [3, 6, 112, true, true, 1],
  [5, 6, 160, true, true, 2], [5, 6, 160, true, true, 1], [5, 6, 160, true, true, 1],
];

function mobileNetV3Large(multiplier: number, { classes, resolution }: NetworkOptions): Graph {
  const wide = (channels: number): number => divisible(channels * multiplier);
  const n = new Blocks(epsilon);
  let x = n.conv('stem', n.b.input(resolution, 3), wide(16), 3, 2, 'hardSwish');
  v3Layers.forEach(([kernel, expansion, channels, excite, hardSwish, stride], i) => {
    const expanded = divisible(x.full * expansion);
    x = n.invertedResidual(`layer${i + 1}`, x, {
      out: wide(channels), expanded, kernel, stride, activation: hardSwish ? 'hardSwish' : 'relu',
      bottleneck: excite ? divisible(expanded / 4) : undefined, squeezeExcite: { activation: 'relu', gate: 'hardSigmoid' },
    });
  });
  // 1280 features whatever the multiplier.
  return classifyDeep(n, n.conv('head', x, wide(960), 1, 1, 'hardSwish'), 1280, classes);
}

/** Kernel, channels between, output channels, stride of each layer of Once-for-All's child of 595 M (Cai et al., 2020; its authors' published configuration). */
const ofa595: readonly (readonly [number, number, number, number])[] = [
  [3, 24, 24, 1],
  [3, 72, 32, 2], [5, 128, 32, 1], [3, 96, 32, 1],
  [5, 128, 48, 2], [5, 192, 48, 1], [3, 288, 48, 1], [5, 144, 48, 1],
  [7, 288, 96, 2], [5, 576, 96, 1], [3, 288, 96, 1], [5, 384, 96, 1],
  [3, 576, 136, 1], [5, 816, 136, 1], [7, 816, 136, 1], [3, 544, 136, 1],
  [3, 816, 192, 2], [3, 1152, 192, 1], [5, 1152, 192, 1], [3, 576, 192, 1],
];

/** MobileNetV3-Large's stages, deeper and wider: squeeze-and-excitation where the output has 48, 136 or 192 channels, hard swish from 96 on. */
function onceForAll({ classes, resolution }: NetworkOptions): Graph {
  const n = new Blocks(1e-5);
  let x = n.conv('stem', n.b.input(resolution, 3), 24, 3, 2, 'hardSwish');
  ofa595.forEach(([kernel, expanded, out, stride], i) => {
    x = n.invertedResidual(`layer${i + 1}`, x, {
      out, expanded, kernel, stride, activation: out >= 96 ? 'hardSwish' : 'relu',
      bottleneck: [48, 136, 192].includes(out) ? divisible(expanded / 4) : undefined, squeezeExcite: { activation: 'relu', gate: 'hardSigmoid' },
    });
  });
  return classifyDeep(n, n.conv('head', x, 1152, 1, 1, 'hardSwish'), 1536, classes);
}

/** MobileNetV3's end: the last layer of features comes after the pooling: dense, with a hard swish. */
function classifyDeep(n: Blocks, x: Value, features: number, classes: number): Graph {
  const dense = n.b.dense('head.dense', n.b.globalAveragePool('head.pool', x), features);
  n.b.dense('classifier', n.b.dropout('head.dropout', n.b.activation('head.dense.hardSwish', dense, 'hardSwish')), classes);
  return n.b.build();
}

/** Expansion, kernel, squeeze-and-excitation, output channels, layers, stride of MnasNet-A1 (Tan et al., 2019, figure 7a). */
const mnasA1: readonly (readonly [number, number, boolean, number, number, number])[] = [
  [6, 3, false, 24, 2, 2], [3, 5, true, 40, 3, 2], [6, 3, false, 80, 4, 2], [6, 3, true, 112, 2, 1], [6, 5, true, 160, 3, 2], [6, 3, false, 320, 1, 1],
];

function mnasNetA1({ classes, resolution }: NetworkOptions): Graph {
  const n = new Blocks(epsilon);
  let x = n.conv('stem', n.b.input(resolution, 3), 32, 3, 2, 'relu');
  x = n.conv('stem.pointwise', n.depthwise('stem.depthwise', x, 3, 1, 'relu'), 16, 1, 1);
  mnasA1.forEach(([expansion, kernel, excite, channels, layers, stride], i) => {
    for (let j = 0; j < layers; j++)
      x = n.invertedResidual(`stage${i + 1}.layer${j + 1}`, x, {
        out: channels, expanded: expansion * x.full, kernel, stride: j === 0 ? stride : 1, activation: 'relu',
        bottleneck: excite ? Math.floor(x.full / 4) : undefined, squeezeExcite: { activation: 'relu' },
      });
  });
  return n.classify(n.conv('head', x, 1280, 1, 1, 'relu'), classes);
}

export const mobileNets = {
  'mobilenet-v1-0.5': {
    title: 'MobileNetV1 0.5×',
    published: { flops: 149e6, params: 1.3e6, resolution: 224, accuracy: 0.637, source: 'Howard et al., 2017, table 6' },
    build: (options) => mobileNetV1(width(0.5), options),
  },
  'mobilenet-v1-1.0': {
    title: 'MobileNetV1 1.0×',
    published: { flops: 569e6, params: 4.2e6, resolution: 224, accuracy: 0.706, source: 'Howard et al., 2017, table 6' },
    build: (options) => mobileNetV1(width(1), options),
  },
  'slimmable-mobilenet-v1': {
    title: 'Slimmable MobileNetV1, 1.0×',
    published: { flops: 569e6, params: 4.2e6, resolution: 224, accuracy: 0.715, source: 'Yu et al., 2019, table 2' },
    widths: [0.25, 0.5, 0.75, 1],
    build: (options) => mobileNetV1(options.width ?? width(1), options),
  },
  'mobilenet-v2-0.75': {
    title: 'MobileNetV2 0.75×',
    published: { flops: 209e6, params: 2.61e6, resolution: 224, accuracy: 0.698, source: "Sandler et al., 2018, its authors' released models" },
    build: (options) => mobileNetV2(0.75, options),
  },
  'mobilenet-v2-1.3': {
    title: 'MobileNetV2 1.3×',
    published: { flops: 509e6, params: 5.34e6, resolution: 224, accuracy: 0.744, source: "Sandler et al., 2018, its authors' released models" },
    build: (options) => mobileNetV2(1.3, options),
  },
  'autoslim-mobilenet-v2': {
    title: 'AutoSlim-MobileNetV2',
    published: { flops: 505e6, params: 6.5e6, resolution: 224, accuracy: 0.754, source: 'Yu & Huang, 2019, table 1' },
    build: autoSlim,
  },
  'mobilenet-v3-large-1.0': {
    title: 'MobileNetV3-Large 1.0×',
    published: { flops: 219e6, params: 5.4e6, resolution: 224, accuracy: 0.752, source: 'Howard et al., 2019, table 3' },
    build: (options) => mobileNetV3Large(1, options),
  },
  'mobilenet-v3-large-1.25': {
    title: 'MobileNetV3-Large 1.25×',
    published: { flops: 356e6, params: 7.5e6, resolution: 224, accuracy: 0.766, source: 'Howard et al., 2019, table 4' },
    build: (options) => mobileNetV3Large(1.25, options),
  },
  'once-for-all-595': {
    title: 'Once-for-All, 595 M',
    published: { flops: 595e6, params: 9.1e6, resolution: 236, accuracy: 0.8, source: "Cai et al., 2020, its authors' released models" },
    build: onceForAll,
  },
  'mnasnet-a1': {
    title: 'MnasNet-A1',
    published: { flops: 312e6, params: 3.9e6, resolution: 224, accuracy: 0.752, source: 'Tan et al., 2019, table 1' },
    build: mnasNetA1,
  },
} as const satisfies Record<string, Network>;
