/** Memory outside V8's heap, of which the collector knows only how much there is. */
import { MessageChannel } from 'node:worker_threads';

/** Its other end is closed, a moment after the first use: what moves through it arrives nowhere. */
const { port1: nowhere, port2: otherEnd } = new MessageChannel();
otherEnd.close();
nowhere.unref();

/**
 * Frees a buffer, or the one below an array, at once: whoever still has it has an empty one. Else it lives until a collection; and a hundred bodies of half a megabyte a second have V8 collect its whole
 * heap four times a second, which took a fifth of two processors. Shared memory is left as it is.
 */
export function freeAtOnce(memory: ArrayBufferView | ArrayBuffer): void {
  const buffer = ArrayBuffer.isView(memory) ? memory.buffer : memory;
  if (buffer instanceof ArrayBuffer) nowhere.postMessage(undefined, [buffer]);
}
