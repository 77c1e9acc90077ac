// The TensorFlow engine: its C library out of pinned wheels, kept in a cache folder of the user's, and the Node addon for it.
// npm's own way to it is closed: the package's install script downloads an old library and a prebuilt addon that are gone.
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { USE_DOCKER, buildAddon, checkCompiler, isAddonBuilt, isAddonPlaced, placeAddon, planAddon } from './addon.mjs';
import { freeBytesAt, remove, removeLeftovers, replaceFolder, sizeOf, temporaryBeside, writeAtomically } from './files.mjs';
import { withLock } from './lock.mjs';
import { SetupFailure, say } from './process.mjs';
import { checkPip, installWheel } from './wheel.mjs';
import { ENGINES, TENSORFLOW_VERSION } from './wheels.mjs';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** Where engines are kept: `BIGNAS_CACHE`, or `bignas` in the user's cache folder. */
export function cacheFolder(env = process.env) {
  return resolve(env.BIGNAS_CACHE || join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'bignas'));
}

/**
 * Makes `@tensorflow/tfjs-node-gpu` loadable. Where all is in place it looks at a few files' sizes and returns.
 * @param {object} [options]
 * @param {'cpu' | 'cuda'} [options.variant] where unset, the one last asked for by name, else `cpu`
 * @param {string} [options.cache] folder that engines are kept in
 * @param {string} [options.root] folder of the project, whose node_modules gets the addon
 * @param {typeof ENGINES} [options.engines] the pinned wheels
 * @param {(folder: string) => number} [options.freeBytes] free bytes on a folder's disk
 */
export async function engine({ variant, cache = cacheFolder(), root = ROOT, engines = ENGINES, freeBytes = freeBytesAt } = {}) {
  const remembered = join(cache, 'tensorflow-variant');
  const name = variant ?? readText(remembered) ?? 'cpu';
  const pinned = engineFor(name, engines);
  const folder = join(cache, `tensorflow-${TENSORFLOW_VERSION}-${name}-${process.arch}`);
  const addon = planAddon(root, folder, pinned.wheels);
  if (!isReady(folder, pinned, addon)) {
    await withLock(`${folder}.lock`, 'setting up TensorFlow', () => install(folder, pinned, addon, freeBytes));
  }
  if (variant && readText(remembered) !== variant) writeAtomically(remembered, variant);
}

function engineFor(variant, engines, platform = process.platform, arch = process.arch) {
  const pinned = engines[`${variant}-${arch}`];
  if (platform !== 'linux') {
    throw new SetupFailure(`the TensorFlow engine runs on Linux, and this is ${platform}. (npm start needs no TensorFlow.)`, USE_DOCKER);
  }
  if (!pinned) {
    throw new SetupFailure(`there is no ${variant} build of TensorFlow for ${arch} processors.`, 'use the CPU build (node cli/setup/engine.mjs --cpu) or another machine');
  }
  return pinned;
}

function isReady(folder, pinned, addon) {
  return isLibraryReady(folder, pinned) && isAddonBuilt(addon) && isAddonPlaced(addon);
}

/** Everything that can fail for want of a tool is asked before the long download. */
async function install(folder, pinned, addon, freeBytes) {
  const needsLibrary = !isLibraryReady(folder, pinned);
  const needsAddon = needsLibrary || !isAddonBuilt(addon);
  removeLeftovers(folder);
  if (needsLibrary) checkGlibc();
  if (needsLibrary) await checkPip();
  if (needsAddon) await checkCompiler();
  if (needsLibrary) await installLibrary(folder, pinned, freeBytes);
  if (needsAddon) await buildAddon(addon);
  if (!isAddonPlaced(addon)) placeAddon(addon);
}

/** The wheels are built for glibc 2.27; elsewhere (musl, as in Alpine) they do not load. */
function checkGlibc(version = process.report.getReport().header.glibcVersionRuntime) {
  const [major = 0, minor = 0] = (version ?? '').split('.').map(Number);
  if (major > 2 || (major === 2 && minor >= 27)) return;
  throw new SetupFailure(`TensorFlow needs a Linux with glibc 2.27 or later; this one has ${version ?? 'another C library'}.`, USE_DOCKER);
}

function checkSpace(folder, needed, free) {
  if (free >= needed) return;
  throw new SetupFailure(
    `TensorFlow needs ${gigabytes(needed)} while it is installed, and ${folder} has ${gigabytes(free)} left.`,
    'free some space there, or set BIGNAS_CACHE to a folder on a bigger disk',
  );
}

function gigabytes(bytes) {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}

async function installLibrary(folder, { wheels, download, peak }, freeBytes) {
  const cache = dirname(folder);
  checkSpace(cache, peak, freeBytes(cache));
  const temporary = temporaryBeside(folder);
  mkdirSync(temporary);
  try {
    say(`TensorFlow ${TENSORFLOW_VERSION}: downloading its library (${Math.round(download / 1e6)} MB) into ${cache}; once for all checkouts`);
    for (const wheel of wheels) {
      if (wheels.length > 1) say(`  ${wheel.name} ${wheel.version}`);
      await installWheel(wheel, temporary);
    }
    writeManifest(temporary, wheels);
    replaceFolder(temporary, folder);
  } finally {
    remove(temporary);
  }
}

/** Tells a whole engine from one that lost a file or was made from other wheels, by the sizes of its shared libraries. */
function writeManifest(folder, wheels) {
  const libraries = readdirSync(folder, { recursive: true }).filter((name) => /\.so(\.\d+)*$/.test(name));
  const files = Object.fromEntries(libraries.sort().map((name) => [name, sizeOf(join(folder, name))]));
  writeFileSync(join(folder, 'manifest.json'), JSON.stringify({ wheels: contentOf(wheels), files }, null, 2));
}

function isLibraryReady(folder, { wheels }) {
  const manifest = parse(readText(join(folder, 'manifest.json')) ?? '');
  return (
    manifest !== undefined &&
    manifest.wheels.join() === contentOf(wheels).join() &&
    Object.entries(manifest.files).every(([name, size]) => sizeOf(join(folder, name)) === size)
  );
}

/** `undefined` where it is no JSON: a machine whose power goes may leave a file empty. */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** What an engine was made of: each wheel, and what was taken out of it. */
function contentOf(wheels) {
  return wheels.flatMap(({ sha256, members }) => [sha256, ...members]);
}

function readText(file) {
  return sizeOf(file) === undefined ? undefined : readFileSync(file, 'utf8');
}
