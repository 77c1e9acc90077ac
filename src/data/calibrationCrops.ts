/** The few hundred training crops that travel with a checkpoint, from which a server computes batch-norm statistics. */
import { key, permutation } from '../random.js';
import type { Split } from './dataset.js';

export interface CalibrationCrops {
  /** N × crop × crop × 3, uint8. */
  readonly crops: Uint8Array;
  /** Which images of the split they are. */
  readonly indices: Uint32Array;
}

const PURPOSE = key('calibration');

/**
 * `count` crops (all of the split if it has fewer), flipped at random and otherwise as evaluation sees them. The classes take
 * turns, in an order of their own each round, so every stretch of the crops, such as a batch, has about as many of each class.
 */
export async function calibrationCrops(split: Split, count: number, seed: number): Promise<CalibrationCrops> {
  const byClass = new Map<number, number[]>();
  for (const index of permutation(split.count, PURPOSE, seed)) {
    const label = split.labels[index]!;
    const members = byClass.get(label);
    if (members) members.push(index);
    else byClass.set(label, [index]);
  }
  const queues = [...byClass].sort(([a], [b]) => a - b).map(([, members]) => members);
  const chosen: number[] = [];
  const wanted = Math.min(count, split.count);
  for (let round = 0; chosen.length < wanted; round++) {
    for (const turn of permutation(queues.length, PURPOSE, seed, round)) {
      const index = queues[turn]![round];
      if (index !== undefined && chosen.length < wanted) chosen.push(index);
    }
  }
  const indices = Uint32Array.from(chosen);
  return { crops: await split.augmented(indices, { seed, epoch: 0, kind: 'flip' }), indices };
}
