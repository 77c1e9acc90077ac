import { z } from 'zod';
import { bundleManifestSchema } from '../../src/bundle/manifest.js';
import type { Route } from './route.js';

/** `GET /schemas/bundle-manifest.json`: what a bundle's manifest.json holds. */
export function manifestSchemaRoute(): Route {
  const document = z.toJSONSchema(bundleManifestSchema);
  return {
    path: '/schemas/bundle-manifest.json',
    get: {
      id: 'bundleManifestSchema',
      summary: "JSON Schema of a bundle's manifest.json",
      answers: { 200: { description: 'the schema', content: { 'application/json': undefined } } },
      handlers: [
        function bundleManifestSchema(_request, response) {
          response.json(document);
        },
      ],
    },
  };
}
