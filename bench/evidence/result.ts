import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { recipeSchema } from '../../src/train/recipe.js';
import { childNames } from './plan.js';

const fraction = z.number().min(0).max(1);
const accuracies = z.partialRecord(z.enum(childNames), fraction);

/** A finished run, as a file of docs/evidence/results has it. */
export const resultSchema = z.strictObject({
  run: z.string(),
  seed: z.int(),
  space: z.string(),
  recipe: recipeSchema,
  /** Commit of bignas. */
  commit: z.string().nullable(),
  hardware: z.string(),
  /** Of training steps, one thread. */
  seconds: z.number(),
  /** During training, of the averaged weights, on the validation images. */
  validation: z.array(z.strictObject({ step: z.int(), accuracy: accuracies })),
  /** In the end: top-1 accuracy of calibrated children. */
  final: z.strictObject({ validation: accuracies, test: accuracies }),
});

export type Result = Readonly<z.infer<typeof resultSchema>>;

export function resultFile(folder: string, run: string, seed: number): string {
  return join(folder, `${run}-seed${seed}.json`);
}

/** Where a run leaves its averaged weights for those that begin with them. */
export function weightsFile(work: string, run: string, seed: number): string {
  return join(work, `${run}-seed${seed}.safetensors`);
}

/** @returns undefined where there is none @throws where the file is no result */
export async function readResult(folder: string, run: string, seed: number): Promise<Result | undefined> {
  const path = resultFile(folder, run, seed);
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  });
  if (text === undefined) return undefined;
  const result = resultSchema.safeParse(JSON.parse(text));
  if (!result.success) throw new Error(`${path} is no result: ${z.prettifyError(result.error)}`);
  return result.data;
}
