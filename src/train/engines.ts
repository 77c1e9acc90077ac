import { availableParallelism } from 'node:os';
import type { Engine } from '../graph/engine.js';
import { tensorflowEngine } from '../tensorflow/engine.js';
import { usesGpu } from '../tensorflow/tf.js';

/** The engine that calibrates and measures: ONNX Runtime, three times faster on a CPU, unless TensorFlow has a GPU. */
export async function evaluationEngine(name: 'auto' | 'onnx' | 'tensorflow'): Promise<Engine> {
  if (name === 'tensorflow' || (name === 'auto' && usesGpu())) return tensorflowEngine;
  const { onnxEngine } = await import('../onnx/engine.js');
  return onnxEngine();
}

/** Replicas for so many parts of a batch: one a core, but a GPU is not shared. */
export function defaultReplicas(parts: number): number {
  return usesGpu() ? 1 : Math.min(parts, availableParallelism());
}
