import type { IncomingMessage } from 'node:http';
import { BignasError, shown } from '../src/errors.js';

/** Bytes of the bodies that are being read, all together. A body counts with what has come of it: a slow one takes no one's room. */
export class BodyRoom {
  #bytes = 0;

  constructor(
    /** At least the bytes of the largest body. */
    readonly maxBytes: number,
  ) {}

  /** @throws BignasError OVERLOADED */
  take(bytes: number): void {
    if (this.#bytes + bytes > this.maxBytes)
      throw new BignasError('OVERLOADED', `The server is reading ${this.maxBytes} bytes of other requests, its limit. Ask again in a second.`);
    this.#bytes += bytes;
  }

  give(bytes: number): void {
    this.#bytes -= bytes;
  }
}

/**
 * Reads a request's body whole, into memory of its own, so that it can move to a worker. Nothing is decoded or parsed here.
 * A body over the limit is refused as soon as that is known; what still comes of it is thrown away, so that the client can read the
 * answer.
 * @param aligned offset in the body of what shall lie at a multiple of four bytes in memory: numbers are then read where they lie
 * @throws BignasError BODY_TOO_LARGE, BODY_MALFORMED (cut short), MEDIA_TYPE_UNSUPPORTED (compressed), OVERLOADED (no room)
 */
export async function readBody(request: IncomingMessage, maxBytes: number, room: BodyRoom, aligned = 0): Promise<Uint8Array<ArrayBuffer>> {
  const encoding = request.headers['content-encoding'] ?? 'identity';
  if (encoding.toLowerCase() !== 'identity')
    throw new BignasError('MEDIA_TYPE_UNSUPPORTED', `Expected a body without content encoding, got ${shown(encoding)}. Images are compressed already.`);
  // Node's parser has refused a length that is no number, and one beside a transfer encoding.
  const declared = request.headers['content-length'];
  if (declared !== undefined && Number(declared) > maxBytes) {
    throwAway(request);
    throw tooLarge(maxBytes, Number(declared));
  }
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    let taken = 0;
    const done = (): void => {
      room.give(taken);
      request.off('data', take).off('end', end).off('close', cut).off('error', cut);
    };
    const take = (chunk: Buffer): void => {
      length += chunk.length;
      try {
        if (length > maxBytes) throw tooLarge(maxBytes, undefined);
        room.take(chunk.length);
        taken = length;
        chunks.push(chunk);
      } catch (error) {
        done();
        throwAway(request);
        reject(error as BignasError);
      }
    };
    const end = (): void => {
      done();
      const before = (4 - (aligned % 4)) % 4;
      const body = new Uint8Array(before + length);
      let at = before;
      for (const chunk of chunks) {
        body.set(chunk, at);
        at += chunk.length;
      }
      resolve(before === 0 ? body : body.subarray(before));
    };
    const cut = (): void => {
      done();
      reject(new BignasError('BODY_MALFORMED', `The body was cut short after ${length} bytes.`));
    };
    request.on('data', take).on('end', end).on('close', cut).on('error', cut);
  });
}

function throwAway(request: IncomingMessage): void {
  request.on('error', () => undefined).resume();
}

function tooLarge(maxBytes: number, got: number | undefined): BignasError {
  return new BignasError('BODY_TOO_LARGE', `Expected a body of at most ${maxBytes} bytes, got ${got ?? 'more'}.`, {
    maxBytes,
    ...(got !== undefined && { bytes: got }),
  });
}
