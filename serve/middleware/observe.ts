import type { Request, RequestHandler } from 'express';
import { requestIdOf } from '../problem.js';
import { plainPath } from '../routes/route.js';
import type { Services } from '../services.js';

/** Characters of a URL that go to the log. */
const LOGGED_URL = 512;

/**
 * Measures and logs every request when its answer has been sent or its client is gone (status 499 in both, as proxies write it).
 * @example app.use(observe(services))
 */
export function observe({ metrics, logger }: Pick<Services, 'metrics' | 'logger'>): RequestHandler {
  return function observe(request, response, next) {
    const started = performance.now();
    response.once('close', () => {
      const seconds = (performance.now() - started) / 1000;
      const status = response.writableFinished ? response.statusCode : 499;
      metrics.requestSeconds.observe({ method: methodLabel(request.method), route: routeLabel(request), status: String(status) }, seconds);
      const { method, originalUrl } = request;
      const line = { requestId: requestIdOf(response), ...traceOf(request), method, url: originalUrl.slice(0, LOGGED_URL), status, ms: Math.round(seconds * 1e4) / 10 };
      if (status === 500) logger.error(line, 'request');
      else if (status > 500) logger.warn(line, 'request'); // refused for want of room or time
      else logger.info(line, 'request');
    });
    next();
  };
}

/** The trace that the request is part of, as its `traceparent` has it (W3C Trace Context, section 3.2). */
function traceOf(request: Request): { readonly traceId?: string; readonly parentId?: string } {
  const [, traceId, parentId] = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?$/.exec(request.get('traceparent') ?? '') ?? [];
  return traceId === undefined ? {} : { traceId, parentId: parentId! };
}

/** The route's template: few, whatever clients ask for. */
function routeLabel({ route }: Request): string {
  return plainPath((route as { path?: string } | undefined)?.path ?? 'none');
}

/** Node's parser lets through some thirty methods; labels stay few. */
function methodLabel(method: string): string {
  return ['GET', 'HEAD', 'POST', 'OPTIONS', 'PUT', 'PATCH', 'DELETE'].includes(method) ? method : 'other';
}
