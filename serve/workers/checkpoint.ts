import type { Checkpoint } from '../../src/checkpoint/checkpoint.js';
import { sharedTensors } from '../../src/graph/buildGraph.js';
import type { Statistics } from '../../src/graph/statistics.js';
import { SharedWeights } from '../../src/graph/weights.js';

/** A checkpoint as it crosses to a worker: everything large lies on shared memory, so that no worker has a copy. */
export type SentCheckpoint = Omit<Checkpoint, 'weights'> & { readonly weights: Float32Array };

/** The same checkpoint with its arrays on shared memory. (The weights are there already.) */
export function shareCheckpoint(checkpoint: Checkpoint): Checkpoint {
  const { crops, count } = checkpoint.calibration;
  return {
    ...checkpoint,
    calibration: { crops: shared(crops, Uint8Array), count },
    statistics: new Map([...checkpoint.statistics].map(([id, statistics]) => [id, shareStatistics(statistics)])),
    golden: new Map([...checkpoint.golden].map(([id, logits]) => [id, shared(logits, Float32Array)])),
    int8: new Map([...checkpoint.int8].map(([id, { ranges, golden }]) => [id, { ranges: shared(ranges, Float32Array), golden: shared(golden, Float32Array) }])),
  };
}

/** Bytes of the shared weights, calibration crops and statistics: there once, however many workers. */
export function sharedBytes({ weights, calibration, statistics }: Checkpoint): { weights: number; other: number } {
  let other = calibration.crops.byteLength;
  for (const layers of statistics.values()) for (const { mean, variance } of layers.values()) other += mean.byteLength + variance.byteLength;
  return { weights: weights.data.byteLength, other };
}

export function sendCheckpoint({ weights, ...rest }: Checkpoint): SentCheckpoint {
  return { ...rest, weights: weights.data };
}

export function receiveCheckpoint({ weights, ...rest }: SentCheckpoint): Checkpoint {
  return { ...rest, weights: new SharedWeights(sharedTensors(rest.manifest.space), weights) };
}

function shareStatistics(statistics: Statistics): Statistics {
  return new Map(
    [...statistics].map(([name, { mean, variance }]) => [name, { mean: shared(mean, Float32Array), variance: shared(variance, Float32Array) }]),
  );
}

interface ArrayConstructor<T> {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: SharedArrayBuffer): T;
}

function shared<T extends Uint8Array | Float32Array>(array: T, type: ArrayConstructor<T>): T {
  const copy = new type(new SharedArrayBuffer(array.byteLength));
  copy.set(array);
  return copy;
}
