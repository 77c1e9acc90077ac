import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { calibrationCrops } from '../src/data/calibrationCrops.js';
import type { Dataset, FolderSource, Split } from '../src/data/dataset.js';
import { loadFolder, membersOf } from '../src/data/folder.js';
import { pathAt, type FolderIndex } from '../src/data/folderIndex.js';
import { decodeImage } from '../src/data/images.js';
import { fixedCrop } from '../src/data/preprocess.js';
import { photo, put, putOddFolder, putPhotos, truncatedJpeg } from './support/photoFolder.js';

const root = await mkdtemp(join(tmpdir(), 'bignas-folder-'));
after(() => rm(root, { recursive: true, force: true }));

const CROP = 24;
const LENGTH = CROP * CROP * 3;
const load = (folder: string, lines: string[] = [], maxCorrupt?: number): Promise<Dataset> =>
  loadFolder({ folder: join(root, folder), crop: CROP, log: (line) => lines.push(line), ...(maxCorrupt !== undefined && { maxCorrupt }) });
const all = (split: Split): number[] => [...Array(split.count).keys()];
const pathsOf = ({ source }: Split): string[] => [...(source as FolderSource).members].map((member) => pathAt((source as FolderSource).paths, member));
const cropOf = (crops: Uint8Array, n: number): Uint8Array => crops.subarray(n * LENGTH, (n + 1) * LENGTH);

describe('a folder of photographs as people have them', () => {
  const lines: string[] = [];
  let data: Dataset;
  before(async () => {
    await putOddFolder(join(root, 'odd'));
    data = await load('odd', lines);
  });

  test('has the classes that have images, in order, and says what it left out and why', () => {
    assert.deepEqual(data.classes, ['cat', 'dog', '鸟']);
    for (const said of [
      /^Skipped train\/empty: the class folder has no images$/,
      /^Skipped train\/dog\/animated\.gif: is no JPEG, PNG or WebP by its name$/,
      /^Skipped train\/dog\/notes\.txt: is no JPEG/,
      /^Skipped train\/dog\/broken link\.jpg: cannot be opened/,
      /^Skipped train\/dog\/loop: is a link to a folder that holds it$/,
      /^Skipped val\/cat\/truncated\.jpg: The JPEG image is cut short/,
    ])
      assert.equal(lines.filter((line) => said.test(line)).length, 1, `${said} in:\n${lines.join('\n')}`);
    assert.ok(!lines.some((line) => /DS_Store|hidden/.test(line)));
  });

  test('tests on val, without the image there that cannot be read, and holds validation out of train', () => {
    const { train, validation, test: tested } = data.splits;
    assert.equal(tested.count, 12);
    assert.ok(pathsOf(tested).every((path) => path.startsWith('val/')));
    assert.equal(validation.count, 3, 'one of each class');
    assert.equal(train.count + validation.count, 36 + 5 + 1 + 2, 'photos, oddities, link, and what only decoding finds out');
    const names = [...pathsOf(train), ...pathsOf(validation)];
    assert.equal(new Set(names).size, names.length);
    for (const split of Object.values(data.splits))
      assert.deepEqual(pathsOf(split).map((path) => data.classes.indexOf(path.split('/')[1]!)), [...split.labels], split.name);
    for (const path of ['train/cat/deep/er/16 bits.PNG', 'train/鸟/一只鸟.webp', 'train/dog/link.jpg']) assert.ok(names.includes(path), path);
  });

  test('gives every image a random crop of every kind; those that cannot be read are named once and replaced by one of their class', async () => {
    const { train } = data.splits;
    const before = lines.length;
    for (const kind of ['none', 'flip', 'cifar', 'cifar-autoaugment', 'imagenet', 'imagenet-autoaugment'] as const)
      assert.equal((await train.augmented(all(train), { seed: 1, epoch: 0, kind })).length, train.count * LENGTH, kind);
    const said = lines.slice(before);
    assert.deepEqual(said.map((line) => /^Skipped (\S+):/.exec(line)?.[1]).sort(), ['train/cat/truncated.jpg', 'train/dog/disguised.jpg']);
    assert.match(said.join('\n'), /disguised\.jpg: Expected an image \(JPEG, PNG, WebP\), got \d+ bytes of type GIF/);

    const paths = pathsOf(train);
    const broken = paths.indexOf('train/dog/disguised.jpg');
    const dogs = all(train).filter((i) => paths[i]!.startsWith('train/dog/') && i !== broken);
    const plain = await train.crops(dogs);
    const chosen = new Set<number>();
    for (let epoch = 0; epoch < 30; epoch++) {
      const [crop, again] = await Promise.all([train.augmented([broken], { seed: 1, epoch, kind: 'none' }), (await load('odd')).splits.train.augmented([0, broken], { seed: 1, epoch, kind: 'none' })]);
      assert.deepEqual(crop, cropOf(again, 1), 'whoever asks, in whatever batch');
      const dog = dogs.findIndex((_, n) => Buffer.compare(crop, cropOf(plain, n)) === 0);
      assert.ok(dog >= 0, 'a dog');
      chosen.add(dog);
    }
    assert.ok(chosen.size > 5, 'another one each epoch');
  });

  test('takes each oddity for what it shows', async () => {
    const { train, validation } = data.splits;
    const cropAt = async (path: string): Promise<Uint8Array> => {
      const split = pathsOf(train).includes(path) ? train : validation;
      return split.crops([pathsOf(split).indexOf(path)]);
    };
    const difference = (a: Uint8Array, b: Uint8Array): number => a.reduce((sum, value, i) => sum + Math.abs(value - b[i]!), 0) / a.length;
    const reference = async (i: number, width?: number, height?: number): Promise<Uint8Array> =>
      fixedCrop(await decodeImage(await (await photo(i, width, height)).png().toBuffer()), data.preprocessing);
    assert.ok(difference(await cropAt('train/cat/deep/er/16 bits.PNG'), await reference(101)) < 1);
    assert.ok(difference(await cropAt('train/鸟/一只鸟.webp'), await reference(103)) < 6);
    assert.ok(difference(await cropAt('train/cat/cmyk.jpg'), await reference(100)) < 30, 'as far as its inks go');
    assert.deepEqual([...(await cropAt('train/cat/one.png'))], Array.from({ length: CROP * CROP }, () => [10, 20, 30]).flat());
    const upright = fixedCrop(await decodeImage(await (await photo(102, 60, 120)).rotate(90).png().toBuffer()), data.preprocessing);
    assert.ok(difference(await cropAt('train/dog/turned.jpeg'), upright) < 6);
  });

  test('evaluates on the reference preprocessing’s crops, and draws calibration crops', async () => {
    const { test: tested, train } = data.splits;
    const crops = await tested.crops([5, 0]);
    const bytes = await import('node:fs/promises').then(({ readFile }) => readFile(join(root, 'odd', pathsOf(tested)[5]!)));
    assert.deepEqual(cropOf(crops, 0), fixedCrop(await decodeImage(bytes), data.preprocessing));
    assert.equal((await calibrationCrops(train, 30, 1)).crops.length, 30 * LENGTH);
    assert.deepEqual([data.preprocessing.crop, data.preprocessing.shorterSide], [24, 27]);
    await assert.rejects(tested.crops([99]), { code: 'DATA_INVALID', message: /99 is outside the test split of 12/ });
  });

  test('has a digest of paths and sizes: the same when read again, another when an image changes', async () => {
    assert.equal((await load('odd')).digest, data.digest);
    await put(root, 'odd/train/cat/0.jpg', await (await photo(300)).jpeg().toBuffer());
    assert.notEqual((await load('odd')).digest, data.digest);
  });
});

