// The set-up scripts, run as they are run: in child processes, with small wheels and packages made here in place of the real ones.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, realpathSync, rmSync, statSync, symlinkSync, truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const SETUP = join(ROOT, 'cli', 'setup');
const PYTHON = execFileSync('python3', ['-c', 'import sys; print(sys.executable)'], { encoding: 'utf8' }).trim();
/** Python itself first: a version manager's stand-in for it takes a while at every call. */
const TOOLS = `${dirname(PYTHON)}:${process.env['PATH'] ?? ''}`;

let work = '';
before(() => {
  work = realpathSync(mkdtempSync(join(tmpdir(), 'bignas-setup-')));
});
after(() => rmSync(work, { recursive: true, force: true }));

interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** stdout and stderr */
  output: string;
  seconds: number;
}

interface Running {
  ended: Promise<Ended>;
  /** Waits until the program has printed this. */
  says: (text: string) => Promise<void>;
  kill: (signal: NodeJS.Signals) => void;
}

/** Runs `code`, an ES module with the set-up's exports in scope as `setup`, in a Node of its own. */
function startScript(code: string, env: Record<string, string> = {}): Running {
  const imports = `const setup = await import(${JSON.stringify(pathToFileURL(join(SETUP, 'steps.mjs')).href)});`;
  return start(['--input-type=module', '-e', imports + code], env);
}

function start(args: string[], env: Record<string, string>): Running {
  const clean: Record<string, string | undefined> = { ...process.env, ...env };
  for (const name of ['npm_execpath', 'NODE_TEST_CONTEXT', 'NODE_OPTIONS']) if (!(name in env)) delete clean[name];
  const began = performance.now();
  const child = spawn(process.execPath, args, { env: clean, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (chunk: string) => (output += chunk));
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code, signal, output, seconds: (performance.now() - began) / 1000 }));
  });
  const says = (text: string): Promise<void> => until(() => output.includes(text) || child.exitCode !== null);
  return { ended, says, kill: (signal) => child.kill(signal) };
}

function script(code: string, env?: Record<string, string>): Promise<Ended> {
  return startScript(code, env).ended;
}

async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; !condition(); tries++) {
    assert.ok(tries < 200, 'waited ten seconds in vain');
    await sleep(50);
  }
}

/** A folder to put in PATH, holding shell scripts by name. */
function tools(name: string, scripts: Record<string, string>): string {
  const folder = join(work, name);
  mkdirSync(folder, { recursive: true });
  for (const [tool, body] of Object.entries(scripts)) {
    writeFileSync(join(folder, tool), `#!/bin/sh\n${body}\n`);
    chmodSync(join(folder, tool), 0o755);
  }
  return folder;
}

describe('Node version', () => {
  it('takes 20.10 to 22 and names the mend for every other', async () => {
    const verdicts = await script(`
      const { isSupportedNode } = await import(${JSON.stringify(pathToFileURL(join(SETUP, 'nodeVersion.mjs')).href)});
      console.log(['18.20.0', '20.9.0', '20.10.0', '22.22.1', '23.0.0', '24.1.0'].map(isSupportedNode).join());`);
    assert.equal(verdicts.output.trim(), 'false,false,true,true,false,false');
    const refused = await script(`setup.checkNode('23.1.0');`);
    assert.equal(refused.code, 1);
    assert.match(refused.output, /needs Node >=20\.10 <23, and this is Node 23\.1\.0[^]*nvm install 22/);
  });
});

interface Wheel {
  name: string;
  version: string;
  platform: string;
  sha256: string;
  members: string[];
  libraries: string[];
}

/** A shared library of one C++ source, under its own name as soname. */
function library(folder: string, path: string, source: string): void {
  const file = join(folder, path);
  const soname = path.slice(path.lastIndexOf('/') + 1);
  mkdirSync(dirname(file), { recursive: true });
  execFileSync('g++', ['-shared', '-fPIC', '-x', 'c++', '-', '-o', file, `-Wl,-soname,${soname}`], { input: source });
}

