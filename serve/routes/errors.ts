import { errorCatalogue } from '../../src/errors.js';
import type { Route } from './route.js';

/** `GET /errors`: the codes of problem documents, to which their `type` points; docs/errors.md says how each is mended. */
export function errorsRoute(): Route {
  const codes = Object.entries(errorCatalogue).map(([code, { status, title }]) => ({ id: code.toLowerCase(), code, status, title }));
  return {
    path: '/errors',
    summary: 'the codes that errors have',
    get: [
      function errors(_request, response) {
        response.json({ errors: codes });
      },
    ],
  };
}
