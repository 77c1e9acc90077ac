import { countArchitectures } from '../../src/space/space.js';
import { spaceDigest } from '../../src/space/identity.js';
import { spaceAnswerSchema, type SpaceAnswer } from '../answers.js';
import { noQuery, parseQuery } from '../schemas.js';
import { servedOf, type Route } from './route.js';

/** `GET /space`: the legal values, for a client that builds architectures. */
export function spaceRoute(): Route {
  return {
    path: '/space',
    get: {
      id: 'space',
      summary: 'the search space: legal resolutions, depths, channels and kernels; labels and preprocessing',
      query: noQuery,
      answers: { 200: { description: 'the space of the checkpoint', content: { 'application/json': spaceAnswerSchema } } },
      handlers: [
        function space(request, response) {
          parseQuery(noQuery, request.query);
          const { manifest, digest } = servedOf(response).checkpoint;
          response.json({
            checkpoint: { name: manifest.name, digest },
            space: manifest.space,
            digest: spaceDigest(manifest.space),
            // As text: it may be over 2^53.
            architectures: countArchitectures(manifest.space).toString(),
            labels: manifest.dataset.classes,
            preprocessing: manifest.preprocessing,
          } satisfies SpaceAnswer);
        },
      ],
    },
  };
}
