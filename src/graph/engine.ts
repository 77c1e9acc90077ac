import type { Graph } from './graph.js';
import type { Statistics } from './statistics.js';
import type { SharedWeights } from './weights.js';

/** A batch of images as the network takes them, normalised, [count, 3, resolution, resolution]; of a segment's input, [count, channels, height, width]. */
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

/** A part of a child, ready to be calibrated batch by batch (`calibrate`). */
export interface CalibrationSegment {
  /**
   * @param batch the segment's input, [count, channels, height, width]
   * @returns its output, [count, channels, height, width], of the last segment undefined, and the statistics of its batch norms on this batch. The same bits for the same input
   */
  run(batch: Batch): Promise<{ readonly output: Float32Array | undefined; readonly statistics: Statistics }>;
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
   * Makes a part of a child ready for calibration: every batch norm uses its batch's own mean and biased variance, as in training.
   * @param segment from an input to the node whose output the next part reads
   * @param options `last`: no part reads it
   */
  calibrationSegment(segment: Graph, weights: SharedWeights, options: { readonly last: boolean }): Promise<CalibrationSegment>;
}
