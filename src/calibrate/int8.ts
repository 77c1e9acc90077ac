import type { Int8Calibration } from '../checkpoint/tensors.js';
import { goldenInput } from '../data/golden.js';
import type { Graph } from '../graph/graph.js';
import type { Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import { loadModel } from '../onnx/engine.js';
import { onnxModel } from '../onnx/model.js';
import { activationRanges, type RangeOptions } from '../onnx/ranges.js';
import { batches, type CalibrationSource } from './calibrate.js';

/** Raised by whatever changes the int8 model that comes of the same child and statistics: kept ones of another version are not used. */
export const int8Version = 2;

/** Crops that ranges are taken from, the first ones: more give no better int8 model (bench/README.md). */
const CROPS = 128;

/** Takes the ranges of a calibrated child's activations on calibration crops, and what the int8 model of them gives for the golden photograph. @throws the signal's reason */
export async function calibrateInt8(
  graph: Graph,
  weights: SharedWeights,
  statistics: Statistics,
  { crops: { crops, count }, ...source }: CalibrationSource,
  options: RangeOptions = {},
): Promise<Int8Calibration> {
  const { preprocessing } = source;
  const taken = Math.min(count, CROPS);
  const first = { crops: crops.subarray(0, taken * preprocessing.crop ** 2 * 3), count: taken };
  const [resolution] = graph.nodes[0]!.shape as [number];
  const ranges = await activationRanges(graph, weights, statistics, batches({ ...source, crops: first }, resolution), options);
  const model = await loadModel(onnxModel(graph, weights, statistics, { dtype: 'int8', ranges }), 1);
  try {
    return { ranges, golden: await model.run({ data: goldenInput(preprocessing, resolution, 'NCHW'), count: 1 }) };
  } finally {
    await model.dispose();
  }
}
