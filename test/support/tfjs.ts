import '@tensorflow/tfjs-backend-cpu';
import { loadGraphModel, type GraphModel } from '@tensorflow/tfjs-converter';
import * as tf from '@tensorflow/tfjs-core';

/** TF.js in plain JavaScript: no binding of TensorFlow. */
await tf.setBackend('cpu');

export { tf };

/** Loads a GraphModel from its files, as TF.js's own loaders do. */
export function loadFiles(files: ReadonlyMap<string, Uint8Array>): Promise<GraphModel> {
  const file = (name: string): Uint8Array => {
    const bytes = files.get(name);
    if (!bytes) throw new Error(`There is no ${name}.`);
    return bytes;
  };
  const load = (): Promise<tf.io.ModelArtifacts> =>
    tf.io.getModelArtifactsForJSON(JSON.parse(new TextDecoder().decode(file('model.json'))) as tf.io.ModelJSON, (manifest) => {
      const data = Buffer.concat(manifest.flatMap(({ paths }) => paths.map(file)));
      return Promise.resolve([manifest.flatMap(({ weights }) => weights), Uint8Array.from(data).buffer]);
    });
  return loadGraphModel({ load });
}

/** A model's outputs for one input, in the order of their names. */
export function execute(model: GraphModel, name: string, input: tf.Tensor, outputs: readonly string[]): Float32Array[] {
  const results = tf.tidy(() => (model.execute({ [name]: input }, [...outputs]) as tf.Tensor[]).map((result) => result.dataSync<'float32'>()));
  input.dispose();
  return results;
}
