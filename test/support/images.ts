import { deflateSync } from 'node:zlib';
import sharp, { type Sharp } from 'sharp';
import { key, stream } from '../../src/random.js';

/** A smooth picture that is the same every time, so that a JPEG of it is near its PNG. */
export function picture(width: number, height: number, seed = 1): Sharp {
  const draws = stream(key('test picture'), seed);
  const [a, b, c] = [draws.uniform(), draws.uniform(), draws.uniform()];
  const pixels = Buffer.alloc(width * height * 3);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const at = (y * width + x) * 3;
      pixels[at] = Math.round(255 * ((x / width + a) % 1));
      pixels[at + 1] = Math.round(127 * (1 + Math.sin(6 * (y / height + b))));
      pixels[at + 2] = Math.round(127 * (1 + Math.cos(4 * ((x + y) / (width + height) + c))));
    }
  return sharp(pixels, { raw: { width, height, channels: 3 } });
}

export const png = (width: number, height: number, seed?: number): Promise<Buffer> => picture(width, height, seed).png().toBuffer();
export const jpeg = (width: number, height: number, seed?: number): Promise<Buffer> => picture(width, height, seed).jpeg({ quality: 95 }).toBuffer();
export const webp = (width: number, height: number, seed?: number): Promise<Buffer> => picture(width, height, seed).webp({ lossless: true }).toBuffer();

/** A grey PNG of any size in a few kilobytes, written by hand: what a decoder must refuse by its header. */
export function blankPng(width: number, height: number): Buffer {
  const chunk = (type: string, data: Buffer): Buffer => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const frame = Buffer.alloc(8);
    frame.writeUInt32BE(data.length, 0);
    frame.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header[8] = 8; // bits; colour type 0 is grey
  const rows = deflateSync(Buffer.alloc((width + 1) * height), { level: 9 });
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), chunk('IHDR', header), chunk('IDAT', rows), chunk('IEND', Buffer.alloc(0))]);
}

function crc32(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
