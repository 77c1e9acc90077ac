/** The configurations that are compared, each a process of its own. */
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { startSide, type Side } from './side.js';

export interface Machine {
  /** A Python interpreter that has PyTorch. */
  readonly python: string;
  /** Threads of each side; the machine's cores where not given. */
  readonly threads?: number | undefined;
}

/** glibc told to keep its memory, as bignas's own entry points tell it. */
export async function shippedEnvironment(): Promise<Readonly<Record<string, string>>> {
  const setUp = new URL('../../../cli/setup/process.mjs', import.meta.url).href; // plain JavaScript, outside dist
  const { TENSORFLOW_ENVIRONMENT } = (await import(setUp)) as { TENSORFLOW_ENVIRONMENT: Readonly<Record<string, string>> };
  return TENSORFLOW_ENVIRONMENT;
}

/** bignas as it ships. */
export async function bignas(folder: string, { threads }: Machine): Promise<Side> {
  const limit: Record<string, string> = threads === undefined ? {} : { TF_NUM_INTRAOP_THREADS: String(threads), OMP_NUM_THREADS: String(threads) };
  const entry = fileURLToPath(new URL('bignas.js', import.meta.url));
  return startSide('bignas', [process.execPath, entry, folder], { ...(await shippedEnvironment()), ...limit });
}

/** PyTorch as a user runs it. */
export function pytorch(folder: string, machine: Machine): Side {
  return startPytorch('PyTorch', folder, machine, {});
}

/** PyTorch with the malloc settings that bignas ships with. */
export async function tunedPytorch(folder: string, machine: Machine): Promise<Side> {
  const tuned = Object.fromEntries(Object.entries(await shippedEnvironment()).filter(([variable]) => variable.startsWith('MALLOC_')));
  return startPytorch('PyTorch, tuned malloc', folder, machine, tuned);
}

function startPytorch(name: string, folder: string, { python, threads }: Machine, environment: Readonly<Record<string, string>>): Side {
  const script = fileURLToPath(new URL('../../../bench/train/pytorch.py', import.meta.url));
  return startSide(name, [python, script, folder, String(threads ?? cpus().length)], environment);
}
