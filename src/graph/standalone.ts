import { elements, parameters, parametersOf, type Graph, type GraphNode, type Parameter, type SharedTensor } from './graph.js';
import { SharedWeights } from './weights.js';

/** A child as a network of its own: the same graph, whose parameters are whole tensors of their slices' shapes. */
export function standaloneGraph(graph: Graph): Graph {
  return { nodes: graph.nodes.map(standaloneNode) };
}

/** The weights of `standaloneGraph`, copied out of the shared ones. */
export function standaloneWeights(graph: Graph, shared: SharedWeights): SharedWeights {
  const all = parameters(graph);
  const weights = new SharedWeights(all.map(wholeTensor));
  for (const parameter of all) weights.tensor(parameter.tensor.name).set(shared.gather(parameter));
  return weights;
}

/** The weights of a standalone graph from its tensors. @param tensor of a name, of the shape's length */
export function weightsFrom(standalone: Graph, tensor: (name: string) => Float32Array): SharedWeights {
  const weights = new SharedWeights(parameters(standalone).map(wholeTensor));
  for (const { name, shape } of weights.tensors) {
    const data = tensor(name);
    if (data.length !== elements(shape)) throw new Error(`${name}: expected ${elements(shape)} values, got ${data.length}.`);
    weights.tensor(name).set(data);
  }
  return weights;
}

function standaloneNode(node: GraphNode): GraphNode {
  const own = new Set<unknown>(parametersOf(node));
  return Object.fromEntries(Object.entries(node).map(([key, value]: [string, unknown]) => [key, own.has(value) ? whole(value as Parameter) : value])) as unknown as GraphNode;
}

function whole(parameter: Parameter): Parameter {
  return { tensor: wholeTensor(parameter), begin: parameter.size.map(() => 0), size: parameter.size };
}

function wholeTensor({ tensor, size }: Parameter): SharedTensor {
  return { ...tensor, shape: size };
}