const MAKE_WHEEL = `
import os, sys, zipfile
content, wheel, name, version = sys.argv[1:]
with zipfile.ZipFile(wheel, 'w') as archive:
    for folder, _, files in os.walk(content):
        for file in files:
            path = os.path.join(folder, file)
            archive.write(path, os.path.relpath(path, content))
    info = f"{name.replace('-', '_')}-{version}.dist-info/"
    archive.writestr(info + 'METADATA', f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n')
    archive.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: false\\nTag: cp311-cp311-manylinux_2_27_x86_64\\n')
    archive.writestr(info + 'RECORD', '')
`;

/** Puts a wheel into the folder that pip looks in. */
function wheel(name: string, content: string, libraries: string[], members: string[]): Wheel {
  const [version, platform] = ['2.21.0', 'manylinux_2_27_x86_64'];
  const file = join(work, 'wheels', `${name.replaceAll('-', '_')}-${version}-cp311-cp311-${platform}.whl`);
  mkdirSync(dirname(file), { recursive: true });
  execFileSync('python3', ['-c', MAKE_WHEEL, content, file, name, version]);
  const sha256 = createHash('sha256').update(readFileSync(file)).digest('hex');
  return { name, version, platform, sha256, members: [...members, ...libraries], libraries };
}

const ADDON = `
#include <node_api.h>
#include "tensorflow/c/c_api.h"
NAPI_MODULE_INIT() {
  napi_value version;
  napi_create_string_utf8(env, TF_Version(), NAPI_AUTO_LENGTH, &version);
  napi_set_named_property(env, exports, "TF_Version", version);
  return exports;
}`;

/** As TensorFlow does, it opens a CUDA library by its bare name. */
const OPENS_CUDA = `
#include <dlfcn.h>
extern "C" const char* TF_Version() { return dlopen("libcudart.so.12", RTLD_LAZY) ? "cuda-build" : "cuda-build-without-cuda"; }`;

