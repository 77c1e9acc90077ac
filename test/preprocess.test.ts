import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bicubic, fixedCrop, normalisedBatch, preprocessingSchema, type Preprocessing } from '../src/data/preprocess.js';
import { denseResizeMatrix, resizeImage, resizeMatrix } from '../src/data/resize.js';
import { key, stream } from '../src/random.js';

const preprocessing = (shorterSide: number, crop: number): Preprocessing => ({
  shorterSide, crop, resize: bicubic, rounding: 'uint8-after-crop', mean: [0.4, 0.5, 0.6], deviation: [0.2, 0.25, 0.3], colour: 'RGB',
});

/** A picture without symmetries, by a formula that the golden values' Python shares. */
function picture(height: number, width: number): Uint8Array {
  const pixels = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++) pixels[(y * width + x) * 3 + c] = y * 31 + x * 17 + c * 71 + y * x * 7;
    }
  }
  return pixels;
}

function closeTo(got: ArrayLike<number>, want: ArrayLike<number>, tolerance: number): void {
  assert.equal(got.length, want.length);
  for (let i = 0; i < want.length; i++) {
    assert.ok(Math.abs(got[i]! - want[i]!) <= tolerance, `value ${i}: got ${got[i]}, want ${want[i]}`);
  }
}

const red = (image: Float32Array): Float32Array => image.filter((_, i) => i % 3 === 0);
const size = fc.integer({ min: 1, max: 60 });

// Made with TensorFlow 2.21, tf.image.resize(picture, size, method="bicubic", antialias=True); Pillow 13's mode F agrees to 1e-4.
test('resizing has the values of TensorFlow and Pillow', () => {
  closeTo(red(resizeImage(picture(9, 7), 9, 7, 3, 5, 4)), [
    21.4486, 54.8977, 93.7007, 136.1908, 79.4089, 141.8811, 185.0766, 163.2538, 150.4184, 133.5327, 83.5202, 116.5536, 190.0816,
    75.4381, 144.7847, 137.0466, 148.3568, 123.1977, 134.6983, 102.8225,
  ], 5e-4);
  closeTo(red(resizeImage(picture(4, 6), 4, 6, 3, 7, 9)), [
    -3.541, 4.3122, 16.7264, 27.6895, 38.6526, 49.6158, 60.5789, 72.9931, 80.8463, 6.9401, 15.9406, 30.1683, 42.7331, 55.2978, 67.8626,
    80.4273, 94.655, 103.6555, 27.1005, 38.3078, 56.0239, 71.6693, 87.3147, 102.9601, 118.6055, 136.3216, 147.5289, 44.6908, 57.8235,
    78.5833, 96.9167, 115.25, 133.3981, 150.9907, 181.1471, 202.8618, 62.2811, 77.3393, 101.1428, 122.1641, 143.1853, 164.3407, 185.8985,
    202.8967, 211.7395, 82.4415, 99.7064, 126.9983, 151.1003, 175.2022, 201.3721, 233.746, 156.1056, 77.5336, 92.9226, 111.3348, 140.4403,
    166.1438, 191.8474, 220.7489, 259.2444, 126.0793, -3.7138,
  ], 5e-4);
  for (const [resolution, y, x, c, want] of [
    [20, 0, 0, 0, 16.386], [20, 0, 19, 1, 77.4439], [20, 19, 0, 2, 49.0283], [20, 10, 6, 0, 172.1336], [20, 7, 11, 1, 137.0212],
    [36, 0, 0, 0, -1.2243], [36, 0, 35, 1, 86.6355], [36, 35, 0, 2, 80.3523], [36, 18, 12, 0, 161.6641], [36, 7, 11, 1, 58.817],
  ] as const) {
    const resized = resizeImage(picture(32, 32), 32, 32, 3, resolution, resolution);
    closeTo([resized[(y * resolution + x) * 3 + c]!], [want], 1e-3);
  }
});

