/** Our side of the comparison: `node bignas.js FOLDER REPLICAS THREADS`. Drives the real trainer, which waits for orders between its steps. */
import { writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { localReplica, processReplicas } from '../../src/train/replicas.js';
import { initialState } from '../../src/train/rmsprop.js';
import { train } from '../../src/train/trainer.js';
import { readPlan } from './plan.js';
import { startProfile, type RunningProfile } from './profile.js';
import type { Command, ProfileAnswer, RunAnswer } from './side.js';

const [folder, count, threads] = [process.argv[2]!, Number(process.argv[3]), Number(process.argv[4])];
const { plan, weights, dataset } = await readPlan(folder);
const context = { space: plan.space, preprocessing: plan.preprocessing, classes: plan.space.classes, recipe: plan.recipe };
const replicas = count > 1 ? processReplicas(context, count, Math.max(1, Math.floor(threads / count))) : localReplica(context);
const state = initialState(weights);
const orders = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const stop = new AbortController();

interface Turn {
  readonly steps: number;
  readonly began: number;
  readonly losses: number[][];
  readonly profile: RunningProfile | undefined;
}

const answer = (value: RunAnswer | ProfileAnswer | object): void => void process.stdout.write(`${JSON.stringify(value)}\n`);

/** Answers orders until one asks for steps; undefined where no more come. */
async function nextTurn(): Promise<Turn | undefined> {
  for (;;) {
    const line = await orders.next();
    if (line.done) return undefined;
    const order = JSON.parse(line.value) as Command;
    if ('save' in order) {
      const parts = [state.weights, state.meanSquare, state.momentum, state.average];
      await writeFile(order.save, Buffer.concat(parts.map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength))));
      answer({});
    } else {
      const profile = 'profile' in order ? await startProfile() : undefined;
      return { steps: 'run' in order ? order.run : order.profile, began: performance.now(), losses: [], profile };
    }
  }
}

let turn = await nextTurn();
if (turn)
  await train({
    dataset,
    recipe: plan.recipe,
    state,
    replicas,
    signal: stop.signal,
    afterStep: async ({ losses }) => {
      if (!turn) return;
      turn.losses.push(losses.map(({ loss }) => loss));
      if (turn.losses.length < turn.steps) return;
      const seconds = (performance.now() - turn.began) / 1000;
      answer(turn.profile ? { seconds, tables: await turn.profile.stop(seconds) } : { seconds, losses: turn.losses });
      turn = await nextTurn();
      if (!turn) stop.abort();
    },
  });
await replicas.close();
