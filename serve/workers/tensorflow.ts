/**
 * The TensorFlow worker: builds children and runs them. It is one thread for both, since TensorFlow's library keeps one backend a process: while it calibrates, predictions
 * wait. Children are held as tensors, on the GPU where there is one.
 */
import { createRequire } from 'node:module';
import { workerData } from 'node:worker_threads';
import { graphOf, readStatistics, type Checkpoint } from '../../src/checkpoint/checkpoint.js';
import { statisticsTensors } from '../../src/checkpoint/tensors.js';
import { decodeSafetensors, encodeSafetensors } from '../../src/checkpoint/safetensors.js';
import { tensorflowEngine } from '../../src/tensorflow/engine.js';
import { usesGpu } from '../../src/tensorflow/tf.js';
import { buildHandlers, heldCheckpoint, type BuildRole, type BuildWorkerData } from './building.js';
import { serveRole } from './protocol.js';
import { runHandlers, type RunRole } from './running.js';

export interface TensorflowRole extends BuildRole, RunRole {
  device: { input: undefined; output: 'gpu' | 'cpu' };
}

const { version } = createRequire(import.meta.url)('@tensorflow/tfjs-node-gpu/package.json') as { version: string };
/** The name of a model's only child. */
const only = 'child';
const held = new Map<number, Checkpoint>();

serveRole<TensorflowRole>({
  ...buildHandlers(workerData as BuildWorkerData, held, {
    engine: tensorflowEngine,
    version,
    // The weights are on shared memory already: a child is its statistics.
    modelOf: (_graph, _weights, statistics) => encodeSafetensors(statisticsTensors(new Map([[only, statistics]]))),
  }),
  ...runHandlers((model, { serial, architecture }) => {
    const checkpoint = heldCheckpoint(held, serial);
    const statistics = readStatistics(checkpoint.manifest, [{ id: only, architecture }], decodeSafetensors(model)).statistics.get(only)!;
    return tensorflowEngine.load(graphOf(checkpoint, architecture), checkpoint.weights, statistics);
  }),
  device: () => (usesGpu() ? 'gpu' : 'cpu'),
});
