import type { Services } from '../services.js';
import type { Route } from './route.js';

/** `GET /v2/health/live` (Open Inference Protocol): this process answers. */
export function liveRoute(): Route {
  return {
    path: '/v2/health/live',
    summary: 'liveness probe',
    get: [
      function live(_request, response) {
        response.json({ live: true });
      },
    ],
  };
}

/** `GET /v2/health/ready`: a request sent now would be computed. 503 while a worker is down or the server stops. */
export function readyRoute(services: Services): Route {
  return {
    path: '/v2/health/ready',
    summary: 'readiness probe',
    get: [
      function ready(_request, response) {
        const { images, build, run, draining } = services;
        const isReady = !draining && build.isReady && [images, run].every((threads) => threads.some((thread) => thread.isReady));
        response.status(isReady ? 200 : 503).json({ ready: isReady });
      },
    ],
  };
}
