import { inputsOf, type BatchNorm, type Graph } from './graph.js';

/**
 * The batch norms that vanish into the convolution before them, by that convolution's name: those that alone read its output. (The
 * graph's convolutions have no bias and no activation of their own.)
 */
export function foldableBatchNorms(graph: Graph): ReadonlyMap<string, BatchNorm> {
  const readers = new Map<string, number>();
  for (const input of graph.nodes.flatMap(inputsOf)) readers.set(input, (readers.get(input) ?? 0) + 1);
  const convolutions = new Set(graph.nodes.filter(({ op }) => op === 'conv2d' || op === 'depthwiseConv2d').map(({ name }) => name));
  const foldable = new Map<string, BatchNorm>();
  for (const node of graph.nodes) {
    if (node.op !== 'batchNorm') continue;
    if (convolutions.has(node.input) && readers.get(node.input) === 1) foldable.set(node.input, node);
  }
  return foldable;
}
