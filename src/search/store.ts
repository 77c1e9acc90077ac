import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { readStatistics, type Checkpoint } from '../checkpoint/checkpoint.js';
import { statisticsTensors } from '../checkpoint/tensors.js';
import { accuracySchema, type Accuracy } from '../checkpoint/frontier.js';
import { decodeSafetensors, encodeSafetensors } from '../checkpoint/safetensors.js';
import type { SplitName } from '../data/dataset.js';
import { BignasError, shown } from '../errors.js';
import { AppendFile } from '../files/appendFile.js';
import { removeLeftovers, writeFileAtomic } from '../files/atomic.js';
import { jsonLines } from '../files/jsonLines.js';
import type { Statistics } from '../graph/statistics.js';

export const evaluationsFile = 'evaluations.jsonl';
const statisticsFolder = 'statistics';
const format = 'bignas-evaluations';
const version = 1;

const digest = z.string().regex(/^[0-9a-f]{64}$/);

/** What decides an evaluation besides the child: results of other weights, crops or engines are other results. */
const subjectSchema = z.strictObject({
  format: z.literal(format),
  version: z.literal(version),
  /** SHA-256 of weights.safetensors and calibration.safetensors. */
  weights: digest,
  calibration: digest,
  /** Crops a calibration batch. */
  batch: z.int().positive(),
  /** The rule of calibration (`calibrationVersion`). The first had none. */
  calibrationVersion: z.int().positive().default(1),
  /** Digest of the split indices. */
  splits: digest,
  engine: z.enum(['onnx', 'tensorflow']),
  /** Which images a part of a split is (`placesOf`). At first they were the first ones, always. */
  order: z.enum(['first', 'spread']).default('first'),
});

export type EvaluationSubject = Omit<Readonly<z.infer<typeof subjectSchema>>, 'format' | 'version'>;

const evaluationSchema = z.strictObject({
  id: z.string().regex(/^[0-9a-f]{12}$/),
  architecture: z.string(),
  accuracy: accuracySchema,
  /** Of one thread: calibration and measuring. */
  seconds: z.number().nonnegative(),
});

/** A child that was calibrated and measured. */
export type StoredEvaluation = Readonly<z.infer<typeof evaluationSchema>>;

/** Which images an accuracy is a fraction of: `images` of a split (`placesOf`). */
export interface ImagesMeasured {
  readonly split: SplitName;
  readonly images: number;
}

/**
 * All evaluations ever made of a checkpoint's children, in a folder: a line each, written as it comes, so that none is made twice, in a
 * search that was killed or in the next one. One process at a time.
 */
export class EvaluationStore {
  readonly #evaluations = new Map<string, StoredEvaluation>();

  private constructor(
    readonly folder: string,
    private readonly checkpoint: Pick<Checkpoint, 'manifest'>,
    private readonly file: AppendFile,
  ) {}

  /**
   * Goes on with the evaluations in a folder, or begins.
   * @throws BignasError SEARCH_MISMATCH where they are of other weights, calibration crops or rule of calibration, images or of another engine; SEARCH_INVALID where a line cannot be read
   */
  static async open(folder: string, checkpoint: Pick<Checkpoint, 'manifest'>, subject: EvaluationSubject): Promise<EvaluationStore> {
    await mkdir(join(folder, statisticsFolder), { recursive: true });
    await removeLeftovers(join(folder, statisticsFolder));
    const path = join(folder, evaluationsFile);
    const evaluations: StoredEvaluation[] = [];
    let length = 0;
    for await (const { value, end } of jsonLines(path, (text, line) => parse(text, path, line))) {
      if ('format' in value) checkSubject(path, value, subject);
      else evaluations.push(value);
      length = end;
    }
    const file = await AppendFile.open(path);
    await file.truncate(length); // a last line that was cut off
    const store = new EvaluationStore(folder, checkpoint, file);
    if (length === 0) await store.#append({ format, version, ...subject });
    for (const evaluation of evaluations) store.#evaluations.set(keyOf(evaluation.id, evaluation.accuracy), evaluation);
    return store;
  }

  find(id: string, images: ImagesMeasured): StoredEvaluation | undefined {
    return this.#evaluations.get(keyOf(id, images));
  }

  /** Keeps an evaluation. On disk when this returns, the statistics first: what is listed is whole. */
  async add(evaluation: StoredEvaluation, statistics: Statistics): Promise<void> {
    await writeFileAtomic(this.#statisticsPath(evaluation.id), encodeSafetensors(statisticsTensors(new Map([[evaluation.id, statistics]]))));
    this.#evaluations.set(keyOf(evaluation.id, evaluation.accuracy), evaluation);
    await this.#append(evaluation);
  }

  /** The calibrated statistics of a child that was evaluated. */
  async statistics({ id, architecture }: Pick<StoredEvaluation, 'id' | 'architecture'>): Promise<Statistics> {
    const path = this.#statisticsPath(id);
    try {
      return readStatistics(this.checkpoint.manifest, [{ id, architecture }], decodeSafetensors(await readFile(path))).statistics.get(id)!;
    } catch (error) {
      throw new BignasError('SEARCH_INVALID', `${path} cannot be read: ${(error as Error).message}. Remove the folder ${this.folder} and search again.`);
    }
  }

  close(): Promise<void> {
    return this.file.close();
  }

  #statisticsPath(id: string): string {
    return join(this.folder, statisticsFolder, `${id}.safetensors`);
  }

  async #append(line: object): Promise<void> {
    this.file.add(Buffer.from(`${JSON.stringify(line)}\n`));
    await this.file.flush();
  }
}

function keyOf(id: string, { split, images }: ImagesMeasured | Accuracy): string {
  return `${id} ${split} ${images}`;
}

function parse(text: string, path: string, line: number): StoredEvaluation | z.infer<typeof subjectSchema> {
  const invalid = (reason: string): BignasError =>
    new BignasError('SEARCH_INVALID', `Line ${line} of ${path} ${reason}. Remove the line, or give another --output.`);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw invalid(`is no JSON: ${shown(text)}`);
  }
  const result = (line === 1 ? subjectSchema : evaluationSchema).safeParse(json);
  if (!result.success) throw invalid(`is no evaluation: ${z.prettifyError(result.error)}`);
  return result.data;
}

function checkSubject(path: string, had: EvaluationSubject, has: EvaluationSubject): void {
  const what: Readonly<Record<keyof EvaluationSubject, string>> = {
    weights: 'weights', calibration: 'calibration crops', batch: 'calibration batch', calibrationVersion: 'rule of calibration', splits: 'images', engine: 'engine', order: 'choice of images',
  };
  const other = (Object.keys(what) as (keyof EvaluationSubject)[]).filter((name) => had[name] !== has[name]);
  if (other.length > 0)
    throw new BignasError(
      'SEARCH_MISMATCH',
      `The evaluations in ${path} were made with another ${other.map((name) => what[name]).join(', ')}. Give another --output, or remove them: ${dirname(path)}.`,
    );
}
