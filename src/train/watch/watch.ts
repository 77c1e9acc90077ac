import { join } from 'node:path';
import { formatArchitecture } from '../../space/architecture.js';
import { lossByChild, type RunEvents } from './events.js';
import { HistoryWriter, now } from './history.js';
import { TensorBoardWriter } from './tensorboard.js';

export interface WatchOptions {
  /** The run's folder; nobody else writes there. */
  readonly folder: string;
  /** The step that the run stands at: 0, or that of the checkpoint it resumes from. */
  readonly step: number;
  /** Hears of everything, too. */
  readonly report: RunEvents;
}

/** What watches a run from its first step to its end. */
export interface RunWatch extends RunEvents {
  /** Has all that happened reach the disk. Before a checkpoint is written, so that the history never ends before it. */
  flush(): Promise<void>;
  /** Flushes, and writes no more. */
  close(): Promise<void>;
}

/** Those who look on see what is at most so many seconds old. */
const flushSeconds = 10;

/**
 * Writes down what happens in a run: `history.jsonl`, and `tensorboard/` for TensorBoard. What both have beyond `step` is dropped, as the
 * run does it again. A step costs no system call, but for one write every few seconds.
 * @throws what the file system throws (ENOSPC): what was written before stays whole, and the same call may be tried again
 */
export async function watchRun({ folder, step: begin, report }: WatchOptions): Promise<RunWatch> {
  const history = await HistoryWriter.open(folder, begin);
  const board = await TensorBoardWriter.open(join(folder, 'tensorboard'), begin).catch(async (error: unknown) => {
    await history.close();
    throw error;
  });
  let flushed = performance.now();

  const write = async (sync: boolean): Promise<void> => {
    flushed = performance.now();
    await history.flush({ sync });
    await board.flush({ sync });
  };

  const watch: RunWatch = {
    async resumed(step) {
      history.add({ event: 'resume', step, time: now() });
      await write(true);
      await report.resumed(step);
    },
    async step(event) {
      const { step, epoch, rate, images, seconds } = event;
      const losses = event.losses.map(({ architecture, loss }, i) => ({ child: event.children[i]!, architecture: formatArchitecture(architecture), loss }));
      const imagesPerSecond = images / seconds;
      history.add({ event: 'step', step, time: now(), epoch, rate, losses, imagesPerSecond, seconds });
      const lossScalars = Object.fromEntries([...lossByChild(event)].map(([child, loss]) => [`loss/${child}`, loss]));
      board.scalars(step, { ...lossScalars, learning_rate: rate, images_per_second: imagesPerSecond });
      if (performance.now() - flushed > flushSeconds * 1000) await write(false);
      await report.step(event);
    },
    async evaluation(step, { biggest, smallest }) {
      history.add({ event: 'evaluation', step, time: now(), accuracy: { biggest, smallest } });
      board.scalars(step, { 'accuracy/biggest': biggest, 'accuracy/smallest': smallest });
      await write(true); // it took longer than that to measure
      await report.evaluation(step, { biggest, smallest });
    },
    async saved(step) {
      history.add({ event: 'save', step, time: now() });
      await write(true);
      await report.saved(step);
    },
    async rollback(event) {
      const { from, to, salt, reason } = event;
      await history.keepUntil(to);
      history.add({ event: 'rollback', step: to, time: now(), from, salt, reason });
      await board.restart(to);
      await write(true);
      await report.rollback(event);
    },
    async recipeChanged(step, changes) {
      history.add({ event: 'recipe', step, time: now(), changes: [...changes] });
      await write(true);
      await report.recipeChanged(step, changes);
    },
    flush: () => write(true),
    async close() {
      try {
        await history.close();
      } finally {
        await board.close();
      }
    },
  };
  if (begin > 0) await watch.resumed(begin);
  return watch;
}
