import type { ChildRecord, CostName } from '../checkpoint/frontier.js';
import type { SplitSource } from '../data/dataset.js';
import { key } from '../random.js';
import { formatArchitecture, parseArchitecture, type Architecture } from '../space/architecture.js';
import { architectureId } from '../space/identity.js';
import type { SearchSpace } from '../space/space.js';
import type { Evaluator } from './evaluator.js';
import { mutate } from './mutate.js';
import { fitPredictor, type AccuracyPredictor } from './predictor.js';
import { byAccuracy, fits, type Budget } from './select.js';
import type { EvaluationStore, ImagesMeasured } from './store.js';

/** How children are measured, and where the results are kept. */
export interface Measuring {
  readonly space: SearchSpace;
  readonly evaluator: Evaluator;
  readonly store: EvaluationStore;
  readonly split: SplitSource;
  readonly images: ImagesMeasured;
  /** The record of a child with its costs. */
  readonly recordOf: (architecture: Architecture, accuracy: ChildRecord['accuracy']) => ChildRecord;
  /** Ends it between two children, by throwing its reason. */
  readonly signal?: AbortSignal;
  /** Told of each child as it is known; `stored` where an earlier evaluation was found. */
  readonly progress?: (child: ChildRecord, how: 'measured' | 'stored') => void;
}

/**
 * Calibrates and measures children that were not yet, several at a time; each result is on disk before it is told.
 * @returns a record each, in the order given
 */
export async function measure(architectures: readonly Architecture[], measuring: Measuring): Promise<ChildRecord[]> {
  const { space, evaluator, store, split, images, recordOf, signal, progress } = measuring;
  const records: ChildRecord[] = [];
  const queue = architectures.entries();
  let failed = false;
  const work = async (): Promise<void> => {
    for (const [place, architecture] of queue) {
      if (failed) return;
      signal?.throwIfAborted();
      const id = architectureId(space, architecture);
      const stored = store.find(id, images);
      if (stored) {
        records[place] = recordOf(architecture, stored.accuracy);
        progress?.(records[place], 'stored');
        continue;
      }
      try {
        const { accuracy, statistics, seconds } = await evaluator.evaluate({ architecture, split, images: images.images });
        await keep({ id, architecture: formatArchitecture(architecture), accuracy, seconds }, statistics);
        records[place] = recordOf(architecture, accuracy);
        progress?.(records[place], 'measured');
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  let last = Promise.resolve();
  const keep: EvaluationStore['add'] = (...args) => (last = last.catch(() => undefined).then(() => store.add(...args))); // the store takes one at a time; one that it could not keep is no reason to drop the next
  // What is under way is kept, too, before an error ends the search.
  const ends = await Promise.allSettled(Array.from({ length: evaluator.parallel }, work));
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
  return records;
}

export interface FineOptions {
  /** What the search is for: one child each, the most accurate that fits. */
  readonly targets: readonly Budget[];
  /** Children to measure beyond `coarse`. */
  readonly evaluations: number;
  readonly seed: number;
  /** Whether a predictor, fitted anew for each generation, chooses among mutations. */
  readonly predictor: boolean;
}

/** Best children of a target that are mutated. */
const skeletons = 4;
/** Chance of each dimension to change. */
const mutationRate = 0.15;
/** Mutations drawn for each that is measured, where a predictor chooses. */
const candidatesPerChild = 32;
/** A child that leaves more of a target unused is none of its. */
const leastUse = 0.75;

/**
 * The fine half of the search (the paper's section 3.2): generation by generation, the best children under each target are mutated and the
 * mutations that fit are measured. Deterministic: the same seed, coarse children and accuracies give the same children, whatever was found in
 * the store.
 * @param coarse the children to begin with
 * @returns the mutated children, in the order of the generations
 */
export async function fineSearch(coarse: readonly ChildRecord[], { targets, evaluations, seed, predictor }: FineOptions, measuring: Measuring): Promise<ChildRecord[]> {
  const { space } = measuring;
  const known = new Map(coarse.map((child) => [child.id, child]));
  const mutated: ChildRecord[] = [];
  for (let generation = 0; mutated.length < evaluations; generation++) {
    const model = predictor ? fitPredictor(space, [...known.values()].map((child) => sampleOf(space, child))) : undefined;
    const chosen = new Map<string, Architecture>();
    for (const [i, target] of targets.entries()) {
      if (mutated.length + chosen.size === evaluations) break;
      const child = chooseMutation({ target, known, taken: chosen, measuring, model, keys: [seed, generation, i] });
      if (child) chosen.set(architectureId(space, child), child);
    }
    if (chosen.size === 0) break; // all that mutation reaches is known
    for (const child of await measure([...chosen.values()], measuring)) {
      known.set(child.id, child);
      mutated.push(child);
    }
  }
  return mutated;
}

/** A mutation of one of the target's best children that fits it and is not known yet; undefined where none was drawn. */
function chooseMutation({ target, known, taken, measuring, model, keys }: {
  readonly target: Budget;
  readonly known: ReadonlyMap<string, ChildRecord>;
  readonly taken: ReadonlyMap<string, Architecture>;
  readonly measuring: Measuring;
  readonly model: AccuracyPredictor | undefined;
  readonly keys: readonly number[];
}): Architecture | undefined {
  const { space, recordOf } = measuring;
  const parents = [...known.values()].filter((child) => fits(child, target)).sort(byAccuracy).slice(0, skeletons);
  if (parents.length === 0) return undefined;
  let best: { readonly architecture: Architecture; readonly predicted: number } | undefined;
  let candidates = 0;
  const wanted = model ? candidatesPerChild : 1;
  for (let draw = 0; draw < 20 * candidatesPerChild && candidates < wanted; draw++) {
    const parent = parseArchitecture(space, parents[draw % parents.length]!.architecture);
    const architecture = mutate(space, parent, mutationRate, [key('fine'), ...keys, draw]);
    const record = recordOf(architecture, null);
    if (known.has(record.id) || taken.has(record.id) || !fits(record, target) || use(record, target) < leastUse) continue;
    candidates++;
    const predicted = model ? model.predict(architecture).mean : 0;
    if (!best || predicted > best.predicted) best = { architecture, predicted };
  }
  return best?.architecture;
}

/** How much of a budget a child uses: of the bound that it uses most. */
function use({ costs }: ChildRecord, target: Budget): number {
  return Math.max(...Object.entries(target).map(([cost, limit]) => (costs[cost as CostName]?.value ?? 0) / limit));
}

/** A measured child as a predictor takes it. */
export function sampleOf(space: SearchSpace, { architecture, accuracy }: ChildRecord): { readonly architecture: Architecture; readonly accuracy: number } {
  if (!accuracy) throw new Error(`${architecture} was not measured.`);
  return { architecture: parseArchitecture(space, architecture), accuracy: accuracy.value };
}
