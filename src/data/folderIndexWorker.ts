/** Indexes a folder in a thread of its own: what listing a million files leaves on a heap goes with the thread. */
import { parentPort, workerData } from 'node:worker_threads';
import { sentError, type SentError } from '../errors.js';
import { indexFolder, type FolderIndex } from './folderIndex.js';

export type IndexMessage =
  | { readonly leftOut: { readonly path: string; readonly reason: string } }
  | { readonly index: FolderIndex }
  | { readonly error: SentError };

const port = parentPort;
if (!port) throw new Error('This file runs as a worker thread.');
const send = (message: IndexMessage): void => port.postMessage(message);

try {
  send({ index: await indexFolder(workerData as string, (path, reason) => send({ leftOut: { path, reason } })) });
} catch (error) {
  send({ error: sentError(error) });
}
