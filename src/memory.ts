/** Memory outside V8's heap, of which the collector knows only how much there is. */
import { MessageChannel } from 'node:worker_threads';

const { port1: nowhere, port2: closed } = new MessageChannel();
closed.close();
nowhere.unref();

/**
 * Frees a buffer at once; whoever still has it has an empty one. Memory that waits for the collector makes V8 collect its whole heap again and again: a hundred bodies of
 * half a megabyte a second cost a fifth of two processors. What is sent to a port that nobody listens on is gone.
 */
export function free(buffer: ArrayBuffer): void {
  nowhere.postMessage(undefined, [buffer]);
}
