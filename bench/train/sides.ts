/** The configurations that are compared, each a process of its own. */
import { fileURLToPath } from 'node:url';
import { startSide, type Side } from './side.js';

export interface Machine {
  /** A Python interpreter that has PyTorch. */
  readonly python: string;
  /** Of each side, all its processes together. */
  readonly threads: number;
}

/** glibc told to keep its memory, as bignas's own entry points tell it. */
export async function shippedEnvironment(): Promise<Readonly<Record<string, string>>> {
  const setUp = new URL('../../../cli/setup/process.mjs', import.meta.url).href; // plain JavaScript, outside dist
  const { TENSORFLOW_ENVIRONMENT } = (await import(setUp)) as { TENSORFLOW_ENVIRONMENT: Readonly<Record<string, string>> };
  return TENSORFLOW_ENVIRONMENT;
}

/** bignas as it ships. @param replicas processes that share a step; 1: the trainer's own computes it all, and can be profiled */
export async function bignas(folder: string, { threads }: Pick<Machine, 'threads'>, replicas: number): Promise<Side> {
  const entry = fileURLToPath(new URL('bignas.js', import.meta.url));
  const environment = { ...(await shippedEnvironment()), TF_NUM_INTRAOP_THREADS: String(threads) };
  return startSide('bignas', [process.execPath, entry, folder, String(replicas), String(threads)], environment);
}

/** PyTorch as a user runs it. @param parts of a batch, one after another: batch norm sees one at a time */
export function pytorch(folder: string, machine: Machine, parts: number): Side {
  return startPytorch('PyTorch', folder, machine, parts, {});
}

/** PyTorch with the malloc settings that bignas ships with. */
export async function tunedPytorch(folder: string, machine: Machine, parts: number): Promise<Side> {
  const tuned = Object.fromEntries(Object.entries(await shippedEnvironment()).filter(([variable]) => variable.startsWith('MALLOC_')));
  return startPytorch('PyTorch, tuned malloc', folder, machine, parts, tuned);
}

function startPytorch(name: string, folder: string, { python, threads }: Machine, parts: number, environment: Readonly<Record<string, string>>): Side {
  const script = fileURLToPath(new URL('../../../bench/train/pytorch.py', import.meta.url));
  return startSide(name, [python, script, folder, String(threads), String(parts)], environment);
}