test('a row of the matrix sums to 1, stays inside the input, and mirrors the row from the other end', () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 400 }), fc.integer({ min: 1, max: 400 }), (from, to) => {
    const { start, taps } = resizeMatrix(from, to);
    const dense = denseResizeMatrix(from, to);
    for (let i = 0; i < to; i++) {
      assert.ok(start[i]! >= 0 && start[i]! + taps <= from);
      const row = dense.subarray(i * from, (i + 1) * from);
      assert.ok(Math.abs(row.reduce((sum, v) => sum + v, 0) - 1) < 1e-5);
      closeTo(row, dense.slice((to - 1 - i) * from, (to - i) * from).reverse(), 1e-5);
    }
  }), { numRuns: 60 });
});

test('the dense matrix is the resize: a product along each axis gives the same image', () => {
  const [height, width, toHeight, toWidth] = [6, 9, 8, 4];
  const pixels = picture(height, width);
  const down = denseResizeMatrix(height, toHeight); // 8 × 6
  const across = denseResizeMatrix(width, toWidth); // 4 × 9
  const want: number[] = [];
  for (let y = 0; y < toHeight; y++) for (let x = 0; x < toWidth; x++) for (let c = 0; c < 3; c++) {
    let sum = 0;
    for (let i = 0; i < height; i++) for (let j = 0; j < width; j++) {
      sum += down[y * height + i]! * across[x * width + j]! * pixels[(i * width + j) * 3 + c]!;
    }
    want.push(sum);
  }
  closeTo(resizeImage(pixels, height, width, 3, toHeight, toWidth), want, 1e-3);
});

test('a constant image stays constant, and an equal size leaves an image alone', () => {
  fc.assert(fc.property(size, size, size, size, fc.integer({ min: 0, max: 255 }), (height, width, toHeight, toWidth, value) => {
    const constant = resizeImage(new Uint8Array(height * width).fill(value), height, width, 1, toHeight, toWidth);
    assert.ok(constant.every((v) => Math.abs(v - value) < 1e-3));
    assert.deepEqual(resizeImage(picture(height, width), height, width, 3, height, width), Float32Array.from(picture(height, width)));
  }), { numRuns: 60 });
});

test('a region is the same pixels as the whole, for any number of channels', () => {
  const region = fc.record({ top: fc.nat(20), left: fc.nat(20), height: fc.integer({ min: 1, max: 9 }), width: fc.integer({ min: 1, max: 9 }) });
  fc.assert(fc.property(size, size, region, fc.constantFrom(1, 3, 4), (height, width, r, channels) => {
    const pixels = Float32Array.from({ length: height * width * channels }, (_, i) => (i * 37) % 101);
    const whole = resizeImage(pixels, height, width, channels, 29, 30);
    const part = resizeImage(pixels, height, width, channels, 29, 30, r);
    for (let y = 0; y < r.height; y++) {
      const at = ((r.top + y) * 30 + r.left) * channels;
      assert.deepEqual(part.subarray(y * r.width * channels, (y + 1) * r.width * channels), whole.subarray(at, at + r.width * channels));
    }
  }), { numRuns: 60 });
});

/** What resizing means, in plain loops: sums across, then down, in double precision from the first tap to the last, each sum kept as a float32. */
function plainResize(pixels: ArrayLike<number>, height: number, width: number, channels: number, toHeight: number, toWidth: number): Float32Array {
  const across = resizeMatrix(width, toWidth);
  const down = resizeMatrix(height, toHeight);
  const narrow = new Float32Array(height * toWidth * channels);
  const out = new Float32Array(toHeight * toWidth * channels);
  for (let y = 0; y < height; y++) for (let x = 0; x < toWidth; x++) for (let c = 0; c < channels; c++) {
    let sum = 0;
    for (let k = 0; k < across.taps; k++) sum += across.weights[x * across.taps + k]! * pixels[(y * width + across.start[x]! + k) * channels + c]!;
    narrow[(y * toWidth + x) * channels + c] = sum;
  }
  for (let y = 0; y < toHeight; y++) for (let i = 0; i < toWidth * channels; i++) {
    let sum = 0;
    for (let k = 0; k < down.taps; k++) sum += down.weights[y * down.taps + k]! * narrow[(down.start[y]! + k) * toWidth * channels + i]!;
    out[y * toWidth * channels + i] = sum;
  }
  return out;
}

