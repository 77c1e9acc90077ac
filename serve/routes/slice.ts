import { finished } from 'node:stream/promises';
import type { Response } from 'express';
import { BignasError, shown } from '../../src/errors.js';
import { admit } from '../admission.js';
import type { BundleFile } from '../bundles.js';
import { nameLabel } from '../metrics.js';
import { bundleFormats, childOf, parseQuery, sliceQuery } from '../schemas.js';
import type { Services } from '../services.js';
import type { Route } from './route.js';

/** `GET /slice`: the child that the query asks for, as a bundle to deploy. Strong ETag, Range, HEAD; the same bytes every time. */
export function sliceRoute({ checkpoint, bundles, admission, metrics }: Services): Route {
  const space = checkpoint.manifest.space.name;
  return {
    path: '/slice',
    summary: 'download a child as a bundle: ?arch= or ?flops=, ?params=; ?format=onnx',
    get: [
      admit(admission),
      async function slice(request, response) {
        const query = parseQuery(sliceQuery, request.query);
        if (!(bundleFormats as readonly string[]).includes(query.format))
          throw new BignasError('FORMAT_UNKNOWN', `Expected \`format\` to be ${bundleFormats.join(', ')}, got ${shown(query.format)}.`, {
            parameter: 'format',
            legal: bundleFormats,
          });
        const { child } = childOf(checkpoint, query);
        await bundles.use(child, async (bundle) => {
          metrics.slices.inc({ name: nameLabel(child.name) });
          response.set({
            ETag: `"${bundle.sha256}"`,
            // The child of a budget may be another tomorrow: kept, but asked about each time.
            'Cache-Control': 'public, no-cache',
            'Content-Type': 'application/zip',
            'Content-Location': `/slice?arch=${child.architecture}&format=${query.format}`,
            'Content-Disposition': `attachment; filename="bignas-${space}-${child.id}.zip"`,
          });
          await sendBundle(response, bundles.folder, bundle);
        });
      },
    ],
  };
}

/** Sends the file, or the part of it that is asked for, and waits until it is sent: it must not be removed before. */
async function sendBundle(response: Response, folder: string, { file }: BundleFile): Promise<void> {
  const sent = finished(response).catch(() => undefined); // a client that hangs up is no error
  const failed = new Promise<never>((_resolve, reject) => {
    response.sendFile(file, { root: folder, lastModified: false, cacheControl: false }, (error: Error | undefined) => {
      if (error && !response.headersSent) reject(rangeError(error, response) ?? error);
    });
  });
  await Promise.race([sent, failed]);
}

/** A range that the file does not have is the client's error; `send` has set the header that says how long the file is. */
function rangeError(error: Error, response: Response): BignasError | undefined {
  if ((error as { status?: number }).status !== 416) return undefined;
  const { headers } = error as { headers?: Record<string, string> };
  response.set({ ...headers });
  return new BignasError('RANGE_INVALID', 'Expected `Range` to lie within the bundle; Content-Range says how long that is.');
}
