import { foldableBatchNorms } from '../graph/folding.js';
import { elements, parametersOf, type Graph, type GraphNode } from '../graph/graph.js';

/** Bytes of a model file's nodes by the graph's node, with their names, attributes and tensors' descriptions: a mean, as names differ in length. */
const nodeBytes: Readonly<Partial<Record<GraphNode['op'], number>>> = {
  conv2d: 271, depthwiseConv2d: 300, activation: 270, squeezeExcite: 970, add: 180, averagePool: 254, maxPool: 220, fitChannels: 260, shift: 500, concatenate: 150, batchNorm: 500,
};

/**
 * Bytes of a child's ONNX model, nearly (test/cost.test.ts says how nearly): its float32 weights with batch norms folded, and what the file says about
 * each node.
 */
export function modelBytes(graph: Graph): number {
  const folded = foldableBatchNorms(graph);
  const vanished = new Set([...folded.values()].map(({ name }) => name));
  const floats = (node: GraphNode): number => {
    if (vanished.has(node.name)) return 0;
    const own = parametersOf(node).reduce((sum, { size }) => sum + elements(size), 0);
    if (node.op === 'batchNorm') return 2 * own; // mean and variance beside γ and β
    return own + (folded.has(node.name) ? node.shape.at(-1)! : 0);
  };
  const written = graph.nodes.filter((node) => !vanished.has(node.name) && node.op !== 'dropout');
  return written.reduce((sum, node) => sum + (nodeBytes[node.op] ?? 0) + 4 * floats(node), 0);
}
