// The npm packages, as package-lock.json says.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeAtomically } from './files.mjs';
import { withLock } from './lock.mjs';
import { SetupFailure, diskFull, isDiskFull, lastLines, run, say } from './process.mjs';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/**
 * Installs node_modules where it is missing or not what package-lock.json says, compiler and test tools included. An installed
 * bignas (a package or an image, without sources) has its packages.
 */
export async function npmPackages({ root = ROOT } = {}) {
  if (!existsSync(join(root, 'tsconfig.json')) || isInstalled(root)) return;
  await withLock(join(root, 'dist', 'packages.lock'), 'installing the npm packages', async () => {
    if (!isInstalled(root)) await install(root);
  });
}

/** An install made by hand counts as well: npm leaves a list of what it installed. */
function isInstalled(root) {
  const stamp = join(root, 'node_modules', '.bignas-stamp');
  const wanted = stampOf(root);
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return true;
  const installed = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(installed) || !agree(readJson(installed), readJson(join(root, 'package-lock.json')))) return false;
  writeAtomically(stamp, wanted);
  return true;
}

function stampOf(root) {
  const { dependencies, devDependencies } = readJson(join(root, 'package.json'));
  return createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .update(JSON.stringify({ dependencies, devDependencies }))
    .digest('hex');
}

/** Optional packages are those of other platforms: they may be missing. */
function agree(installed, locked) {
  const has = installed.packages;
  const wants = Object.entries(locked.packages).filter(([path]) => path !== '');
  return (
    wants.every(([path, { version, optional }]) => (has[path] ? has[path].version === version : optional)) &&
    Object.keys(has).every((path) => locked.packages[path])
  );
}

async function install(root) {
  say('npm packages: downloading and unpacking (about 700 MB on disk); a minute or two, once for this checkout');
  const [command, ...before] = npmCommand();
  // NODE_ENV=production would leave out the compiler.
  const { code, output, missing } = await run(command, [...before, 'ci', '--include=dev'], { cwd: root });
  if (missing) throw new SetupFailure('npm is missing; it installs the packages that bignas is made of.', 'apt-get install npm');
  if (code !== 0) throw npmFailure(output, root);
  writeAtomically(join(root, 'node_modules', '.bignas-stamp'), stampOf(root));
}

/** The npm that started this script, where one did. */
function npmCommand(env = process.env) {
  const npm = env.npm_execpath;
  return npm && basename(npm) === 'npm-cli.js' ? [process.execPath, npm] : ['npm'];
}

function npmFailure(output, root) {
  const said = lastLines(output);
  if (isDiskFull(output)) return diskFull(root);
  if (/EUSAGE/.test(output)) return new SetupFailure(`package.json and package-lock.json disagree.\n${said}`, 'npm install');
  if (/ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ERR_SOCKET_TIMEOUT|EHOSTUNREACH|ENETUNREACH/.test(output)) {
    return new SetupFailure(
      `npm does not reach its registry.\n${said}`,
      'check the network (`npm config get registry` and `npm config get proxy` show what npm uses)',
    );
  }
  return new SetupFailure(`npm ci failed.\n${said}`, 'mend what npm says (`npm ci` shows it again)');
}

function readJson(file) {
  return JSON.parse(readFileSync(file, 'utf8'));
}
