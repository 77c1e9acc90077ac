import { randomUUID } from 'node:crypto';
import type { RequestHandler } from 'express';

/** What a client may call its request: it comes back in a header and goes to the log. */
const legal = /^[\w.:-]{1,128}$/;

/**
 * Gives every request an id, the client's own `x-request-id` where that is legal, and sends it back.
 * @example app.use(requestId())
 */
export function requestId(): RequestHandler {
  return function requestId(request, response, next) {
    const given = request.get('x-request-id');
    const id = given !== undefined && legal.test(given) ? given : randomUUID();
    response.locals['requestId'] = id;
    response.set('X-Request-Id', id);
    next();
  };
}