describe('TensorFlow engine', () => {
  let cpu: Wheel;
  let cuda: Wheel[];
  let project = '';
  let count = 0;
  /** A cache with the engine in it, and how that went. */
  let warm = '';
  let first: Ended;

  before(async () => {
    const tensorflow = (folder: string, source: string): string => {
      library(folder, 'tensorflow/libtensorflow_cc.so.2', source);
      library(folder, 'tensorflow/libtensorflow_framework.so.2', '');
      mkdirSync(join(folder, 'tensorflow/include/tensorflow/c'), { recursive: true });
      writeFileSync(join(folder, 'tensorflow/include/tensorflow/c/c_api.h'), 'extern "C" const char* TF_Version();');
      return folder;
    };
    const libraries = ['tensorflow/libtensorflow_cc.so.2', 'tensorflow/libtensorflow_framework.so.2'];
    const headers = ['tensorflow/include/tensorflow/c/'];
    cpu = wheel('tensorflow-cpu', tensorflow(join(work, 'cpu'), 'extern "C" const char* TF_Version() { return "cpu-build"; }'), libraries, headers);
    const runtime = 'nvidia/cuda_runtime/lib/libcudart.so.12';
    library(join(work, 'runtime'), runtime, '');
    cuda = [
      wheel('nvidia-cuda-runtime-cu12', join(work, 'runtime'), [runtime], []),
      wheel('tensorflow', tensorflow(join(work, 'cuda'), OPENS_CUDA), libraries, headers),
    ];
    project = join(work, 'project');
    const npmPackage = join(project, 'node_modules/@tensorflow/tfjs-node-gpu');
    mkdirSync(join(npmPackage, 'binding'), { recursive: true });
    writeFileSync(join(project, 'package.json'), '{}');
    cpSync(join(ROOT, 'node_modules/@tensorflow/tfjs-node-gpu/package.json'), join(npmPackage, 'package.json'));
    writeFileSync(join(npmPackage, 'binding/tfjs_binding.cc'), ADDON);
    writeFileSync(join(npmPackage, 'binding/tfjs_backend.cc'), '');
    mkdirSync(join(project, 'src/tensorflow/native'), { recursive: true });
    writeFileSync(join(project, 'src/tensorflow/native/kernels.cc'), '');
    symlinkSync(join(ROOT, 'node_modules/node-api-headers'), join(project, 'node_modules/node-api-headers'));
    warm = newCache();
    first = await engine({ cache: warm });
  });

  interface Trial {
    cache?: string;
    wheels?: Wheel[];
    variant?: 'cpu' | 'cuda';
    path?: string;
    free?: number;
    env?: Record<string, string>;
  }

  function newCache(): string {
    return join(work, `cache-${count++}`);
  }

  function startEngine({ cache = newCache(), wheels, variant, path = TOOLS, free, env }: Trial): Running {
    const engine = (pinned: Wheel[]): object => ({ download: 1e6, peak: 1e6, wheels: pinned });
    const engines = { [`cpu-${process.arch}`]: engine(wheels ?? [cpu]), [`cuda-${process.arch}`]: engine(cuda) };
    const options = JSON.stringify({ cache, root: project, engines, variant });
    const freeBytes = free === undefined ? '' : `, freeBytes: () => ${free}`;
    return startScript(`await setup.setUp(() => setup.engine({ ...${options}${freeBytes} }));`, {
      PATH: path, PIP_CONFIG_FILE: '/dev/null', PIP_NO_INDEX: '1', PIP_FIND_LINKS: join(work, 'wheels'), ...env,
    });
  }

  function engine(trial: Trial): Promise<Ended> {
    return startEngine(trial).ended;
  }

  /** What the addon in the project's node_modules answers. */
  function placed(): string {
    const file = join(project, 'node_modules/@tensorflow/tfjs-node-gpu/lib/napi-v8/tfjs_binding.node');
    const code = 'const addon = { exports: {} }; process.dlopen(addon, process.argv[1]); console.log(addon.exports.TF_Version)';
    return execFileSync(process.execPath, ['-e', code, file], { encoding: 'utf8' }).trim();
  }

  function assertFailed({ code, output }: Ended, what: RegExp, mend: RegExp): void {
    assert.equal(code, 1, output);
    assert.match(output, what);
    assert.match(output.slice(output.indexOf('To mend it:')), mend);
  }

  /** Nothing of a failed set-up stays. */
  function assertEmpty(cache: string): void {
    assert.deepEqual(existsSync(cache) ? readdirSync(cache) : [], []);
  }

  it('installs, and does nothing the second time', async () => {
    assert.equal(first.code, 0, first.output);
    assert.match(first.output, /downloading its library[^]*compiling[^]*cpu-build loads/);
    assert.equal(placed(), 'cpu-build');
    assert.deepEqual(readdirSync(warm), [`tensorflow-2.21.0-cpu-${process.arch}`]);
    const second = await engine({ cache: warm, path: '/nonexistent' });
    assert.deepEqual([second.code, second.output], [0, '']);
    assert.ok(second.seconds < 2, `took ${second.seconds} s`);
  });

  it('places the addon anew from the cache after npm ci, without tools', async () => {
    rmSync(join(project, 'node_modules/@tensorflow/tfjs-node-gpu/lib'), { recursive: true });
    const again = await engine({ cache: warm, path: '/nonexistent' });
    assert.equal(again.code, 0, again.output);
    assert.equal(placed(), 'cpu-build');
  });

  it('repairs an engine that lost a part of a library', async () => {
    const file = join(warm, `tensorflow-2.21.0-cpu-${process.arch}/tensorflow/libtensorflow_framework.so.2`);
    const { size } = statSync(file);
    truncateSync(file, 100);
    const repaired = await engine({ cache: warm });
    assert.equal(repaired.code, 0, repaired.output);
    assert.match(repaired.output, /downloading/);
    assert.equal(statSync(file).size, size);
  });

  it('repairs an engine of which a power cut left files empty', async () => {
    const folder = join(warm, `tensorflow-2.21.0-cpu-${process.arch}`);
    for (const ending of ['.node', '.json']) {
      truncateSync(join(folder, readdirSync(folder).find((name) => name.endsWith(ending))!));
      const repaired = await engine({ cache: warm });
      assert.equal(repaired.code, 0, repaired.output);
      assert.equal(placed(), 'cpu-build');
    }
  });

  it('finds the CUDA libraries of its cache, and stays with the build last asked for', async () => {
    const cache = newCache();
    const gpu = await engine({ cache, variant: 'cuda' });
    assert.equal(gpu.code, 0, gpu.output);
    assert.equal(placed(), 'cuda-build');
    assert.equal((await engine({ cache })).code, 0);
    assert.equal(placed(), 'cuda-build');
    assert.equal((await engine({ cache, variant: 'cpu' })).code, 0);
    assert.equal(placed(), 'cpu-build');
    assert.equal((await engine({ cache })).output, '');
  });

  it('names the mend where Python, pip or g++ is missing, before it downloads', async () => {
    const cache = newCache();
    const none = await engine({ cache, path: '/nonexistent' });
    assertFailed(none, /python3 is missing/, /apt-get install python3 python3-pip/);
    const bare = tools('no-pip', { python3: `exec '${PYTHON}' -I -S "$@"` });
    assertFailed(await engine({ cache, path: bare }), /has no pip/, /apt-get install python3-pip/);
    const python = tools('no-compiler', { python3: `exec '${PYTHON}' "$@"` });
    const noCompiler = await engine({ cache, path: python });
    assertFailed(noCompiler, /g\+\+ does not run/, /apt-get install g\+\+/);
    assert.doesNotMatch(noCompiler.output, /downloading/);
    assertEmpty(cache);
  });

  it('asks for space before it downloads, and says so when it runs out on the way', async () => {
    const cache = newCache();
    const little = await engine({ cache, free: 999_999 });
    assertFailed(little, /needs 0\.0 GB while it is installed/, /free some space there, or set BIGNAS_CACHE/);
    assert.doesNotMatch(little.output, /downloading/);
    const full = tools('full-disk', {
      python3: `[ "$1" = -c ] && { echo "OSError: [Errno 28] No space left on device" >&2; exit 1; }\nexec '${PYTHON}' "$@"`,
    });
    assertFailed(await engine({ cache, path: `${full}:${TOOLS}` }), /the disk is full at/, /free some space there/);
    assertEmpty(cache);
  });

  it('refuses a wheel with another hash or without a library', async () => {
    const cache = newCache();
    const wrong = '0'.repeat(64);
    const other = await engine({ cache, wheels: [{ ...cpu, sha256: wrong }] });
    assertFailed(other, new RegExp(`expected SHA-256 ${wrong}, got ${cpu.sha256}`), /download it anew/);
    assertEmpty(cache);
    const lacking = await engine({ cache, wheels: [{ ...cpu, members: ['tensorflow/absent.so'] }] });
    assertFailed(lacking, /could not be unpacked[^]*the wheel has no tensorflow\/absent\.so/, /python3/);
    assertEmpty(cache);
  });

  it('tells an index that is out of reach from one that lacks the wheel', async () => {
    const cache = newCache();
    const lacking = await engine({ cache, env: { PIP_FIND_LINKS: join(work, 'cpu') } });
    assertFailed(lacking, /does not have it, or does not answer/, /pip config list/);
    const refused = { PIP_NO_INDEX: '0', PIP_FIND_LINKS: join(work, 'cpu'), PIP_INDEX_URL: 'http://127.0.0.1:9/', PIP_RETRIES: '1' };
    assertFailed(await engine({ cache, env: refused }), /does not reach its package index/, /check the network/);
    assertEmpty(cache);
  });

  it('says what the compiler and the loader say', async () => {
    const cache = newCache();
    const broken = tools('broken-compiler', { 'g++': '[ "$1" = --version ] && exit 0\necho "fatal error: no such header"; exit 1' });
    assertFailed(await engine({ cache, path: `${broken}:${TOOLS}` }), /could not build[^]*no such header/, /apt-get install g\+\+/);
    const useless = tools('useless-compiler', { 'g++': 'for last; do :; done\n[ "$1" = --version ] || echo nothing >"$last"' });
    assertFailed(await engine({ cache, path: `${useless}:${TOOLS}` }), /does not load on this machine/, /use Docker/);
    const whole = await engine({ cache });
    assert.equal(whole.code, 0, whole.output);
    assert.doesNotMatch(whole.output, /downloading/);
  });

  /** A Python whose pip writes half a wheel into the download folder and then hangs, in the very process that was started. */
  function hangingPip(): string {
    const body = `[ "$3" = download ] || exec '${PYTHON}' "$@"\necho half >"$TMPDIR/half"\nexec sleep 60`;
    return `${tools('hanging', { python3: body })}:${TOOLS}`;
  }

  function halfDownloads(cache: string): string[] {
    if (!existsSync(cache)) return [];
    return readdirSync(cache).filter((name) => existsSync(join(cache, name, 'download', 'half')));
  }

  it('recovers from a set-up that was killed half-way, and leaves nothing of it', async () => {
    const cache = newCache();
    const killed = startEngine({ cache, path: hangingPip() });
    await until(() => halfDownloads(cache).length === 1);
    killed.kill('SIGKILL');
    assert.equal((await killed.ended).signal, 'SIGKILL');
    const next = await engine({ cache });
    assert.equal(next.code, 0, next.output);
    assert.deepEqual(readdirSync(cache), [`tensorflow-2.21.0-cpu-${process.arch}`]);
  });

  it('cleans up when it is told to stop, and ends as the signal says', async () => {
    const cache = newCache();
    const stopped = startEngine({ cache, path: hangingPip() });
    await until(() => halfDownloads(cache).length === 1);
    stopped.kill('SIGTERM');
    assert.equal((await stopped.ended).code, 143);
    assertEmpty(cache);
  });

  it('does the work once when two set-ups run at once', async () => {
    const cache = newCache();
    const log = join(work, 'pip-calls');
    const counting = tools('counting', { python3: `[ "$3" = download ] && { echo >>'${log}'; sleep 1; }\nexec '${PYTHON}' "$@"` });
    const path = `${counting}:${TOOLS}`;
    const both = await Promise.all([engine({ cache, path }), engine({ cache, path })]);
    assert.deepEqual(both.map(({ code }) => code), [0, 0], both.map(({ output }) => output).join('\n'));
    assert.equal(readFileSync(log, 'utf8'), '\n');
    assert.match(both.map(({ output }) => output).join(''), /another process \(\d+\) is setting up TensorFlow; waiting for it/);
    assert.equal(placed(), 'cpu-build');
  });

  it('puts the addon where the npm package looks for it', async () => {
    const { output } = await script(`
      const { planAddon } = await import(${JSON.stringify(pathToFileURL(join(SETUP, 'addon.mjs')).href)});
      const { createRequire } = await import('node:module');
      const require = createRequire(${JSON.stringify(join(ROOT, 'package.json'))});
      const packageFile = require.resolve('@tensorflow/tfjs-node-gpu/package.json');
      const looks = createRequire(packageFile)('@mapbox/node-pre-gyp').find(packageFile);
      console.log(looks === planAddon(${JSON.stringify(ROOT)}, '/engine', []).place);`);
    assert.equal(output.trim(), 'true');
  });
});

