import { IMAGE, INPUT, LOGITS, PROBABILITIES } from '../graph/modelNames.js';
import { encodeSafetensors, type Tensor } from '../checkpoint/safetensors.js';
import { goldenInput, goldenPhoto } from '../data/golden.js';
import type { Preprocessing } from '../data/preprocess.js';
import type { Files } from '../encoding/container.js';
import type { Graph } from '../graph/graph.js';
import type { Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import { onnxModel } from '../onnx/model.js';
import type { ActivationRanges } from '../onnx/quantise.js';
import type { SearchSpace } from '../space/space.js';
import { tfGraph } from '../tfgraph/emit.js';
import { graphModelFiles } from '../tfgraph/graphModel.js';
import { savedModelFiles } from '../tfgraph/savedModel.js';
import type { BundleFormat, BundleOptions } from './formats.js';
import type { BundleManifest } from './manifest.js';
import { unfoldedChild, unfoldedFiles } from './unfolded.js';

/** A child and all that its models are functions of. */
export interface ModelSource {
  readonly id: string;
  /** Canonical text. */
  readonly architecture: string;
  readonly space: SearchSpace;
  readonly graph: Graph;
  readonly weights: SharedWeights;
  readonly statistics: Statistics;
  readonly preprocessing: Preprocessing;
  /** Of the child's activations; only int8 needs them. */
  readonly ranges?: ActivationRanges | undefined;
}

type Kind = Omit<BundleOptions, 'container'>;

/** How each format is written, and in which layout it takes images. */
const writers: Readonly<Record<BundleFormat, { readonly layout: 'NCHW' | 'NHWC'; readonly write: (source: ModelSource, kind: Kind) => Files }>> = {
  onnx: { layout: 'NCHW', write: (source, kind) => new Map([['model.onnx', onnxOf(source, kind)]]) },
  tfjs: { layout: 'NHWC', write: (source, kind) => graphModelFiles(tfOf(source, kind)) },
  savedmodel: { layout: 'NHWC', write: (source, kind) => savedModelFiles(tfOf(source, kind)) },
  safetensors: {
    layout: 'NHWC',
    write: ({ space, architecture, graph, weights, statistics }, { dtype }) => unfoldedFiles(unfoldedChild(space, architecture, graph, weights, statistics), dtype as 'float32' | 'float16'),
  },
};

/** The files of a child's model. The same arguments give the same bytes on every machine. @throws Error where int8 has no ranges */
export function modelFiles(source: ModelSource, kind: Kind): Files {
  return writers[kind.format].write(source, kind);
}

function onnxOf({ id, graph, weights, statistics, preprocessing, ranges }: ModelSource, { dtype, preprocess }: Kind): Uint8Array {
  const options = { name: id, ...(preprocess && { preprocessing }) };
  if (dtype !== 'int8') return onnxModel(graph, weights, statistics, { ...options, dtype });
  if (!ranges) throw new Error('Expected ranges of the activations for int8, got none.');
  return onnxModel(graph, weights, statistics, { ...options, dtype, ranges });
}

function tfOf({ graph, weights, statistics, preprocessing }: ModelSource, { dtype, preprocess }: Kind): ReturnType<typeof tfGraph> {
  return tfGraph(graph, weights, statistics, { dtype: dtype as 'float32' | 'float16', ...(preprocess && { preprocessing }) });
}

/** What the model takes and gives, as a manifest says it. */
export function modelTensors({ format, preprocess }: Kind, resolution: number, classes: number): Pick<BundleManifest, 'inputs' | 'outputs'> {
  const prepared = writers[format].layout === 'NCHW' ? ['batch' as const, 3, resolution, resolution] : ['batch' as const, resolution, resolution, 3];
  return {
    inputs: [
      preprocess
        ? { name: IMAGE, dtype: format === 'tfjs' ? 'int32' : 'uint8', shape: ['batch', 'height', 'width', 3], meaning: 'images of any one size, upright, channels R, G, B, 0 to 255' }
        : { name: INPUT, dtype: 'float32', shape: prepared, meaning: 'prepared images, channels R, G, B' },
    ],
    outputs: [
      { name: LOGITS, dtype: 'float32', shape: ['batch', classes], meaning: 'logits by class' },
      { name: PROBABILITIES, dtype: 'float32', shape: ['batch', classes], meaning: 'softmax of the logits' },
    ],
  };
}

/** `golden.safetensors`: the golden photograph, what the model takes for it, and the answer. */
export function goldenFile({ format, preprocess }: Kind, preprocessing: Preprocessing, resolution: number, logits: Float32Array): Uint8Array {
  const { pixels, height, width } = goldenPhoto(preprocessing);
  const tensors = new Map<string, Tensor>([[IMAGE, { dtype: 'U8', shape: [1, height, width, 3], data: pixels }]]);
  const { layout } = writers[format];
  if (!preprocess) {
    const shape = layout === 'NCHW' ? [1, 3, resolution, resolution] : [1, resolution, resolution, 3];
    tensors.set(INPUT, { dtype: 'F32', shape, data: goldenInput(preprocessing, resolution, layout) });
  }
  const answer = (data: Float32Array): Tensor => ({ dtype: 'F32', shape: [1, data.length], data });
  tensors.set(LOGITS, answer(logits)).set(PROBABILITIES, answer(softmax(logits)));
  return encodeSafetensors(tensors);
}

/** In double precision, rounded once. */
function softmax(logits: Float32Array): Float32Array {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Float64Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return Float32Array.from(powers, (power) => power / sum);
}
