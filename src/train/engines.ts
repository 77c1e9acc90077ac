import type { Engine } from '../graph/engine.js';
import { tensorflowEngine } from '../tensorflow/engine.js';
import { tf } from '../tensorflow/tf.js';

/** The engine that calibrates and measures: ONNX Runtime, three times faster on a CPU, unless TensorFlow has a GPU. */
export async function evaluationEngine(name: 'auto' | 'onnx' | 'tensorflow'): Promise<Engine> {
  const gpu = (tf.backend() as unknown as { readonly isUsingGpuDevice: boolean }).isUsingGpuDevice;
  if (name === 'tensorflow' || (name === 'auto' && gpu)) return tensorflowEngine;
  const { onnxEngine } = await import('../onnx/engine.js');
  return onnxEngine();
}
