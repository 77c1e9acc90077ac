import { calibrate, type CalibrateOptions, type CalibrationSource } from '../calibrate/calibrate.js';
import type { Accuracy } from '../checkpoint/frontier.js';
import type { Split } from '../data/dataset.js';
import { normalisedBatch } from '../data/preprocess.js';
import type { Engine } from '../graph/engine.js';
import type { Graph } from '../graph/graph.js';
import type { Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';

const evaluationBatch = 100;

export interface EvaluateOptions {
  /** How many of the split's images, the first ones. Default: all. */
  readonly images?: number;
  /** Ends it between two batches, by throwing its reason. */
  readonly signal?: AbortSignal;
  /** What children that begin alike share while they are calibrated. */
  readonly prefixes?: CalibrateOptions['prefixes'];
}

/** Top-1 accuracy of a calibrated child on a split. */
export async function accuracy(
  engine: Engine,
  graph: Graph,
  weights: SharedWeights,
  statistics: Statistics,
  { preprocessing }: Pick<CalibrationSource, 'preprocessing'>,
  split: Split,
  { images = split.count, signal }: EvaluateOptions = {},
): Promise<Accuracy> {
  const child = await engine.load(graph, weights, statistics);
  const resolution = graph.nodes[0]!.shape[0]!;
  const classes = graph.nodes.at(-1)!.shape[0]!;
  let right = 0;
  try {
    for (let from = 0; from < images; from += evaluationBatch) {
      signal?.throwIfAborted();
      const count = Math.min(evaluationBatch, images - from);
      const crops = await split.crops(Array.from({ length: count }, (_, i) => from + i));
      const logits = await child.run({ data: normalisedBatch(crops, preprocessing, resolution, 'NCHW'), count });
      for (let i = 0; i < count; i++)
        if (argmax(logits.subarray(i * classes, (i + 1) * classes)) === split.labels[from + i]) right++;
    }
  } finally {
    await child.dispose();
  }
  return { value: right / images, split: split.name, images };
}

/** A child calibrated and measured. */
export interface Evaluation {
  readonly statistics: Statistics;
  readonly accuracy: Accuracy;
}

/** Calibrates a child, then measures it: what a slice scores with no retraining (the paper's section 3.1). */
export async function evaluate(
  engine: Engine,
  graph: Graph,
  weights: SharedWeights,
  source: CalibrationSource,
  split: Split,
  options: EvaluateOptions = {},
): Promise<Evaluation> {
  const { statistics } = await calibrate(engine, graph, weights, source, options);
  return { statistics, accuracy: await accuracy(engine, graph, weights, statistics, source, split, options) };
}

function argmax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}
