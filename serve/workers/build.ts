/**
 * The build worker: slices, calibrates, folds and serialises children, and makes bundles of them. Nothing here runs a prediction, so
 * a long calibration holds none up.
 */
import { createRequire } from 'node:module';
import { workerData } from 'node:worker_threads';
import { onnxEngine } from '../../src/onnx/engine.js';
import { onnxModel } from '../../src/onnx/model.js';
import { buildHandlers, type BuildRole, type BuildWorkerData } from './building.js';
import { serveRole } from './protocol.js';

const data = workerData as BuildWorkerData;
const { version } = createRequire(import.meta.url)('onnxruntime-node/package.json') as { version: string };

serveRole<BuildRole>(
  buildHandlers(data, new Map(), {
    engine: onnxEngine({ threads: data.threads }),
    version,
    modelOf: (graph, weights, statistics, id) => onnxModel(graph, weights, statistics, { name: id }),
  }),
);
