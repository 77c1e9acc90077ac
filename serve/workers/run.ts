/** The run worker: children that are ready to answer, and their predictions. */
import { workerData } from 'node:worker_threads';
import { freeAtOnce } from '../../src/memory.js';
import { loadModel } from '../../src/onnx/engine.js';
import { serveRole } from './protocol.js';
import { runHandlers, threadsOf, type RunRole, type RunWorkerData } from './running.js';

const { threads } = workerData as RunWorkerData;

serveRole<RunRole>(
  runHandlers(async (model, _asked, flops) => {
    const child = await loadModel(model, threadsOf(flops, threads));
    freeAtOnce(model); // the session has what it needs of it
    return child;
  }),
);
