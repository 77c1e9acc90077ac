import type { Recipe } from './recipe.js';

/** Learning rate of a step (from 0): linear warm-up, exponential decay, constant ending (the paper's section 3.1 and figure 6). */
export function learningRate({ learningRate: r }: Pick<Recipe, 'learningRate'>, step: number): number {
  // 1. Warm-up, to the rate that the decay has reached by then.
  const warm = r.warmup > 0 ? Math.min(1, (step + 1) / r.warmup) : 1;
  // 2. Exponential decay, 3. which ends constant.
  return r.initial * warm * Math.max(r.floor, r.decay ** (step / r.decaySteps));
}
