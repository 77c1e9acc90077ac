import { finished } from 'node:stream/promises';
import type { Request, Response } from 'express';
import { latencyTableSchema } from '../../src/cost/latency.js';
import { BignasError } from '../../src/errors.js';
import { BodyRoom, readBody } from '../body.js';
import { bundleName, bundleOptions, bundleQuery, type BundleOptions } from '../../src/bundle/formats.js';
import { containers, containerTypes } from '../../src/encoding/container.js';
import { askedBundle } from '../askedBundle.js';
import type { AskedBundle, BundleFile } from '../bundles.js';
import { nameLabel } from '../metrics.js';
import { childOf, parseQuery, readLatencyTable, sliceQuery, type SliceQuery } from '../schemas.js';
import type { Services } from '../services.js';
import { pendingSchema } from '../answers.js';
import type { Served } from '../served.js';
import { answerPending } from './pending.js';
import { clientSignal, servedOf, type AnswerDescription, type Route } from './route.js';

/** Milliseconds without progress after which a download is given up. */
const STALLED_MS = 60_000;

/** Bytes of a latency table that a client brings. */
const TABLE_BYTES = 8 * 2 ** 20;

/**
 * `GET /slice`: the child that the query asks for, as a bundle to deploy. Strong ETag, Range, HEAD; the same bytes every time. `POST /slice`: the same
 * by the latencies of the client's own device, whose table is the body.
 */
export function sliceRoute(services: Services): Route {
  const room = new BodyRoom(4 * TABLE_BYTES);
  return {
    path: '/slice',
    get: {
      id: 'slice',
      summary: 'download a child as a bundle: ?arch= or a budget (?flops=, ?params=, ?bytes=, ?memory=, ?latency=); ?format=, ?dtype=, ?preprocess=, ?container=; ?have= for an update',
      scope: 'slice',
      query: sliceQuery,
      answers,
      handlers: [
        async function slice(request, response) {
          const query = parseQuery(sliceQuery, request.query);
          const options = optionsOf(request, response, query);
          await answerBundle(services, request, response, askedBundle(servedOf(response), childOf(servedOf(response), query).child, options, query));
        },
      ],
    },
    post: {
      id: 'sliceForDevice',
      summary: '?latency= by the latency table in the body',
      scope: 'slice',
      query: sliceQuery,
      body: { required: true, content: { 'application/json': latencyTableSchema } },
      answers,
      handlers: [
        async function sliceForDevice(request, response) {
          const query = parseQuery(sliceQuery, request.query);
          const options = optionsOf(request, response, query);
          if (query.latency === undefined || query.device !== undefined)
            throw new BignasError('PARAMETER_INVALID', 'Expected `latency` and no `device`: the table in the body is that of your own device. Without a table, ask by GET.', { parameter: 'latency' });
          const table = readLatencyTable(await readBody(request, TABLE_BYTES, { room, buffers: services.buffers }));
          await answerBundle(services, request, response, askedBundle(servedOf(response), childOf(servedOf(response), query, { table }).child, options, query));
        },
      ],
    },
  };
}

/** What the query says of the bundle, and `Accept` where it is silent. @throws BignasError FORMAT_UNKNOWN, PARAMETER_INVALID */
function optionsOf(request: Request, response: Response, { format, dtype, preprocess, container }: SliceQuery): BundleOptions {
  if (container !== undefined) return bundleOptions({ format, dtype, preprocess, container });
  response.vary('Accept');
  const accepted = request.accepts(containers.map((name) => containerTypes[name]));
  return bundleOptions({ format, dtype, preprocess, container: containers.find((name) => containerTypes[name] === accepted) });
}

const bundle = Object.fromEntries(containers.map((container) => [containerTypes[container], undefined]));
const answers: Readonly<Record<number, AnswerDescription>> = {
  200: { description: 'the bundle', content: bundle },
  202: { description: 'the child is being made (`Prefer: respond-async`); ask again when the place to poll says that it is there', content: { 'application/json': pendingSchema } },
  206: { description: 'the part of it that `Range` asks for', content: bundle },
  304: { description: 'the client has it already (`If-None-Match`)' },
};

async function answerBundle(services: Services, request: Request, response: Response, asked: AskedBundle): Promise<void> {
  const { child, options: kind, have, nested } = asked;
  const update = have ? `&have=${have.architecture}${nested ? '' : '&overlap=true'}` : '';
  if (answerPending(services, request, response, child)) return;
  const { bundles, admission, metrics, options } = services;
  const served: Served = servedOf(response);
  const leave = admission.enter();
  try {
    await bundles.use(served, asked, clientSignal(response), async (bundle) => {
      leave(); // sending computes nothing
      await sendBundle(response, bundles.folder, bundle, options.stalledMs ?? STALLED_MS, {
        ETag: `"${bundle.sha256}"`,
        // The child of a budget may be another tomorrow: kept, but asked about each time.
        'Cache-Control': 'public, no-cache',
        'Content-Type': containerTypes[kind.container],
        'Content-Location': `/slice?arch=${child.architecture}&${bundleQuery(kind)}${update}`,
        'Content-Disposition': `attachment; filename="${bundleName(served.checkpoint.manifest.space.name, child.id, kind, have?.id)}"`,
      });
    });
  } finally {
    leave();
  }
  metrics.slices.inc({ name: nameLabel(child.name) });
}

/**
 * Sends the file, or the part of it that is asked for, and waits until it is sent: it must not be removed before.
 * @param headers of the bundle; an error is not answered with them
 */
async function sendBundle(
  response: Response,
  folder: string,
  { file }: BundleFile,
  stalledMs: number,
  headers: Readonly<Record<string, string>>,
): Promise<void> {
  if (response.destroyed) return;
  // `fetch` adds it beside If-None-Match, and Express would then send a whole bundle that the client has.
  delete response.req.headers['cache-control'];
  response.set(headers);
  response.setTimeout(stalledMs, () => response.destroy());
  const sent = finished(response).catch(() => undefined); // a client that hangs up is no error
  const failed = new Promise<never>((_resolve, reject) => {
    response.sendFile(file, { root: folder, lastModified: false, cacheControl: false }, (error: Error | undefined) => {
      if (!error || response.headersSent) return;
      for (const name of Object.keys(headers)) response.removeHeader(name);
      reject(conditionError(error, response) ?? error);
    });
  });
  await Promise.race([sent, failed]);
}

/** What the request asks of the file and the file does not have is the client's error. */
function conditionError(error: Error, response: Response): BignasError | undefined {
  const { status, headers } = error as { status?: number; headers?: Record<string, string> };
  switch (status) {
    case 412:
      return new BignasError('PRECONDITION_FAILED', 'Expected the bundle to be the one that `If-Match` or `If-Unmodified-Since` describes; it is another.');
    case 416:
      response.set({ ...headers }); // how long the file is
      return new BignasError('RANGE_INVALID', 'Expected `Range` to lie within the bundle; Content-Range says how long that is.');
    default:
      return undefined;
  }
}
