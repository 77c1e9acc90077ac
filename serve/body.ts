import type { IncomingMessage } from 'node:http';
import { BignasError, shown } from '../src/errors.js';
import { freeAtOnce } from '../src/memory.js';
import type { Buffers } from './buffers.js';

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
 * Reads a request's body whole, into memory that can move to a worker (`Buffers`). Nothing is decoded or parsed here.
 * A body over the limit is refused as soon as that is known; what still comes of it is thrown away, so that the client can read the
 * answer.
 * @param aligned offset in the body of what shall lie at a multiple of four bytes in memory: numbers are then read where they lie
 * @throws BignasError BODY_TOO_LARGE, BODY_MALFORMED (cut short), MEDIA_TYPE_UNSUPPORTED (compressed), OVERLOADED (no room)
 */
export async function readBody(request: IncomingMessage, maxBytes: number, { room, buffers }: { readonly room: BodyRoom; readonly buffers: Buffers }, aligned = 0): Promise<Uint8Array<ArrayBuffer>> {
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
    const body = new GrowingBody(declared === undefined ? maxBytes : Number(declared), (4 - (aligned % 4)) % 4, buffers);
    let taken = 0;
    const done = (): void => {
      room.give(taken);
      request.off('data', take).off('end', end).off('close', cut).off('error', cut);
    };
    const take = (chunk: Buffer<ArrayBuffer>): void => {
      try {
        if (body.length + chunk.length > maxBytes) throw tooLarge(maxBytes, undefined);
        room.take(chunk.length);
        taken += chunk.length;
        body.add(chunk);
      } catch (error) {
        done();
        body.drop();
        throwAway(request);
        reject(error as BignasError);
      }
    };
    const end = (): void => {
      done();
      resolve(body.bytes);
    };
    const cut = (): void => {
      done();
      body.drop();
      reject(new BignasError('BODY_MALFORMED', `The body was cut short after ${taken} bytes.`));
    };
    request.on('data', take).on('end', end).on('close', cut).on('error', cut);
  });
}

/** Memory for as many times the bytes that have come is taken ahead: who sends nothing has none. */
const AHEAD = 16;

/** A body as far as it has come. */
class GrowingBody {
  #memory: ArrayBuffer;
  length = 0;

  /**
   * @param most bytes
   * @param before bytes that lie before it in memory
   */
  constructor(
    private readonly most: number,
    private readonly before: number,
    private readonly buffers: Buffers,
  ) {
    this.#memory = new ArrayBuffer(before);
  }

  get bytes(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#memory, this.before, this.length);
  }

  add(chunk: Buffer<ArrayBuffer>): void {
    const needed = this.before + this.length + chunk.length;
    if (needed > this.#memory.byteLength) {
      const old = this.bytes;
      this.#memory = this.buffers.take(Math.min(this.before + this.most, AHEAD * needed));
      this.bytes.set(old);
      this.buffers.give([old.buffer]);
    }
    new Uint8Array(this.#memory, needed - chunk.length).set(chunk);
    this.length += chunk.length;
    // Node gives each chunk memory of its own.
    if (chunk.length === chunk.buffer.byteLength) freeAtOnce(chunk);
  }

  drop(): void {
    this.buffers.give([this.#memory]);
  }
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
