import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { before, describe, test } from 'node:test';
import fc from 'fast-check';
import { augmentationKinds, augmentBatch, trainingCrop } from '../src/data/augment.js';
import { autoAugment, operations, policies, type OperationName } from '../src/data/autoaugment.js';
import { cifar10Preprocessing, loadCifar10 } from '../src/data/cifar10.js';
import { drawRectangle, randomResizedCrop } from '../src/data/randomResizedCrop.js';
import { hash, stream } from '../src/random.js';

const SIDE = 32;
const LENGTH = SIDE * SIDE * 3;
const noise = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => hash(i) % 256);

/*
 * Of Pillow 12.0's outputs: SHA-256 (16 digits) over the operation's bytes for magnitudes 0 … 9, in each for signs −1 and 1 (the first nine),
 * in each for the first 20 test images of CIFAR-10. With s = sign · magnitude / 9 and fillcolor=(128, 128, 128):
 *   shears: im.transform((32, 32), AFFINE, (1, 0.3 * s, 0, 0, 1, 0)) and (1, 0, 0, 0.3 * s, 1, 0); translations: (1, 0, int(150 / 331 * 32 * s), 0, 1, 0)
 *   and (1, 0, 0, 0, 1, int(…)); im.rotate(30 * s); ImageEnhance's four with 1 + 0.9 * s; ImageOps: posterize(im, 8 - round(4 * s)),
 *   solarize(im, 255 - 255 * s), autocontrast(im), equalize(im), invert(im).
 */
const pillow: Record<OperationName, string> = {
  ShearX: 'b2500e8199b4c71a',
  ShearY: '31dbf6a6fefd9444',
  TranslateX: '72c703866e5e69ea',
  TranslateY: '7fd5cd4f8d08116c',
  Rotate: 'f6db4017b3d6c489',
  Brightness: '2b4188560adadd27',
  Color: '25bce631c50a30d0',
  Contrast: '1c39c8f65369e3ce',
  Sharpness: '39b3e504f80797f4',
  Posterize: 'c83b84bbf43719e6',
  Solarize: 'bae4bbe1b1962a62',
  AutoContrast: '775f041fea3d0c58',
  Equalize: 'aafdbc69a595be3c',
  Invert: 'bd5dd0017edc9fe8',
};

describe('AutoAugment', () => {
  let images: Uint8Array;
  before(async () => {
    images = await (await loadCifar10({ log: () => undefined })).splits.test.crops([...Array(20).keys()]);
  });

  for (const [name, { signed, apply }] of Object.entries(operations))
    test(`${name} has Pillow's bytes at every magnitude`, () => {
      const hashed = createHash('sha256');
      for (let magnitude = 0; magnitude <= 9; magnitude++)
        for (const sign of signed ? [-1, 1] : [1])
          for (let n = 0; n < 20; n++) {
            const image = images.slice(n * LENGTH, (n + 1) * LENGTH);
            apply(image, SIDE, (sign * magnitude) / 9);
            hashed.update(image);
          }
      assert.equal(hashed.digest('hex').slice(0, 16), pillow[name as OperationName]);
    });

  test('draws each of the 25 pairs as often, its operations with their probabilities, and both signs', () => {
    for (const policy of ['imagenet', 'cifar10'] as const) {
      assert.equal(policies[policy].length, 25);
      for (const pair of policies[policy])
        for (const [name, probability, magnitude] of pair as readonly (readonly [OperationName, number, number?])[]) {
          assert.ok(probability >= 0 && probability <= 1);
          assert.equal(magnitude === undefined, ['AutoContrast', 'Equalize', 'Invert'].includes(name), name);
        }
    }
    // What the draws decide shows in what comes out: the outcomes of one image, as often as the policy's probabilities have them.
    const image = images.slice(0, LENGTH);
    const outcome = (make: (crop: Uint8Array) => void): string => {
      const crop = image.slice();
      make(crop);
      return Buffer.from(crop).toString('latin1');
    };
    const expected = new Map<string, number>();
    for (const [first, second] of policies.cifar10) {
      const ways = ([name, p, magnitude = 0]: readonly [OperationName, number, number?]): [number, (crop: Uint8Array) => void][] => {
        const { signed, apply } = operations[name];
        const signs = signed ? [-1, 1] : [1];
        return [[1 - p, () => undefined], ...signs.map((sign): [number, (crop: Uint8Array) => void] => [p / signs.length, (crop) => apply(crop, SIDE, (sign * magnitude) / 9)])];
      };
      for (const [p1, make1] of ways(first)) for (const [p2, make2] of ways(second)) {
        if (p1 * p2 === 0) continue;
        const text = outcome((crop) => { make1(crop); make2(crop); });
        expected.set(text, (expected.get(text) ?? 0) + (p1 * p2) / 25);
      }
    }
    const draws = 20_000;
    const counts = new Map<string, number>();
    for (let i = 0; i < draws; i++) {
      const text = outcome((crop) => autoAugment(crop, SIDE, 'cifar10', stream(9, i)));
      assert.ok(expected.has(text), 'an outcome that the policy does not have');
      counts.set(text, (counts.get(text) ?? 0) + 1);
    }
    let chiSquare = 0;
    for (const [text, p] of expected) chiSquare += ((counts.get(text) ?? 0) - draws * p) ** 2 / (draws * p);
    const freedom = expected.size - 1;
    assert.ok(chiSquare < freedom + 4 * Math.sqrt(2 * freedom), `chi square ${chiSquare} with ${freedom} degrees of freedom`);
  });
});

