import type { Socket } from 'node:net';
import type { RequestHandler } from 'express';

/**
 * Ends a connection with the answer under way while the server stops, and with the last request that it may have. Node's own limit (`maxRequestsPerSocket`) says that it closes, but does not: a client
 * that does not listen (load generators, say) would have 503 for ever.
 * @param most requests of a connection
 * @example app.use(lastAnswer(services, 1000))
 */
export function lastAnswer(services: { readonly draining: boolean }, most: number): RequestHandler {
  const counts = new WeakMap<Socket, number>();
  return function lastAnswer({ socket }, response, next) {
    const count = (counts.get(socket) ?? 0) + 1;
    counts.set(socket, count);
    if (services.draining || count >= most) response.set('Connection', 'close');
    next();
  };
}
