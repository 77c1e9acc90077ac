import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ESLint } from 'eslint';

const root = sourceRoot();

/** The folder of eslint.config.js: above this file, or where the tests are run. */
function sourceRoot(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); dirname(folder) !== folder; folder = dirname(folder))
    if (existsSync(join(folder, 'eslint.config.js'))) return folder;
  return process.cwd();
}

/** The rooms from the bottom up (design.md, "Layout"): a file imports from its own room and from lower levels, never from a neighbour. */
const levels: readonly (readonly string[])[] = [
  ['src/errors.ts', 'src/memory.ts', 'src/random.ts', 'src/processes.ts'],
  ['src/files', 'src/encoding'],
  ['src/space', 'src/data', 'src/plot'],
  ['src/graph'],
  ['src/cost'],
  ['src/checkpoint', 'src/tensorflow', 'src/onnx', 'src/tfgraph'],
  ['src/calibrate', 'src/bundle'],
  ['src/slice'],
  ['src/search'],
  ['src/train'],
  ['serve'],
  ['cli'],
];

/** What a server has no use for: it must not be needed, so that it need not be installed. */
const serveNever = ['src/train', 'src/tensorflow', ...[
  'augment', 'autoaugment', 'batches', 'calibrationCrops', 'cifar10', 'dataset', 'folder', 'folderIndex', 'folderIndexWorker', 'folderSplit',
  'imageOperations', 'loader', 'loaderWorker', 'openSplit', 'randomResizedCrop',
].map((name) => `src/data/${name}.ts`)];

const roomOf = (file: string): string => {
  const room = levels.flat().find((name) => file === name || file.startsWith(`${name}/`));
  assert.ok(room !== undefined, `${file} lies in no room that design.md knows: add it to the levels`);
  return room;
};
const levelOf = (room: string): number => levels.findIndex((rooms) => rooms.includes(room));

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    return entry.isDirectory() ? sources(path) : entry.name.endsWith('.ts') ? [path] : [];
  });
}

/** What a file imports from this package, dynamic imports and worker files included, as paths from the root. */
function importsOf(file: string, { types = true } = {}): string[] {
  const text = readFileSync(join(root, file), 'utf8');
  const form = /(?:^|\n)(?:import|export)\s(?!type\s)(?:[^;']*?from\s+)?'(\.[^']+)'|\bimport\('(\.[^']+)'\)|new URL\([`'](\.[^`']+\.js)[`'], import\.meta\.url\)/g;
  const typeForm = /(?:^|\n)(?:import|export)\s+type\s[^;]*?from\s+'(\.[^']+)'/g;
  return [...text.matchAll(form), ...(types ? text.matchAll(typeForm) : [])]
    .map((match) => match[1] ?? match[2] ?? match[3]!)
    .filter((path) => !path.includes('${'))
    .map((path) => relative(root, resolve(root, dirname(file), path)).split(sep).join('/').replace(/\.js$/, '.ts'));
}

test('imports point one way', () => {
  const wrong: string[] = [];
  let seen = 0;
  for (const file of ['src', 'serve', 'cli'].flatMap((folder) => sources(folder))) {
    const room = roomOf(file);
    for (const imported of importsOf(file)) {
      seen++;
      if (imported.startsWith('cli/') && room === 'cli') continue;
      const target = roomOf(imported);
      if (target !== room && levelOf(target) >= levelOf(room)) wrong.push(`${file} imports ${imported}`);
    }
  }
  assert.deepEqual(wrong, []);
  assert.ok(seen > 100, 'the imports are found');
});

test('a server needs nothing of training, directly or not', () => {
  const reached = new Map<string, string>();
  const visit = (file: string, from: string): void => {
    if (reached.has(file)) return;
    reached.set(file, from);
    // Types are gone when it runs.
    for (const imported of importsOf(file, { types: false })) visit(imported, file);
  };
  // Started only where TensorFlow is to compute: a file of its own, which nothing else loads.
  const tensorflow = 'serve/workers/tensorflow.ts';
  for (const file of [...sources('serve'), 'cli/bignas-serve.ts']) if (file !== tensorflow) visit(file, 'the server');
  assert.ok(!reached.has(tensorflow));
  const wrong = [...reached].filter(([file]) => serveNever.some((never) => file === never || file.startsWith(`${never}/`)));
  assert.deepEqual(wrong.map(([file, from]) => `${from} imports ${file}`), []);
  assert.ok(reached.has('src/onnx/engine.ts') && reached.has('src/data/images.ts'));
});

test('the rules of eslint.config.js hold', async () => {
  const eslint = new ESLint({ cwd: root });
  const results = await eslint.lintFiles(['src', 'serve', 'cli', 'test', 'bench'].filter((folder) => existsSync(join(root, folder)) && sources(folder).length > 0));
  const formatter = await eslint.loadFormatter('stylish');
  const report = await formatter.format(results);
  assert.equal(results.reduce((sum, { errorCount, warningCount }) => sum + errorCount + warningCount, 0), 0, report);
  assert.ok(results.length > 50);
});
