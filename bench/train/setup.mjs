// A Python with PyTorch, in a virtual environment in the user's cache folder.
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { remove, removeLeftovers, replaceFolder, temporaryBeside } from '../../cli/setup/files.mjs';
import { withLock } from '../../cli/setup/lock.mjs';
import { SetupFailure, diskFull, isDiskFull, lastLines, run, say } from '../../cli/setup/process.mjs';
import { cacheFolder } from '../../cli/setup/steps.mjs';

const PACKAGES = ['torch==2.13.0', 'numpy==2.2.6'];

/**
 * The interpreter, made where it is missing. A second time it looks whether the file is there and returns.
 * @param {{ cache?: string, packages?: readonly string[] }} [options]
 */
export async function pytorch({ cache = cacheFolder(), packages = PACKAGES } = {}) {
  const environment = join(cache, `python-${packages.join('-').replaceAll('==', '-')}`);
  const interpreter = join(environment, 'bin', 'python');
  if (existsSync(interpreter)) return interpreter;
  await withLock(`${environment}.lock`, 'installing PyTorch', async () => {
    if (!existsSync(interpreter)) await install(environment, packages);
  });
  return interpreter;
}

async function install(environment, packages) {
  mkdirSync(join(environment, '..'), { recursive: true });
  removeLeftovers(environment);
  const making = temporaryBeside(environment);
  say(`PyTorch: installing ${packages.join(' and ')} into ${environment} (about 200 MB to download, 1 GB on disk; a minute or two, once)`);
  const began = Date.now();
  const progress = setInterval(() => say(`  pip is at work, ${Math.round((Date.now() - began) / 1000)} s so far`), 15_000);
  try {
    await step('python3', ['-m', 'venv', making], 'apt-get install python3-venv');
    const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-input', '--only-binary=:all:', ...packages];
    await step(join(making, 'bin', 'python'), pip, 'check the network (`python3 -m pip config list` shows the package index and proxy in use)');
    // Renamed when it is whole: one that was cut off is never taken for an environment.
    replaceFolder(making, environment);
  } finally {
    clearInterval(progress);
    remove(making);
  }
}

async function step(command, args, mend) {
  const { code, output, missing } = await run(command, args);
  if (code === 0) return;
  if (isDiskFull(output)) throw diskFull(command);
  throw new SetupFailure(`PyTorch could not be installed${missing ? `: ${command} is missing` : ''}.\n${lastLines(output)}`, mend);
}
