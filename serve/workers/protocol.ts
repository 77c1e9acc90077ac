import { parentPort } from 'node:worker_threads';
import { sentError, type SentError } from '../../src/errors.js';

/** One thing that a worker can be asked. */
export interface Call {
  readonly input: unknown;
  readonly output: unknown;
}

/** What the workers of a role can be asked, by method. */
export type Role<M> = { readonly [K in keyof M]: Call };

export interface Question {
  readonly kind: 'question';
  readonly id: number;
  readonly method: string;
  readonly input: unknown;
}

/** Nobody wants the answer of this question any more: the worker may stop with it where that is easy, and answers with an error then. */
export interface Cancel {
  readonly kind: 'cancel';
  readonly id: number;
}

/** `ready` comes once, when the worker has loaded what it needs. */
export type Message =
  | { readonly kind: 'ready' }
  | { readonly kind: 'output'; readonly id: number; readonly output: unknown }
  | { readonly kind: 'error'; readonly id: number; readonly error: SentError };

/** An answer whose buffers move to the asking thread instead of being copied; the worker no longer has them. */
export class Transferred<T> {
  constructor(
    readonly value: T,
    readonly buffers: readonly ArrayBufferLike[],
  ) {}
}

export type Handlers<M extends Role<M>> = {
  readonly [K in keyof M]: (input: M[K]['input'], signal: AbortSignal) => Answer<M[K]['output']> | Promise<Answer<M[K]['output']>>;
};
type Answer<T> = T | Transferred<T>;

/** Runs a worker: says that it is ready, then answers one question after the other (the asking side sends no second before). */
export function serveRole<M extends Role<M>>(handlers: Handlers<M>): void {
  const port = parentPort;
  if (!port) throw new Error('This file runs as a worker thread.');
  const send = (message: Message, transfer: readonly ArrayBufferLike[] = []): void => {
    port.postMessage(message, transfer.filter((buffer) => buffer instanceof ArrayBuffer));
  };
  let active: { readonly id: number; readonly controller: AbortController } | undefined;
  port.on('message', (message: Question | Cancel) => {
    if (message.kind === 'cancel') {
      if (active?.id === message.id) active.controller.abort(new Error('Nobody waits for the answer any more.'));
      return;
    }
    const { id, method, input } = message;
    const handle = handlers[method as keyof M];
    const controller = new AbortController();
    active = { id, controller };
    Promise.resolve()
      .then(() => handle(input, controller.signal))
      .then(
        (answer) => {
          if (answer instanceof Transferred) send({ kind: 'output', id, output: answer.value }, answer.buffers);
          else send({ kind: 'output', id, output: answer });
        },
      )
      .catch((error: unknown) => {
        send({ kind: 'error', id, error: sentError(error) });
      });
  });
  send({ kind: 'ready' });
}
