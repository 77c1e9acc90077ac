/**
 * TensorFlow Serving's REST API (tensorflow.org/tfx/serving/api_rest): status, metadata and predict, over the same core as the other
 * protocols. Pixels are NHWC, as everywhere in TensorFlow. Labels of a model are architectures.
 */
import type { Response } from 'express';
import { modelStatusSchema, pendingSchema, servingMetadataSchema, servingPredictSchema, type ModelStatus, type ServingMetadata, type ServingPredict } from '../answers.js';
import type { Predicted } from '../predictions.js';
import { choiceQuery, noQuery, parseQuery } from '../schemas.js';
import type { Services } from '../services.js';
import { inputName, outputName } from '../workers/inferRequest.js';
import { predictRequest, predictRequestSchema, type PredictAsked } from '../workers/predictRequest.js';
import { isReady } from './health.js';
import { anyChild, bodyOf, describedChild, namedBy, onlyVersion, parameter, predictionHandlers } from './protocol.js';
import { servedOf, type Operation, type Route } from './route.js';

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

function status(services: Services, id: string): Operation {
  return {
    id,
    summary: 'TensorFlow Serving: whether a model can be asked',
    query: noQuery,
    answers: { 200: { description: 'its state', content: { 'application/json': modelStatusSchema } } },
    handlers: [
      function servingStatus(request, response) {
        parseQuery(noQuery, request.query);
        namedBy(request, response);
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
        const named = namedBy(request, response);
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
  const { maxImages } = services;
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
    handlers: predictionHandlers(services, {
      async read(request, signal) {
        const { body, worker } = await bodyOf(request, services);
        return worker ? worker.call('predict', { body }, { transfer: [body.buffer], signal }) : predictRequest(body, { maxImages });
      },
      parameters: () => ({}),
      top: () => undefined,
      answer,
    }),
  };
}

function answer(response: Response, { columns }: PredictAsked, { answer, count }: Predicted): void {
  const all = 'probabilities' in answer ? answer.probabilities : new Float32Array();
  const classes = all.length / count;
  const rows = Array.from({ length: count }, (_, i) => Array.from(all.subarray(i * classes, (i + 1) * classes)));
  response.json((columns ? { outputs: rows } : { predictions: rows }) satisfies ServingPredict);
}
