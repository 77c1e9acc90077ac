import type { Recipe } from './recipe.js';

/**
 * Learning rate of a step (from 0): linear warm-up times a fall, which ends constant once it has come down to `floor` of the initial
 * rate (the paper's section 3.1 and figure 6; a floor of 0 is the plain schedule).
 */
export function learningRate({ learningRate: r, steps }: Pick<Recipe, 'learningRate' | 'steps'>, step: number): number {
  const warm = r.warmup > 0 ? Math.min(1, (step + 1) / r.warmup) : 1;
  return r.initial * warm * Math.max(r.floor, fall(r, step, steps));
}

/** From 1 at step 0 downwards. Cosine and linear reach 0 at the run's end. */
function fall(r: Recipe['learningRate'], step: number, steps: number): number {
  switch (r.schedule) {
    case 'exponential':
      return r.decay ** (step / r.decaySteps);
    case 'cosine':
      return (1 + Math.cos((Math.PI * step) / steps)) / 2;
    case 'linear':
      return 1 - step / steps;
  }
}
