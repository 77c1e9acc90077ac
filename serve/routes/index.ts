import type { Services } from '../services.js';
import { archRoute, archsRoute } from './archs.js';
import { errorsRoute } from './errors.js';
import { liveRoute, readyRoute } from './health.js';
import { metricsRoute } from './metrics.js';
import { predictRoute } from './predict.js';
import { methodsOf, type Route } from './route.js';
import { sliceRoute } from './slice.js';
import { spaceRoute } from './space.js';

/** Every route of the server, the index of them first. */
export function routesOf(services: Services): Route[] {
  const routes = [
    predictRoute(services),
    sliceRoute(services),
    archsRoute(services),
    archRoute(services),
    spaceRoute(services),
    liveRoute(),
    readyRoute(services),
    metricsRoute(services),
    errorsRoute(),
  ];
  return [indexRoute(services, routes), ...routes];
}

/** `GET /`: what there is. */
function indexRoute({ checkpoint: { manifest } }: Services, routes: readonly Route[]): Route {
  const answer = {
    server: 'bignas',
    checkpoint: manifest.name,
    space: manifest.space.name,
    classes: manifest.space.classes,
    routes: routes.map((route) => ({ path: route.path, methods: methodsOf(route).filter((method) => method !== 'OPTIONS'), summary: route.summary })),
  };
  return {
    path: '/',
    summary: 'this index',
    get: [
      function index(_request, response) {
        response.json(answer);
      },
    ],
  };
}
