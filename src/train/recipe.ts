import { z } from 'zod';
import { BignasError } from '../errors.js';

/**
 * Everything that decides what a run computes: the same recipe, data and seed give the same weights. Stored in every checkpoint; a
 * run resumes under its own recipe only. Defaults are the paper's (section 4.1 and appendix A).
 */
export const recipeSchema = z.strictObject({
  seed: z.int().nonnegative().max(0xffffffff),
  /** Images a step. Each is seen by every child of the sandwich. */
  batch: z.int().positive(),
  /** Steps of the whole run. */
  steps: z.int().positive(),
  /** Steps an epoch, which the data and the batch decide. */
  stepsPerEpoch: z.int().positive(),
  learningRate: z.strictObject({
    initial: z.number().positive(),
    /** Steps of linear warm-up from 0. */
    warmup: z.int().nonnegative(),
    /** The rate falls by this factor every `decaySteps` steps, continuously. */
    decay: z.number().positive().max(1),
    decaySteps: z.number().positive(),
    /** The rate stays at this part of the initial one once it has fallen to it (the paper's "exponentially decaying with constant ending"). */
    floor: z.number().nonnegative().max(1),
  }),
  rmsprop: z.strictObject({
    decay: z.number().min(0).max(1),
    momentum: z.number().min(0).max(1),
    /** Inside the root. */
    epsilon: z.number().positive(),
  }),
  /** L2 in the biggest child's loss: weightDecay / 2 · Σ w², over kernels. */
  weightDecay: z.number().nonnegative(),
  /** Of the features before the classifier, in the biggest child. */
  dropout: z.number().min(0).lt(1),
  /** Random children a step, beside the smallest and the biggest. */
  randomChildren: z.int().nonnegative(),
  /** Decay of the moving average of the weights, after a warm-up: min(decay, (1 + step) / (10 + step)). */
  averaging: z.number().min(0).lt(1),
  augmentation: z.enum(['none', 'flip', 'cifar']),
});

export type Recipe = Readonly<z.infer<typeof recipeSchema>>;

/** What a user may set; the rest follows. */
export interface RecipeOptions {
  readonly seed: number;
  readonly batch: number;
  readonly steps: number;
  readonly stepsPerEpoch: number;
  readonly augmentation: Recipe['augmentation'];
  /** Whether the data is CIFAR-10's size: small runs decay by their own length. */
  readonly short: boolean;
  readonly learningRate?: number | undefined;
}

/**
 * The paper's recipe, its rate scaled to the batch. Short runs take three times that rate (in short runs of one
 * seed, 0.024 learnt faster than 0.008 at a batch of 128; it is not tuned) and spread its decay so that the constant ending is their last quarter.
 */
export function defaultRecipe(options: RecipeOptions): Recipe {
  const { seed, batch, steps, stepsPerEpoch, augmentation, short } = options;
  const decay = 0.97;
  const floor = 0.05;
  return {
    seed,
    batch,
    steps,
    stepsPerEpoch,
    learningRate: {
      initial: options.learningRate ?? ((short ? 0.768 : 0.256) * batch) / 4096,
      warmup: Math.min(short ? Math.round(0.05 * steps) : 5 * stepsPerEpoch, Math.round(0.1 * steps)),
      decay,
      decaySteps: short ? (0.75 * steps) / (Math.log(floor) / Math.log(decay)) : 2.4 * stepsPerEpoch,
      floor,
    },
    rmsprop: { decay: 0.9, momentum: 0.9, epsilon: 1e-3 },
    weightDecay: 1e-5,
    dropout: 0.2,
    randomChildren: 2,
    averaging: short ? 0.999 : 0.9999,
    augmentation,
  };
}

/** @throws BignasError RESUME_MISMATCH, naming every option that differs. */
export function checkSameRecipe(run: Recipe, asked: Recipe): void {
  const flat = (recipe: object, prefix = ''): [string, unknown][] =>
    Object.entries(recipe).flatMap(([name, value]: [string, unknown]) =>
      value !== null && typeof value === 'object' ? flat(value, `${prefix}${name}.`) : [[prefix + name, value] as [string, unknown]],
    );
  const wanted = new Map(flat(asked));
  const differing = flat(run).filter(([name, value]) => wanted.get(name) !== value);
  if (differing.length === 0) return;
  const list = differing.map(([name, value]) => `${name}: the run has ${String(value)}, asked for ${String(wanted.get(name))}`);
  throw new BignasError(
    'RESUME_MISMATCH',
    `The run has another recipe:\n  ${list.join('\n  ')}\nResume with the options it was started with, or give another --output.`,
  );
}
