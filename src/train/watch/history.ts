import { join } from 'node:path';
import { z } from 'zod';
import { BignasError, shown } from '../../errors.js';
import { AppendFile } from '../../files/appendFile.js';
import { jsonLines } from '../../files/jsonLines.js';

export const historyFile = 'history.jsonl';
export const historyFormat = 'bignas-history';
/** A reader takes its own version and older ones; a newer one is refused. */
export const historyVersion = 1;

const fraction = z.number().min(0).max(1);
/** What every line has: the steps done when it happened, and the time (ISO 8601, UTC). */
const stamp = { step: z.int().nonnegative(), time: z.iso.datetime() };

/** A line of `history.jsonl`. Steps never descend from line to line: what a resumed run or a rollback undid is not there. */
export const historyEventSchema = z.discriminatedUnion('event', [
  /** The file's first line. Its step is 0, or that of a run whose beginning has no history. */
  z.strictObject({ event: z.literal('start'), format: z.literal(historyFormat), version: z.int().min(1).max(historyVersion), ...stamp }),
  z.strictObject({
    event: z.literal('step'),
    ...stamp,
    /** Passes over the training images so far. */
    epoch: z.number().nonnegative(),
    rate: z.number(),
    /** A loss a child, in nats, in the order of the recipe's sandwich; `child` is its name there. */
    losses: z.array(z.strictObject({ child: z.string(), architecture: z.string(), loss: z.number() })).min(1),
    imagesPerSecond: z.number().nonnegative(),
    seconds: z.number().nonnegative(),
  }),
  z.strictObject({ event: z.literal('evaluation'), ...stamp, accuracy: z.strictObject({ biggest: fraction, smallest: fraction }) }),
  z.strictObject({ event: z.literal('save'), ...stamp }),
  /** The run failed in step `from` and went back to `step`. */
  z.strictObject({ event: z.literal('rollback'), ...stamp, from: z.int().nonnegative(), salt: z.int().nonnegative(), reason: z.string() }),
  /** From `step` on, other options hold (`--change-recipe`). */
  z.strictObject({ event: z.literal('recipe'), ...stamp, changes: z.array(z.strictObject({ option: z.string(), from: z.unknown().optional(), to: z.unknown().optional() })) }),
  /** A later session goes on from `step`. */
  z.strictObject({ event: z.literal('resume'), ...stamp }),
]);

export type HistoryEvent = Readonly<z.infer<typeof historyEventSchema>>;
export type History = readonly HistoryEvent[];
type OfEvent<E extends HistoryEvent, Name extends E['event']> = E extends { readonly event: Name } ? E : never;

/** The events of one kind, in their order. */
export function eventsOf<Name extends HistoryEvent['event']>(history: History, name: Name): OfEvent<HistoryEvent, Name>[] {
  return history.filter((event): event is OfEvent<HistoryEvent, Name> => event.event === name);
}

/**
 * The history of the run in a folder; of one that is being written, what has been flushed.
 * @throws BignasError HISTORY_INVALID where there is none, or a line cannot be read. A last line that was cut off is passed over.
 */
export async function readHistory(folder: string): Promise<History> {
  const path = join(folder, historyFile);
  const history: HistoryEvent[] = [];
  for await (const { event } of wholeLines(path)) history.push(event);
  if (history.length === 0) throw new BignasError('HISTORY_INVALID', `Expected a run's history in ${path}, but it is missing or empty. Name the folder of a run.`);
  return history;
}

/** Writes a run's history. What it is given waits in memory until a flush. */
export class HistoryWriter {
  /** @param evaluated the last step whose evaluation the history has */
  private constructor(
    private readonly file: AppendFile,
    private evaluated: number | undefined,
  ) {}

  /**
   * Goes on with the history in a folder: drops what lies beyond `step`, and a last line that was cut off. At step 0 a new one begins.
   * @param step that the run stands at
   * @throws BignasError HISTORY_INVALID where the history cannot be read
   */
  static async open(folder: string, step: number): Promise<HistoryWriter> {
    const path = join(folder, historyFile);
    const { length, evaluated } = step === 0 ? { length: 0, evaluated: undefined } : await partUntil(path, step);
    const file = await AppendFile.open(path);
    try {
      await file.truncate(length);
      const writer = new HistoryWriter(file, evaluated);
      if (length === 0) writer.add({ event: 'start', format: historyFormat, version: historyVersion, step, time: now() });
      return writer;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** A run that was killed between an evaluation and its record in the checkpoint evaluates again, to the same end: that is not written twice. */
  add(event: HistoryEvent): void {
    if (event.event === 'evaluation') {
      if (event.step === this.evaluated) return;
      this.evaluated = event.step;
    }
    this.file.add(Buffer.from(`${JSON.stringify(event)}\n`));
  }

  /** Drops what happened after a step. */
  async keepUntil(step: number): Promise<void> {
    await this.file.flush();
    const { length, evaluated } = await partUntil(this.file.path, step);
    this.evaluated = evaluated;
    await this.file.truncate(length);
  }

  flush(options?: { readonly sync?: boolean }): Promise<void> {
    return this.file.flush(options);
  }

  close(): Promise<void> {
    return this.file.close();
  }
}

/** Now, as a history has it. */
export function now(): string {
  return new Date().toISOString();
}

/** Bytes of a history up to the first event beyond a step (as steps never descend, all that follows is beyond it, too), and the last step that is evaluated in them. */
async function partUntil(path: string, step: number): Promise<{ readonly length: number; readonly evaluated: number | undefined }> {
  let length = 0;
  let evaluated: number | undefined;
  for await (const { event, end } of wholeLines(path)) {
    if (event.step > step) break;
    length = end;
    if (event.event === 'evaluation') evaluated = event.step;
  }
  return { length, evaluated };
}

/** The events of a history, each with the offset behind its line. */
async function* wholeLines(path: string): AsyncGenerator<{ readonly event: HistoryEvent; readonly end: number }> {
  for await (const { value: event, end } of jsonLines(path, (text, line) => parseLine(text, path, line))) yield { event, end };
}

function parseLine(text: string, path: string, line: number): HistoryEvent {
  const invalid = (reason: string): BignasError =>
    new BignasError('HISTORY_INVALID', `Line ${line} of ${path} ${reason}. Mend it, or move the file away: the run goes on without its past.`);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw invalid(`is no JSON: ${shown(text)}`);
  }
  const event = historyEventSchema.safeParse(json);
  if (event.success) return event.data;
  if (z.looseObject({ event: z.literal('start'), version: z.int().gt(historyVersion) }).safeParse(json).success)
    throw invalid('is of a later version of bignas: update it');
  const [issue] = event.error.issues;
  throw invalid(`is no event of a history: ${issue!.path.join('.')}: ${issue!.message}`);
}
