/** Who is measured: our server as users start it, and Python's side of the same child. */
import { execFile, fork, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Load, LoadResult } from './load.js';
import type { OpenLoad, OpenResult } from './openLoop.js';

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const python = here('../../../bench/serve/peer.py');

export interface Party {
  readonly url: string;
  readonly pid: number;
  stop(): Promise<void>;
}

export async function bignas(args: readonly string[]): Promise<Party> {
  const child = spawn(process.execPath, [here('../../../cli/setup/start.mjs'), '--port', '0', '--no-cache-folder', '--log-level', 'error', ...args], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, HOST: '', PORT: '' } });
  const [, url] = await firstLine(child, /on (http:\S+)/);
  // What `npm start` runs in its place.
  const [server] = (await readFile(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8')).trim().split(' ');
  return { url: url!, pid: Number(server), stop: () => stopped(child) };
}

export type PeerKind = 'onnxruntime' | 'torch';

export interface Peer {
  readonly interpreter: string;
  readonly model: string;
  readonly resolution: number;
  readonly threads: number;
}

export async function peer(kind: PeerKind, { interpreter, model, resolution, threads }: Peer): Promise<Party> {
  const child = spawn(interpreter, [python, kind, model, String(resolution), String(threads), 'serve'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [, port] = await firstLine(child, /"port": (\d+)/);
  return { url: `http://127.0.0.1:${port}`, pid: child.pid!, stop: () => stopped(child) };
}

/** The least of Node's servers, with memory as ours has it. */
export async function least(model: string, threads: string, checkpoint: string): Promise<Party> {
  const setUp = new URL('../../../cli/setup/serverMemory.mjs', import.meta.url).href; // plain JavaScript, outside dist
  const { serverEnvironment } = (await import(setUp)) as { serverEnvironment: (args: readonly string[], environment: NodeJS.ProcessEnv, shipped: string) => NodeJS.ProcessEnv };
  const env = { ...process.env, ...serverEnvironment(['--checkpoint', checkpoint], process.env, checkpoint) };
  const child = spawn(process.execPath, [here('./least.js'), model, threads], { stdio: ['ignore', 'pipe', 'inherit'], env });
  const [, url] = await firstLine(child, /on (http:\S+)/);
  return { url: url!, pid: child.pid!, stop: () => stopped(child) };
}

export type Bare = Readonly<Record<string, { readonly median: number; readonly perSecond: number }>>;

/** The model alone, by batch. */
export async function bare(kind: PeerKind, { interpreter, model, resolution, threads }: Peer, seconds: number): Promise<Bare> {
  const { stdout } = await promisify(execFile)(interpreter, [python, kind, model, String(resolution), String(threads), 'bare', String(seconds)]);
  return JSON.parse(stdout) as Bare;
}

export function load(asked: Load): Promise<LoadResult> {
  return generated('./load.js', asked);
}

export function openLoop(asked: OpenLoad): Promise<OpenResult> {
  return generated('./openLoop.js', asked);
}

async function generated<R>(file: string, asked: object): Promise<R> {
  const child = fork(here(file), { serialization: 'advanced' });
  child.send(asked);
  const [result] = (await Promise.race([once(child, 'message'), once(child, 'exit').then(([code]) => Promise.reject(new Error(`The load generator ended with ${code}.`)))])) as [R];
  return result;
}

function firstLine(child: ChildProcess, form: RegExp): Promise<RegExpExecArray> {
  return new Promise((resolve, reject) => {
    let text = '';
    child.stdout!.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      const match = form.exec(text);
      if (match) resolve(match);
    });
    child.once('exit', (code) => reject(new Error(`It ended with ${code} before it listened: ${text}`)));
  });
}

async function stopped(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  await ended;
}
