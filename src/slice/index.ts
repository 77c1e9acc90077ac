/**
 * Slicing without a server: typed arrays in, typed arrays out. It depends on nothing and runs in browsers, edge workers and Node alike: cut a child out of a
 * checkpoint that lies on any web server, update a bundle by a delta, write ONNX.
 */
import type { BundleManifest } from '../bundle/manifest.js';
import { readUnfolded } from '../bundle/unfolded.js';
import { file, readContainer } from '../encoding/container.js';
import { onnxModel } from '../onnx/model.js';

export { applyDelta, outside } from '../bundle/delta.js';
export { readUnfolded, unfoldedFiles, type UnfoldedChild } from '../bundle/unfolded.js';
export { containers, containerTypes, readContainer, writeContainer, type Container, type Files } from '../encoding/container.js';
export { buildGraph } from '../graph/buildGraph.js';
export type { Graph } from '../graph/graph.js';
export { standaloneGraph, standaloneWeights } from '../graph/standalone.js';
export type { Statistics } from '../graph/statistics.js';
export { SharedWeights } from '../graph/weights.js';
export { onnxModel } from '../onnx/model.js';
export { formatArchitecture, parseArchitecture, type Architecture } from '../space/architecture.js';
export type { SearchSpace } from '../space/space.js';
export { fetchChild, httpReader, type FetchedChild, type FetchOptions, type RangeReader } from './fetchChild.js';

export interface OnnxOptions {
  readonly dtype?: 'float32' | 'float16';
  /** Whether the model prepares images itself. */
  readonly preprocess?: boolean;
}

/**
 * The ONNX model of an unfolded bundle: in float32 the bytes of `model.onnx` as a server writes it for the same child.
 * @param bundle as downloaded with `format=safetensors`, or as `applyDelta` gives it
 * @throws Error that says what is wrong with the bundle
 */
export function bundleOnnx(bundle: Uint8Array, { dtype = 'float32', preprocess = false }: OnnxOptions = {}): Uint8Array {
  const { files } = readContainer(bundle);
  const { id, preprocessing } = JSON.parse(new TextDecoder().decode(file(files, 'manifest.json'))) as BundleManifest;
  const { graph, weights, statistics } = readUnfolded(files);
  return onnxModel(graph, weights, statistics, { name: id, dtype, ...(preprocess && { preprocessing }) });
}