describe('random resized crops', () => {
  test('lie inside, have an area of 8 to 100 % and an aspect of 3/4 to 4/3, up to whole pixels', () => {
    let areas = 0;
    const draws = 4000;
    for (let i = 0; i < draws; i++) {
      const { top, left, height, width } = drawRectangle(375, 500, stream(i));
      assert.ok(top >= 0 && left >= 0 && top + height <= 375 && left + width <= 500);
      const [area, aspect] = [(height * width) / (375 * 500), width / height];
      assert.ok(area > 0.079 && area <= 1 && aspect > 0.74 && aspect < 1.35, `${area} ${aspect}`);
      areas += area / draws;
    }
    // Over a half only where all areas came as often: the largest do not always fit.
    assert.ok(areas > 0.42 && areas < 0.54, `mean area ${areas}`);
  });

  test('of an image too long for one are its centre at the nearest aspect; of one pixel, that pixel', () => {
    assert.deepEqual(drawRectangle(10, 1000, stream(1)), { top: 0, left: 493, height: 10, width: 13 });
    assert.deepEqual(drawRectangle(1000, 10, stream(1)), { top: 493, left: 0, height: 13, width: 10 });
    const crop = randomResizedCrop({ pixels: Uint8Array.of(7, 8, 9), height: 1, width: 1 }, 4, stream(1));
    assert.deepEqual([...crop], Array.from({ length: 16 }, () => [7, 8, 9]).flat());
  });

  test('show the part of the image that was drawn', () => {
    // A ramp: what a pixel says is where it was.
    const [height, width] = [90, 120];
    const pixels = Uint8Array.from({ length: height * width * 3 }, (_, i) => [Math.floor(i / 3) % width, Math.floor(i / 3 / width), 0][i % 3]!);
    for (let i = 0; i < 20; i++) {
      const at = drawRectangle(height, width, stream(i));
      const crop = randomResizedCrop({ pixels, height, width }, 16, stream(i));
      for (const [y, x] of [[3, 3], [8, 12], [12, 5]] as const) {
        assert.ok(Math.abs(crop[(y * 16 + x) * 3]! - (at.left + ((x + 0.5) / 16) * at.width - 0.5)) <= 1);
        assert.ok(Math.abs(crop[(y * 16 + x) * 3 + 1]! - (at.top + ((y + 0.5) / 16) * at.height - 0.5)) <= 1);
      }
    }
  });
});

describe('every kind of augmentation', () => {
  test('is a function of seed, epoch and index: not of the batch; photos and crops alike', () => {
    const images = noise(6 * LENGTH);
    fc.assert(fc.property(fc.shuffledSubarray([...Array(6).keys()], { minLength: 1 }), fc.nat(), fc.nat(500), fc.constantFrom(...augmentationKinds), (members, seed, epoch, kind) => {
      const all = augmentBatch(images.slice(), [...Array(6).keys()], { seed, epoch, kind });
      for (const m of members) {
        const pixels = images.slice(m * LENGTH, (m + 1) * LENGTH);
        const crop = trainingCrop({ pixels, height: SIDE, width: SIDE }, cifar10Preprocessing, m, { seed, epoch, kind });
        assert.deepEqual(crop, all.subarray(m * LENGTH, (m + 1) * LENGTH));
        assert.deepEqual(pixels, images.subarray(m * LENGTH, (m + 1) * LENGTH), 'the photo is as it was');
      }
    }), { numRuns: 30 });
  });

  test('does what its name says', () => {
    const plain = noise(400 * LENGTH);
    const indices = [...Array(400).keys()];
    const changed = (kind: (typeof augmentationKinds)[number], cutout?: number): number => {
      const crops = augmentBatch(plain.slice(), indices, { seed: 4, epoch: 1, kind, ...(cutout !== undefined && { cutout }) });
      return indices.filter((n) => Buffer.compare(crops.subarray(n * LENGTH, (n + 1) * LENGTH), plain.subarray(n * LENGTH, (n + 1) * LENGTH)) !== 0).length;
    };
    assert.deepEqual(augmentationKinds, ['none', 'flip', 'cifar', 'cifar-autoaugment', 'imagenet', 'imagenet-autoaugment']);
    assert.equal(changed('none'), 0);
    assert.ok(Math.abs(changed('flip') - 200) < 40);
    assert.ok(changed('cifar') > 380);
    assert.ok(changed('imagenet') > 380);
    // A cutout of 16 pixels, unless another is asked for: all of its square is grey, which noise has nowhere.
    const grey = (cutout?: number): number => {
      const crops = augmentBatch(plain.slice(), indices, { seed: 4, epoch: 1, kind: 'cifar-autoaugment', ...(cutout !== undefined && { cutout }) });
      return indices.filter((n) => {
        for (let y = 0; y + 8 <= SIDE; y++) for (let x = 0; x + 8 <= SIDE; x++) {
          let whole = true;
          for (let i = 0; i < 64 && whole; i++) whole = crops[n * LENGTH + ((y + (i >> 3)) * SIDE + x + (i & 7)) * 3] === 128;
          if (whole) return true;
        }
        return false;
      }).length;
    };
    assert.equal(grey(), 400, 'even in a corner a quarter of it is left');
    assert.ok(grey(0) < 200);
  });
});
