import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import { createInterface } from 'node:readline';

/** What a side is told, as a line of JSON on its input; it answers each with a line of JSON. */
export type Command =
  /** Trains on for so many steps. */
  | { readonly run: number }
  /** Writes weights, mean square, momentum and average, each as a flat float32 array, one after the other. */
  | { readonly save: string }
  /** As `run`, and tells where the time went. */
  | { readonly profile: number };

export interface RunAnswer {
  readonly seconds: number;
  /** Of each step's children, the biggest first. */
  readonly losses: readonly (readonly number[])[];
}

export interface ProfileAnswer {
  readonly seconds: number;
  readonly tables: readonly ProfileTable[];
}

export interface ProfileTable {
  readonly title: string;
  readonly rows: readonly { readonly name: string; readonly seconds: number; readonly calls?: number }[];
}

/** A process that trains step by step and is kept alive between its turns. */
export interface Side {
  readonly name: string;
  run(steps: number): Promise<RunAnswer>;
  save(file: string): Promise<void>;
  profile(steps: number): Promise<ProfileAnswer>;
  /** Bytes: the most that its processes held at once, each process's own peak summed. */
  peakMemory(): number;
  close(): Promise<void>;
}

/** Starts a side. `environment` adds to ours, which gives it no malloc settings of its own. */
export function startSide(name: string, command: readonly [string, ...string[]], environment: Readonly<Record<string, string>>): Side {
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([variable]) => !variable.startsWith('MALLOC_')));
  const child = spawn(command[0], command.slice(1), { env: { ...inherited, ...environment }, stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(child, 'close').then(([code, signal]: unknown[]) => ({ code, signal }));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  child.stdin.on('error', () => undefined); // a side that has died says so by ending
  let peak = 0;
  const ask = async (order: Command): Promise<unknown> => {
    child.stdin.write(`${JSON.stringify(order)}\n`);
    const line = await lines.next();
    if (line.done) {
      const { code, signal } = await ended;
      throw new Error(`${name} ended with ${String(signal ?? code)} when it was told ${JSON.stringify(order)}; what it said stands above.`);
    }
    peak = Math.max(peak, peakOfTree(child.pid!));
    return JSON.parse(line.value);
  };
  return {
    name,
    run: (steps) => ask({ run: steps }) as Promise<RunAnswer>,
    save: async (file) => {
      await ask({ save: file });
    },
    profile: (steps) => ask({ profile: steps }) as Promise<ProfileAnswer>,
    peakMemory: () => peak,
    close: async () => {
      child.stdin.end();
      const late = setTimeout(() => child.kill('SIGKILL'), 10_000);
      await ended;
      clearTimeout(late);
    },
  };
}

/** Sum of the peak resident sizes of a process and all its descendants, in bytes. */
export function peakOfTree(pid: number): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const kilobytes = Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0);
    const children = readdirSync(`/proc/${pid}/task`).flatMap((thread) => {
      const text = readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').trim();
      return text === '' ? [] : text.split(' ').map(Number);
    });
    return children.reduce((sum, child) => sum + peakOfTree(child), kilobytes * 1024);
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return 0; // it has just ended
    throw error;
  }
}
