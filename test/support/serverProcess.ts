import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const cli = fileURLToPath(new URL('../../cli/bignas-serve.js', import.meta.url));

export interface ServerProcess {
  readonly child: ChildProcess;
  /** Exit code, or the signal that ended it. */
  readonly ended: Promise<number | string>;
  readonly output: { out: string; err: string };
}

export interface ProcessOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Where the process keeps what outlives it. */
  readonly cache: string;
  /** Bytes of the largest file that it may write: a disk that is full, for what is larger. */
  readonly largestFile?: number;
}

/** `bignas-serve` as a process of its own. */
export function startProcess(args: readonly string[], { env = {}, cache, largestFile }: ProcessOptions): ServerProcess {
  const command = [process.execPath, cli, ...args];
  const limited = largestFile === undefined ? command : ['/bin/bash', '-c', `ulimit -f ${Math.ceil(largestFile / 1024)}; exec "$@"`, 'bash', ...command];
  const child = spawn(limited[0]!, limited.slice(1), { env: { ...process.env, HOST: '', PORT: '', BIGNAS_CACHE: cache, ...env } });
  const output = { out: '', err: '' };
  child.stdout.on('data', (chunk: Buffer) => (output.out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (output.err += chunk.toString()));
  const ended = once(child, 'close').then(([code, signal]) => (code ?? signal) as number | string);
  return { child, ended, output };
}

/** The address that the server prints. @throws Error with its log where it ends instead */
export async function addressOf({ child, output, ended }: ServerProcess): Promise<string> {
  for (;;) {
    const match = /^bignas serves \S+ \(\S+\) on (http:\/\/\S+)\n$/.exec(output.out);
    if (match) return match[1]!;
    const over = await Promise.race([once(child.stdout!, 'data').then(() => false), ended.then(() => true)]);
    if (over) throw new Error(`The server ended: ${output.err}`);
  }
}
