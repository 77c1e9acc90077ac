import { openapiDocument } from '../openapi.js';
import type { Route } from './route.js';

/** `GET /openapi.json`: the contract of these routes and of itself. */
export function openapiRoute(others: readonly Route[]): Route {
  const route: Route = {
    path: '/openapi.json',
    get: {
      id: 'openapi',
      summary: 'this interface as OpenAPI 3.1',
      answers: { 200: { description: 'the document', content: { 'application/json': undefined } } },
      handlers: [
        function openapi(_request, response) {
          response.json(document);
        },
      ],
    },
  };
  const document = openapiDocument([...others, route]);
  return route;
}
