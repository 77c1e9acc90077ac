/**
 * The Open Inference Protocol, version 2, over REST (github.com/kserve/open-inference-protocol), with the binary tensor, classification
 * and model repository extensions. The model `bignas` is every child; each architecture is a model, too.
 */
import type { Request, Response } from 'express';
import type { z } from 'zod';
import { familyNames } from '../../src/checkpoint/frontier.js';
import { BignasError, shown } from '../../src/errors.js';
import { inferAnswerSchema, modelMetadataSchema, readySchema, repositorySchema, serverMetadataSchema, pendingSchema, type InferAnswer, type ModelMetadata } from '../answers.js';
import { readBody } from '../body.js';
import { isRecord, parseJson } from '../json.js';
import { packageVersion } from '../packageVersion.js';
import type { Predicted } from '../predictions.js';
import { choiceQuery, noQuery, parseQuery, type DeadlineQuery } from '../schemas.js';
import type { Served } from '../served.js';
import type { Services } from '../services.js';
import type { Answer } from '../workers/running.js';
import { inferRequest, inferRequestSchema, inputName, outputName, type InferAsked } from '../workers/inferRequest.js';
import { isReady } from './health.js';
import { anyChild, bodyOf, describedChild, namedBy, onlyVersion, parameter, predictionHandlers } from './protocol.js';
import { servedOf, type AnswerDescription, type Operation, type Route } from './route.js';

const jsonLengthHeader = 'Inference-Header-Content-Length';

/** Parameters of the protocol and its clients that mean nothing here. */
const ignored = ['binary_data_output', 'content_type', 'headers', 'priority', 'sequence_end', 'sequence_id', 'sequence_start', 'timeout'];

/** Bytes of a question to the repository. */
const QUESTION_BYTES = 4096;

export function v2Routes(services: Services): Route[] {
  const paths = ['/v2/models/:model', '/v2/models/:model/versions/:version'];
  return [
    serverMetadataRoute(),
    repositoryRoute(services),
    ...paths.flatMap((path, i) => {
      const suffix = i === 0 ? '' : 'Version';
      return [
        { path, get: metadata(`modelMetadata${suffix}`) },
        { path: `${path}/ready`, get: ready(services, `modelReady${suffix}`) },
        { path: `${path}/infer`, post: infer(services, `infer${suffix}`) },
      ];
    }),
  ];
}

function serverMetadataRoute(): Route {
  const answer = { name: anyChild, version: packageVersion(), extensions: ['binary_tensor_data', 'classification', 'model_repository'] } satisfies z.infer<typeof serverMetadataSchema>;
  return {
    path: '/v2',
    get: {
      id: 'serverMetadata',
      summary: 'Open Inference Protocol: metadata of the server',
      answers: { 200: { description: 'name, version and extensions', content: { 'application/json': serverMetadataSchema } } },
      handlers: [(_request, response) => void response.json(answer)],
    },
  };
}

/** `POST /v2/repository/index`: `bignas` and the family. Other architectures are models as well, but there are too many to list. */
function repositoryRoute(services: Services): Route {
  return {
    path: '/v2/repository/index',
    post: {
      id: 'repositoryIndex',
      summary: 'Open Inference Protocol: the models that have a name',
      answers: { 200: { description: 'the models, and whether they are in memory', content: { 'application/json': repositorySchema } } },
      handlers: [
        async function repositoryIndex(request, response) {
          parseQuery(noQuery, request.query);
          const body = await readBody(request, QUESTION_BYTES, services);
          const question = body.length === 0 ? {} : parseJson(body, 'nothing, or {"ready": true}');
          if (!isRecord(question) || (question['ready'] !== undefined && typeof question['ready'] !== 'boolean'))
            throw new BignasError('BODY_MALFORMED', `Expected nothing, or {"ready": true}, got ${shown(question)}.`);
          const served = servedOf(response);
          const state = isReady(services) ? 'READY' : 'UNAVAILABLE';
          const models = familyNames.map((name) => {
            const child = served.describe(served.checkpoint.frontier.family[name].architecture);
            return { name, version: onlyVersion, state, reason: services.children.stateOf(served, child) === 'ready' ? 'in memory' : 'built when it is asked for' };
          });
          const all = [{ name: anyChild, version: onlyVersion, state, reason: 'every child: see its parameters' }, ...models];
          response.json((question['ready'] === true && state !== 'READY' ? [] : all) satisfies z.infer<typeof repositorySchema>);
        },
      ],
    },
  };
}

function metadata(id: string): Operation {
  return {
    id,
    summary: "Open Inference Protocol: a model's input and output",
    query: noQuery,
    answers: { 200: { description: 'tensors', content: { 'application/json': modelMetadataSchema } } },
    handlers: [
      function modelMetadata(request, response) {
        parseQuery(noQuery, request.query);
        const served = servedOf(response);
        const named = namedBy(request, response);
        const { resolution } = describedChild(served, named);
        const size = named.arch === undefined ? -1 : resolution;
        const { classes } = served.checkpoint.manifest.space;
        response.json({
          name: parameter(request, 'model')!,
          versions: [onlyVersion],
          platform: 'bignas',
          inputs: [{ name: inputName, datatype: 'FP32', shape: [-1, 3, size, size] }],
          outputs: [{ name: outputName, datatype: 'FP32', shape: [-1, classes] }],
        } satisfies ModelMetadata);
      },
    ],
  };
}

