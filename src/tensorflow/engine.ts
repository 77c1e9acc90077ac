import type { Tensor, Tensor1D, Tensor4D } from '@tensorflow/tfjs-node-gpu';
import type { Batch, Engine } from '../graph/engine.js';
import { parameters, type Graph, type Parameter } from '../graph/graph.js';
import { checkStatistics, type ChannelStatistics, type Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import { forward, type Mode, type ParameterTensor } from './forward.js';
import { swish } from './kernels.js';
import { tf } from './tf.js';

/** The graph on TensorFlow: for machines with a GPU, and the oracle of the ONNX engine. Blocks the thread that calls it. */
export const tensorflowEngine: Engine = {
  name: 'tensorflow',

  load(graph, weights, statistics) {
    checkStatistics(graph, statistics);
    const tensors = parameterTensors(graph, weights);
    const normal = new Map(
      [...statistics].map(([name, { mean, variance }]) => [name, { mean: tf.tensor1d(mean), variance: tf.tensor1d(variance) }]),
    );
    const inference: Mode = {
      batchNorm: ({ name, epsilon }, x, gamma, beta, activation) => {
        const { mean, variance } = normal.get(name)!;
        return activated(tf.batchNorm4d(x, mean, variance, beta, gamma, epsilon), activation);
      },
    };
    return Promise.resolve({
      run: async (batch) => {
        const logits = tf.tidy(() => forward(graph, lookUp(tensors), input(graph, batch), inference));
        const data = (await logits.data()) as Float32Array;
        logits.dispose();
        return data;
      },
      dispose: () => {
        tf.dispose([...tensors.values(), ...[...normal.values()].flatMap(({ mean, variance }) => [mean, variance])]);
        return Promise.resolve();
      },
    });
  },

  calibrationSegment(segment, weights, { last }) {
    const tensors = parameterTensors(segment, weights);
    return Promise.resolve({
      run: (batch) => calibrationRun(segment, tensors, batch, last),
      dispose: () => {
        tf.dispose([...tensors.values()]);
        return Promise.resolve();
      },
    });
  },
};

/** A segment's output on one batch, unless it is the last one, and every batch norm's mean and biased variance, each normalised by its own. */
async function calibrationRun(segment: Graph, tensors: ReadonlyMap<Parameter, Tensor>, batch: Batch, last: boolean): Promise<{ output: Float32Array | undefined; statistics: Statistics }> {
  const moments = new Map<string, { mean: Tensor; variance: Tensor }>();
  const end = tf.tidy(() => {
    const output = forward(segment, lookUp(tensors), input(segment, batch), {
      batchNorm: ({ name, epsilon }, x, gamma, beta, activation) => {
        const { mean, variance } = tf.moments(x, [0, 1, 2]);
        moments.set(name, { mean: tf.keep(mean), variance: tf.keep(variance) });
        return activated(tf.batchNorm4d(x, mean as Tensor1D, variance as Tensor1D, beta, gamma, epsilon), activation);
      },
    });
    return last ? undefined : tf.transpose(output as Tensor as Tensor4D, [0, 3, 1, 2]);
  });
  const output = (await end?.data()) as Float32Array | undefined;
  end?.dispose();
  const statistics = new Map<string, ChannelStatistics>();
  for (const [name, { mean, variance }] of moments) {
    statistics.set(name, { mean: (await mean.data()) as Float32Array, variance: (await variance.data()) as Float32Array });
    tf.dispose([mean, variance]);
  }
  return { output, statistics };
}

function activated(x: Tensor4D, activation: 'none' | 'swish'): Tensor4D {
  return activation === 'swish' ? swish(x) : x;
}

function parameterTensors(graph: Graph, weights: SharedWeights): Map<Parameter, Tensor> {
  return new Map(parameters(graph).map((parameter) => [parameter, tf.tensor(weights.gather(parameter), [...parameter.size])]));
}

function lookUp(tensors: ReadonlyMap<Parameter, Tensor>): ParameterTensor {
  return (parameter) => tensors.get(parameter)!;
}

/** [n, channels, height, width] as TensorFlow's [n, height, width, channels]. */
function input(graph: Graph, { data, count }: Batch): Tensor4D {
  const [height, width, channels] = graph.nodes[0]!.shape as [number, number, number];
  return tf.transpose(tf.tensor4d(data, [count, channels, height, width]), [0, 2, 3, 1]);
}
