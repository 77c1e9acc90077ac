import { indexSchema, type IndexAnswer } from '../answers.js';
import type { Services } from '../services.js';
import { archRoute, archsRoute } from './archs.js';
import { errorsRoute } from './errors.js';
import { liveRoute, readyRoute } from './health.js';
import { metricsRoute } from './metrics.js';
import { manifestSchemaRoute } from './manifestSchema.js';
import { predictRoute } from './predict.js';
import { openapiRoute } from './openapi.js';
import { reloadRoute } from './reload.js';
import { methodsOf, plainPath, servedOf, type Route } from './route.js';
import { sliceRoute } from './slice.js';
import { v1Routes } from './v1.js';
import { v2Routes } from './v2.js';
import { spaceRoute } from './space.js';

/** Every route of the server, the index of them first. */
export function routesOf(services: Services): Route[] {
  const routes = [
    predictRoute(services),
    sliceRoute(services),
    manifestSchemaRoute(),
    archsRoute(services),
    archRoute(services),
    spaceRoute(),
    liveRoute(),
    readyRoute(services),
    metricsRoute(services),
    ...v2Routes(services),
    ...v1Routes(services),
    errorsRoute(),
    reloadRoute(services),
  ];
  const all = [indexRoute(routes), ...routes];
  return [...all, openapiRoute(all)];
}

/** `GET /`: what there is. */
function indexRoute(routes: readonly Route[]): Route {
  const listed = routes.map((route) => ({
    path: plainPath(route.path),
    methods: methodsOf(route).filter((method) => method !== 'OPTIONS'),
    summary: [route.get?.summary, route.post?.summary].filter((summary) => summary !== undefined).join('; POST: '),
  }));
  return {
    path: '/',
    get: {
      id: 'index',
      summary: 'this index',
      answers: { 200: { description: 'every route', content: { 'application/json': indexSchema } } },
      handlers: [
        function index(_request, response) {
          const { manifest } = servedOf(response).checkpoint;
          response.json({ server: 'bignas', checkpoint: manifest.name, space: manifest.space.name, classes: manifest.space.classes, routes: listed } satisfies IndexAnswer);
        },
      ],
    },
  };
}
