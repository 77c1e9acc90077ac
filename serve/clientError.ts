import { randomUUID } from 'node:crypto';
import { STATUS_CODES, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Logger } from 'pino';
import { BignasError, type ErrorCode } from '../src/errors.js';
import { problemOf } from './problem.js';

/**
 * Answers what Node's parser refuses, which no route sees, as a problem document, and closes the connection: nobody knows where a next
 * request would begin.
 * @example server.on('clientError', clientErrors(logger))
 */
export function clientErrors(logger: Logger) {
  return function clientError(error: NodeJS.ErrnoException, socket: Duplex): void {
    // As Node's own handler asks it: into an answer that is half sent nothing can be written.
    const { _httpMessage: underWay } = socket as Duplex & { readonly _httpMessage?: ServerResponse | null };
    if (!socket.writable || error.code === 'ECONNRESET' || underWay?.headersSent) {
      socket.destroy();
      return;
    }
    const problem = problemOf(codedError(error), randomUUID());
    const { status, requestId } = problem;
    logger.info({ requestId, status, err: error }, 'no request');
    const body = JSON.stringify(problem);
    const head = [
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
      'Content-Type: application/problem+json; charset=utf-8',
      `Content-Length: ${Buffer.byteLength(body)}`,
      'Connection: close',
    ];
    socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
  };
}

function codedError({ code }: NodeJS.ErrnoException): BignasError {
  const coded = (name: ErrorCode, message: string): BignasError => new BignasError(name, message);
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return coded('REQUEST_HEAD_TOO_LARGE', 'Expected a request line and headers of at most 16 KiB, got more.');
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return coded('REQUEST_TOO_SLOW', 'Expected the whole request sooner.');
    default:
      return coded('REQUEST_MALFORMED', `Expected an HTTP/1.1 request, got what cannot be read as one${code === undefined ? '' : ` (${code})`}.`);
  }
}
