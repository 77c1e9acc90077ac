import { createRequire } from 'node:module';
import { BignasError } from '../errors.js';

type TensorFlow = typeof import('@tensorflow/tfjs-node-gpu');

/** TensorFlow through its C API. It keeps one global backend: load it in one thread of a process only. */
export const tf = load();

function load(): TensorFlow {
  process.env['TF_CPP_MIN_LOG_LEVEL'] ??= '2';
  try {
    const tensorflow = createRequire(import.meta.url)('@tensorflow/tfjs-node-gpu') as TensorFlow;
    tensorflow.env().set('PROD', true);
    return tensorflow;
  } catch (error) {
    throw new BignasError(
      'ENGINE_MISSING',
      `The TensorFlow engine is not installed (${(error as Error).message.split('\n')[0]}). Install it with: node cli/setup/engine.mjs`,
      {},
      { cause: error },
    );
  }
}

/** Whether TensorFlow computes on a GPU: its library is one for CUDA, and sees one. */
export function usesGpu(): boolean {
  return (tf.backend() as unknown as { readonly isUsingGpuDevice: boolean }).isUsingGpuDevice;
}
