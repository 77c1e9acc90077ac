import { BodyRoom, readBody } from '../body.js';
import { bodyKind } from '../media.js';
import { nameLabel } from '../metrics.js';
import { childOf, parseQuery, predictQuery, type ChosenChild } from '../schemas.js';
import type { Services } from '../services.js';
import { leastLoaded } from '../workers/thread.js';
import { clientSignal, type Route } from './route.js';

/** `POST /predict`: classifies the images of the body with the child that the query asks for. */
export function predictRoute(services: Services): Route {
  const { checkpoint, children, images, admission, metrics, options } = services;
  // What those that compute may hold, once more for those that are still being read.
  const room = new BodyRoom(options.queue * options.maxBody);
  const labels = checkpoint.manifest.dataset.classes;
  return {
    path: '/predict',
    summary: 'classify images: a JPEG, PNG or WebP, a form of several, or JSON; ?arch= or a budget (?flops=, ?params=, ?bytes=, ?memory=, ?latency=), ?top=',
    post: [
      // What is wrong with the request's head is said before its body is read.
      function check(request, response, next) {
        const query = parseQuery(predictQuery, request.query);
        const contentType = request.get('content-type');
        bodyKind(contentType);
        response.locals['asked'] = { ...childOf(services, query), top: Number(query.top), contentType } satisfies Asked;
        admission.check();
        next();
      },
      async function predict(request, response) {
        const { child, choice, top, contentType } = response.locals['asked'] as Asked;
        const started = performance.now();
        const signal = clientSignal(response);
        const body = await readBody(request, options.maxBody, room);
        const read = performance.now();
        // After the body: how fast a client sends is not the others' affair.
        const leave = admission.enter();
        try {
          const { resolution } = child;
          // Before the child is made: what cannot be answered shall not cost a calibration.
          const prepared = await leastLoaded(images).call('prepare', { body, contentType, resolution }, { transfer: [body.buffer], signal });
          const decoded = performance.now();
          const { classes, ready, run, rows } = await children.classify(child, prepared, top, signal);
          metrics.predictions.inc({ name: nameLabel(child.name) }, prepared.count);
          response.json({
            ...child,
            choice,
            predictions: classes.map((best, i) => ({
              file: prepared.files[i],
              classes: best.map(({ index, probability }) => ({ label: labels[index], index, probability })),
            })),
            batch: rows,
            milliseconds: {
              read: round(read - started),
              decode: round(decoded - read),
              ready: round(ready),
              run: round(run),
              total: round(performance.now() - started),
            },
          });
        } finally {
          leave();
        }
      },
    ],
  };
}

interface Asked extends ChosenChild {
  readonly top: number;
  readonly contentType: string | undefined;
}

/** Milliseconds to two digits: more would be noise. */
function round(milliseconds: number): number {
  return Math.round(milliseconds * 100) / 100;
}
