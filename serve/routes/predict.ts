import type { Request, Response } from 'express';
import { predictionSchema, imagesBodySchema, pendingSchema, type PredictionAnswer } from '../answers.js';
import { readBody } from '../body.js';
import { acceptedTypes, bodyKind } from '../media.js';
import { round, type Choice } from '../predictions.js';
import { parseQuery, predictQuery } from '../schemas.js';
import type { Services } from '../services.js';
import { answerPending } from './pending.js';
import { clientSignal, servedOf, type Route } from './route.js';

/** `POST /predict`: classifies the images of the body with the child that the query asks for. */
export function predictRoute(services: Services): Route {
  const { predictions, options } = services;
  return {
    path: '/predict',
    post: {
      id: 'predict',
      summary: 'classify images: a JPEG, PNG or WebP, a form of several, or JSON; ?arch= or a budget (?flops=, ?params=, ?bytes=, ?memory=, ?latency=) or ?deadline=; ?top=',
      scope: 'predict',
      query: predictQuery,
      body: { required: true, content: Object.fromEntries(acceptedTypes.map((type) => [type, type === 'application/json' ? imagesBodySchema : undefined])) },
      answers: {
        200: { description: 'the most probable classes of each image', content: { 'application/json': predictionSchema } },
        202: { description: 'the child is being made (`Prefer: respond-async`); ask again when the place to poll says that it is there', content: { 'application/json': pendingSchema } },
      },
      handlers: [
        // What is wrong with the request's head is said before its body is read.
        function check(request, response, next) {
          const query = parseQuery(predictQuery, request.query);
          const contentType = request.get('content-type');
          bodyKind(contentType);
          const choice = predictions.choose(servedOf(response), query);
          response.locals['asked'] = { choice, top: Number(query.top), contentType } satisfies Asked;
          predictions.check();
          next();
        },
        async function predict(request: Request, response: Response) {
          const { choice, top, contentType } = response.locals['asked'] as Asked;
          const started = performance.now();
          const served = servedOf(response);
          const signal = clientSignal(response);
          const body = await readBody(request, options.maxBody, services);
          // After the body: how fast a client sends is not the others' affair.
          if (choice.deadline === undefined && answerPending(services, request, response, choice.child(0, 1, true).child)) return;
          const read = performance.now();
          const { child, choice: why, answer, files, batch, deadline, milliseconds } = await predictions.predict({ served, choice, top, signal }, { sent: { body, contentType } });
          const labels = served.checkpoint.manifest.dataset.classes;
          response.json({
            ...child,
            choice: why,
            predictions: ('classes' in answer ? answer.classes : []).map((best, i) => ({
              file: files[i],
              classes: best.map(({ index, probability }) => ({ label: labels[index]!, index, probability })),
            })),
            ...(deadline && { deadline }),
            batch,
            milliseconds: { read: round(read - started), ...milliseconds, total: round(performance.now() - started) },
          } satisfies PredictionAnswer);
        },
      ],
    },
  };
}

interface Asked {
  readonly choice: Choice;
  readonly top: number;
  readonly contentType: string | undefined;
}
