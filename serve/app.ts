import express, { type Express } from 'express';
import { BignasError, shown } from '../src/errors.js';
import { inTurn } from './middleware/inTurn.js';
import { lastAnswer } from './middleware/lastAnswer.js';
import { observe } from './middleware/observe.js';
import { requestId } from './middleware/requestId.js';
import { problems } from './problem.js';
import { routesOf } from './routes/index.js';
import { crossOrigin, guards, openToAll, securityHeaders } from './middleware/security.js';
import { pinned } from './middleware/pinned.js';
import { mount, plainPath } from './routes/route.js';
import type { Services } from './services.js';

/** Requests a connection, so that those sent ahead of their turn cannot fill the memory. */
export const MOST_REQUESTS = 1000;

/** The HTTP interface over running services. It listens nowhere. */
export function createApp(services: Services): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag'); // bundles have a strong one of their own; other answers are not worth one
  app.set('query parser', 'simple'); // flat: no nested objects from a query
  const security = services.options.security ?? openToAll;
  app.set('trust proxy', security.trustedProxies);
  app.use(inTurn());
  app.use(requestId());
  app.use(observe(services));
  app.use(securityHeaders());
  app.use(crossOrigin(security));
  app.use(pinned(services.inService));
  app.use(lastAnswer(services, MOST_REQUESTS));
  const routes = routesOf(services);
  for (const route of routes) mount(app, route, guards(security));
  const paths = routes.map(({ path }) => plainPath(path));
  app.use(function unknownRoute(request) {
    throw new BignasError('ROUTE_UNKNOWN', `Expected a path such as ${paths.join(', ')}, got ${shown(request.path)}.`, { legal: paths });
  });
  app.use(problems(services));
  return app;
}
