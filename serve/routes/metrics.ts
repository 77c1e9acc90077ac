import type { Services } from '../services.js';
import type { Route } from './route.js';

/** `GET /metrics`: Prometheus text. */
export function metricsRoute({ metrics: { registry } }: Services): Route {
  return {
    path: '/metrics',
    get: {
      id: 'metrics',
      summary: 'metrics for Prometheus',
      answers: { 200: { description: 'Prometheus text', content: { 'text/plain': undefined } } },
      handlers: [
        async function metrics(_request, response) {
          // The library writes a mean of nothing as `Nan`; the format has `NaN`.
          response.set('Content-Type', registry.contentType).send((await registry.metrics()).replace(/ Nan$/gm, ' NaN'));
        },
      ],
    },
  };
}
