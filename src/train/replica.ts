// A replica's process: computes parts of steps until its parent is gone. Signals are the parent's to act on: a terminal sends Ctrl-C to both.
import { BignasError } from '../errors.js';
import type { PartResult, StepTask } from './part.js';
import type { ReplicaAnswer, ReplicaMessage } from './replicas.js';

let compute: Promise<(task: StepTask) => PartResult[]> | undefined;

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
process.on('disconnect', () => process.exit());
process.on('message', (message: ReplicaMessage) => {
  if ('task' in message) {
    void answerTo(message.task).then((answer) => process.send?.(answer));
    return;
  }
  compute = import('./part.js').then(({ partGradients }) => partGradients(message.context)); // loads TensorFlow
  compute.catch(() => undefined); // the first task answers it
});

async function answerTo(task: StepTask): Promise<ReplicaAnswer> {
  try {
    return { results: (await compute!)(task) };
  } catch (error) {
    if (error instanceof BignasError) return { error: { code: error.code, message: error.message } };
    throw error;
  }
}
