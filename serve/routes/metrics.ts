import type { Services } from '../services.js';
import type { Route } from './route.js';

/** `GET /metrics`: Prometheus text. */
export function metricsRoute({ metrics: { registry } }: Services): Route {
  return {
    path: '/metrics',
    summary: 'metrics for Prometheus',
    get: [
      async function metrics(_request, response) {
        response.set('Content-Type', registry.contentType).send(await registry.metrics());
      },
    ],
  };
}
