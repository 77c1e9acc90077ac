import { decodeSafetensors, encodeSafetensors, type Tensor } from '../checkpoint/safetensors.js';
import { weightTensors } from '../checkpoint/tensors.js';
import { float16Bits, float16Values } from '../encoding/float16.js';
import { file, type Files } from '../encoding/container.js';
import { buildGraph } from '../graph/buildGraph.js';
import { batchNorms, parametersOf, type Graph, type Parameter } from '../graph/graph.js';
import { standaloneGraph, standaloneWeights, weightsFrom } from '../graph/standalone.js';
import { checkStatistics, type Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import { parseArchitecture } from '../space/architecture.js';
import type { SearchSpace } from '../space/space.js';

/**
 * A child's plain weights: what it takes to train it further, to slice it again or to write any other format. Nothing is folded: batch norms keep their γ, β and
 * statistics. No dependency: a browser reads and writes it.
 */

export const WEIGHTS = 'weights.safetensors';
export const STATISTICS = 'statistics.safetensors';
export const ARCHITECTURE = 'architecture.json';
export const GRAPH = 'graph.json';

/** A child of which nothing is folded, as a network of its own. */
export interface UnfoldedChild {
  readonly space: SearchSpace;
  /** Canonical text. */
  readonly architecture: string;
  /** `standaloneGraph` of it. */
  readonly graph: Graph;
  readonly weights: SharedWeights;
  readonly statistics: Statistics;
}

/** Cuts a child out of shared weights. @param graph of the child, on the shared tensors */
export function unfoldedChild(space: SearchSpace, architecture: string, graph: Graph, shared: SharedWeights, statistics: Statistics): UnfoldedChild {
  return { space, architecture, graph: standaloneGraph(graph), weights: standaloneWeights(graph, shared), statistics };
}

/** The child's files in a bundle: the same child gives the same bytes. */
export function unfoldedFiles({ space, architecture, graph, weights, statistics }: UnfoldedChild, dtype: 'float32' | 'float16' = 'float32'): Files {
  return new Map([
    [WEIGHTS, weightsFile(weights, dtype)],
    [STATISTICS, encodeSafetensors(layerTensors(statistics), { format: 'pt' })],
    [ARCHITECTURE, text(`${JSON.stringify({ architecture, space }, null, 2)}\n`)],
    [GRAPH, graphJson(graph)],
  ]);
}

export function weightsFile(weights: SharedWeights, dtype: 'float32' | 'float16' = 'float32'): Uint8Array {
  const tensors = weightTensors(weights);
  return encodeSafetensors(dtype === 'float32' ? tensors : new Map([...tensors].map(([name, tensor]) => [name, halves(tensor)])), { format: 'pt' });
}

/** Reads the child back. @throws Error that says what is wrong */
export function readUnfolded(files: Files): UnfoldedChild {
  const { architecture, space } = readArchitecture(files);
  const graph = standaloneGraph(buildGraph(space, parseArchitecture(space, architecture)));
  const tensors = decodeSafetensors(file(files, WEIGHTS));
  const weights = weightsFrom(graph, (name) => floats(name, tensors.get(name)));
  const statistics = readStatisticsFile(files, graph);
  return { space, architecture, graph, weights, statistics };
}

export function readArchitecture(files: Files): { readonly architecture: string; readonly space: SearchSpace } {
  const data = JSON.parse(new TextDecoder().decode(file(files, ARCHITECTURE))) as Partial<{ architecture: string; space: SearchSpace }> | null;
  if (typeof data?.architecture !== 'string' || typeof data.space !== 'object') throw new Error(`${ARCHITECTURE} holds no architecture and its space`);
  return { architecture: data.architecture, space: data.space };
}

function readStatisticsFile(files: Files, graph: Graph): Statistics {
  const tensors = decodeSafetensors(file(files, STATISTICS));
  const statistics: Statistics = new Map(
    batchNorms(graph).map(({ name }) => [name, { mean: floats(`${name}/mean`, tensors.get(`${name}/mean`)), variance: floats(`${name}/variance`, tensors.get(`${name}/variance`)) }]),
  );
  checkStatistics(graph, statistics);
  return statistics;
}

/** The wiring for programs that know nothing of bignas: every node with its inputs, shapes and the tensors it multiplies by. */
export function graphJson(standalone: Graph): Uint8Array {
  const nodes = standalone.nodes.map((node) => {
    const own = new Set<unknown>(parametersOf(node));
    return JSON.stringify(Object.fromEntries(Object.entries(node).map(([key, value]: [string, unknown]) => [key, own.has(value) ? described(value as Parameter) : value])));
  });
  return text(`{\n"format": "bignas-graph",\n"version": 1,\n"layout": "activations [height, width, channels], kernels [out, in, height, width]",\n"nodes": [\n${nodes.join(',\n')}\n]\n}\n`);
}

function described({ tensor, size }: Parameter): object {
  return { tensor: tensor.name, shape: size, decays: tensor.decays };
}

function layerTensors(statistics: Statistics): Map<string, Tensor<'F32'>> {
  return new Map(
    [...statistics].flatMap(([layer, { mean, variance }]): [string, Tensor<'F32'>][] => [
      [`${layer}/mean`, { dtype: 'F32', shape: [mean.length], data: mean }],
      [`${layer}/variance`, { dtype: 'F32', shape: [variance.length], data: variance }],
    ]),
  );
}

function halves({ shape, data }: Tensor<'F32'>): Tensor<'F16'> {
  return { dtype: 'F16', shape, data: float16Bits(data) };
}

function floats(name: string, tensor: Tensor | undefined): Float32Array {
  if (tensor?.dtype === 'F32') return tensor.data as Float32Array;
  if (tensor?.dtype === 'F16') return float16Values(tensor.data as Uint16Array);
  throw new Error(tensor ? `tensor ${name} is of ${tensor.dtype}, expected F32 or F16` : `tensor ${name} is missing`);
}

function text(content: string): Uint8Array {
  return new TextEncoder().encode(content);
}
