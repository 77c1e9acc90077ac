/** The run worker: children that are ready to answer, and their predictions. */
import { workerData } from 'node:worker_threads';
import type { Runnable } from '../../src/graph/engine.js';
import { loadModel } from '../../src/onnx/engine.js';
import { serveRole } from './protocol.js';
import { topClasses, type ClassProbability } from './top.js';

export interface RunWorkerData {
  readonly threads: number;
}

/** One prediction's images, [count, 3, resolution, resolution], and how many classes it wants of each. */
export interface ClassifyPart {
  readonly data: Float32Array;
  readonly count: number;
  readonly top: number;
}

export interface RunRole {
  load: { input: { readonly child: number; readonly model: Uint8Array }; output: undefined };
  /** The most probable classes of each image of each part, best first. Parts run together, at most `most` rows at a time. */
  classify: {
    input: { readonly child: number; readonly parts: readonly ClassifyPart[]; readonly most: number };
    output: { readonly classes: ClassProbability[][][]; readonly runs: readonly { readonly rows: number; readonly seconds: number }[] };
  };
  unload: { input: { readonly child: number }; output: undefined };
}

const { threads } = workerData as RunWorkerData;
const children = new Map<number, Runnable>();

serveRole<RunRole>({
  async load({ child, model }) {
    children.set(child, await loadModel(model, threads));
    return undefined;
  },
  async classify({ child, parts, most }) {
    const runnable = children.get(child);
    if (!runnable) throw new Error(`Child ${child} is not loaded.`);
    const rows = parts.reduce((sum, { count }) => sum + count, 0);
    const size = parts[0]!.data.length / parts[0]!.count;
    const together = parts.length === 1 ? parts[0]!.data : joined(parts, rows * size);
    const runs: { rows: number; seconds: number }[] = [];
    let logits: Float32Array | undefined;
    for (let from = 0; from < rows; from += most) {
      const count = Math.min(most, rows - from);
      const started = performance.now();
      const answer = await runnable.run({ data: together.subarray(from * size, (from + count) * size), count });
      runs.push({ rows: count, seconds: (performance.now() - started) / 1000 });
      logits ??= new Float32Array((answer.length / count) * rows);
      logits.set(answer, (answer.length / count) * from);
    }
    const each = logits!.length / rows;
    let row = 0;
    const classes = parts.map(({ count, top }) => topClasses(logits!.subarray(row * each, (row += count) * each), count, top));
    return { classes, runs };
  },
  async unload({ child }) {
    const runnable = children.get(child);
    children.delete(child);
    await runnable?.dispose();
    return undefined;
  },
});

function joined(parts: readonly ClassifyPart[], length: number): Float32Array {
  const together = new Float32Array(length);
  let at = 0;
  for (const { data } of parts) {
    together.set(data, at);
    at += data.length;
  }
  return together;
}