describe('npm packages', () => {
  let project = '';
  let calls = '';

  before(() => {
    project = join(work, 'packages');
    calls = join(work, 'npm-calls');
    mkdirSync(project);
    writeFileSync(join(project, 'tsconfig.json'), '{}');
    writeFileSync(join(project, 'package.json'), '{}');
    lock('1.0.0');
  });

  function lock(version: string): void {
    writeFileSync(join(project, 'package-lock.json'), JSON.stringify({ packages: { '': {}, 'node_modules/a': { version } } }));
  }

  function npmPackages(path: string): Promise<Ended> {
    return script(`await setup.setUp(() => setup.npmPackages({ root: ${JSON.stringify(project)} }));`, { PATH: path });
  }

  it('names the mend where npm is missing or fails', async () => {
    const missing = await npmPackages('/nonexistent');
    assert.match(missing.output, /npm is missing[^]*apt-get install npm/);
    const failures: [string, RegExp][] = [
      ['npm error code ENOTFOUND', /does not reach its registry[^]*check the network/],
      ['npm error code ENOSPC', /disk is full[^]*free some space/],
      ['npm error code EUSAGE', /disagree[^]*npm install/],
      ['npm error code ODD', /npm ci failed[^]*ODD[^]*what npm says/],
    ];
    for (const [says, answer] of failures) {
      const failed = await npmPackages(tools('failing-npm', { npm: `echo '${says}'; exit 1` }));
      assert.equal(failed.code, 1);
      assert.match(failed.output, answer);
    }
    assert.equal(existsSync(join(project, 'node_modules')), false);
  });

  it('runs npm ci once for each package-lock.json', async () => {
    const npm = tools('npm', { npm: `echo "$@" >>'${calls}'` });
    for (const version of ['1.0.0', '1.0.0', '1.0.1', '1.0.1']) {
      lock(version);
      const { code, output } = await npmPackages(npm);
      assert.equal(code, 0, output);
    }
    assert.equal(readFileSync(calls, 'utf8'), 'ci --include=dev\n'.repeat(2));
  });

  it('takes an install that was made by hand, if it is what package-lock.json says', async () => {
    const installed = join(project, 'node_modules', '.package-lock.json');
    lock('2.0.0');
    writeFileSync(installed, JSON.stringify({ packages: { 'node_modules/a': { version: '1.0.1' } } }));
    assert.match((await npmPackages('/nonexistent')).output, /npm is missing/);
    writeFileSync(installed, JSON.stringify({ packages: { 'node_modules/a': { version: '2.0.0' } } }));
    assert.equal((await npmPackages('/nonexistent')).output, '');
  });
});