const bits = (values: Float32Array): Uint32Array => new Uint32Array(values.buffer, values.byteOffset, values.length);

test('resizing, cropping and normalising have the bits of plain loops', () => {
  const side = fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 150 })); // of few taps, of many, of more rows than are held
  const values = fc.constantFrom('noise', 'edges', 'float32');
  fc.assert(fc.property(side, side, side, side, fc.integer({ min: 1, max: 5 }), values, fc.integer(), (height, width, toHeight, toWidth, channels, kind, seed) => {
    const draws = stream(key('plain resize'), seed);
    const draw = { noise: () => draws.integer(256), edges: () => 255 * draws.integer(2), float32: () => (draws.uniform() - 0.5) * 2 ** draws.integer(60) }[kind];
    const length = height * width * channels;
    const pixels = kind === 'float32' ? Float32Array.from({ length }, draw) : Uint8Array.from({ length }, draw);
    assert.deepEqual(bits(resizeImage(pixels, height, width, channels, toHeight, toWidth)), bits(plainResize(pixels, height, width, channels, toHeight, toWidth)));
    if (pixels instanceof Float32Array || channels !== 3) return;

    const shorter = Math.min(toHeight, toWidth);
    const p = preprocessing(shorter, Math.ceil(shorter / 2));
    const [wholeHeight, wholeWidth] = [height, width].map((from) => Math.round((from * shorter) / Math.min(height, width))) as [number, number];
    const whole = plainResize(pixels, height, width, 3, wholeHeight, wholeWidth);
    const [top, left] = [Math.floor((wholeHeight - p.crop) / 2), Math.floor((wholeWidth - p.crop) / 2)];
    const crop = height === p.crop && width === p.crop ? pixels : Uint8Array.from({ length: p.crop * p.crop * 3 }, (_, i) => {
      const [y, x] = [Math.floor(i / (p.crop * 3)), i % (p.crop * 3)];
      return Math.min(255, Math.max(0, Math.floor(whole[((top + y) * wholeWidth + left) * 3 + x]! + 0.5)));
    });
    assert.deepEqual(fixedCrop({ pixels, height, width }, p), crop);

    const input = Float32Array.from(plainResize(crop, p.crop, p.crop, 3, toWidth, toWidth), (v, i) => (v / 255 - p.mean[i % 3]!) / p.deviation[i % 3]!);
    assert.deepEqual(bits(normalisedBatch(crop, p, toWidth, 'NHWC')), bits(input));
  }), { numRuns: 300 });
});

test('the crop is the centre of the resized image, rounded and clamped', () => {
  const pixels = picture(40, 61); // 20 × 30.5, so 20 × 31
  const whole = resizeImage(pixels, 40, 61, 3, 20, 31);
  const crop = fixedCrop({ pixels, height: 40, width: 61 }, preprocessing(20, 16));
  const want: number[] = [];
  for (let y = 2; y < 18; y++) for (let i = (y * 31 + 7) * 3; i < (y * 31 + 23) * 3; i++) {
    want.push(Math.min(255, Math.max(0, Math.floor(whole[i]! + 0.5))));
  }
  assert.deepEqual([...crop], want);
  // Ringing at a sharp edge goes beyond 0 … 255 and must not wrap around.
  const edge = new Uint8Array(8 * 8 * 3).map((_, i) => (i % 24 < 12 ? 0 : 255));
  const ringing = fixedCrop({ pixels: edge, height: 8, width: 8 }, preprocessing(32, 32));
  for (let x = 0; x < 32; x++) assert.ok(x < 14 ? ringing[x * 3]! < 60 : x < 18 || ringing[x * 3]! > 195, `column ${x}`);
});

test('an image of the crop’s size is its own crop', () => {
  const p = preprocessing(40, 32);
  const pixels = picture(32, 32);
  assert.equal(fixedCrop({ pixels, height: 32, width: 32 }, p), pixels);
  const once = fixedCrop({ pixels: picture(50, 70), height: 50, width: 70 }, p);
  assert.deepEqual(fixedCrop({ pixels: once, height: 32, width: 32 }, p), once);
});

