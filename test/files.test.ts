import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { removeLeftovers, writeFolderAtomic } from '../src/files/atomic.js';
import { alone } from '../src/files/lock.js';

const root = mkdtempSync(join(tmpdir(), 'bignas-files-'));
after(() => rmSync(root, { recursive: true, force: true }));

test('of several that find the lock of a process that is gone one goes on; a lock that names nobody is no lock', async () => {
  const place = join(root, 'locked');
  await mkdir(place);
  const script = `
    const { alone } = await import(${JSON.stringify(new URL('../src/files/lock.js', import.meta.url).href)});
    const input = new Promise((resolve) => process.stdin.once('end', resolve));
    process.stdin.once('data', () => alone(${JSON.stringify(place)}, 'trains', () => { console.log('in'); return input; }).catch((error) => console.log(error.code)));
    console.log('there');`;
  for (let round = 0; round < 6; round++) {
    await writeFile(join(place, 'lock'), `4194303 ${hostname()}\n`);
    const processes = [0, 1, 2].map(() => spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['pipe', 'pipe', 'inherit'] }));
    const lines = processes.map(({ stdout }) => createInterface({ input: stdout })[Symbol.asyncIterator]());
    await Promise.all(lines.map((line) => line.next()));
    for (const { stdin } of processes) stdin.write('go');
    const said = await Promise.all(lines.map(async (line) => (await line.next()).value as string));
    for (const { stdin } of processes) stdin.end();
    assert.deepEqual(said.sort(), ['OPTION_INVALID', 'OPTION_INVALID', 'in']);
    await Promise.all(processes.map((child) => once(child, 'close')));
  }
  await writeFile(join(place, 'lock'), '');
  assert.equal(await alone(place, 'trains', () => Promise.resolve('in')), 'in');
  assert.deepEqual(await readdir(place), []);
});

test('a folder that cannot be put in place leaves the old one there', async () => {
  const folder = join(root, 'folder');
  await writeFolderAtomic(folder, new Map([['a', 'old']]));
  const fs = createRequire(import.meta.url)('node:fs/promises') as { rename: (from: string, to: string) => Promise<void> };
  const { rename } = fs;
  fs.rename = (from, to) => (/partial-\d+$/.test(from) ? Promise.reject(new Error('EIO')) : rename(from, to));
  syncBuiltinESMExports();
  try {
    await assert.rejects(writeFolderAtomic(folder, new Map([['a', 'new']])), /EIO/);
  } finally {
    fs.rename = rename;
    syncBuiltinESMExports();
  }
  assert.equal(readFileSync(join(folder, 'a'), 'utf8'), 'old');
  assert.deepEqual(readdirSync(root).filter((name) => name.startsWith('.')), []);
});

test('what killed writers left goes; a folder whose successor was not put in its place is there again', async () => {
  const place = join(root, 'leftovers');
  for (const name of ['.lost.partial-old-17', '.lost.partial-17', '.kept.partial-old-17', 'kept', '.file.partial-0b-1']) {
    await mkdir(join(place, name), { recursive: true });
    await writeFile(join(place, name, 'name'), name);
  }
  await removeLeftovers(place);
  assert.deepEqual((await readdir(place)).sort(), ['kept', 'lost']);
  assert.equal(readFileSync(join(place, 'lost', 'name'), 'utf8'), '.lost.partial-old-17');
  assert.equal(readFileSync(join(place, 'kept', 'name'), 'utf8'), 'kept');
});
