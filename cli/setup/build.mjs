// TypeScript to JavaScript: src, cli, serve, test and bench into dist.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { filesUnder, remove, writeAtomically } from './files.mjs';
import { withLock } from './lock.mjs';
import { SetupFailure, diskFull, isDiskFull, lastLines, run, say } from './process.mjs';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const FOLDERS = ['src', 'cli', 'serve', 'test', 'bench'];

/** Compiles what changed. An installed bignas (a package or an image, without sources) is compiled. */
export async function build({ root = ROOT } = {}) {
  if (!existsSync(join(root, 'tsconfig.json')) || isBuilt(root)) return;
  await withLock(join(root, 'dist', 'build.lock'), 'compiling', async () => {
    if (!isBuilt(root)) await compile(root);
  });
}

function sourcesOf(root) {
  return FOLDERS.flatMap((folder) => filesUnder(join(root, folder))).filter((file) => file.endsWith('.ts'));
}

function isBuilt(root) {
  const stamp = join(root, 'dist', '.bignas-stamp');
  const sources = sourcesOf(root);
  return existsSync(stamp) && readFileSync(stamp, 'utf8') === stampOf(root, sources) && isOutputWhole(root, sources);
}

function stampOf(root, sources) {
  const hash = createHash('sha256');
  for (const file of [join(root, 'tsconfig.json'), join(root, 'package-lock.json'), ...sources].sort()) {
    const { size, mtimeMs } = statSync(file);
    hash.update(`${relative(root, file)} ${size} ${mtimeMs}\n`);
  }
  return hash.digest('hex');
}

function isOutputWhole(root, sources) {
  return sources.every((file) => file.endsWith('.d.ts') || existsSync(outputOf(root, file)));
}

function outputOf(root, source) {
  return join(root, 'dist', relative(root, source).replace(/\.ts$/, '.js'));
}

async function compile(root) {
  const sources = sourcesOf(root);
  // Taken before compiling: a source that changes meanwhile makes the next build, not a stale one.
  const stamp = stampOf(root, sources);
  const record = join(root, 'dist', '.tsbuildinfo');
  const first = !existsSync(record);
  say(first ? 'TypeScript: compiling everything, about ten seconds; later builds compile what changed' : 'TypeScript: compiling what changed');
  removeStale(root, sources);
  // The compiler believes its record and does not look whether its output is still there.
  if (!isOutputWhole(root, sources)) remove(record);
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const { code, output } = await run(process.execPath, [tsc, '-p', 'tsconfig.json', '--pretty', 'false'], { cwd: root });
  if (isDiskFull(output)) throw diskFull(join(root, 'dist'));
  if (code !== 0) throw new SetupFailure(`TypeScript does not compile.\n${lastLines(output, 40)}`, 'correct these errors (`npm run build` shows them again)');
  writeAtomically(join(root, 'dist', '.bignas-stamp'), stamp);
}

/** Output of sources that are gone: a deleted test must not run on. */
function removeStale(root, sources) {
  const compiled = new Set(sources.map((file) => relative(root, file).replace(/\.ts$/, '')));
  for (const folder of FOLDERS) {
    for (const file of filesUnder(join(root, 'dist', folder))) {
      const path = relative(join(root, 'dist'), file);
      const hasSource = compiled.has(path.replace(/\.(js|js\.map|d\.ts|d\.ts\.map)$/, '')) || existsSync(join(root, path));
      if (!hasSource) remove(file);
    }
  }
}
