import { biggest, formatArchitecture, parseArchitecture, smallest, type Architecture } from '../../src/space/architecture.js';
import { cifar10Micro } from '../../src/space/presets/cifar10Micro.js';
import { defaultRecipe, type Recipe, type RecipeOptions } from '../../src/train/recipe.js';

export const space = cifar10Micro;

/** The children that are compared, from small to big. */
export const children = {
  smallest: smallest(space),
  medium: parseArchitecture(space, 'r16_c16_3x16_3x24-3x24_3x56_c128'),
  large: parseArchitecture(space, 'r20_c16_3x16_3x32-3x32_5x56-3x56_c160'),
  biggest: biggest(space),
} as const satisfies Record<string, Architecture>;

export type ChildName = keyof typeof children;
export const childNames = Object.keys(children) as ChildName[];
export const students = ['smallest', 'medium', 'large'] as const satisfies ChildName[];

/** Epochs of every run but fine-tuning: the same budget for all sides. */
export const epochs = 5;
/** Of fine-tuning, beyond the supernet's own. */
export const fineTuningEpochs = 1;
export const batch = 128;

/** What a run trains. */
export type Training =
  /** The sandwich: one set of weights for all children. */
  | { readonly kind: 'supernet' }
  /** One child alone, from the labels; regularised unless its options say otherwise. */
  | { readonly kind: 'alone'; readonly child: ChildName }
  /** One child alone from the soft labels of a teacher that was trained before and does not change: the biggest, trained alone. */
  | { readonly kind: 'frozenTeacher'; readonly child: ChildName }
  /** One child alone from the soft labels of a teacher with weights of its own, the biggest, that is trained in the same steps. */
  | { readonly kind: 'jointTeacher'; readonly child: ChildName }
  /** A child sliced from the supernet, trained on from the labels at this part of the initial rate. */
  | { readonly kind: 'fineTuning'; readonly child: ChildName; readonly rate: number };

export interface Run {
  readonly name: string;
  readonly training: Training;
  /** What its recipe changes. */
  readonly options: Partial<RecipeOptions>;
  /** Children measured in the end. */
  readonly measured: readonly ChildName[];
  /** Run whose weights it needs. */
  readonly needs?: string;
}

const base = 'supernet';
const teacher = 'alone-biggest';
const rates = [0.25, 0.05, 0.01] as const;

const supernet = (name: string, options: Run['options'] = {}): Run => ({ name, training: { kind: 'supernet' }, options, measured: childNames });

export const runs: readonly Run[] = [
  supernet(base),
  supernet('he', { initialisation: 'he' }),
  ...[0, 3, 8, 10].map((percent) => supernet(`constant-${percent}`, { constantEnding: percent / 100 })),
  supernet('cosine', { schedule: 'cosine' }),
  supernet('linear', { schedule: 'linear' }),
  supernet('regularise-all', { regularisation: 'all' }),
  supernet('labels', { distillation: 'labels' }),
  ...childNames.map((child): Run => ({ name: `alone-${child}`, training: { kind: 'alone', child }, options: {}, measured: [child] })),
  // The control of the distilled students, which are not regularised either: what is left between them is the teacher.
  ...students.map((child): Run => ({ name: `unregularised-${child}`, training: { kind: 'alone', child }, options: { dropout: 0, weightDecay: 0 }, measured: [child] })),
  ...students.map((child): Run => ({ name: `frozen-${child}`, training: { kind: 'frozenTeacher', child }, options: {}, measured: [child], needs: teacher })),
  ...students.map((child): Run => ({ name: `joint-${child}`, training: { kind: 'jointTeacher', child }, options: {}, measured: [child] })),
  ...students.flatMap((child) =>
    rates.map((rate): Run => ({ name: `fine-tuning-${child}-${100 * rate}`, training: { kind: 'fineTuning', child, rate }, options: {}, measured: [child], needs: base })),
  ),
];

/** A row of docs/evidence.md: what is compared, in the order of its columns or curves. */
export interface Row {
  readonly name: string;
  readonly reproduces: string;
  readonly runs: readonly string[];
}

const named = (prefix: string): string[] => runs.flatMap(({ name }) => (name.startsWith(prefix) ? [name] : []));

export const rows: readonly Row[] = [
  { name: 'sliced', reproduces: 'Table 3, the single-stage model', runs: [base] },
  { name: 'alone', reproduces: 'Table 3, trained from scratch without distillation', runs: named('alone-') },
  { name: 'unregularised', reproduces: 'Table 3, a control: from scratch without distillation, not regularised, as students are not', runs: named('unregularised-') },
  { name: 'frozen-teacher', reproduces: 'Table 3, trained from scratch with distillation from a trained teacher', runs: named('frozen-') },
  { name: 'joint-teacher', reproduces: 'Table 3, trained from scratch with distillation from a teacher trained alongside', runs: named('joint-') },
  { name: 'fine-tuning', reproduces: 'Table 2', runs: [base, ...named('fine-tuning-')] },
  { name: 'initialisation', reproduces: 'Figures 4 and 5', runs: [base, 'he'] },
  { name: 'schedule', reproduces: 'Figure 6 and the appendix', runs: ['constant-0', 'constant-3', base, 'constant-8', 'constant-10', 'cosine', 'linear'] },
  { name: 'regularisation', reproduces: 'Figure 7', runs: [base, 'regularise-all'] },
  { name: 'distillation', reproduces: 'section 3.1, in-place distillation against the labels', runs: [base, 'labels'] },
];

export function runNamed(name: string): Run {
  const run = runs.find((r) => r.name === name);
  if (!run) throw new Error(`No run is called ${name}.`);
  return run;
}

/** @param stepsPerEpoch of the data @param scale of the epochs, below 1 for a trial */
export function recipeOf({ training, options }: Run, seed: number, stepsPerEpoch: number, scale = 1): Recipe {
  const length = training.kind === 'fineTuning' ? fineTuningEpochs : epochs;
  const recipe = defaultRecipe({
    seed, batch, stepsPerEpoch, parts: 1, steps: Math.max(2, Math.round(length * stepsPerEpoch * scale)), augmentation: 'cifar', short: true,
    sandwich: training.kind === 'supernet' ? undefined : [childText(training.child)],
    ...options,
  });
  if (training.kind !== 'fineTuning') return recipe;
  // The same fall from a lower start, without a warm-up.
  return { ...recipe, learningRate: { ...recipe.learningRate, initial: recipe.learningRate.initial * training.rate, warmup: 0 } };
}

function childText(child: ChildName): string {
  return formatArchitecture(children[child]);
}