function ready(services: Services, id: string): Operation {
  return {
    id,
    summary: 'Open Inference Protocol: whether a model can be asked',
    query: noQuery,
    answers: {
      200: { description: 'it can', content: { 'application/json': readySchema } },
      503: { description: 'it cannot now', content: { 'application/json': readySchema } },
    },
    handlers: [
      function modelReady(request, response) {
        parseQuery(noQuery, request.query);
        namedBy(request, response);
        const ready = isReady(services);
        response.status(ready ? 200 : 503).json({ ready });
      },
    ],
  };
}

const inferAnswers: Readonly<Record<number, AnswerDescription>> = {
  200: { description: 'the probabilities, or the most probable classes', content: { 'application/json': inferAnswerSchema, 'application/octet-stream': undefined } },
  202: { description: 'the child is being made (`Prefer: respond-async`)', content: { 'application/json': pendingSchema } },
};

function infer(services: Services, id: string): Operation {
  const { maxImages } = services;
  return {
    id,
    summary: 'Open Inference Protocol: classify a tensor `input` or images `image`; parameters as those of POST /predict',
    scope: 'predict',
    query: choiceQuery,
    body: { required: true, content: { 'application/json': inferRequestSchema, 'application/octet-stream': undefined } },
    answers: inferAnswers,
    handlers: predictionHandlers(services, {
      async read(request, signal) {
        const jsonLength = jsonLengthOf(request);
        const { body, worker } = await bodyOf(request, services, jsonLength);
        return worker ? worker.call('infer', { body, jsonLength }, { transfer: [body.buffer], signal }) : inferRequest(body, jsonLength, { maxImages });
      },
      parameters: parametersOf,
      top: ({ classification }) => classification,
      answer,
    }),
  };
}

function jsonLengthOf(request: Request): number | undefined {
  const text = request.get(jsonLengthHeader);
  if (text === undefined) return undefined;
  if (/^\d{1,10}$/.test(text)) return Number(text);
  throw new BignasError('PARAMETER_INVALID', `Expected the header ${jsonLengthHeader} to be a number of bytes, got ${shown(text)}.`);
}

/** What the request's parameters say of the child. @throws BignasError PARAMETER_INVALID */
function parametersOf({ parameters }: InferAsked): DeadlineQuery {
  const said = Object.entries(parameters).filter(([name]) => !ignored.includes(name));
  return parseQuery(choiceQuery, Object.fromEntries(said.map(([name, value]) => [name, typeof value === 'number' ? plain(value) : String(value)])));
}

/** A number without an exponent, as the query's forms have it. */
function plain(value: number): string {
  return value.toLocaleString('en', { useGrouping: false, maximumFractionDigits: 12 });
}

function answer(response: Response, { id, binary }: InferAsked, predicted: Predicted, served: Served, model: string): void {
  const { child, choice, count, batch, deadline } = predicted;
  const output = outputOf(predicted.answer, count, served.checkpoint.manifest.dataset.classes);
  const document: InferAnswer = {
    model_name: model,
    model_version: onlyVersion,
    ...(id !== undefined && { id }),
    parameters: {
      architecture: child.architecture,
      choice,
      batch,
      ...(deadline && { deadline_ms: deadline.asked, expected_ms: deadline.expected, took_ms: deadline.took, met: deadline.met, slid: deadline.slid }),
    },
    outputs: [],
  };
  if (!binary) {
    response.json({ ...document, outputs: [{ ...output.tensor, data: output.data() }] });
    return;
  }
  const bytes = output.bytes();
  const json = Buffer.from(JSON.stringify({ ...document, outputs: [{ ...output.tensor, parameters: { binary_data_size: bytes.length } }] }));
  response.set(jsonLengthHeader, String(json.length)).type('application/octet-stream').send(Buffer.concat([json, bytes]));
}

function outputOf(answer: Answer, count: number, labels: readonly string[]) {
  if ('probabilities' in answer) {
    const { probabilities } = answer;
    return {
      tensor: { name: outputName, datatype: 'FP32' as const, shape: [count, probabilities.length / count] },
      data: () => Array.from(probabilities),
      bytes: () => Buffer.from(probabilities.buffer, probabilities.byteOffset, probabilities.byteLength),
    };
  }
  // As Triton writes them (its classification extension).
  const texts = answer.classes.flatMap((best) => best.map(({ probability, index }) => `${probability.toFixed(6)}:${index}:${labels[index]!}`));
  return {
    tensor: { name: outputName, datatype: 'BYTES' as const, shape: [count, answer.classes[0]!.length] },
    data: () => texts,
    bytes: () => Buffer.concat(texts.map(element)),
  };
}

/** A BYTES element: its length, four bytes little-endian, before it. */
function element(text: string): Buffer {
  const bytes = Buffer.from(text);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return Buffer.concat([length, bytes]);
}
