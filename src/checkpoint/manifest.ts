import { z } from 'zod';
import { preprocessingSchema } from '../data/preprocess.js';
import { spaceSchema } from '../space/space.js';

export const checkpointFormat = 'bignas-checkpoint';
/** A reader takes its own version and older ones; a newer one is refused. 2: `validation`, `recipeChanges` and `rollbacks` of a run. 3: bytes, memory and
 * latency among a child's costs. 4: golden logits, and what int8 needs, beside a child's statistics. 5: the checkpoint that a run began from. */
export const checkpointVersion = 5;

export const checkpointFiles = ['weights.safetensors', 'calibration.safetensors', 'frontier.json', 'statistics.safetensors'] as const;
export type CheckpointFile = (typeof checkpointFiles)[number];

const digest = z.string().regex(/^[0-9a-f]{64}$/, 'expected a hex SHA-256');
const fraction = z.number().min(0).max(1);

/** What a checkpoint was trained with and how far; `recipe` holds every option, so that a run can be repeated. */
export const trainingSchema = z.strictObject({
  recipe: z.record(z.string(), z.unknown()),
  step: z.int().nonnegative(),
  totalSteps: z.int().nonnegative(),
  /** Passes over the training images. */
  epochs: z.number().nonnegative(),
  /** Time spent in training steps, all sessions of the run together. */
  seconds: z.number().nonnegative(),
  /** Top-1 accuracies on the validation images, where a run's step was evaluated. */
  validation: z.strictObject({ images: z.int().positive(), biggest: fraction, smallest: fraction }).optional(),
  /** The checkpoint whose weights the run began with, and the passes over its own images that it had had; random weights where there is none. */
  from: z.strictObject({ name: z.string(), dataset: z.string(), digest, epochs: z.number().nonnegative(), classifier: z.enum(['kept', 'drawn']) }).optional(),
  /** Where the run went on under other options: after `step` steps. `recipe` has the last ones. A side may be missing: of a sandwich that got longer or shorter, once. */
  recipeChanges: z
    .array(z.strictObject({ step: z.int().nonnegative(), changes: z.array(z.strictObject({ option: z.string(), from: z.unknown().optional(), to: z.unknown().optional() })) }))
    .optional(),
  /** Where the run went back: step `from` was not finite for `reason`; from step `to` on, `salt` keys the random draws together with the seed. */
  rollbacks: z
    .array(
      z.strictObject({
        from: z.int().positive(),
        to: z.int().nonnegative(),
        salt: z.int().positive(),
        reason: z.string(),
        /** The children of step `from`, as texts. */
        children: z.array(z.string()),
      }),
    )
    .optional(),
  /** Which weights these are: the moving average, or the last step's. */
  weights: z.enum(['averaged', 'last', 'initial']),
  hardware: z.string(),
  versions: z.record(z.string(), z.string()),
  /** Commit of bignas, where it is known. */
  commit: z.string().nullable(),
});

/** `manifest.json`. An unknown key is an error. */
export const manifestSchema = z.strictObject({
  format: z.literal(checkpointFormat),
  version: z.int().min(1).max(checkpointVersion),
  name: z.string().min(1),
  space: spaceSchema,
  dataset: z.strictObject({
    name: z.string(),
    classes: z.array(z.string()).nonempty(),
    /** Digest of the split indices. */
    splits: digest,
    images: z.strictObject({ train: z.int(), validation: z.int(), test: z.int() }),
  }),
  preprocessing: preprocessingSchema,
  training: trainingSchema,
  calibration: z.strictObject({
    /** Crops in calibration.safetensors. */
    images: z.int().positive(),
    /** Crops a batch: each batch is normalised by its own statistics. */
    batch: z.int().positive(),
  }),
  /** Top-1 accuracy of the frontier's children on the test split, by id. Never looked at by training or search. */
  scores: z.strictObject({ split: z.literal('test'), images: z.int(), accuracy: z.record(z.string(), fraction) }).nullable(),
  licence: z.string(),
  files: z.strictObject(Object.fromEntries(checkpointFiles.map((name) => [name, digest])) as Record<CheckpointFile, typeof digest>),
});

export type Manifest = Readonly<z.infer<typeof manifestSchema>>;
export type TrainingRecord = Readonly<z.infer<typeof trainingSchema>>;
