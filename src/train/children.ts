import { biggest, parseArchitecture, smallest, type Architecture } from '../space/architecture.js';
import { sampleArchitecture } from '../space/sample.js';
import type { SearchSpace } from '../space/space.js';
import type { Recipe } from './recipe.js';

/**
 * The children of a step (sandwich rule, the paper's section 3.1), in the recipe's order. Resolutions are paired as in appendix C: the
 * biggest takes the highest, the smallest the lowest, the random ones those between.
 * @throws BignasError ARCHITECTURE_MALFORMED, ARCHITECTURE_OUTSIDE_SPACE
 */
export function sandwich(space: SearchSpace, recipe: Pick<Recipe, 'seed' | 'sandwich'>, step: number): Architecture[] {
  const inner = space.trainResolutions.slice(1, -1);
  const between = inner.length > 0 ? inner : space.trainResolutions;
  let drawn = 0;
  return recipe.sandwich.map((child) => {
    if (child === 'biggest') return biggest(space);
    if (child === 'smallest') return smallest(space);
    if (child !== 'random') return parseArchitecture(space, child);
    const i = drawn++;
    return sampleArchitecture(space, [recipe.seed, step, i], between[between.length - 1 - (i % between.length)]);
  });
}
