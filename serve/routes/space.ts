import { countArchitectures, spaceDigest } from '../../src/space/space.js';
import { noQuery, parseQuery } from '../schemas.js';
import type { Services } from '../services.js';
import type { Route } from './route.js';

/** `GET /space`: the legal values, for a client that builds architectures. */
export function spaceRoute({ checkpoint: { manifest, digest } }: Services): Route {
  const { space, dataset, preprocessing } = manifest;
  const answer = {
    checkpoint: { name: manifest.name, digest },
    space,
    digest: spaceDigest(space),
    // As text: it may be over 2^53.
    architectures: countArchitectures(space).toString(),
    labels: dataset.classes,
    preprocessing,
  };
  return {
    path: '/space',
    summary: 'the search space: legal resolutions, depths, channels and kernels; labels and preprocessing',
    get: [
      function space(request, response) {
        parseQuery(noQuery, request.query);
        response.json(answer);
      },
    ],
  };
}
