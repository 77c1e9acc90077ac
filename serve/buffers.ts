import { freeAtOnce } from '../src/memory.js';

/** Bytes below which memory is not worth keeping: the collector of young objects takes it. */
const SMALL = 64 * 2 ** 10;

/**
 * Memory of what is large and short-lived: bodies and network inputs. It moves with them from thread to thread and comes back here, to be used again: the kernel takes
 * longer to hand out new memory than filling it takes. What is lost on the way (with an error, say) is the collector's.
 */
export class Buffers {
  /** Those not in use, the one given back last at the end. */
  readonly #unused: ArrayBuffer[] = [];
  #bytes = 0;

  /** @param maxBytes that are kept unused */
  constructor(readonly maxBytes: number) {}

  /** Bytes that are kept unused. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Memory of at least so many bytes, at most twice as many; what was in it before still is. */
  take(bytes: number): ArrayBuffer {
    if (bytes < SMALL) return new ArrayBuffer(bytes);
    const at = this.#unused.findLastIndex(({ byteLength }) => byteLength >= bytes && byteLength <= 2 * bytes);
    if (at < 0) return new ArrayBuffer(Math.ceil(bytes / SMALL) * SMALL);
    const [buffer] = this.#unused.splice(at, 1) as [ArrayBuffer];
    this.#bytes -= buffer.byteLength;
    return buffer;
  }

  /** Takes memory back that nobody reads any more; small memory, and what has moved to another thread, is passed over. */
  give(buffers: Iterable<ArrayBuffer>): void {
    for (const buffer of buffers) {
      const { byteLength } = buffer;
      if (byteLength < SMALL) continue;
      if (byteLength > this.maxBytes) {
        freeAtOnce(buffer);
        continue;
      }
      this.#unused.push(buffer);
      this.#bytes += byteLength;
      // The oldest sizes are those that are asked for no more.
      while (this.#bytes > this.maxBytes) {
        const oldest = this.#unused.shift()!;
        this.#bytes -= oldest.byteLength;
        freeAtOnce(oldest);
      }
    }
  }
}
