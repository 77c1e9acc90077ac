import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { augmentationKinds } from '../data/augment.js';
import { BignasError } from '../errors.js';

/**
 * Everything that decides what a run computes: the same recipe, data and seed give the same weights. Stored in every checkpoint; a
 * run resumes under its own recipe unless told otherwise. Defaults are the paper's (section 4.1 and appendix A).
 */
export const recipeSchema = z.strictObject({
  seed: z.int().nonnegative().max(0xffffffff),
  /** Images a step. Each is seen by every child of the sandwich. */
  batch: z.int().positive(),
  /**
   * Equal parts of a batch, computed one after another or side by side in replicas, their gradients summed in order. Batch norm sees one
   * part at a time, as it sees one core's images in the paper. More parts take less memory.
   */
  parts: z.int().positive(),
  /** Steps of the whole run. */
  steps: z.int().positive(),
  /** Steps an epoch, which the data and the batch decide. */
  stepsPerEpoch: z.int().positive(),
  /** How the residual branches start (section 3.1, figures 4 and 5). */
  initialisation: z.enum(['zero-gamma', 'he']),
  learningRate: z.strictObject({
    initial: z.number().positive(),
    /** Steps of linear warm-up from 0. */
    warmup: z.int().nonnegative(),
    /** How it falls: exponentially, or to 0 at the run's end along a cosine or a line. */
    schedule: z.enum(['exponential', 'cosine', 'linear']),
    /** Exponential: the rate falls by this factor every `decaySteps` steps, continuously. */
    decay: z.number().positive().max(1),
    decaySteps: z.number().positive(),
    /** The rate stays at this part of the initial one once it has fallen to it (the paper's "exponentially decaying with constant ending"); 0: no constant ending. */
    floor: z.number().nonnegative().max(1),
  }),
  rmsprop: z.strictObject({
    decay: z.number().min(0).max(1),
    momentum: z.number().min(0).max(1),
    /** Inside the root. */
    epsilon: z.number().positive(),
  }),
  /** Which children dropout, weight decay and label smoothing act on: the first of the sandwich (the biggest), or all (section 3.1, figure 7). */
  regularisation: z.enum(['biggest', 'all']),
  /** L2 in the loss: weightDecay / 2 · Σ w², over kernels. */
  weightDecay: z.number().nonnegative(),
  /** Of the features before the classifier. */
  dropout: z.number().min(0).lt(1),
  /** ε: labels become (1 − ε) · label + ε / classes. */
  labelSmoothing: z.number().min(0).lt(1),
  /** What the children after the first learn from: its softmax in the same step (in-place distillation, section 3.1), or the labels. */
  distillation: z.enum(['in-place', 'labels']),
  /** The children of a step, in order: `biggest`, `smallest`, `random`, or the text of an architecture. The first is the teacher. */
  sandwich: z.array(z.string()).nonempty(),
  /** Whether all children see the same crops of a step's images, or each draws its own (appendix C). */
  patches: z.enum(['same', 'different']),
  /** Decay of the moving average of the weights, after a warm-up: min(decay, (1 + step) / (10 + step)). */
  averaging: z.number().min(0).lt(1),
  augmentation: z.enum(augmentationKinds),
});

export type Recipe = Readonly<z.infer<typeof recipeSchema>>;

/** What a user may set, by its own name; the rest follows. */
export type RecipeOptions = Pick<Recipe, 'seed' | 'batch' | 'steps' | 'stepsPerEpoch' | 'augmentation'> & {
  /** Whether the data is CIFAR-10's size: small runs decay by their own length. */
  readonly short: boolean;
  readonly learningRate?: number | undefined;
  readonly schedule?: Recipe['learningRate']['schedule'] | undefined;
  /** Part of the initial rate at which the schedule ends constant. */
  readonly constantEnding?: number | undefined;
} & { readonly [K in Switch]?: Recipe[K] | undefined };

