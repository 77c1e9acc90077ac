/**
 * TensorFlow Serving's REST API (tensorflow.org/tfx/serving/api_rest): status, metadata and predict, over the same core as the other
 * protocols. Pixels are NHWC, as everywhere in TensorFlow. Labels of a model are architectures.
 */
import type { Request, Response } from 'express';
import { modelStatusSchema, pendingSchema, servingMetadataSchema, servingPredictSchema, type ModelStatus, type ServingMetadata, type ServingPredict } from '../answers.js';
import { choiceQuery, noQuery, parseQuery, type DeadlineQuery } from '../schemas.js';
import type { Services } from '../services.js';
import { inputName, outputName } from '../workers/inferRequest.js';
import { predictRequest, predictRequestSchema } from '../workers/predictRequest.js';
import { isReady } from './health.js';
import { answerPending } from './pending.js';
import { anyChild, askedOf, bodyOf, describedChild, namedChild, onlyVersion, parameter, queryOf, resolutionOf } from './protocol.js';
import { clientSignal, servedOf, type Operation, type Route } from './route.js';
import type { Served } from '../served.js';

export function v1Routes(services: Services): Route[] {
  return [
    ['/v1/models/:model', ''],
    ['/v1/models/:model/versions/:version', 'Version'],
    ['/v1/models/:model/labels/:label', 'Label'],
  ].flatMap(([path, suffix]) => [
    // Before the path of which it is one, too.
    { path: `${path}\\:predict`, post: predict(services, `servingPredict${suffix}`) },
    { path: path!, get: status(services, `servingStatus${suffix}`) },
    { path: `${path}/metadata`, get: metadata(`servingMetadata${suffix}`) },
  ]);
}

/** What the path says of the child: a label stands for a version. */
function namedBy(request: Request, served: Served): { readonly arch?: string } {
  return namedChild(served, parameter(request, 'model')!, parameter(request, 'label') ?? parameter(request, 'version'));
}

function status(services: Services, id: string): Operation {
  return {
    id,
    summary: 'TensorFlow Serving: whether a model can be asked',
    query: noQuery,
    answers: { 200: { description: 'its state', content: { 'application/json': modelStatusSchema } } },
    handlers: [
      function servingStatus(request, response) {
        parseQuery(noQuery, request.query);
        namedBy(request, servedOf(response));
        const ready = isReady(services);
        const status = ready ? { error_code: 'OK', error_message: '' } : { error_code: 'UNAVAILABLE', error_message: 'A worker is down, or the server stops.' };
        response.json({ model_version_status: [{ version: onlyVersion, state: ready ? 'AVAILABLE' : 'UNLOADING', status }] } satisfies ModelStatus);
      },
    ],
  };
}

function metadata(id: string): Operation {
  const dims = (sizes: readonly number[]) => ({ dim: sizes.map((size) => ({ size: String(size), name: '' })), unknown_rank: false });
  return {
    id,
    summary: "TensorFlow Serving: a model's signature",
    query: noQuery,
    answers: { 200: { description: 'its signature', content: { 'application/json': servingMetadataSchema } } },
    handlers: [
      function servingMetadata(request, response) {
        parseQuery(noQuery, request.query);
        const served = servedOf(response);
        const named = namedBy(request, served);
        const size = named.arch === undefined ? -1 : describedChild(served, named).resolution;
        response.json({
          model_spec: { name: parameter(request, 'model') ?? anyChild, signature_name: '', version: onlyVersion },
          metadata: {
            signature_def: {
              signature_def: {
                serving_default: {
                  inputs: { [inputName]: { dtype: 'DT_FLOAT', tensor_shape: dims([-1, size, size, 3]), name: `${inputName}:0` } },
                  outputs: { [outputName]: { dtype: 'DT_FLOAT', tensor_shape: dims([-1, served.checkpoint.manifest.space.classes]), name: `${outputName}:0` } },
                  method_name: 'tensorflow/serving/predict',
                },
              },
            },
          },
        } satisfies ServingMetadata);
      },
    ],
  };
}

function predict(services: Services, id: string): Operation {
  const { predictions, maxImages } = services;
  return {
    id,
    summary: 'TensorFlow Serving: classify pixels (NHWC), or images as {"b64": …}; the query as that of POST /predict',
    scope: 'predict',
    query: choiceQuery,
    body: { required: true, content: { 'application/json': predictRequestSchema } },
    answers: {
      200: { description: 'probabilities of all classes', content: { 'application/json': servingPredictSchema } },
      202: { description: 'the child is being made (`Prefer: respond-async`)', content: { 'application/json': pendingSchema } },
    },
    handlers: [
      function check(request, response, next) {
        const query = askedOf(namedBy(request, servedOf(response)), queryOf(request));
        const arrived = performance.now();
        predictions.choose(servedOf(response), query, { arrived });
        response.locals['asked'] = { query, arrived } satisfies Asked;
        predictions.check();
        next();
      },
      async function servingPredict(request: Request, response: Response) {
        const { query, arrived } = response.locals['asked'] as Asked;
        const served = servedOf(response);
        const signal = clientSignal(response);
        const { body, worker } = await bodyOf(request, services);
        const { input, columns } = worker ? await worker.call('predict', { body }, { transfer: [body.buffer], signal }) : predictRequest(body, { maxImages });
        const choice = predictions.choose(served, query, { arrived, resolution: resolutionOf(input) });
        if (choice.deadline === undefined && answerPending(services, request, response, choice.child(0, true).child)) return;
        const { answer, count } = await predictions.predict({ served, choice, top: undefined, signal }, 'images' in input ? { sent: input } : input);
        const all = 'probabilities' in answer ? answer.probabilities : new Float32Array();
        const classes = all.length / count;
        const rows = Array.from({ length: count }, (_, i) => Array.from(all.subarray(i * classes, (i + 1) * classes)));
        response.json((columns ? { outputs: rows } : { predictions: rows }) satisfies ServingPredict);
      },
    ],
  };
}

interface Asked {
  readonly query: DeadlineQuery;
  readonly arrived: number;
}
