import type { RequestHandler } from 'express';

/**
 * Begins with a request when its answer has the connection to itself, after those of the requests that were sent ahead of it.
 * From there on the response's `close` always comes. Node lets it never come to a response that still waits behind another when the
 * connection ends, so whatever such a request held would be held for ever; here it holds nothing yet.
 * @example app.use(inTurn())
 */
export function inTurn(): RequestHandler {
  return function inTurn(_request, response, next) {
    if (response.socket) next();
    else
      response.once('socket', () => {
        next();
      });
  };
}
