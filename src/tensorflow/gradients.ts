import type { Scalar, Tensor, Tensor2D, Tensor4D } from '@tensorflow/tfjs-node-gpu';
import { parameters, type Graph, type Parameter } from '../graph/graph.js';
import type { SharedWeights } from '../graph/weights.js';
import { forward, type Mode } from './forward.js';
import { tf } from './tf.js';

export interface LossAndLogits {
  readonly loss: number;
  /** [n, classes]; the caller disposes of it. */
  readonly logits: Tensor2D;
}

/**
 * One child's loss, and its gradient times `scale`, added into `into` at the slices that the child uses.
 * @param x [n, resolution, resolution, 3]
 * @param lossOf a scalar loss of the logits
 */
export function addGradients(
  graph: Graph,
  weights: SharedWeights,
  into: SharedWeights,
  x: Tensor4D,
  mode: Mode,
  lossOf: (logits: Tensor2D) => Scalar,
  scale = 1,
): LossAndLogits {
  const list = parameters(graph);
  let logits: Tensor2D | undefined;
  const { value, grads } = tf.tidy(() => {
    const slices = list.map((parameter) => tf.tensor(weights.gather(parameter), [...parameter.size]));
    const index = new Map<Parameter, number>(list.map((parameter, i) => [parameter, i]));
    return tf.valueAndGrads((...tensors: Tensor[]) => {
      logits = tf.keep(forward(graph, (parameter) => tensors[index.get(parameter)!]!, x, mode));
      return lossOf(logits);
    })(slices);
  });
  list.forEach((parameter, i) => into.scatterAdd(parameter, grads[i]!.dataSync() as Float32Array, scale));
  const loss = value.dataSync()[0]!;
  tf.dispose([value, ...grads]);
  return { loss, logits: logits! };
}

/** Mean over the batch of the cross entropy between target distributions and the logits' softmax. Both [n, classes]. */
export function softCrossEntropy(targets: Tensor2D, logits: Tensor2D): Scalar {
  return tf.neg(tf.mean(tf.sum(tf.mul(targets, tf.logSoftmax(logits)), 1)));
}
