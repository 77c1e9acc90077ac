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
  /** How many of the split's images (`placesOf`). Default: all. */
  readonly images?: number;
  /** Ends it between two batches, by throwing its reason. */
  readonly signal?: AbortSignal;
  /** What children that begin alike share while they are calibrated. */
  readonly prefixes?: CalibrateOptions['prefixes'];
}

/** Which images of a split stand for it, as the evaluations of a search say it: the first ones, or some at equal distances. */
export type ImageOrder = 'first' | 'spread';

/** A folder's images lie class by class: its first ones are of a few classes alone. CIFAR-10's lie in no order. */
export function orderOf({ source }: Pick<Split, 'source'>): ImageOrder {
  return source.kind === 'folder' ? 'spread' : 'first';
}

/** The images of a split that a part of it is measured on, ascending. */
export function placesOf(count: number, images: number, order: ImageOrder): number[] {
  return Array.from({ length: images }, (_, i) => (order === 'first' ? i : Math.floor((i * count) / images)));
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
  const places = placesOf(split.count, images, orderOf(split));
  let right = 0;
  try {
    for (let from = 0; from < images; from += evaluationBatch) {
      signal?.throwIfAborted();
      const count = Math.min(evaluationBatch, images - from);
      const crops = await split.crops(places.slice(from, from + count));
      const logits = await child.run({ data: normalisedBatch(crops, preprocessing, resolution, 'NCHW'), count });
      for (let i = 0; i < count; i++)
        if (argmax(logits.subarray(i * classes, (i + 1) * classes)) === split.labels[places[from + i]!]) right++;
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
