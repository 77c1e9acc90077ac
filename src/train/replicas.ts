import { fork, type ChildProcess } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { BignasError, type ErrorCode } from '../errors.js';
import { partGradients, type PartResult, type StepTask, type TrainingContext } from './part.js';

/**
 * Who computes a step's gradient. A part's result depends on the part alone, so the same parts give the same bits in any number of
 * replicas of as many threads each.
 */
export interface Replicas {
  /** Results in the order of the task's parts. */
  run(task: StepTask): Promise<PartResult[]>;
  close(): Promise<void>;
}

/** This process computes all parts, one after another. */
export function localReplica(context: TrainingContext): Replicas {
  const compute = partGradients(context);
  return { run: (task) => Promise.resolve().then(() => compute(task)), close: () => Promise.resolve() };
}

/** What a replica is sent and answers, in turn. */
export type ReplicaMessage = { readonly context: TrainingContext } | { readonly task: StepTask };
export type ReplicaAnswer = { readonly results: PartResult[] } | { readonly error: { readonly code: ErrorCode; readonly message: string } };

/**
 * Processes that compute a step's parts side by side, as TensorFlow has one backend a process. On a CPU two replicas of one thread each use two
 * cores better than one of two threads: small ops and JavaScript have no second thread. They hold no state between steps.
 * @param threads TensorFlow's, in each
 */
export function processReplicas(context: TrainingContext, count: number, threads = Math.max(1, Math.floor(availableParallelism() / count))): Replicas {
  const replicas = Array.from({ length: count }, () => new ReplicaProcess(context, threads));
  return {
    run: async (task) => {
      const { parts } = task;
      const shares = replicas.map((_, r) => parts.filter((_part, p) => p % count === r));
      const answers = await Promise.all(replicas.map((replica, r) => replica.run({ ...task, parts: shares[r]! })));
      return parts.map((_, p) => answers[p % count]![Math.floor(p / count)]!);
    },
    close: async () => {
      await Promise.all(replicas.map((replica) => replica.close()));
    },
  };
}

/** What TensorFlow says whenever it starts, once a process: the process that trains has said it. */
const startingLine = /^WARNING: All log messages before absl::InitializeLog|^I\d{4} .*(oneDNN custom operations are on|This TensorFlow binary is optimized)|^To enable the following instructions/;

/** Writes what a replica says to this process's standard error, but for what each of them says when it starts. */
function passOn(output: Readable): void {
  createInterface({ input: output }).on('line', (line) => {
    if (!startingLine.test(line)) process.stderr.write(`${line}\n`);
  });
}

class ReplicaProcess {
  readonly #process: ChildProcess;
  readonly #ended: Promise<void>;
  #pending: { resolve: (results: PartResult[]) => void; reject: (error: Error) => void } | undefined;
  #lost: BignasError | undefined;

  constructor(context: TrainingContext, threads: number) {
    this.#process = fork(fileURLToPath(new URL('replica.js', import.meta.url)), {
      serialization: 'advanced', // typed arrays travel as bytes
      env: { ...process.env, TF_NUM_INTRAOP_THREADS: String(threads) },
      execArgv: [],
      stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
    });
    passOn(this.#process.stderr!);
    this.#process.on('message', (answer: ReplicaAnswer) => {
      const pending = this.#pending;
      this.#pending = undefined;
      if ('results' in answer) pending?.resolve(answer.results);
      else pending?.reject(new BignasError(answer.error.code, answer.error.message));
    });
    this.#ended = new Promise((resolve) => {
      const end = (how: string): void => {
        this.#lost = new BignasError(
          'WORKER_LOST',
          `A replica of the training run ended (${how}). If the machine ran out of memory, give a smaller --batch or more --parts; --resume goes on from the last checkpoint.`,
        );
        this.#pending?.reject(this.#lost);
        resolve();
      };
      this.#process.once('exit', (code, signal) => end(signal ?? `exit code ${code}`));
      this.#process.once('error', (error) => end(error.message));
    });
    this.#send({ context });
  }

  run(task: StepTask): Promise<PartResult[]> {
    if (this.#lost) return Promise.reject(this.#lost);
    return new Promise((resolve, reject) => {
      this.#pending = { resolve, reject };
      this.#send({ task });
    });
  }

  /** Ends it at once: nothing in it is worth waiting for. */
  close(): Promise<void> {
    this.#process.kill('SIGKILL');
    return this.#ended;
  }

  #send(message: ReplicaMessage): void {
    // A failure to send is followed by the exit, which says it.
    this.#process.send(message, () => undefined);
  }
}
