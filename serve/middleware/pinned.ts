import type { RequestHandler } from 'express';
import type { InService } from '../served.js';

/**
 * Gives a request the checkpoint that is served now, until its answer has been sent: a reload meanwhile does not concern it.
 * @example app.use(pinned(services.inService))
 */
export function pinned(inService: InService): RequestHandler {
  return function pinned(_request, response, next) {
    const { served, leave } = inService.enter();
    response.locals['served'] = served;
    response.once('close', leave);
    next();
  };
}
