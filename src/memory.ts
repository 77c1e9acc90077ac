import { MessageChannel } from 'node:worker_threads';

/** Its other end is closed, a moment after the first use: what moves through it arrives nowhere. */
const { port1: nowhere, port2: otherEnd } = new MessageChannel();
otherEnd.close();
nowhere.unref();

/**
 * Frees the memory below an array at once; the array is empty afterwards, as is every other one on the same buffer. Else a large array lives until a garbage collection, which looks at JavaScript's heap and
 * not at what lies outside it. Shared memory is left as it is.
 */
export function freeAtOnce({ buffer }: ArrayBufferView): void {
  if (buffer instanceof ArrayBuffer) nowhere.postMessage(undefined, [buffer]);
}