describe('build', () => {
  let project = '';

  before(() => {
    project = join(work, 'build');
    mkdirSync(join(project, 'src'), { recursive: true });
    mkdirSync(join(project, 'test'));
    symlinkSync(join(ROOT, 'node_modules'), join(project, 'node_modules'));
    writeFileSync(join(project, 'package.json'), '{ "type": "module" }');
    writeFileSync(join(project, 'package-lock.json'), '{}');
    const { compilerOptions } = JSON.parse(readFileSync(join(ROOT, 'tsconfig.json'), 'utf8')) as { compilerOptions: object };
    writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions: { ...compilerOptions, types: [] }, include: ['src', 'test'] }));
    writeFileSync(join(project, 'src/one.ts'), 'export const one: number = 1;');
    writeFileSync(join(project, 'test/one.test.ts'), "export { one } from '../src/one.js';");
  });

  function build(): Promise<Ended> {
    return script(`await setup.setUp(() => setup.build({ root: ${JSON.stringify(project)} }));`);
  }

  function output(path: string): boolean {
    return existsSync(join(project, 'dist', path));
  }

  it('compiles once, also when two builds run at once', async () => {
    const both = await Promise.all([build(), build()]);
    assert.deepEqual(both.map(({ code }) => code), [0, 0], both.map((one) => one.output).join('\n'));
    assert.equal(both.filter((one) => one.output.includes('compiling everything')).length, 1);
    assert.ok(output('src/one.js') && output('test/one.test.js'));
    const again = await build();
    assert.deepEqual([again.code, again.output], [0, '']);
    assert.ok(again.seconds < 2, `took ${again.seconds} s`);
  });

  it('compiles again what was lost, and removes the output of what was deleted', async () => {
    rmSync(join(project, 'dist/src'), { recursive: true });
    rmSync(join(project, 'test/one.test.ts'));
    assert.equal((await build()).code, 0);
    assert.ok(output('src/one.js'));
    assert.deepEqual(readdirSync(join(project, 'dist/test')), []);
  });

  it('prints the errors of the compiler, until they are corrected', async () => {
    const file = join(project, 'src/one.ts');
    writeFileSync(file, "export const one: number = 'one';");
    for (let time = 0; time < 2; time++) {
      const failed = await build();
      assert.equal(failed.code, 1);
      assert.match(failed.output, /src\/one\.ts\(1,14\): error TS2322[^]*To mend it: correct these errors/);
    }
    writeFileSync(file, 'export const one: number = 11;');
    assert.equal((await build()).code, 0);
    assert.match(readFileSync(join(project, 'dist/src/one.js'), 'utf8'), /11/);
  });
});

