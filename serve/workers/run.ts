/** The run worker: children that are ready to answer, and their predictions. */
import { workerData } from 'node:worker_threads';
import type { Runnable } from '../../src/graph/engine.js';
import { loadModel } from '../../src/onnx/engine.js';
import { serveRole } from './protocol.js';
import { topClasses, type ClassProbability } from './top.js';

export interface RunWorkerData {
  readonly threads: number;
}

export interface RunRole {
  load: { input: { readonly child: number; readonly model: Uint8Array }; output: undefined };
  /** The most probable classes of each image, best first. */
  classify: {
    input: { readonly child: number; readonly data: Float32Array; readonly count: number; readonly top: number };
    output: ClassProbability[][];
  };
  unload: { input: { readonly child: number }; output: undefined };
}

/** Images a run: activations of more would cost memory that the engine keeps, and gain no speed. */
const MOST_IMAGES = 8;

const { threads } = workerData as RunWorkerData;
const children = new Map<number, Runnable>();

serveRole<RunRole>({
  async load({ child, model }) {
    children.set(child, await loadModel(model, threads));
    return undefined;
  },
  async classify({ child, data, count, top }) {
    const runnable = children.get(child);
    if (!runnable) throw new Error(`Child ${child} is not loaded.`);
    const size = data.length / count;
    const classes: ClassProbability[][] = [];
    for (let from = 0; from < count; from += MOST_IMAGES) {
      const to = Math.min(from + MOST_IMAGES, count);
      const logits = await runnable.run({ data: data.subarray(from * size, to * size), count: to - from });
      classes.push(...topClasses(logits, to - from, top));
    }
    return classes;
  },
  async unload({ child }) {
    const runnable = children.get(child);
    children.delete(child);
    await runnable?.dispose();
    return undefined;
  },
});
