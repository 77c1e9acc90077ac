// One pinned wheel: fetched by pip, checked against its hash, unpacked.
import { createHash } from 'node:crypto';
import { createReadStream, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { filesUnder, remove, sizeOf } from './files.mjs';
import { SetupFailure, diskFull, isDiskFull, lastLines, run, say } from './process.mjs';

const PROGRESS_MS = 10_000;
const SHOW_INDEX = '`python3 -m pip config list` shows the package index and proxy in use';

/** Fails unless there is a Python with pip. */
export async function checkPip() {
  const { code, output, missing } = await run('python3', ['-m', 'pip', '--version']);
  if (missing) throw new SetupFailure("python3 is missing; its pip fetches TensorFlow's library.", 'apt-get install python3 python3-pip');
  if (code !== 0) throw new SetupFailure(`python3 has no pip, which fetches TensorFlow's library.\n${lastLines(output, 3)}`, 'apt-get install python3-pip');
}

/** Fetches a wheel and unpacks its members under `folder`, which holds nothing of it where this fails. */
export async function installWheel(wheel, folder) {
  const downloads = join(folder, 'download');
  mkdirSync(downloads);
  try {
    const file = await download(wheel, downloads);
    await checkHash(wheel, file);
    await unpack(wheel, file, folder);
  } finally {
    remove(downloads);
  }
}

async function download(wheel, folder) {
  const progress = setInterval(() => say(`  ${megabytesIn(folder)} MB so far`), PROGRESS_MS);
  // pip downloads to TMPDIR first, which is often a small memory disk.
  const env = { ...process.env, TMPDIR: folder };
  const { code, output } = await run('python3', pipArguments(wheel, folder), { env }).finally(() => clearInterval(progress));
  if (code !== 0) throw pipFailure(wheel, output, folder);
  const name = readdirSync(folder).find((name) => name.endsWith('.whl'));
  if (!name) throw new SetupFailure(`pip brought no wheel for ${wheel.name} ${wheel.version}.\n${lastLines(output)}`, SHOW_INDEX);
  return join(folder, name);
}

/** The wheel is named by Python version and platform, so that every Python's pip brings the same file. */
function pipArguments({ name, version, platform }, folder) {
  return [
    '-m', 'pip', 'download', '--disable-pip-version-check', '--no-input', '--no-cache-dir', '--no-deps', '--only-binary=:all:',
    '--python-version', '3.11', '--implementation', 'cp', '--abi', 'cp311', '--platform', platform, '--dest', folder, `${name}==${version}`,
  ];
}

function pipFailure({ name, version }, output, folder) {
  if (isDiskFull(output)) return diskFull(folder);
  const what = `${name} ${version} could not be downloaded`;
  if (/connection|timed? ?out|resolve|resolution|ProxyError|SSLError|unreachable/i.test(output)) {
    return new SetupFailure(`${what}: pip does not reach its package index.\n${lastLines(output)}`, `check the network (${SHOW_INDEX})`);
  }
  if (/No matching distribution/.test(output)) {
    return new SetupFailure(
      `${what}: pip's package index does not have it, or does not answer.\n${lastLines(output)}`,
      `use an index that has it (${SHOW_INDEX})`,
    );
  }
  return new SetupFailure(`${what}.\n${lastLines(output)}`, `mend what pip says (${SHOW_INDEX})`);
}

function megabytesIn(folder) {
  const bytes = filesUnder(folder).reduce((sum, file) => sum + (sizeOf(file) ?? 0), 0);
  return Math.round(bytes / 1e6);
}

async function checkHash({ name, version, sha256 }, file) {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), hash);
  const got = hash.digest('hex');
  if (got === sha256) return;
  throw new SetupFailure(
    `the downloaded ${name} ${version} is broken or not the pinned file: expected SHA-256 ${sha256}, got ${got}.`,
    `download it anew; if it stays the same, use another package index (${SHOW_INDEX})`,
  );
}

const UNPACK = `
import sys, zipfile
wheel, folder, *members = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
    for member in members:
        found = [name for name in names if name == member or member.endswith('/') and name.startswith(member)]
        if not found:
            sys.exit('the wheel has no ' + member)
        archive.extractall(folder, found)
`;

async function unpack({ name, version, members }, file, folder) {
  const { code, output } = await run('python3', ['-c', UNPACK, file, folder, ...members]);
  if (code === 0) return;
  if (isDiskFull(output)) throw diskFull(folder);
  throw new SetupFailure(`${name} ${version} could not be unpacked.\n${lastLines(output)}`, 'mend what python3 says');
}