describe('entry points', () => {
  let installed = '';

  /** As in an image or an npm package: compiled, without sources. */
  before(() => {
    installed = join(work, 'installed');
    cpSync(SETUP, join(installed, 'cli/setup'), { recursive: true });
    mkdirSync(join(installed, 'dist/cli'), { recursive: true });
    writeFileSync(join(installed, 'package.json'), '{ "type": "module" }');
    writeFileSync(
      join(installed, 'dist/cli/bignas-serve.js'),
      `process.on('SIGTERM', () => process.exit(7));
       setInterval(() => {}, 1000);
       console.log('listening', process.argv.slice(2).join(' '), process.argv[1].endsWith('dist/cli/bignas-serve.js'));`,
    );
  });

  it('npm start hands arguments and signals to the server, and its exit code on', async () => {
    const server = start([join(installed, 'cli/setup/start.mjs'), '--port', '0'], { PATH: '/nonexistent' });
    await server.says('listening');
    server.kill('SIGTERM');
    const { code, output } = await server.ended;
    assert.equal(output.trim(), 'listening --port 0 true');
    assert.equal(code, 7);
  });

  it('a program that is run in our place gets our signals, and its end is ours', async () => {
    const exits = await script(`setup.become(['-e', 'process.exit(3)'], {});`);
    assert.equal(exits.code, 3);
    const killed = await script(`setup.become(['-e', 'process.kill(process.pid, "SIGKILL")'], {});`);
    assert.equal(killed.code, 137);
    const waits = startScript(`setup.become(['-e', 'process.on("SIGTERM", () => process.exit(9)); setInterval(() => {}, 1000); console.log("ready")'], {});`);
    await waits.says('ready');
    waits.kill('SIGTERM');
    assert.equal((await waits.ended).code, 9);
  });

  it('keeps the environment that is set already', async () => {
    const { output } = await script(`setup.become(['-e', 'console.log(process.env.A, process.env.B)'], { A: 'ours', B: 'ours' });`, { A: 'theirs' });
    assert.equal(output.trim(), 'theirs ours');
  });

  it('an unknown option is an error', async () => {
    for (const name of ['engine.mjs', 'test.mjs']) {
      const { code, output } = await start([join(SETUP, name), '--fast'], {}).ended;
      assert.equal(code, 1);
      assert.match(output, /--fast[^]*To mend it: leave/);
    }
  });
});
