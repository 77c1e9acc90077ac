import type { ErrorRequestHandler, Response } from 'express';
import { BignasError, errorCatalogue, type ErrorCode } from '../src/errors.js';
import type { Services } from './services.js';

/** A problem document (RFC 9457), with the error's code and what helps to mend it. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: ErrorCode;
  readonly [detail: string]: unknown;
}

/** The problem document of an error. Of an error that is the server's own, nothing is told but where the log has it. */
export function problemOf(error: BignasError, requestId: string): Problem {
  const { status, title } = errorCatalogue[error.code];
  const own = status === 500;
  return {
    ...(!own && error.details),
    type: `/errors#${error.code.toLowerCase()}`,
    title,
    status,
    detail: own ? `The server failed on this request. Its log says why, under the request id ${requestId}.` : error.message,
    code: error.code,
    requestId,
  };
}

/** Answers every error of the routes as a problem document; under /v1 and /v2 as `{"error": …}`, which those protocols have. */
export function problems({ logger, metrics, admission }: Pick<Services, 'logger' | 'metrics' | 'admission'>): ErrorRequestHandler {
  return function problem(error: unknown, request, response, next) {
    if (response.destroyed) return; // the client is gone, and with it whatever it would have been told
    const coded = codedError(error);
    const { status } = errorCatalogue[coded.code];
    metrics.problems.inc({ code: coded.code });
    if (status === 500) logger.error({ err: error, requestId: requestIdOf(response) }, 'a request failed');
    if (response.headersSent) {
      // Half an answer is under way: cutting it off is all that tells the client.
      next(error);
      return;
    }
    if (status === 503) response.set('Retry-After', String(admission.retryAfter));
    const document = problemOf(coded, requestIdOf(response));
    response.status(status);
    if (/^\/v[12](\/|$)/.test(request.path)) response.json({ error: document.detail });
    else response.type('application/problem+json').send(JSON.stringify(document));
  };
}

export function requestIdOf(response: Response): string {
  return (response.locals as { requestId?: string }).requestId ?? 'unknown';
}

/** Our own errors as they are; those of Express about the request's line as a bad parameter; all else is the server's fault. */
function codedError(error: unknown): BignasError {
  if (error instanceof BignasError) return error;
  if (error instanceof URIError) return new BignasError('PARAMETER_INVALID', 'Expected the path to be percent-encoded UTF-8.');
  return new BignasError('INTERNAL', 'The server failed.', {}, { cause: error });
}
