import { foldableBatchNorms } from '../graph/folding.js';
import { elements, inputsOf, type Graph, type GraphNode } from '../graph/graph.js';

/** Bytes of a float32. */
const float = 4;

/**
 * Peak bytes of activations while one image runs through a folded child, node after node in the graph's order, which is the order of the
 * exported model: an activation lives from the node that writes it to the last one that reads it. Element-wise nodes write over an input that
 * nobody reads after them; folded batch norms and dropout are nothing. Weights, and what an engine needs besides (blocked layouts, working memory of
 * a convolution), are not counted.
 */
export function peakActivationBytes(graph: Graph): number {
  const folded = new Set([...foldableBatchNorms(graph).values()].map(({ name }) => name));
  const isNothing = (node: GraphNode): boolean => node.op === 'dropout' || folded.has(node.name);
  /** The node whose buffer holds a node's output. */
  const buffer = new Map<string, string>();
  const bytes = new Map<string, number>();
  const lastRead = new Map<string, number>();
  graph.nodes.forEach((node, i) => {
    for (const input of inputsOf(node)) lastRead.set(input, i);
  });

  const live = new Map<string, number>(); // buffers, and the place of their last reader
  let peak = 0;
  graph.nodes.forEach((node, i) => {
    const inputs = inputsOf(node).map((input) => buffer.get(input)!);
    const until = lastRead.get(node.name) ?? Infinity;
    const over = isNothing(node) ? inputs[0] : isElementWise(node) ? inputs.find((input) => live.get(input)! <= i && bytes.get(input) === float * elements(node.shape)) : undefined;
    if (over === undefined) {
      buffer.set(node.name, node.name);
      bytes.set(node.name, float * elements(node.shape));
      live.set(node.name, until);
    } else {
      buffer.set(node.name, over);
      live.set(over, Math.max(live.get(over)!, until));
    }
    peak = Math.max(peak, [...live.keys()].reduce((sum, name) => sum + bytes.get(name)!, 0));
    for (const [name, last] of live) if (last <= i) live.delete(name);
  });
  return peak;
}

/** A calibration's activations over those of the folded child: a batch norm that is computed has its input, that centred and its output at a time. Measured: 2.3 for the largest child of `cifar10`. */
const UNFOLDED = 2.5;

/** Peak bytes while a batch of so many images calibrates a child (`src/calibrate`), weights not counted. */
export function calibrationBytes(graph: Graph, batch: number): number {
  return Math.ceil(UNFOLDED * batch * peakActivationBytes(graph));
}

/** Whether an output element depends on the input's elements of its own place alone (and on a vector a channel). */
function isElementWise({ op }: GraphNode): boolean {
  return op === 'activation' || op === 'batchNorm' || op === 'add' || op === 'squeezeExcite';
}
