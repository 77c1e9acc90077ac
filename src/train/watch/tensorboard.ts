import { mkdir, readdir } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import protobuf from 'protobufjs/light.js';
import { AppendFile } from '../../files/appendFile.js';
import { tfRecord } from './tfrecord.js';

/** The part of TensorFlow's event.proto and summary.proto that is written, names in camel case. */
interface Event {
  /** Seconds since 1970. */
  readonly wallTime: number;
  readonly step?: number;
  readonly fileVersion?: string;
  readonly summary?: { readonly value: readonly { readonly tag: string; readonly simpleValue: number }[] };
  readonly sessionLog?: { readonly status: number };
}

const eventType = protobuf.Root.fromJSON({
  nested: {
    Event: {
      fields: {
        wallTime: { id: 1, type: 'double' },
        step: { id: 2, type: 'int64' },
        fileVersion: { id: 3, type: 'string' },
        summary: { id: 5, type: 'Summary' },
        sessionLog: { id: 7, type: 'SessionLog' },
      },
    },
    Summary: { fields: { value: { id: 1, type: 'Value', rule: 'repeated' } } },
    Value: { fields: { tag: { id: 1, type: 'string' }, simpleValue: { id: 2, type: 'float' } } },
    SessionLog: { fields: { status: { id: 1, type: 'int32' } } },
  },
}).lookupType('Event');

/** SessionLog.SessionStatus */
const sessionStart = 1;

/**
 * Writes scalars as TensorBoard reads them: event files in a folder, read in the order of their names. A file begins with a session log,
 * by which TensorBoard drops what earlier files have from that step on.
 */
export class TensorBoardWriter {
  #opened = 1;

  private constructor(
    private readonly folder: string,
    private file: AppendFile,
  ) {}

  /** Begins a new file. @param step that the run stands at: what earlier files have beyond it counts no more */
  static async open(folder: string, step: number): Promise<TensorBoardWriter> {
    await mkdir(folder, { recursive: true });
    return new TensorBoardWriter(folder, await begin(folder, step, 0));
  }

  scalars(step: number, values: Readonly<Record<string, number>>): void {
    const value = Object.entries(values).map(([tag, simpleValue]) => ({ tag, simpleValue }));
    this.file.add(encode({ wallTime: wallTime(), step, summary: { value } }));
  }

  /** Goes on from an earlier step, in a file of its own. */
  async restart(step: number): Promise<void> {
    await this.file.close();
    this.file = await begin(this.folder, step, this.#opened++);
  }

  flush(options?: { readonly sync?: boolean }): Promise<void> {
    return this.file.flush(options);
  }

  close(): Promise<void> {
    return this.file.close();
  }
}

async function begin(folder: string, step: number, n: number): Promise<AppendFile> {
  const times = (await readdir(folder)).map((name) => Number(/^events\.out\.tfevents\.(\d+)\./.exec(name)?.[1] ?? 0));
  // Behind every other file, also of the same second, and where the clock was set back.
  const time = Math.max(Math.floor(wallTime()), ...times.map((other) => other + 1));
  const file = await AppendFile.open(join(folder, `events.out.tfevents.${time}.${hostname()}.${process.pid}.${n}`));
  file.add(encode({ wallTime: wallTime(), fileVersion: 'brain.Event:2' }));
  file.add(encode({ wallTime: wallTime(), step: step + 1, sessionLog: { status: sessionStart } }));
  return file;
}

function encode(event: Event): Uint8Array {
  return tfRecord(eventType.encode(event).finish());
}

function wallTime(): number {
  return Date.now() / 1000;
}
