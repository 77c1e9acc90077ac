import { BignasError } from '../../src/errors.js';
import type { Runnable } from '../../src/graph/engine.js';
import type { AskedChild } from './building.js';
import { Transferred, type Handlers } from './protocol.js';
import { softmax, topClasses, type ClassProbability } from './top.js';

export interface RunWorkerData {
  readonly threads: number;
}

/** One prediction's images, [count, 3, resolution, resolution], and how many classes it wants of each; undefined: every class's probability. */
export interface ClassifyPart {
  readonly data: Float32Array<ArrayBuffer>;
  readonly count: number;
  readonly top: number | undefined;
}

/** Of each image the most probable classes, best first; or all probabilities, [count, classes]. */
export type Answer = { readonly classes: ClassProbability[][] } | { readonly probabilities: Float32Array<ArrayBuffer> };

export interface RunRole {
  /**
   * @param model as the build worker made it
   * @param flops of one image
   */
  load: { input: { readonly child: number; readonly model: Uint8Array; readonly asked: AskedChild; readonly flops: number }; output: undefined };
  /** Each part's answer. Parts run together, at most `most` rows at a time. */
  classify: {
    input: { readonly child: number; readonly parts: readonly ClassifyPart[]; readonly most: number };
    /** `spent`: the memory of the parts, back to the asking thread. */
    output: { readonly answers: readonly Answer[]; readonly runs: readonly { readonly rows: number; readonly seconds: number }[]; readonly spent: readonly ArrayBuffer[] };
  };
  unload: { input: { readonly child: number }; output: undefined };
}

/**
 * FLOPs of an image that a thread does, at least: handing less over takes as long as doing it, and waiting threads take the processors from those that decode. (A child of 18 MFLOPs takes 0.66 ms by
 * one thread and 0.61 by two, and many clients get 15 to 25 % more answers a second by one.)
 */
const FLOPS_OF_THREAD = 10e6;

/** Threads that a child's runs are worth. @param flops of one image @param most that there are */
export function threadsOf(flops: number, most: number): number {
  return Math.max(1, Math.min(most, Math.floor(flops / FLOPS_OF_THREAD)));
}

/** What a run worker answers. */
export function runHandlers(load: (model: Uint8Array, asked: AskedChild, flops: number) => Promise<Runnable>): Handlers<RunRole> {
  const children = new Map<number, Runnable>();
  const together = joiner();
  return {
    async load({ child, model, asked, flops }) {
      children.set(child, await load(model, asked, flops));
      return undefined;
    },
    async classify({ child, parts, most }) {
      const runnable = children.get(child);
      if (!runnable) throw new BignasError('WORKER_LOST', 'The run worker that had the child died while the request waited for it. It has been started again: ask once more.');
      const rows = parts.reduce((sum, { count }) => sum + count, 0);
      const size = parts[0]!.data.length / parts[0]!.count;
      const data = parts.length === 1 ? parts[0]!.data : together(parts, rows * size);
      const runs: { rows: number; seconds: number }[] = [];
      let logits: Float32Array | undefined;
      for (let from = 0; from < rows; from += most) {
        const count = Math.min(most, rows - from);
        const started = performance.now();
        const answer = await runnable.run({ data: data.subarray(from * size, (from + count) * size), count });
        runs.push({ rows: count, seconds: (performance.now() - started) / 1000 });
        logits ??= new Float32Array((answer.length / count) * rows);
        logits.set(answer, (answer.length / count) * from);
      }
      const each = logits!.length / rows;
      let row = 0;
      const answers = parts.map(({ count, top }): Answer => {
        const own = logits!.subarray(row * each, (row += count) * each);
        return top === undefined ? { probabilities: softmax(own, count) } : { classes: topClasses(own, count, top) };
      });
      const spent = parts.map(({ data }) => data.buffer);
      return new Transferred({ answers, runs, spent }, [...spent, ...answers.flatMap((answer) => ('probabilities' in answer ? [answer.probabilities.buffer] : []))]);
    },
    async unload({ child }) {
      const runnable = children.get(child);
      children.delete(child);
      await runnable?.dispose();
      return undefined;
    },
  };
}

/** Puts parts one after another, into memory that is taken once: the kernel takes longer to hand out new memory than the copy takes. */
function joiner(): (parts: readonly ClassifyPart[], length: number) => Float32Array {
  let memory = new Float32Array();
  return (parts, length) => {
    if (memory.length < length) memory = new Float32Array(length);
    let at = 0;
    for (const { data } of parts) {
      memory.set(data, at);
      at += data.length;
    }
    return memory.subarray(0, length);
  };
}
