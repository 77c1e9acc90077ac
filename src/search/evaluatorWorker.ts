/** A thread that calibrates and measures children, one after another. */
import { parentPort, workerData } from 'node:worker_threads';
import type { SplitSource } from '../data/dataset.js';
import { sentError, type SentError } from '../errors.js';
import { sharedTensors } from '../graph/buildGraph.js';
import { SharedWeights } from '../graph/weights.js';
import { onnxEngine } from '../onnx/engine.js';
import { parseArchitecture } from '../space/architecture.js';
import { localEvaluator, type EvaluatorData, type MeasuredChild } from './evaluator.js';

interface EvaluatorTask {
  readonly id: number;
  /** Canonical text. */
  readonly architecture: string;
  readonly split: SplitSource;
  readonly images: number;
}

/** A task, or the order to end after those that were given. */
export type EvaluatorMessage = EvaluatorTask | 'close';

export type EvaluatorAnswer = { readonly id: number; readonly measured: MeasuredChild } | { readonly id: number; readonly error: SentError };

const port = parentPort;
if (!port) throw new Error('This file runs as a worker thread.');
const data = workerData as EvaluatorData;
const { space } = data;
const evaluator = localEvaluator(onnxEngine({ threads: 1 }), data, new SharedWeights(sharedTensors(space), data.weights));

async function run({ id, architecture, split, images }: EvaluatorTask): Promise<EvaluatorAnswer> {
  try {
    return { id, measured: await evaluator.evaluate({ architecture: parseArchitecture(space, architecture), split, images }) };
  } catch (error) {
    return { id, error: sentError(error) };
  }
}

let last = Promise.resolve();
port.on('message', (message: EvaluatorMessage) => {
  last = last.then(async () => (message === 'close' ? port.close() : port.postMessage(await run(message))));
});