test('an image that goes missing while it is evaluated is an error that names it, and in training one that is replaced', async () => {
  for (const part of ['train', 'val', 'test']) await putPhotos(join(root, 'missing'), `${part}/a`, 5, 0);
  const lines: string[] = [];
  const { splits } = await load('missing', lines);
  assert.deepEqual(Object.values(splits).map((split) => pathsOf(split)[0]!.split('/')[0]), ['train', 'val', 'test']);
  await rm(join(root, 'missing/val/a/3.jpg'));
  await rm(join(root, 'missing/train/a/3.jpg'));
  await assert.rejects(splits.validation.crops(all(splits.validation)), { code: 'DATA_INVALID', message: /val\/a\/3\.jpg of the validation split cannot be read: ENOENT/ });
  assert.equal((await splits.train.augmented(all(splits.train), { seed: 1, epoch: 0, kind: 'imagenet' })).length, 5 * LENGTH);
  assert.match(lines.at(-1)!, /^Skipped train\/a\/3\.jpg: ENOENT/);
});

describe('splits that the folder does not have', () => {
  test('are held out of train by the paths alone, a tenth of each class, and stay when images are added', async () => {
    for (const name of ['a', 'b']) await putPhotos(join(root, 'alone'), `train/${name}`, 40, 0);
    const { splits } = await load('alone');
    assert.deepEqual([splits.train.count, splits.validation.count, splits.test.count], [64, 8, 8]);
    const names = Object.values(splits).flatMap(pathsOf);
    assert.equal(new Set(names).size, 80, 'each image is in one split');
    for (const split of [splits.validation, splits.test]) assert.deepEqual([...split.labels], [0, 0, 0, 0, 1, 1, 1, 1]);
    await put(root, 'alone/train/a/more.jpg', await (await photo(1)).jpeg().toBuffer());
    const grown = (await load('alone')).splits;
    const stayed = pathsOf(grown.validation).filter((path) => pathsOf(splits.validation).includes(path));
    assert.ok(stayed.length >= 7, 'all but the one that the new image may have pushed out');
  });

  test('need images: a class of one trains, and where nothing is left it is said', async () => {
    await putPhotos(join(root, 'few'), 'train/a', 1, 0);
    await assert.rejects(load('few'), { code: 'DATA_INVALID', message: /The (validation|test) split of .*few has no image/ });
    await putPhotos(join(root, 'few'), 'train/b', 3, 3);
    const { splits } = await load('few');
    assert.deepEqual([splits.train, splits.validation, splits.test].map(({ labels }) => [...labels]), [[0, 1], [1], [1]]);
  });
});

