import { elements, parameters, type Graph, type GraphNode } from '../graph/graph.js';
import { modelBytes } from './bytes.js';
import { peakActivationBytes } from './memory.js';

/** Multiply-adds of one image through one node, counted as the paper counts "FLOPs": convolutions and dense layers only. */
export function nodeFlops(node: GraphNode): number {
  switch (node.op) {
    case 'conv2d':
    case 'depthwiseConv2d': {
      const [, into, kh, kw] = node.kernel.size as [number, number, number, number];
      return elements(node.shape) * into * kh * kw;
    }
    case 'squeezeExcite':
      return elements(node.reduceKernel.size) + elements(node.expandKernel.size);
    case 'dense':
      return elements(node.kernel.size);
    default:
      return 0;
  }
}

/** Multiply-adds of one image. @param transitions false leaves out the skips across stage transitions, as the paper's counts do. */
export function flops(graph: Graph, { transitions = true } = {}): number {
  return graph.nodes.reduce((sum, node) => sum + (transitions || !node.transition ? nodeFlops(node) : 0), 0);
}

/** Trainable parameters: kernels, biases, γ and β. */
export function params(graph: Graph): number {
  return parameters(graph).reduce((sum, parameter) => sum + elements(parameter.size), 0);
}

/** What a child costs, whatever runs it. */
export interface Cost {
  /** Multiply-adds of one image. */
  readonly flops: number;
  /** Trainable parameters. */
  readonly params: number;
  /** Of its ONNX model, nearly. */
  readonly bytes: number;
  /** Peak bytes of activations of one image. */
  readonly memory: number;
}

export function costOf(graph: Graph): Cost {
  return { flops: flops(graph), params: params(graph), bytes: modelBytes(graph), memory: peakActivationBytes(graph) };
}
