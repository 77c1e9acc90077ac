import { reloadedSchema, type ReloadedAnswer } from '../answers.js';
import type { Services } from '../services.js';
import type { Route } from './route.js';

/** `POST /admin/reload`: serves what the checkpoint's folder holds now, as SIGHUP does. */
export function reloadRoute({ reloader }: Services): Route {
  return {
    path: '/admin/reload',
    post: {
      id: 'reload',
      summary: "read the checkpoint's folder again, and serve what it holds if that can be served; needs the admin token",
      scope: 'admin',
      answers: { 200: { description: 'the new checkpoint is served, or there was no new one', content: { 'application/json': reloadedSchema } } },
      handlers: [
        async function reload(_request, response) {
          response.json((await reloader.reload()) satisfies ReloadedAnswer);
        },
      ],
    },
  };
}
