import { biggest, smallest } from '../../src/space/architecture.js';
import { tiny } from '../../src/space/presets/tiny.js';
import { sampleArchitecture } from '../../src/space/sample.js';
import type { RunEvents, SessionReporter, StepEvent } from '../../src/train/watch/events.js';

export const stepsPerEpoch = 10;

/** A step as a run of the tiny space would report it: of four children, with losses that no float32 holds exactly. */
export function stepEvent(step: number, { totalSteps = 100 } = {}): StepEvent {
  const children = [biggest(tiny), sampleArchitecture(tiny, [step, 0]), sampleArchitecture(tiny, [step, 1]), smallest(tiny)];
  return {
    step,
    totalSteps,
    epoch: step / stepsPerEpoch,
    children: ['biggest', 'random', 'random', 'smallest'],
    images: 64,
    rate: 0.1 / step,
    losses: children.map((architecture, i) => ({ architecture, loss: (i + 1.1) / step })),
    seconds: 0.5,
  };
}

/** A reporter that keeps what it hears, as [event, …arguments]. */
export function hearing(): { readonly heard: unknown[][]; readonly report: SessionReporter } {
  const heard: unknown[][] = [];
  const hear = (name: string) => (...args: unknown[]) => void heard.push([name, ...args]);
  return {
    heard,
    report: {
      line: hear('line'),
      resumed: hear('resumed'),
      step: hear('step'),
      evaluation: hear('evaluation'),
      saved: hear('saved'),
      rollback: hear('rollback'),
      recipeChanged: hear('recipeChanged'),
    },
  };
}

/** Has a run do steps `from` to `to`. */
export async function steps(watch: RunEvents, from: number, to: number): Promise<void> {
  for (let step = from; step <= to; step++) await watch.step(stepEvent(step));
}
