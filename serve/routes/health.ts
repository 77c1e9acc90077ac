import { liveSchema, readySchema } from '../answers.js';
import type { Services } from '../services.js';
import type { Route } from './route.js';

/** `GET /v2/health/live` (Open Inference Protocol): this process answers. */
export function liveRoute(): Route {
  return {
    path: '/v2/health/live',
    get: {
      id: 'live',
      summary: 'liveness probe',
      answers: { 200: { description: 'this process answers', content: { 'application/json': liveSchema } } },
      handlers: [
        function live(_request, response) {
          response.json({ live: true });
        },
      ],
    },
  };
}

/** `GET /v2/health/ready`: a request sent now would be computed. 503 while a worker is down or the server stops. */
export function readyRoute(services: Services): Route {
  return {
    path: '/v2/health/ready',
    get: {
      id: 'ready',
      summary: 'readiness probe',
      answers: {
        200: { description: 'a request sent now would be computed', content: { 'application/json': readySchema } },
        503: { description: 'a worker is down, or the server stops', content: { 'application/json': readySchema } },
      },
      handlers: [
        function ready(_request, response) {
          const ready = isReady(services);
          response.status(ready ? 200 : 503).json({ ready });
        },
      ],
    },
  };
}

export function isReady({ images, build, run, draining }: Services): boolean {
  return !draining && build.isReady && [images, run].every((threads) => threads.some((thread) => thread.isReady));
}
