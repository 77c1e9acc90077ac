import { elements, inputsOf, type Graph, type GraphNode } from '../graph/graph.js';

/** A node may have so many times the elements of the narrowest one of its resolution, and still be where a graph is cut: an expanded activation has six. */
const WIDEST = 2;

/**
 * A graph in parts, one after another: each reads only the output of the one before it, as its input. Where to cut is a function of the nodes before the cut and of the next one, so that graphs
 * that begin alike are cut alike: at the last narrow place before every reduction of the resolution. The last part ends with the last batch norm.
 */
export function segmentsOf({ nodes }: Graph): Graph[] {
  const end = nodes.findLastIndex(({ op }) => op === 'batchNorm') + 1;
  const used = nodes.slice(0, end);
  const segments: Graph[] = [];
  let from = 0;
  let before: GraphNode | undefined;
  for (const at of [...cuts(used), used.length - 1]) {
    const part = used.slice(from, at + 1);
    segments.push({ nodes: before ? [{ op: 'input', name: before.name, shape: before.shape }, ...part] : part });
    before = used[at]!;
    from = at + 1;
  }
  return segments;
}

/** Indices of the nodes after which to cut. */
function cuts(nodes: readonly GraphNode[]): number[] {
  const lastRead = new Map<string, number>();
  nodes.forEach((node, i) => {
    for (const name of inputsOf(node)) lastRead.set(name, i);
  });
  const found: number[] = [];
  /** Places of the present resolution where everything goes through one node. */
  let places: number[] = [];
  /** The node read last, of all that are before the present one. */
  let reach = 0;
  nodes.forEach((node, i) => {
    const reduced = i > 0 && node.shape.length === 3 && node.shape[0]! < nodes[i - 1]!.shape[0]!;
    if (reduced && places.length > 0) {
      const narrowest = Math.min(...places.map((place) => elements(nodes[place]!.shape)));
      found.push(places.findLast((place) => elements(nodes[place]!.shape) <= WIDEST * narrowest)!);
      places = [];
    }
    // Nothing before it is read after it.
    if (reach <= i && i > 0 && node.shape.length === 3) places.push(i);
    reach = Math.max(reach, lastRead.get(node.name) ?? 0);
  });
  return found.filter((place) => place < nodes.length - 1);
}
