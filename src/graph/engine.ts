import type { Graph } from './graph.js';
import type { Statistics } from './statistics.js';
import type { SharedWeights } from './weights.js';

/** A batch of images as the network takes them: normalised, [count, 3, resolution, resolution]. */
export interface Batch {
  readonly data: Float32Array;
  readonly count: number;
}

/** A child that is ready to answer. */
export interface Runnable {
  /** Logits, [count, classes]. */
  run(batch: Batch): Promise<Float32Array>;
  /** Frees what the engine holds. No run may be under way. */
  dispose(): Promise<void>;
}

/**
 * What both engines do. Each is the other's oracle: the same child on the same input gives the same logits, to 1e-4 of the largest.
 */
export interface Engine {
  readonly name: 'onnx' | 'tensorflow';
  /** Makes a child with its calibrated statistics ready to run. */
  load(graph: Graph, weights: SharedWeights, statistics: Statistics): Promise<Runnable>;
  /**
   * Batch-norm statistics of a child (the paper's section 3.1, "Batch norm calibration"): every batch runs with its own batch
   * statistics (biased variance), as in training; those of all batches are pooled (`pooledStatistics`).
   * @param signal gives up between two batches; the thread's other events are let in there
   * @throws the signal's reason
   */
  calibrate(graph: Graph, weights: SharedWeights, batches: Iterable<Batch>, signal?: AbortSignal): Promise<Statistics>;
}
