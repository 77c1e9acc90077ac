import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import sharp, { type Sharp } from 'sharp';
import { loadCifar10 } from '../../src/data/cifar10.js';
import type { Split } from '../../src/data/dataset.js';

let photos: Promise<Split> | undefined;

/** A real photograph: one of CIFAR-10's test images, enlarged. */
export async function photo(i: number, width = 96, height = 80): Promise<Sharp> {
  photos ??= loadCifar10({ log: () => undefined }).then(({ splits }) => splits.test);
  const pixels = Buffer.from(await (await photos).crops([i]));
  return sharp(pixels, { raw: { width: 32, height: 32, channels: 3 } }).resize(width, height, { fit: 'fill' });
}

export async function put(folder: string, path: string, bytes: Uint8Array | string): Promise<void> {
  await mkdir(dirname(join(folder, path)), { recursive: true });
  await writeFile(join(folder, path), bytes);
}

/** `count` JPEGs `<path>/0.jpg`, …, each another photograph. */
export async function putPhotos(folder: string, path: string, count: number, first: number): Promise<void> {
  for (let i = 0; i < count; i++) await put(folder, `${path}/${i}.jpg`, await (await photo(first + i)).jpeg().toBuffer());
}

/** The first part of a JPEG: its header is whole, so that only decoding finds it out. */
export async function truncatedJpeg(): Promise<Buffer> {
  const whole = await (await photo(400, 300, 200)).jpeg({ quality: 95 }).toBuffer();
  return whole.subarray(0, Math.floor(whole.length * 0.6));
}

/**
 * What people's folders hold: three classes of photographs, among them each oddity that a loader must take (a CMYK JPEG, a 16-bit PNG, a 1×1
 * image, one turned by EXIF, a name in Chinese, a nested folder, upper case, a link), and each that it must name and pass over.
 */
export async function putOddFolder(folder: string): Promise<void> {
  for (const [i, name] of ['cat', 'dog', '鸟'].entries()) {
    await putPhotos(folder, `train/${name}`, 12, i * 20);
    await putPhotos(folder, `val/${name}`, 4, i * 20 + 12);
  }
  await put(folder, 'train/cat/cmyk.jpg', await (await photo(100)).toColourspace('cmyk').jpeg().toBuffer());
  await put(folder, 'train/cat/deep/er/16 bits.PNG', await (await photo(101)).toColourspace('rgb16').png().toBuffer());
  await put(folder, 'train/cat/one.png', await sharp({ create: { width: 1, height: 1, channels: 3, background: '#0a141e' } }).png().toBuffer());
  await put(folder, 'train/dog/turned.jpeg', await (await photo(102, 60, 120)).withMetadata({ orientation: 6 }).jpeg().toBuffer());
  await put(folder, 'train/鸟/一只鸟.webp', await (await photo(103)).webp().toBuffer());
  await symlink(join(folder, 'train/dog/0.jpg'), join(folder, 'train/dog/link.jpg'));
  // Named and passed over.
  await put(folder, 'train/cat/truncated.jpg', await truncatedJpeg());
  const frames = await Promise.all([0, 1].map(async (i) => (await photo(104 + i)).png().toBuffer()));
  const gif = await sharp(frames, { join: { animated: true } }).gif().toBuffer();
  await put(folder, 'train/dog/animated.gif', gif);
  await put(folder, 'train/dog/disguised.jpg', gif);
  await put(folder, 'train/dog/notes.txt', 'not an image');
  await put(folder, 'val/cat/truncated.jpg', await truncatedJpeg());
  await symlink('nowhere.jpg', join(folder, 'train/dog/broken link.jpg'));
  await symlink('..', join(folder, 'train/dog/loop'));
  await mkdir(join(folder, 'train/empty'));
  // Passed over in silence.
  await put(folder, 'train/cat/.DS_Store', '');
  await put(folder, 'train/.hidden/a.jpg', '');
}
