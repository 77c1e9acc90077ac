import busboy from 'busboy';
import { BignasError, shown } from '../../src/errors.js';
import { bodyKind } from '../media.js';
import { isRecord, parseJson } from '../json.js';

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
/** Fields of a form beside its files. They are not used. */
const MOST_FIELDS = 32;

/**
 * The images of a request's body: one raw, those of a form, or base64 in JSON `{"images": ["…"]}`.
 * @throws BignasError BODY_EMPTY, BODY_MALFORMED, BODY_TOO_LARGE (too many images) or MEDIA_TYPE_UNSUPPORTED
 */
export async function imagesOf(body: Uint8Array, contentType: string | undefined, limits: BodyLimits): Promise<SentImage[]> {
  const kind = bodyKind(contentType);
  if (body.length === 0) throw empty('the body has no bytes');
  const images = kind === 'image' ? [{ bytes: body, file: undefined }] : kind === 'json' ? fromJson(body, limits) : await fromForm(body, contentType!, limits);
  if (images.length === 0) throw empty(kind === 'json' ? '`images` is an empty list' : 'the form has no file');
  return images;
}

/** Checked by hand: a schema's message tells every fault of every element, and so may be a hundred times as long as the body. */
function fromJson(body: Uint8Array, { maxImages }: BodyLimits): SentImage[] {
  const expected = 'JSON such as {"images": ["<base64>"]}';
  const data = parseJson(body, expected);
  if (!isRecord(data) || !Array.isArray(data['images'])) throw malformed(`Expected ${expected}, got ${shown(data)}.`);
  const other = Object.keys(data).find((key) => key !== 'images');
  if (other !== undefined) throw malformed(`Expected ${expected}, got ${shown(other)} beside \`images\`.`);
  const images = data['images'] as readonly unknown[];
  if (images.length > maxImages) throw tooManyImages(maxImages, images.length);
  return images.map((text, i) => ({ bytes: fromBase64(text, `images[${i}]`, i), file: undefined }));
}

/**
 * Bytes of their own, to move to a worker. Strict: `Buffer.from` would skip what is no base64 and decode the rest.
 * @param name where the text is
 * @throws BignasError BODY_MALFORMED, with the number of the image
 */
export function fromBase64(text: unknown, name: string, i: number): Uint8Array<ArrayBuffer> {
  if (typeof text !== 'string') throw malformed(`Expected \`${name}\` to be base64 (a string), got ${shown(text)}.`, { image: i });
  if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]+={0,2}$/.test(text)) {
    const hint = text.startsWith('data:') ? ' Leave out what comes before the comma.' : '';
    throw malformed(`Expected \`${name}\` to be base64 (A–Z a–z 0–9 + /, padded with =), got ${shown(text)}.${hint}`, { image: i });
  }
  return new Uint8Array(Buffer.from(text, 'base64'));
}

function fromForm(body: Uint8Array, contentType: string, { maxImages }: BodyLimits): Promise<SentImage[]> {
  return new Promise((resolve, reject) => {
    const fail = (reason: string): void => {
      reject(malformed(`Expected a form (multipart/form-data) with an image a file: ${reason}.`));
    };
    let form: busboy.Busboy;
    try {
      form = busboy({ headers: { 'content-type': contentType }, limits: { files: maxImages, fields: MOST_FIELDS, headerPairs: 32 } });
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
    // What is over a limit is left out by the parser; nobody shall take the answer for that of the whole form.
    form.on('filesLimit', () => {
      reject(tooManyImages(maxImages));
    });
    form.on('fieldsLimit', () => {
      fail(`it has more than ${MOST_FIELDS} fields that are no file`);
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

export function tooManyImages(maxImages: number, got: number | 'more' = 'more'): BignasError {
  return new BignasError('BODY_TOO_LARGE', `Expected at most ${maxImages} images in a request, got ${got}.`, { maxImages });
}

function malformed(message: string, details: Readonly<Record<string, unknown>> = {}): BignasError {
  return new BignasError('BODY_MALFORMED', message, details);
}
