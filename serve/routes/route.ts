import type { Express, RequestHandler, Response } from 'express';
import { BignasError } from '../../src/errors.js';

/** A path and what it answers to. `get` answers HEAD as well. */
export interface Route {
  readonly path: string;
  /** One line for the index. */
  readonly summary: string;
  readonly get?: readonly RequestHandler[];
  readonly post?: readonly RequestHandler[];
}

/** The methods of a route, as the Allow header lists them. */
export function methodsOf({ get, post }: Route): string[] {
  return [...(get ? ['GET', 'HEAD'] : []), ...(post ? ['POST'] : []), 'OPTIONS'];
}

/** Adds a route to the app; a method that it does not have is refused with those that it has. */
export function mount(app: Express, route: Route): void {
  const at = app.route(route.path);
  if (route.get) at.get(...route.get);
  if (route.post) at.post(...route.post);
  const allowed = methodsOf(route);
  at.all(function otherMethod(request, response) {
    response.set('Allow', allowed.join(', '));
    if (request.method === 'OPTIONS') {
      response.status(204).end();
      return;
    }
    throw new BignasError('METHOD_NOT_ALLOWED', `Expected ${allowed.join(', ')} for ${route.path}, got ${request.method}.`, { legal: allowed });
  });
}

/** Aborted when the client hangs up before its answer is whole. */
export function clientSignal(response: Response): AbortSignal {
  const controller = new AbortController();
  response.once('close', () => {
    if (!response.writableFinished) controller.abort(new Error('The client hung up.'));
  });
  return controller.signal;
}
