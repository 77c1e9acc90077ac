// The Node addon of @tensorflow/tfjs-node-gpu: built from the npm package's own sources, tried, and put where the package looks.
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, renameSync, statSync, utimesSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { remove, removeLeftovers, temporaryBeside } from './files.mjs';
import { SetupFailure, diskFull, isDiskFull, lastLines, run, say } from './process.mjs';

/** The mend for a machine that TensorFlow's builds are not made for. */
export const USE_DOCKER = `use Docker: docker run --rm -it -v "$PWD":/bignas -w /bignas node:20 bash -c 'apt-get update && apt-get install -y python3-pip && npm test'`;

/** Where the addon's sources are, what it is linked to, and where it goes. @param {string} folder the engine's */
export function planAddon(root, folder, wheels) {
  const require = createRequire(join(root, 'package.json'));
  const packageFile = resolvePackage(require, '@tensorflow/tfjs-node-gpu');
  const { version, binary } = JSON.parse(readFileSync(packageFile, 'utf8'));
  const napi = napiVersion(binary.napi_versions);
  const libraries = wheels.flatMap((wheel) => wheel.libraries).map((library) => join(folder, library));
  const flags = [
    // The kernels' loops become vector code for this machine's processor; no flag lets the compiler reorder a sum.
    '-std=c++17', '-O3', '-march=native', '-fno-math-errno', '-fno-trapping-math', '-pthread', '-fPIC', '-shared', `-DNAPI_VERSION=${napi}`,
    '-Wl,--no-as-needed', ...libraries, ...new Set(libraries.map((library) => `-Wl,-rpath,${dirname(library)}`)),
  ];
  const kernels = kernelFiles(join(root, 'src', 'tensorflow', 'native'));
  // The built addon is kept by all that it depends on, so an old one is never taken for a new one.
  const digest = createHash('sha256').update([...flags, cpus()[0]?.model].join('\n'));
  for (const file of kernels) digest.update(readFileSync(file));
  return {
    flags,
    gpu: libraries.some((library) => library.includes('libcudart')),
    sources: [
      ...['tfjs_backend.cc', 'tfjs_binding.cc'].map((name) => join(dirname(packageFile), 'binding', name)),
      ...kernels.filter((file) => file.endsWith('.cc')),
    ],
    headers: [join(dirname(resolvePackage(require, 'node-api-headers')), 'include'), join(folder, 'tensorflow', 'include')],
    built: join(folder, `tfjs-${version}-napi-v${napi}-${digest.digest('hex').slice(0, 8)}.node`),
    place: join(dirname(packageFile), binary.module_path.replace('{napi_build_version}', napi), `${binary.module_name}.node`),
  };
}

/** Our own TensorFlow kernels, which register themselves when the addon loads. Without them the addon does without. */
function kernelFiles(folder) {
  return existsSync(folder) ? readdirSync(folder).sort().map((name) => join(folder, name)) : [];
}

function resolvePackage(require, name) {
  try {
    return require.resolve(`${name}/package.json`);
  } catch {
    throw new SetupFailure(`the npm package ${name} is not installed.`, 'npm ci');
  }
}

/** The highest Node-API version that both the npm package and this Node have: the package looks in the folder of that name. */
export function napiVersion(offered, supported = Number(process.versions.napi)) {
  return Math.max(...offered.filter((version) => version <= supported));
}

export function isAddonBuilt({ built }) {
  return Boolean(statSync(built, { throwIfNoEntry: false })?.size); // a machine whose power goes may leave it empty
}

/** Size and time tell the addon of one engine from another's, and from one that was built by other means. */
export function isAddonPlaced({ built, place }) {
  const [ours, theirs] = [built, place].map((file) => statSync(file, { throwIfNoEntry: false }));
  return Boolean(ours && theirs) && ours.size === theirs.size && Math.round(ours.mtimeMs) === Math.round(theirs.mtimeMs);
}

/** Fails unless there is a C++ compiler. */
export async function checkCompiler() {
  const { code, output } = await run('g++', ['--version']);
  if (code === 0) return;
  throw new SetupFailure(`g++ does not run, and TensorFlow's Node addon is built with it.\n${lastLines(output, 3)}`, 'apt-get install g++');
}

export async function buildAddon(addon) {
  say("TensorFlow: compiling the Node addon and the kernels in it, about fifteen seconds");
  removeLeftovers(addon.built);
  const temporary = temporaryBeside(addon.built);
  try {
    await compile(addon, temporary);
    await tryAddon(temporary, addon.gpu);
    renameSync(temporary, addon.built);
  } finally {
    remove(temporary);
  }
}

async function compile({ flags, sources, headers }, output) {
  const compiler = await run('g++', [...sources, ...headers.map((folder) => `-I${folder}`), ...flags, '-o', output]);
  if (compiler.code === 0) return;
  if (isDiskFull(compiler.output)) throw diskFull(`${output} or the folder for temporary files`);
  throw new SetupFailure(`g++ could not build TensorFlow's Node addon.\n${lastLines(compiler.output)}`, 'apt-get install g++ (version 8 or later)');
}

/** In a process of its own: a library that does not fit this machine may end the process that loads it. */
const LOAD = `
  const addon = { exports: {} };
  process.dlopen(addon, process.argv[1]);
  console.log('TensorFlow ' + addon.exports.TF_Version + ' ' + (addon.exports.isUsingGpuDevice?.() ? 'sees' : 'misses') + ' a GPU');
`;

async function tryAddon(file, gpu) {
  const env = { ...process.env, TF_CPP_MIN_LOG_LEVEL: gpu ? '0' : '2' };
  const { code, output } = await run(process.execPath, ['-e', LOAD, file], { env });
  const [, version, sees] = /^TensorFlow (\S+) (sees|misses) a GPU$/m.exec(output) ?? [];
  if (code !== 0 || !version) throw new SetupFailure(`TensorFlow's library does not load on this machine.\n${lastLines(output)}`, USE_DOCKER);
  if (gpu && sees === 'misses') say(`TensorFlow sees no GPU and will compute on the CPU (does nvidia-smi show one?):\n${lastLines(output)}`);
  say(`TensorFlow: version ${version} loads`);
}

export function placeAddon({ built, place }) {
  mkdirSync(dirname(place), { recursive: true });
  const temporary = temporaryBeside(place);
  try {
    copyFileSync(built, temporary);
    const { mtime } = statSync(built);
    utimesSync(temporary, mtime, mtime);
    renameSync(temporary, place);
  } finally {
    remove(temporary);
  }
}
