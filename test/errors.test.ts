import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { errorCatalogue, shown } from '../src/errors.js';

function sourceRoot(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); dirname(folder) !== folder; folder = dirname(folder))
    if (existsSync(join(folder, 'docs', 'errors.md'))) return folder;
  return process.cwd();
}

const root = sourceRoot();
const page = readFileSync(join(root, 'docs', 'errors.md'), 'utf8');

/** The page's sections: a heading with the code, the status, and text. */
const sections = new Map(
  page
    .split(/^### /m)
    .slice(1)
    .map((section) => {
      const [heading, ...rest] = section.split('\n');
      return [heading!.trim(), rest.join('\n')];
    }),
);

test('docs/errors.md has every code, in the order of the catalogue, and no other', () => {
  assert.deepEqual([...sections.keys()], Object.keys(errorCatalogue));
});

test('each section has the status and title of the catalogue, and says how it is mended', () => {
  for (const [code, { status, title }] of Object.entries(errorCatalogue)) {
    const section = sections.get(code)!;
    assert.ok(section.trim().startsWith(`**${status}** · ${title}.`), `${code}: expected its section to begin with "**${status}** · ${title}."`);
    assert.match(section, /\*Mend:\* \S/, code);
  }
});

test('every code of the catalogue is used, and every code that is used is in it', () => {
  const files = ['src', 'serve', 'cli'].flatMap((folder) => sources(join(root, folder))).filter((file) => !file.endsWith(join('src', 'errors.ts')));
  const text = files.map((file) => readFileSync(file, 'utf8')).join('\n');
  const unused = Object.keys(errorCatalogue).filter((code) => !text.includes(`'${code}'`));
  assert.deepEqual(unused, []);
});

test('a value in a message is short, whatever it is', () => {
  assert.equal(shown('abc'), '`abc`');
  assert.equal(shown(undefined), 'undefined');
  assert.equal(shown({ a: 1 }), '{"a":1}');
  assert.ok(shown('x'.repeat(10_000)).length <= 120);
});

function sources(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? sources(path) : entry.name.endsWith('.ts') ? [path] : [];
  });
}
