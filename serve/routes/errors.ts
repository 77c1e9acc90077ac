import { errorCatalogue, type ErrorCode } from '../../src/errors.js';
import { errorsSchema, type ErrorsAnswer } from '../answers.js';
import type { Route } from './route.js';

/** `GET /errors`: the codes of problem documents, to which their `type` points; docs/errors.md says how each is mended. */
export function errorsRoute(): Route {
  const codes = Object.entries(errorCatalogue).map(([code, { status, title }]) => ({ id: code.toLowerCase(), code: code as ErrorCode, status, title }));
  return {
    path: '/errors',
    get: {
      id: 'errors',
      summary: 'the codes that errors have',
      answers: { 200: { description: 'every code', content: { 'application/json': errorsSchema } } },
      handlers: [
        function errors(_request, response) {
          response.json({ errors: codes } satisfies ErrorsAnswer);
        },
      ],
    },
  };
}
