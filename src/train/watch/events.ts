import type { RecipeChange } from '../recipe.js';
import type { StepReport } from '../trainer.js';

/** A training step, and where it stands in its run. */
export interface StepEvent extends StepReport {
  readonly totalSteps: number;
  /** Passes over the training images so far, this step included. */
  readonly epoch: number;
  /** What each of the losses is of, as the recipe's sandwich has it: `biggest`, `random`, `smallest`, or the text of an architecture. */
  readonly children: readonly string[];
  /** Images of the step. */
  readonly images: number;
}

/** A step's losses by what the recipe calls the child, in its order: of the random ones, the mean. */
export function lossByChild({ children, losses }: Pick<StepEvent, 'children' | 'losses'>): Map<string, number> {
  const groups = new Map<string, number[]>();
  children.forEach((child, i) => groups.set(child, [...(groups.get(child) ?? []), losses[i]!.loss]));
  return new Map([...groups].map(([child, group]) => [child, group.reduce((sum, loss) => sum + loss) / group.length]));
}

/** Top-1 accuracies on the validation images, as fractions. */
export interface Accuracies {
  readonly biggest: number;
  readonly smallest: number;
}

/** A run that went back to an earlier checkpoint. */
export interface Rollback {
  /** The step that failed. */
  readonly from: number;
  /** The step that the state stands at now. */
  readonly to: number;
  /** What the random draws are keyed with from here on, so that they are others. */
  readonly salt: number;
  readonly reason: string;
}

/** What happens in a run, in its order. A method may have to write before the run goes on: it is awaited. */
export interface RunEvents {
  /** The run goes on from the checkpoint of that step. */
  resumed(step: number): Promise<void> | void;
  step(event: StepEvent): Promise<void> | void;
  evaluation(step: number, accuracies: Accuracies): Promise<void> | void;
  /** The checkpoint of that step is on disk. */
  saved(step: number): Promise<void> | void;
  rollback(event: Rollback): Promise<void> | void;
  /** From that step on, other options hold. */
  recipeChanged(step: number, changes: readonly RecipeChange[]): Promise<void> | void;
}

/** Where a session tells what it does: what happens, and what else there is to say. */
export interface SessionReporter extends RunEvents {
  line(text: string): void;
}
