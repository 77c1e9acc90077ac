import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import { initialWeights } from '../src/graph/weights.js';
import { sharedTensors } from '../src/graph/buildGraph.js';
import { isAlive } from '../src/processes.js';
import { tiny } from '../src/space/presets/tiny.js';
import type { TrainingContext } from '../src/train/part.js';
import { defaultRecipe, type Recipe } from '../src/train/recipe.js';
import { localReplica, processReplicas, type Replicas } from '../src/train/replicas.js';
import { initialState, type TrainingState } from '../src/train/rmsprop.js';
import { train, type StepReport } from '../src/train/trainer.js';
import { syntheticDataset } from './support/dataset.js';

const dataset = syntheticDataset(4, 14, { train: 96, validation: 48, test: 48 });
const recipeOf = (parts: number): Recipe =>
  defaultRecipe({ seed: 3, batch: 24, parts, steps: 3, stepsPerEpoch: 4, augmentation: 'flip', short: true, learningRate: 0.02, patches: 'different' });
const contextOf = (recipe: Recipe): TrainingContext => ({ space: tiny, preprocessing: dataset.preprocessing, classes: 4, recipe });

async function trained(recipe: Recipe, replicas: Replicas): Promise<{ state: TrainingState; reports: StepReport[] }> {
  const state = initialState(initialWeights(sharedTensors(tiny), recipe.seed));
  const reports: StepReport[] = [];
  await train({ dataset, recipe, state, replicas, afterStep: (report) => void reports.push(report) }).finally(() => replicas.close());
  return { state, reports };
}

test('the same parts give the same bits in one replica and in several', async () => {
  const recipe = recipeOf(3);
  const alone = await trained(recipe, processReplicas(contextOf(recipe), 1, 1));
  const shared = await trained(recipe, processReplicas(contextOf(recipe), 2, 1));
  assert(shared.state.weights.data.every((w, i) => w === alone.state.weights.data[i]));
  assert.deepEqual(shared.reports.map(({ losses }) => losses), alone.reports.map(({ losses }) => losses));
  const whole = recipeOf(1);
  const unparted = await trained(whole, localReplica(contextOf(whole)));
  assert(unparted.state.weights.data.some((w, i) => w !== alone.state.weights.data[i])); // batch norm sees other images
});

test('a replica that dies ends the run with an error that says what to do', async () => {
  const recipe = recipeOf(2);
  const replicas = processReplicas(contextOf(recipe), 2);
  const victim = await childOf(process.pid);
  await assert.rejects(
    trained(recipe, {
      run: (task) => {
        process.kill(victim, 'SIGKILL');
        return replicas.run(task);
      },
      close: () => replicas.close(),
    }),
    { code: 'WORKER_LOST', message: /SIGKILL.*--parts.*--resume/ },
  );
});

test('an error in a replica keeps its code', async () => {
  const recipe: Recipe = { ...recipeOf(2), sandwich: ['largest'], distillation: 'labels' };
  await assert.rejects(trained(recipe, processReplicas(contextOf(recipe), 2)), { code: 'ARCHITECTURE_MALFORMED' });
});

test('replicas end with a parent that was killed', async () => {
  const script = `
    const { processReplicas } = await import(${JSON.stringify(new URL('../src/train/replicas.js', import.meta.url).href)});
    processReplicas(${JSON.stringify(contextOf(recipeOf(2)))}, 1);
    setInterval(() => {}, 1000);
    console.log('up');`;
  const parent = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(parent.stdout, 'data');
  const replica = await childOf(parent.pid!);
  parent.kill('SIGKILL');
  for (let i = 0; i < 200 && isAlive(replica); i++) await sleep(50);
  assert(!isAlive(replica));
});

/** A child process's id, once there is one. */
async function childOf(parent: number): Promise<number> {
  const { readFile } = await import('node:fs/promises');
  for (;;) {
    const [child] = (await readFile(`/proc/${parent}/task/${parent}/children`, 'utf8')).trim().split(' ');
    if (child) return Number(child);
    await sleep(20);
  }
}
