import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import sharp, { type Colour, type Sharp } from 'sharp';
import { decodeImage } from '../src/data/images.js';
import { hash } from '../src/random.js';

const [WIDTH, HEIGHT] = [64, 48];
const noise = Buffer.from({ length: WIDTH * HEIGHT * 3 }).map((_, i) => hash(i));
const photo = (): Sharp => sharp(noise, { raw: { width: WIDTH, height: HEIGHT, channels: 3 } });
const flat = (colour: Colour, channels: 3 | 4 = 3): Sharp =>
  sharp({ create: { width: 5, height: 4, channels, background: colour } });
const orange = { r: 200, g: 100, b: 50 };

async function firstPixel(bytes: Uint8Array): Promise<number[]> {
  const image = await decodeImage(bytes);
  assert.equal(image.pixels.length, image.height * image.width * 3);
  return [...image.pixels.subarray(0, 3)];
}

function near(got: number[], want: number[], tolerance: number): void {
  assert.ok(got.every((v, i) => Math.abs(v - want[i]!) <= tolerance), `got ${got.join()}, want ${want.join()}`);
}

test('lossless PNG and WebP give their very pixels, JPEG nearly', async () => {
  for (const bytes of [await photo().png().toBuffer(), await photo().png({ progressive: true }).toBuffer(), await photo().webp({ lossless: true }).toBuffer()]) {
    assert.deepEqual(await decodeImage(bytes), { pixels: new Uint8Array(noise), height: HEIGHT, width: WIDTH });
  }
  near(await firstPixel(await flat(orange).jpeg({ quality: 100 }).toBuffer()), [200, 100, 50], 2);
  near(await firstPixel(await flat(orange).jpeg({ quality: 95, progressive: true }).toBuffer()), [200, 100, 50], 3);
});

test('grey, palette, 16 bits, CMYK and wide-gamut images become 8-bit RGB', async () => {
  near(await firstPixel(await flat('#808080').toColourspace('b-w').png().toBuffer()), [128, 128, 128], 0);
  near(await firstPixel(await flat('#808080').toColourspace('b-w').jpeg().toBuffer()), [128, 128, 128], 1);
  near(await firstPixel(await flat('#808080').toColourspace('grey16').png().toBuffer()), [128, 128, 128], 0);
  near(await firstPixel(await flat(orange).toColourspace('rgb16').png().toBuffer()), [200, 100, 50], 0);
  near(await firstPixel(await flat(orange).png({ palette: true }).toBuffer()), [200, 100, 50], 1);
  near(await firstPixel(await flat(orange).toColourspace('cmyk').jpeg({ quality: 100 }).toBuffer()), [200, 100, 50], 35);
  near(await firstPixel(await flat(orange).withIccProfile('p3').png().toBuffer()), [200, 100, 50], 2);
});

test('transparency lies on white', async () => {
  near(await firstPixel(await flat({ ...orange, alpha: 0 }, 4).png().toBuffer()), [255, 255, 255], 0);
  near(await firstPixel(await flat({ ...orange, alpha: 0 }, 4).webp().toBuffer()), [255, 255, 255], 0);
  near(await firstPixel(await flat({ ...orange, alpha: 0.5 }, 4).png().toBuffer()), [227, 177, 152], 1);
  near(await firstPixel(await flat({ r: 100, g: 100, b: 100, alpha: 0.5 }, 4).toColourspace('b-w').png().toBuffer()), [177, 177, 177], 1);
});

test('the EXIF orientation is applied: all eight show the same picture', async () => {
  const [height, width] = [16, 32];
  const corners = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]; // top left, top right, bottom left, bottom right
  // Which upright pixel (y, x) the stored row r and column c show (EXIF 2.3, table 6: where row 0 and column 0 lie).
  const [bottom, right] = [height - 1, width - 1];
  const shows: ((r: number, c: number) => [number, number])[] = [
    (r, c) => [r, c], (r, c) => [r, right - c], (r, c) => [bottom - r, right - c], (r, c) => [bottom - r, c],
    (r, c) => [c, r], (r, c) => [c, right - r], (r, c) => [bottom - c, right - r], (r, c) => [bottom - c, r],
  ];
  for (const [i, show] of shows.entries()) {
    const [rows, columns] = i < 4 ? [height, width] : [width, height];
    const stored = Buffer.alloc(rows * columns * 3);
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
      const [y, x] = show(r, c);
      stored.set(corners[(y < height / 2 ? 0 : 2) + (x < width / 2 ? 0 : 1)]!, (r * columns + c) * 3);
    }
    const bytes = await sharp(stored, { raw: { width: columns, height: rows, channels: 3 } })
      .withMetadata({ orientation: i + 1 }).jpeg({ quality: 100, chromaSubsampling: '4:4:4' }).toBuffer();
    const image = await decodeImage(bytes);
    assert.deepEqual([image.height, image.width], [height, width], `orientation ${i + 1}`);
    [[3, 3], [3, 28], [12, 3], [12, 28]].forEach(([y, x], corner) => {
      near([...image.pixels.subarray((y! * width + x!) * 3, (y! * width + x!) * 3 + 3)], corners[corner]!, 4);
    });
  }
});

