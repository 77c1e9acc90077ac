import { BignasError } from '../errors.js';
import type { SharedWeights } from '../graph/weights.js';
import { hash, key } from '../random.js';
import { formatArchitecture, type Architecture } from '../space/architecture.js';
import type { TrainingState } from './rmsprop.js';
import type { ChildLoss } from './sandwich.js';

/** Times that a run may go back to its last checkpoint because a number is not finite, all sessions of it together. */
export const maxRollbacks = 3;

/**
 * The seed of all that training steps draw: the order of the images, their augmentation, architectures and dropout. Salt 0 is a run
 * that never went back. Initial weights and calibration crops keep to the recipe's seed.
 */
export function drawSeed(seed: number, salt: number): number {
  return salt === 0 ? seed : hash(key('salt'), seed, salt);
}

/** A step that cannot be used. */
export class NotFinite extends BignasError {
  /** As texts. */
  readonly children: readonly string[];

  /**
   * @param reason a sentence
   * @param step counted from 1
   * @param children of the step; none where they are not known
   */
  constructor(reason: string, readonly step: number, children: readonly Architecture[]) {
    super('LOSS_NOT_FINITE', reason);
    this.children = children.map(formatArchitecture);
  }
}

/**
 * A step's losses and gradient must be finite, and the gradient's squares too: one that overflows would silence its weight for good, as
 * RMSProp divides by them.
 * @param step counted from 1
 * @throws NotFinite
 */
export function checkStep(step: number, losses: readonly ChildLoss[], gradients: SharedWeights): void {
  const children = losses.map(({ architecture }) => architecture);
  const bad = losses.find(({ loss }) => !Number.isFinite(loss));
  if (bad) throw new NotFinite(`The loss of step ${step} is ${bad.loss} in the child ${formatArchitecture(bad.architecture)}.`, step, children);
  const g = gradients.data;
  let squares = 0; // not finite where a term is not
  for (let i = 0; i < g.length; i++) squares += g[i]! * g[i]!;
  if (!Number.isFinite(Math.fround(squares)))
    throw new NotFinite(`The gradient of step ${step}, summed over its children, is not finite or too large (${Math.sqrt(squares)}).`, step, children);
}

/** @throws NotFinite where a state is of no use any more */
export function checkState(state: TrainingState): void {
  for (const part of ['weights', 'meanSquare', 'momentum', 'average'] as const)
    if (!state[part].data.every(Number.isFinite)) throw new NotFinite(`The ${names[part]} after step ${state.step} are not finite.`, state.step, []);
}

const names = { weights: 'weights', meanSquare: "gradients' mean squares", momentum: 'momenta', average: 'averaged weights' };
