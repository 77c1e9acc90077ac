import type { Express, RequestHandler, Response } from 'express';
import type { z } from 'zod';
import { BignasError } from '../../src/errors.js';
import type { Served } from '../served.js';

/** What a token may be for. Routes without a scope are open to all. */
export const scopes = ['predict', 'slice', 'admin'] as const;
export type Scope = (typeof scopes)[number];

/** A body or an answer in one of several media types. Without a schema: bytes. */
export type Content = Readonly<Record<string, z.ZodType | undefined>>;

/** An answer that is no error; errors are problem documents everywhere. */
export interface AnswerDescription {
  readonly description: string;
  readonly content?: Content;
}

/** A method of a path: what it takes, what it answers, and what does it. The descriptions make `GET /openapi.json`. */
export interface Operation {
  /** One line for the index. */
  readonly summary: string;
  /** Unique, for clients that are generated. */
  readonly id: string;
  readonly scope?: Scope;
  readonly query?: z.ZodObject;
  readonly body?: { readonly required: boolean; readonly content: Content };
  readonly answers: Readonly<Record<number, AnswerDescription>>;
  readonly handlers: readonly RequestHandler[];
}

/** A path and what it answers to. `get` answers HEAD as well. */
export interface Route {
  /** As Express takes it: `/archs/:arch`; a colon that begins no name is `\\:`. */
  readonly path: string;
  readonly get?: Operation;
  readonly post?: Operation;
}

/** The methods of a route, as the Allow header lists them. */
export function methodsOf({ get, post }: Route): string[] {
  return [...(get ? ['GET', 'HEAD'] : []), ...(post ? ['POST'] : []), 'OPTIONS'];
}

/**
 * Adds a route to the app; a method that it does not have is refused with those that it has.
 * @param guards what comes before the handlers of an operation
 */
export function mount(app: Express, route: Route, guards: (operation: Operation) => readonly RequestHandler[]): void {
  const at = app.route(route.path);
  if (route.get) at.get(...guards(route.get), ...route.get.handlers);
  if (route.post) at.post(...guards(route.post), ...route.post.handlers);
  const allowed = methodsOf(route);
  at.all(function otherMethod(request, response) {
    response.set('Allow', allowed.join(', '));
    if (request.method === 'OPTIONS') {
      response.status(204).end();
      return;
    }
    throw new BignasError('METHOD_NOT_ALLOWED', `Expected ${allowed.join(', ')} for ${plainPath(route.path)}, got ${request.method}.`, { legal: allowed });
  });
}

/** A route's path for people. */
export function plainPath(path: string): string {
  return path.replaceAll('\\', '');
}

/** Aborted when the client hangs up before its answer is whole. */
export function clientSignal(response: Response): AbortSignal {
  const controller = new AbortController();
  const abort = (): void => {
    if (!response.writableFinished) controller.abort(new Error('The client hung up.'));
  };
  if (response.destroyed) abort();
  else response.once('close', abort);
  return controller.signal;
}

/** The checkpoint that this request works with (`pinned`). */
export function servedOf(response: Response): Served {
  return response.locals['served'] as Served;
}