test('an animation gives its first frame', async () => {
  const frames = [await flat(orange).png().toBuffer(), await flat('#000').png().toBuffer()];
  const animated = await sharp(frames, { join: { animated: true } }).webp({ lossless: true }).toBuffer();
  assert.equal((await sharp(animated).metadata()).pages, 2);
  const image = await decodeImage(animated);
  assert.deepEqual([image.height, image.width, ...image.pixels.subarray(0, 3)], [4, 5, 200, 100, 50]);
});

test('files that are cut short or damaged are refused', async () => {
  const unreadable = { code: 'IMAGE_UNREADABLE' };
  const [jpeg, progressive, png, webp] = [
    await photo().jpeg().toBuffer(), await photo().jpeg({ progressive: true }).toBuffer(),
    await photo().png().toBuffer(), await photo().webp().toBuffer(),
  ];
  for (const bytes of [jpeg, progressive, png, webp]) {
    for (const kept of [0.99, 0.9, 0.5, 0.1]) {
      await assert.rejects(decodeImage(bytes.subarray(0, Math.floor(bytes.length * kept))), unreadable, `${kept} of ${bytes.length}`);
    }
    await assert.rejects(decodeImage(bytes.subarray(0, 12)), unreadable);
  }
  const damaged = Buffer.from(png);
  damaged[damaged.length >> 1]! ^= 1; // the checksum tells
  await assert.rejects(decodeImage(damaged), unreadable);
  // What cameras write after the picture is no damage.
  await decodeImage(Buffer.concat([jpeg, Buffer.from('stray')]));
});

test('anything but JPEG, PNG and WebP is refused by name, whatever sharp could read', async () => {
  for (const [bytes, what] of [
    [new Uint8Array(0), /JPEG, PNG, WebP.*0 bytes/],
    [Buffer.from('Hello, I am a text.\n'), /JPEG, PNG, WebP.*20 bytes of type text/],
    [Buffer.from([0, 1, 2, 3]), /4 bytes$/],
    [await photo().gif().toBuffer(), /of type GIF/],
    [await photo().tiff().toBuffer(), /of type TIFF/],
    [Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'), /of type SVG/],
    [Buffer.from('<!DOCTYPE html><title>404</title>'), /of type HTML/],
    [Buffer.from('\0\0\0 ftypheic\0\0\0\0'), /of type HEIC/],
  ] as const) await assert.rejects(decodeImage(bytes), { code: 'IMAGE_UNREADABLE', message: what });
});

/** The checksum of PNG's chunks, bit by bit. */
function crc32(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

test('too many pixels are refused by the header, before they are decoded', async () => {
  const jpeg = await photo().jpeg().toBuffer();
  await decodeImage(jpeg, { maxPixels: WIDTH * HEIGHT });
  await assert.rejects(decodeImage(jpeg, { maxPixels: WIDTH * HEIGHT - 1 }), { code: 'IMAGE_TOO_LARGE', message: /64×48/ });
  await assert.rejects(decodeImage(jpeg, { maxPixels: 0 }), { code: 'IMAGE_TOO_LARGE' }); // what a request's other images have left
  // A hundred megapixels claimed by the header of a file that has none of them: only the header can have been read.
  const png = await photo().png().toBuffer();
  const header = Buffer.from(png);
  header.writeUInt32BE(10_000, 16);
  header.writeUInt32BE(10_000, 20);
  header.writeUInt32BE(crc32(header.subarray(12, 29)), 29);
  await assert.rejects(decodeImage(header), { code: 'IMAGE_TOO_LARGE', message: /10000×10000/ });
});

test('decoding works in a worker too, at the same time as here', async () => {
  const bytes = await photo().png().toBuffer();
  const module = new URL('../src/data/images.js', import.meta.url).href;
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
     import(workerData.module).then(({ decodeImage }) => decodeImage(workerData.bytes)).then((image) => parentPort.postMessage(image));`,
    { eval: true, workerData: { module, bytes: new Uint8Array(bytes) } },
  );
  const there = new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  const here = await decodeImage(bytes);
  assert.deepEqual(await there, here);
  await worker.terminate();
});
