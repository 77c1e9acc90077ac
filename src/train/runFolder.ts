import { createHash } from 'node:crypto';
import { readFile, readdir, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { writeFileAtomic } from '../files/atomic.js';
import { checkpointFolder, json, openCheckpoint, writeCheckpoint, type CheckpointContent } from '../checkpoint/checkpoint.js';
import { weightTensors } from '../checkpoint/tensors.js';
import { checkpointVersion, type Manifest } from '../checkpoint/manifest.js';
import { decodeSafetensors, encodeSafetensors, type Tensor } from '../checkpoint/safetensors.js';
import { BignasError } from '../errors.js';
import type { SharedWeights } from '../graph/weights.js';
import { checkState } from './divergence.js';
import { recipeSchema, type Recipe } from './recipe.js';
import type { TrainingState } from './rmsprop.js';

const stateFile = 'training.safetensors';
const digestFile = 'training.sha256';

/** What resuming needs. */
export interface ResumedRun {
  readonly manifest: Manifest;
  readonly recipe: Recipe;
  readonly state: TrainingState;
}

/**
 * Writes `step-N/` (a checkpoint with the averaged weights, and what resuming needs beside it), then renames `latest` into place: a killed
 * writer leaves the last good step. Where `latest` names that step already, its manifest alone is replaced, as no other file can differ.
 * @param keep steps to keep, beside the best one; older ones are removed
 * @returns whether a step was written
 * @throws BignasError LOSS_NOT_FINITE for a state that is of no use
 */
export async function saveStep(run: string, content: Omit<CheckpointContent, 'weights'>, state: TrainingState, keep: number): Promise<boolean> {
  checkState(state);
  // The folder that `latest` names is never written anew: replacing a folder is not atomic, replacing a file is.
  if ((await stepNamedBy(run, 'latest')) === state.step) {
    const path = join(run, stepName(state.step), 'manifest.json');
    const old = JSON.parse(await readFile(path, 'utf8')) as Manifest;
    await writeFileAtomic(path, json({ ...old, version: checkpointVersion, training: content.manifest.training }));
    return false;
  }
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
  await writeCheckpoint(join(run, stepName(state.step)), { ...content, weights: state.average }, extra);
  await writeFileAtomic(join(run, 'latest'), `${stepName(state.step)}\n`);
  await removeOld(run, keep);
  return true;
}

/** Has `best` name a step, which is kept from then on. It is no later than the latest one. */
export async function nameBest(run: string, step: number, keep: number): Promise<void> {
  await writeFileAtomic(join(run, 'best'), `${stepName(step)}\n`);
  await removeOld(run, keep);
}

/** The best step and its accuracies; undefined where there is none yet, or somebody removed it. */
export async function bestStep(run: string): Promise<EvaluatedStep | undefined> {
  const step = await stepNamedBy(run, 'best');
  if (step === undefined) return undefined;
  const text = await readFile(join(run, stepName(step), 'manifest.json'), 'utf8').catch(absent);
  const validation = text === undefined ? undefined : (JSON.parse(text) as Manifest).training.validation;
  return validation && { step, biggest: validation.biggest, smallest: validation.smallest };
}

/** Top-1 accuracies of a step's averaged weights on the validation images, as fractions. */
export interface EvaluatedStep {
  readonly step: number;
  readonly biggest: number;
  readonly smallest: number;
}

/** Removes all steps but the best one and the last `keep` up to the latest one: what is later was never finished. */
async function removeOld(run: string, keep: number): Promise<void> {
  const latest = (await stepNamedBy(run, 'latest')) ?? Infinity;
  const best = await stepNamedBy(run, 'best');
  const steps = (await readdir(run)).flatMap((name) => stepOf(name) ?? []).sort((a, b) => b - a);
  const kept = new Set([best, ...steps.filter((step) => step <= latest).slice(0, keep)]);
  for (const step of steps.filter((step) => !kept.has(step))) await rm(join(run, stepName(step)), { recursive: true, force: true });
}

/** Whether a folder holds a run that can be resumed. Only a file that is not there says no. */
export async function hasRun(run: string): Promise<boolean> {
  return (await readFile(join(run, 'latest')).catch(absent)) !== undefined;
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

function stepName(step: number): string {
  return `step-${step}`;
}

function stepOf(name: string): number | undefined {
  const digits = /^step-(\d+)$/.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

async function stepNamedBy(run: string, file: 'latest' | 'best'): Promise<number | undefined> {
  const text = await readFile(join(run, file), 'utf8').catch(absent);
  return text === undefined ? undefined : stepOf(text.trim());
}

function absent(error: unknown): undefined {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