test('extreme shapes give a crop, and soon', () => {
  for (const [height, width] of [[1, 1], [1, 5_000_000], [5_000_000, 1], [20, 2000], [2000, 20], [31, 33], [2, 3]] as const) {
    const grey = new Uint8Array(height * width * 3).fill(77);
    const begun = performance.now();
    const crop = fixedCrop({ pixels: grey, height, width }, preprocessing(256, 224));
    assert.ok(performance.now() - begun < 1000, `${height}×${width} took ${performance.now() - begun} ms`);
    assert.equal(crop.length, 224 * 224 * 3);
    assert.ok(crop.every((v) => v === 77), `${height}×${width}`);
  }
});

test('a photo of 12 megapixels becomes a crop in a fraction of a second', () => {
  const photo = { pixels: new Uint8Array(3000 * 4000 * 3).fill(9), height: 3000, width: 4000 };
  const times = [0, 1, 2].map(() => {
    const begun = performance.now();
    fixedCrop(photo, preprocessing(32, 32));
    return performance.now() - begun;
  });
  // 160 ms were measured; the bound leaves room for a busy machine, not for reading the pixels many times.
  assert.ok(Math.min(...times) < 800, `took ${times.map(Math.round).join(', ')} ms`);
});

test('a batch is each crop resized, then normalised per channel, in either layout', () => {
  const p = preprocessing(8, 8);
  const [first, second] = [picture(8, 8), picture(8, 8).reverse()];
  const crops = new Uint8Array(2 * 192);
  crops.set(first);
  crops.set(second, 192);
  for (const resolution of [6, 8, 11]) {
    const area = resolution * resolution;
    const want = [first, second].flatMap((crop) => [...resizeImage(crop, 8, 8, 3, resolution, resolution)])
      .map((v, i) => (v / 255 - p.mean[i % 3]!) / p.deviation[i % 3]!);
    const nhwc = normalisedBatch(crops, p, resolution, 'NHWC');
    closeTo(nhwc, want, 1e-5);
    const nchw = normalisedBatch(crops, p, resolution, 'NCHW');
    assert.equal(nchw.length, nhwc.length);
    for (let n = 0; n < 2; n++) for (let i = 0; i < area; i++) for (let c = 0; c < 3; c++) {
      assert.equal(nchw[(n * 3 + c) * area + i], nhwc[(n * area + i) * 3 + c]);
    }
  }
  // Exact at the crop's own size: (x / 255 − mean) / deviation of the first pixel.
  assert.equal(normalisedBatch(new Uint8Array(192).fill(255), p, 8, 'NHWC')[0], Math.fround((1 - 0.4) / 0.2));
  assert.equal(normalisedBatch(new Uint8Array(0), p, 8, 'NHWC').length, 0);
});

test('sizes that do not fit are refused', () => {
  const refused = { code: 'PARAMETER_INVALID' };
  assert.throws(() => normalisedBatch(new Uint8Array(191), preprocessing(8, 8), 8, 'NHWC'), refused);
  assert.throws(() => normalisedBatch(new Uint8Array(192), preprocessing(8, 8), 0, 'NHWC'), refused);
  assert.throws(() => resizeImage(new Uint8Array(10), 2, 2, 3, 4, 4), refused);
  assert.throws(() => resizeMatrix(2.5, 4), refused);
  assert.throws(() => fixedCrop({ pixels: new Uint8Array(0), height: 0, width: 0 }, preprocessing(8, 8)), refused);
});

test('the schema takes what this file implements, and nothing else', () => {
  const p = preprocessing(256, 224);
  assert.deepEqual(preprocessingSchema.parse(JSON.parse(JSON.stringify(p))), p);
  for (const wrong of [
    { ...p, crop: 257 }, { ...p, shorterSide: 255.5 }, { ...p, resize: { ...bicubic, a: -0.75 } }, { ...p, colour: 'BGR' },
    { ...p, deviation: [0, 1, 1] }, { ...p, mean: [0, 1] }, { ...p, rounding: 'none' }, { ...p, extra: 1 },
  ]) assert.equal(preprocessingSchema.safeParse(wrong).success, false, JSON.stringify(wrong));
});