test('a class may have any number of images', () => {
  const count = 300_000;
  const paths = { bytes: new Uint8Array(count).fill(97), ends: Uint32Array.from({ length: count }, (_, i) => i + 1) };
  const index: FolderIndex = { classes: ['a'], paths, parts: new Map([['train', [{ from: 0, to: count }]]]), digest: '' };
  assert.deepEqual(Object.values(membersOf(index)).map(({ length }) => length), [280_000, 10_000, 10_000]);
});

describe('a folder that cannot be used says why', () => {
  test('no such folder, another layout, no images, classes that train lacks', async () => {
    await assert.rejects(load('absent'), { code: 'DATA_INVALID', message: /absent cannot be read: ENOENT/ });
    await putPhotos(join(root, 'flat'), 'cats', 1, 0);
    await assert.rejects(load('flat'), { code: 'DATA_INVALID', message: /train\/<class>\/\*\.jpg.*found `cats`\. Put the class folders into/ });
    await mkdir(join(root, 'bare/train/cats'), { recursive: true });
    await assert.rejects(load('bare'), { code: 'DATA_INVALID', message: /Expected JPEG, PNG or WebP files in .*bare\/train\/<class>\/, found none/ });
    await putPhotos(join(root, 'strange'), 'train/cat', 4, 0);
    await putPhotos(join(root, 'strange'), 'val/cta', 2, 0);
    await assert.rejects(load('strange'), { code: 'DATA_INVALID', message: /train has no images of `cta`/, details: { unknown: ['cta'] } });
    await assert.rejects(loadFolder({ folder: join(root, 'strange'), crop: 300, shorterSide: 200, log: () => undefined }), { code: 'OPTION_INVALID' });
  });

  test('one class that is spelt composed here and decomposed there is one class', async () => {
    const [composed, decomposed] = ['caf\u00e9', 'cafe\u0301'];
    await putPhotos(join(root, 'accents'), `train/${composed}`, 4, 0);
    await putPhotos(join(root, 'accents'), `val/${decomposed}`, 4, 0);
    const { classes, splits, digest } = await load('accents');
    assert.deepEqual(classes, [composed]);
    assert.equal(splits.test.count, 4);
    await splits.test.crops([0, 1, 2, 3]);
    await rename(join(root, 'accents/val', decomposed), join(root, 'accents/val', composed));
    assert.equal((await load('accents')).digest, digest, 'unpacked on another system it is the same data set');
  });

  test('more unreadable images than are allowed, met in any split', async () => {
    await putPhotos(join(root, 'bad'), 'train/a', 20, 0);
    await putPhotos(join(root, 'bad'), 'val/a', 4, 0);
    for (let i = 0; i < 3; i++) await put(root, `bad/train/a/bad${i}.jpg`, i === 0 ? await truncatedJpeg() : 'no image');
    const { splits } = await load('bad', [], 2);
    const augment = (split: Split): Promise<Uint8Array> => split.augmented(all(split), { seed: 0, epoch: 0, kind: 'imagenet' });
    await assert.rejects(async () => { await augment(splits.train); await splits.validation.crops(all(splits.validation)); }, {
      code: 'DATA_INVALID', message: /than the 2 that are allowed.*\n {2}train\/a\/bad\d\.jpg: .*\n {2}train.*\n {2}train/,
    });
    await augment((await load('bad', [], 3)).splits.train);
    await put(root, 'bad/val/a/4.jpg', '');
    await put(root, 'bad/val/a/5.jpg', '');
    await assert.rejects(load('bad', [], 1), { code: 'DATA_INVALID', message: /got 0 bytes/ });
  });

  test('a class of which nothing can be read', async () => {
    await putPhotos(join(root, 'hopeless'), 'train/a', 9, 0);
    for (let i = 0; i < 3; i++) await put(root, `hopeless/train/b/${i}.png`, 'no image');
    const { splits } = await load('hopeless');
    await assert.rejects(splits.train.augmented(all(splits.train), { seed: 0, epoch: 0, kind: 'flip' }), { code: 'DATA_INVALID', message: /None of the 1 training images of a class .*train\/b/ });
  });
});
