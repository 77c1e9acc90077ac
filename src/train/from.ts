import type { Checkpoint } from '../checkpoint/checkpoint.js';
import type { TrainingRecord } from '../checkpoint/manifest.js';
import { BignasError } from '../errors.js';
import { sharedTensors } from '../graph/buildGraph.js';
import type { SharedWeights } from '../graph/weights.js';
import { spaceDigest } from '../space/identity.js';
import type { SearchSpace } from '../space/space.js';

/** Weights that a run begins with instead of random ones, and what its manifest says of them. */
export interface From {
  readonly weights: SharedWeights;
  readonly record: NonNullable<TrainingRecord['from']>;
}

/**
 * The weights of a checkpoint, for a run in `space` on images of these classes. Where the classes are others, the classifier is drawn anew
 * (transfer learning); all else must be the same.
 * @throws BignasError OPTION_INVALID for a checkpoint of another search space
 */
export function fromCheckpoint({ manifest, digest, weights }: Checkpoint, space: SearchSpace, classes: readonly string[]): From {
  if (spaceDigest({ ...manifest.space, classes: space.classes }) !== spaceDigest(space))
    throw new BignasError(
      'OPTION_INVALID',
      `The weights of a checkpoint of the search space ${manifest.space.name} do not fit ${space.name}. Give the --space, or the --network, that the checkpoint was trained with.`,
    );
  const sameClasses = classes.length === manifest.dataset.classes.length && classes.every((name, i) => name === manifest.dataset.classes[i]);
  const { name, training, dataset } = manifest;
  return { weights, record: { name, dataset: dataset.name, digest, epochs: training.epochs, classifier: sameClasses ? 'kept' : 'drawn' } };
}

/** Copies the checkpoint's weights over `fresh` ones, except where the classifier is drawn. */
export function takeWeights(fresh: SharedWeights, { weights, record }: From, space: SearchSpace): void {
  const drawn = record.classifier === 'drawn' ? classifierTensors(space) : new Set<string>();
  for (const { name } of fresh.tensors) if (!drawn.has(name)) fresh.tensor(name).set(weights.tensor(name));
}

/** The tensors whose shape the number of classes decides. */
function classifierTensors(space: SearchSpace): Set<string> {
  const more = new Map(sharedTensors({ ...space, classes: space.classes + 1 }).map(({ name, shape }) => [name, shape]));
  return new Set(sharedTensors(space).flatMap(({ name, shape }) => (shape.every((n, d) => n === more.get(name)![d]) ? [] : [name])));
}
