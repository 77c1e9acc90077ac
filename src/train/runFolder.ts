import { createHash } from 'node:crypto';
import { readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { removeLeftovers, writeFileAtomic } from '../checkpoint/atomic.js';
import { checkpointFolder, openCheckpoint, weightTensors, writeCheckpoint, type CheckpointContent } from '../checkpoint/checkpoint.js';
import type { Manifest } from '../checkpoint/manifest.js';
import { decodeSafetensors, encodeSafetensors, type Tensor } from '../checkpoint/safetensors.js';
import { BignasError } from '../errors.js';
import type { SharedWeights } from '../graph/weights.js';
import { isAlive } from '../processes.js';
import { recipeSchema, type Recipe } from './recipe.js';
import type { TrainingState } from './rmsprop.js';

const stateFile = 'training.safetensors';
const digestFile = 'training.sha256';
/** Steps kept in a run's folder: the latest, and the one before it. */
const keep = 2;

/** What resuming needs. */
export interface ResumedRun {
  readonly manifest: Manifest;
  readonly recipe: Recipe;
  readonly state: TrainingState;
}

/**
 * Writes `step-N/` (a checkpoint with the averaged weights, and what resuming needs beside it), then renames `latest` into place: a killed
 * writer leaves the last good step. Older steps are removed.
 */
export async function saveStep(run: string, content: Omit<CheckpointContent, 'weights'>, state: TrainingState): Promise<void> {
  const name = `step-${state.step}`;
  const tensors = new Map<string, Tensor>([
    ...weightTensors(state.weights, 'weights/'),
    ...weightTensors(state.meanSquare, 'meanSquare/'),
    ...weightTensors(state.momentum, 'momentum/'),
  ]);
  const bytes = encodeSafetensors(tensors);
  const extra = new Map([
    [stateFile, bytes],
    [digestFile, new TextEncoder().encode(sha256(bytes))],
  ]);
  const latest = await readFile(join(run, 'latest'), 'utf8').catch(() => '');
  // The step that `latest` names is never touched: replacing a folder is not atomic, and its bits would be the same.
  if (latest.trim() === name) return;
  await writeCheckpoint(join(run, name), { ...content, weights: state.average }, extra);
  await writeFileAtomic(join(run, 'latest'), `${name}\n`);
  const steps = (await readdir(run)).filter((entry) => /^step-\d+$/.test(entry)).sort((a, b) => stepOf(b) - stepOf(a));
  for (const old of steps.filter((entry) => stepOf(entry) < state.step).slice(keep - 1)) await rm(join(run, old), { recursive: true, force: true });
}

/** Whether a folder holds a run that can be resumed. Only a file that is not there says no. */
export async function hasRun(run: string): Promise<boolean> {
  return readFile(join(run, 'latest'), 'utf8').then(
    () => true,
    (error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
      throw error;
    },
  );
}

/**
 * Runs `work` as the only process that trains in the folder, after removing what killed ones left there.
 * @throws BignasError OPTION_INVALID where another one is at work
 */
export async function alone<T>(run: string, work: () => Promise<T>): Promise<T> {
  const lock = join(run, 'lock');
  const owner = await readFile(lock, 'utf8').catch(() => undefined);
  if (owner !== undefined) {
    const [pid, host] = owner.trim().split(' ');
    // Our own number there was another's before: containers give the same one after each restart.
    if (host !== hostname() || (Number(pid) !== process.pid && isAlive(Number(pid))))
      throw new BignasError('OPTION_INVALID', `Process ${pid} on ${host} trains in ${run}. Wait for it, or give another --output. If it is gone, remove ${lock}.`);
    await rm(lock, { force: true });
  }
  // Exclusive: of two that start at once, one fails here.
  await writeFile(lock, `${process.pid} ${hostname()}\n`, { flag: 'wx' }).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    throw new BignasError('OPTION_INVALID', `Another process has just begun to train in ${run}. Give another --output.`);
  });
  try {
    await removeLeftovers(run);
    return await work();
  } finally {
    await rm(lock, { force: true });
  }
}

/** The latest step of a run, checked in every byte. @throws BignasError CHECKPOINT_INVALID */
export async function resumeRun(run: string): Promise<ResumedRun> {
  const folder = await checkpointFolder(run);
  const { manifest, weights: average } = await openCheckpoint(folder);
  const invalid = (reason: string): BignasError => new BignasError('CHECKPOINT_INVALID', `The run ${resolve(run)} cannot be resumed: ${reason}.`);
  const bytes = await readFile(join(folder, stateFile)).catch(() => undefined);
  const digest = await readFile(join(folder, digestFile), 'utf8').catch(() => undefined);
  if (!bytes || !digest) throw invalid(`${join(folder, stateFile)} is missing`);
  if (sha256(bytes) !== digest.trim()) throw invalid(`${join(folder, stateFile)} is damaged`);
  const recipe = recipeSchema.safeParse(manifest.training.recipe);
  if (!recipe.success) throw invalid('its recipe is of another version of bignas');
  const tensors = decodeSafetensors(bytes);
  const part = (prefix: string): SharedWeights => {
    const weights = average.like();
    for (const { name } of weights.tensors) {
      const tensor = tensors.get(`${prefix}/${name}`);
      const target = weights.tensor(name);
      if (tensor?.data.length !== target.length) throw invalid(`tensor ${prefix}/${name} is missing or of another size`);
      target.set(tensor.data);
    }
    return weights;
  };
  const state: TrainingState = {
    step: manifest.training.step,
    seconds: manifest.training.seconds,
    weights: part('weights'),
    meanSquare: part('meanSquare'),
    momentum: part('momentum'),
    average,
  };
  return { manifest, recipe: recipe.data, state };
}

function stepOf(name: string): number {
  return Number(name.slice('step-'.length));
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
