import type { ChildLoss } from '../sandwich.js';
import type { StepReport } from '../trainer.js';

/** A training step, and where it stands in its run. */
export interface StepEvent extends StepReport {
  readonly totalSteps: number;
  /** Passes over the training images so far, this step included. */
  readonly epoch: number;
  /** Images of the step. */
  readonly images: number;
}

/** A step's losses by which child it is: of the random ones, the mean. Those that the step did not train are not there. */
export function lossByChild(losses: readonly ChildLoss[]): Partial<Record<'biggest' | 'random' | 'smallest', number>> {
  const [biggest, ...others] = losses.map(({ loss }) => loss); // the biggest is first, the smallest last
  const smallest = others.pop();
  return {
    ...(biggest !== undefined && { biggest }),
    ...(others.length > 0 && { random: others.reduce((sum, loss) => sum + loss) / others.length }),
    ...(smallest !== undefined && { smallest }),
  };
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
}

/** Where a session tells what it does: what happens, and what else there is to say. */
export interface SessionReporter extends RunEvents {
  line(text: string): void;
}
