import type { SharedWeights } from '../graph/weights.js';
import type { Recipe } from './recipe.js';

/** All that a step reads and writes: the weights, their moments and their average, each one flat array of the same layout. */
export interface TrainingState {
  /** Steps done. */
  step: number;
  /** Seconds spent in steps, all sessions of the run together. */
  seconds: number;
  readonly weights: SharedWeights;
  readonly meanSquare: SharedWeights;
  readonly momentum: SharedWeights;
  readonly average: SharedWeights;
}

/** A run's beginning. The mean square starts at 1, as TensorFlow's RMSProp does, so that the first steps are small. */
export function initialState(weights: SharedWeights): TrainingState {
  return {
    step: 0,
    seconds: 0,
    weights,
    meanSquare: weights.like(new Float32Array(weights.data.length).fill(1)),
    momentum: weights.like(),
    average: weights.like(weights.data.slice()),
  };
}

/**
 * One RMSProp step over all weights, and their moving average: ms ← ρ ms + (1 − ρ) g², v ← μ v + rate · g / √(ms + ε), w ← w − v.
 * Plain loops over flat arrays: the same bits everywhere, and a few milliseconds a million weights.
 */
export function applyGradients(state: TrainingState, gradients: SharedWeights, rate: number, recipe: Pick<Recipe, 'rmsprop' | 'averaging'>): void {
  const { decay, momentum: mu, epsilon } = recipe.rmsprop;
  const averaging = Math.min(recipe.averaging, (1 + state.step) / (10 + state.step));
  const w = state.weights.data;
  const ms = state.meanSquare.data;
  const v = state.momentum.data;
  const a = state.average.data;
  const g = gradients.data;
  for (let i = 0; i < w.length; i++) {
    const gi = g[i]!;
    ms[i] = decay * ms[i]! + (1 - decay) * gi * gi;
    v[i] = mu * v[i]! + (rate * gi) / Math.sqrt(ms[i]! + epsilon);
    w[i]! -= v[i]!;
    a[i] = averaging * a[i]! + (1 - averaging) * w[i]!;
  }
}