/** Options that the recipe takes over as they are. */
type Switch =
  | 'parts' | 'initialisation' | 'regularisation' | 'weightDecay' | 'dropout' | 'labelSmoothing' | 'distillation' | 'sandwich' | 'patches' | 'averaging';

/**
 * The paper's recipe (section 4.1), its rate scaled to the batch, with EfficientNet's label smoothing and averaged weights. Short runs
 * take three times that rate (in short runs of one seed, 0.024 learnt faster than 0.008 at a batch of 128; it is not tuned), spread its decay
 * so that a constant ending of 5 % is their last quarter, and smooth no labels: they are too short to overfit.
 * @throws BignasError OPTION_INVALID where options contradict each other
 */
export function defaultRecipe(options: RecipeOptions): Recipe {
  const { seed, batch, steps, stepsPerEpoch, augmentation, short } = options;
  const schedule = options.schedule ?? 'exponential';
  const decay = 0.97;
  const recipe: Recipe = {
    seed,
    batch,
    parts: options.parts ?? (batch % 2 === 0 ? 2 : 1),
    steps,
    stepsPerEpoch,
    initialisation: options.initialisation ?? 'zero-gamma',
    learningRate: {
      initial: options.learningRate ?? ((short ? 0.768 : 0.256) * batch) / 4096,
      warmup: Math.min(short ? Math.round(0.05 * steps) : 5 * stepsPerEpoch, Math.round(0.1 * steps)),
      schedule,
      decay,
      decaySteps: short ? (0.75 * steps) / (Math.log(0.05) / Math.log(decay)) : 2.4 * stepsPerEpoch,
      floor: options.constantEnding ?? (schedule === 'exponential' ? 0.05 : 0),
    },
    rmsprop: { decay: 0.9, momentum: 0.9, epsilon: 1e-3 },
    regularisation: options.regularisation ?? 'biggest',
    weightDecay: options.weightDecay ?? 1e-5,
    dropout: options.dropout ?? 0.2,
    labelSmoothing: options.labelSmoothing ?? (short ? 0 : 0.1),
    distillation: options.distillation ?? 'in-place',
    sandwich: options.sandwich ?? ['biggest', 'random', 'random', 'smallest'],
    patches: options.patches ?? 'same',
    averaging: options.averaging ?? (short ? 0.999 : 0.9999),
    augmentation,
  };
  checkRecipe(recipe);
  return recipe;
}

function checkRecipe({ batch, parts, sandwich, distillation }: Recipe): void {
  if (batch % parts !== 0)
    throw new BignasError('OPTION_INVALID', `Expected parts of equal size: the batch of ${batch} cannot be cut into ${parts}. Give a number of parts that divides it.`);
  if (distillation === 'in-place' && sandwich.length > 1 && sandwich[0] !== 'biggest')
    throw new BignasError(
      'OPTION_INVALID',
      `In-place distillation needs \`biggest\` as the first child, from which the others learn; got ${sandwich.join(', ')}. Put it first, or let all learn from the labels.`,
    );
}

/** An option that differs between two recipes, by its path in the recipe (`learningRate.initial`). */
export interface RecipeChange {
  readonly option: string;
  readonly from?: unknown;
  readonly to?: unknown;
}

/** What to change in one recipe to have the other. A list, such as the sandwich's, is one option: what a manifest keeps of a change has both sides. */
export function recipeChanges(from: Recipe, to: Recipe): RecipeChange[] {
  const flat = (recipe: object, prefix = ''): [string, unknown][] =>
    Object.entries(recipe).flatMap(([name, value]: [string, unknown]) =>
      value !== null && typeof value === 'object' && !Array.isArray(value) ? flat(value, `${prefix}${name}.`) : [[prefix + name, value] as [string, unknown]],
    );
  const [had, has] = [new Map(flat(from)), new Map(flat(to))];
  return [...new Set([...had.keys(), ...has.keys()])]
    .map((option) => ({ option, from: had.get(option), to: has.get(option) }))
    .filter((change) => !isDeepStrictEqual(change.from, change.to));
}
