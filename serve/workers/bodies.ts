import busboy from 'busboy';
import { z } from 'zod';
import { BignasError, shown } from '../../src/errors.js';
import { bodyKind } from '../media.js';

/** An image as it came, not yet decoded. */
export interface SentImage {
  readonly bytes: Uint8Array;
  /** As the client named it. */
  readonly file: string | undefined;
}

export interface BodyLimits {
  /** Images a request, at least 1. */
  readonly maxImages: number;
}

/** Characters of a file name that come back in an answer. */
const LONGEST_NAME = 255;

/**
 * The images of a request's body: one raw, those of a form, or base64 in JSON `{"images": ["…"]}`.
 * @throws BignasError BODY_EMPTY, BODY_MALFORMED, BODY_TOO_LARGE (too many images) or MEDIA_TYPE_UNSUPPORTED
 */
export async function imagesOf(body: Uint8Array, contentType: string | undefined, limits: BodyLimits): Promise<SentImage[]> {
  const kind = bodyKind(contentType);
  if (body.length === 0) throw empty('the body has no bytes');
  const images = kind === 'image' ? [{ bytes: body, file: undefined }] : kind === 'json' ? fromJson(body) : await fromForm(body, contentType!, limits);
  if (images.length > limits.maxImages)
    throw new BignasError('BODY_TOO_LARGE', `Expected at most ${limits.maxImages} images in a request, got ${images.length}.`, { maxImages: limits.maxImages });
  if (images.length === 0) throw empty(kind === 'json' ? '`images` is an empty list' : 'the form has no file');
  return images;
}

const jsonBody = z.strictObject({ images: z.array(z.string()) });

function fromJson(body: Uint8Array): SentImage[] {
  let data: unknown;
  try {
    data = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch (error) {
    throw malformed(`Expected JSON such as {"images": ["<base64>"]}: ${(error as Error).message}.`);
  }
  const parsed = jsonBody.safeParse(data);
  if (!parsed.success) throw malformed(`Expected JSON such as {"images": ["<base64>"]}: ${z.prettifyError(parsed.error)}`);
  return parsed.data.images.map((text, i) => ({ bytes: fromBase64(text, i), file: undefined }));
}

/** Strictly: `Buffer.from` would skip what is no base64 and decode the rest. */
function fromBase64(text: string, i: number): Uint8Array {
  if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]+={0,2}$/.test(text)) {
    const hint = text.startsWith('data:') ? ' Leave out what comes before the comma.' : '';
    throw malformed(`Expected \`images[${i}]\` to be base64 (A–Z a–z 0–9 + /, padded with =), got ${shown(text)}.${hint}`, { image: i });
  }
  return Buffer.from(text, 'base64');
}

function fromForm(body: Uint8Array, contentType: string, { maxImages }: BodyLimits): Promise<SentImage[]> {
  return new Promise((resolve, reject) => {
    const fail = (reason: string): void => {
      reject(malformed(`Expected a form (multipart/form-data) with an image a file: ${reason}.`));
    };
    let form: busboy.Busboy;
    try {
      // One file more than allowed: that it came is what the caller sees.
      form = busboy({ headers: { 'content-type': contentType }, limits: { files: maxImages + 1, fields: 32, parts: maxImages + 33, headerPairs: 32 } });
    } catch (error) {
      fail((error as Error).message);
      return;
    }
    const images: SentImage[] = [];
    form.on('file', (_field, stream, { filename }: { filename?: string }) => {
      const chunks: Buffer[] = [];
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      // A part that is cut short is an error of the file's own stream as well as the form's.
      stream.on('error', (error: Error) => {
        fail(error.message);
      });
      stream.on('close', () => images.push({ bytes: Buffer.concat(chunks), file: filename?.slice(0, LONGEST_NAME) }));
    });
    form.on('error', (error) => {
      fail(error instanceof Error ? error.message : String(error));
    });
    form.on('close', () => {
      resolve(images);
    });
    form.end(body);
  });
}

function empty(what: string): BignasError {
  return new BignasError('BODY_EMPTY', `Expected an image (JPEG, PNG or WebP) in the body, but ${what}.`);
}

function malformed(message: string, details: Readonly<Record<string, unknown>> = {}): BignasError {
  return new BignasError('BODY_MALFORMED', message, details);
}
