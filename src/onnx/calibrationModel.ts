import { INPUT } from '../graph/modelNames.js';
import { batchNorms, type BatchNorm, type Graph } from '../graph/graph.js';
import type { SharedWeights } from '../graph/weights.js';
import { OnnxBuilder } from './builder.js';
import { emitGraph, type Normalisation } from './emit.js';
import { batchOf, floatAttribute, floatValue, intAttribute, intsAttribute } from './proto.js';

/** Outputs of a calibration model for one batch norm, each [channels]. */
export const meanOf = (name: string): string => `${name}/mean`;
export const varianceOf = (name: string): string => `${name}/variance`;

/** The output of a calibration model's last node. */
export const OUTPUT = 'output';

/**
 * A part of a child whose every batch norm uses the mean and biased variance of the batch itself, as in training, and returns them:
 * `input` float32 [N, channels, height, width], outputs `<batch norm>/mean` and `<batch norm>/variance`, each [channels], and `output`, that of the last node, unless nothing reads it (`last`). Only for
 * calibration.
 */
export function calibrationModel(segment: Graph, weights: SharedWeights, { last }: { readonly last: boolean }): Uint8Array {
  const [height, width, channels] = segment.nodes[0]!.shape as [number, number, number];
  const b = new OnnxBuilder();
  const end = emitGraph(b, segment, weights, batchStatistics(weights));
  const statistics = batchNorms(segment).flatMap(({ name, shape }) =>
    [meanOf(name), varianceOf(name)].map((output) => floatValue(output, [{ dimValue: shape.at(-1)! }])),
  );
  const input = batchOf(INPUT, [channels, height, width]);
  if (last) return b.build([input], statistics);
  b.node('Identity', OUTPUT, [end]);
  const [outHeight, outWidth, outChannels] = segment.nodes.at(-1)!.shape as [number, number, number];
  return b.build([input], [...statistics, batchOf(OUTPUT, [outChannels, outHeight, outWidth])]);
}

function batchStatistics(weights: SharedWeights): Normalisation {
  return {
    convolution: ({ kernel }) => ({ kernel: weights.gather(kernel) }),
    batchNorm: (b, node, x) => normalise(b, node, x, weights),
  };
}

/**
 * The variance is that of the centred values (two passes): E[x²] − E[x]² would cancel where the mean is large. Reductions run over
 * an image's pixels first and then over images, and the last pass is one BatchNormalization of mean 0: of the plain formulations
 * measured this costs ONNX Runtime the least time.
 */
function normalise(b: OnnxBuilder, { name, shape, gamma, beta, epsilon }: BatchNorm, x: string, weights: SharedWeights): string {
  const [height, width, channels] = shape as [number, number, number];
  const over = (...axes: number[]) => [intsAttribute('axes', axes), intAttribute('keepdims', 0)];

  const imageMean = b.node('ReduceMean', `${name}/image-mean`, [x], over(2, 3)); // [N, channels]
  const mean = b.node('ReduceMean', meanOf(name), [imageMean], over(0)); // [channels]
  const column = b.node('Reshape', `${name}/mean-column`, [mean, b.integers(`${name}/column`, [channels, 1, 1])]);
  const centred = b.node('Sub', `${name}/centred`, [x, column]);

  const imageSum = b.node('ReduceSumSquare', `${name}/image-sum`, [centred], over(2, 3)); // [N, channels]
  const sum = b.node('ReduceMean', `${name}/mean-sum`, [imageSum], over(0)); // [channels]
  const variance = b.node('Div', varianceOf(name), [sum, b.tensor(`${name}/pixels`, [], Float32Array.of(height * width))]);

  const operands = [
    b.tensor(gamma.tensor.name, [channels], weights.gather(gamma)),
    b.tensor(beta.tensor.name, [channels], weights.gather(beta)),
    b.tensor(`${name}/zero`, [channels], new Float32Array(channels)),
    variance,
  ];
  return b.node('BatchNormalization', name, [centred, ...operands], [floatAttribute('epsilon', epsilon)]);
}
