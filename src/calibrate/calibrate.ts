import type { CalibrationCrops } from '../checkpoint/checkpoint.js';
import { normalisedBatch, type Preprocessing } from '../data/preprocess.js';
import type { Batch, Engine } from '../graph/engine.js';
import type { Graph } from '../graph/graph.js';
import type { Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';

/** Raised by whatever changes the statistics that come of the same checkpoint, child and engine: kept ones of another version are not used. */
export const calibrationVersion = 1;

/** What calibration depends on, besides the child: a pure function of these and of the engine. */
export interface CalibrationSource {
  readonly crops: CalibrationCrops;
  readonly preprocessing: Preprocessing;
  /** Crops a batch. The last batch may be smaller. */
  readonly batch: number;
}

/**
 * Batch-norm statistics of one child over all calibration crops, centre-resized to the child's resolution (the paper's section 3.1,
 * "Batch norm calibration").
 * @param signal gives up between two batches
 * @throws the signal's reason
 */
export async function calibrate(engine: Engine, graph: Graph, weights: SharedWeights, source: CalibrationSource, signal?: AbortSignal): Promise<Statistics> {
  return engine.calibrate(graph, weights, batches(source, graph.nodes[0]!.shape[0]!), signal);
}

function* batches({ crops, preprocessing, batch }: CalibrationSource, resolution: number): Generator<Batch> {
  const size = preprocessing.crop ** 2 * 3;
  for (let from = 0; from < crops.count; from += batch) {
    const to = Math.min(from + batch, crops.count);
    const data = normalisedBatch(crops.crops.subarray(from * size, to * size), preprocessing, resolution, 'NCHW');
    yield { data, count: to - from };
  }
}
