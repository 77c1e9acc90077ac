/** What the routes of the two protocols share: which child a name means, and their requests' bodies. */
import type { Request, RequestHandler, Response } from 'express';
import { BignasError } from '../../src/errors.js';
import type { ChildDescription } from '../../src/bundle/child.js';
import { readBody } from '../body.js';
import type { Predicted } from '../predictions.js';
import { choiceQuery, parseQuery, type DeadlineQuery } from '../schemas.js';
import type { Served } from '../served.js';
import type { Services } from '../services.js';
import type { AskedInput } from '../workers/asked.js';
import type { ImageRole } from '../workers/image.js';
import { leastLoaded, type Thread } from '../workers/thread.js';
import { answerPending } from './pending.js';
import { clientSignal, servedOf } from './route.js';

/** The model that is every child: which one is said with each request. */
export const anyChild = 'bignas';

/** The only version of a child; `bignas` has its architectures as versions as well. */
export const onlyVersion = '1';

/** JSON that takes no worker: reading it takes less than a millisecond. */
const SMALL_JSON = 64 * 2 ** 10;
/** Bytes of tensors behind it that take none: to look at each number takes a few milliseconds. */
const SMALL_BODY = 4 * 2 ** 20;

/**
 * What a model's name and version say of the child.
 * @throws BignasError MODEL_UNKNOWN
 */
function namedChild(served: Served, model: string, version: string = onlyVersion): { readonly arch?: string } {
  const arch = model === anyChild ? (version === onlyVersion ? undefined : version) : model;
  if (model !== anyChild && version !== onlyVersion) throw unknown(`Expected version ${onlyVersion} of ${model}, the only one`, version);
  if (arch === undefined) return {};
  try {
    served.find(arch);
  } catch (error) {
    throw new BignasError('MODEL_UNKNOWN', `Expected the model ${anyChild}, or an architecture. ${(error as Error).message}`, {}, { cause: error });
  }
  return { arch };
}

/** The child that a model's metadata are of: the named one, or the most accurate. */
export function describedChild(served: Served, asked: { readonly arch?: string }): ChildDescription {
  return served.find(asked.arch ?? 'biggest');
}

/**
 * Which child a request means: by its model's name, its query, and its parameters where the protocol has them.
 * @param parameters are known to be legal: they have gone through `choiceOf`'s schema
 * @throws BignasError PARAMETER_INVALID where two of them say the same thing
 */
function askedOf(named: { readonly arch?: string }, query: DeadlineQuery, parameters: DeadlineQuery = {}): DeadlineQuery {
  const asked: Record<string, string> = {};
  for (const [where, said] of [['the model\'s name', named], ['the query', query], ['`parameters`', parameters]] as const)
    for (const [name, value] of Object.entries(said)) {
      if (value === undefined) continue;
      if (name in asked) throw new BignasError('PARAMETER_INVALID', `Expected \`${name}\` once, got it in ${where} as well.`, { parameter: name });
      asked[name] = value;
    }
  return asked;
}

/** A path parameter that the route has. */
export function parameter(request: Request, name: string): string | undefined {
  const value = request.params[name];
  return Array.isArray(value) ? value[0] : value;
}

/** What the path says of the child; a label stands for a version. @throws BignasError MODEL_UNKNOWN */
export function namedBy(request: Request, response: Response): { readonly arch?: string } {
  return namedChild(servedOf(response), parameter(request, 'model')!, parameter(request, 'label') ?? parameter(request, 'version'));
}

/** How a protocol has a prediction asked for, and answered. */
export interface PredictionProtocol<A extends { readonly input: AskedInput }> {
  /** What is in the body. */
  readonly read: (request: Request, signal: AbortSignal) => Promise<A>;
  /** What the body says of the child, beside the path and the query. */
  readonly parameters: (asked: A) => DeadlineQuery;
  /** Classes of each image that are wanted; undefined: all probabilities. */
  readonly top: (asked: A) => number | undefined;
  readonly answer: (response: Response, asked: A, predicted: Predicted, served: Served, model: string) => void;
}

/** The handlers of a prediction: what is wrong with the request's head is said before its body is read. */
export function predictionHandlers<A extends { readonly input: AskedInput }>(services: Services, { read, parameters, top, answer }: PredictionProtocol<A>): RequestHandler[] {
  const { predictions } = services;
  return [
    function check(request, response, next) {
      const head: Head = { named: namedBy(request, response), query: parseQuery(choiceQuery, request.query), arrived: performance.now() };
      predictions.choose(servedOf(response), askedOf(head.named, head.query), head);
      predictions.check();
      response.locals['asked'] = head;
      next();
    },
    async function predict(request, response) {
      const { named, query, arrived } = response.locals['asked'] as Head;
      const served = servedOf(response);
      const signal = clientSignal(response);
      const asked = await read(request, signal);
      const { input } = asked;
      const resolution = 'tensor' in input ? input.tensor.resolution : undefined;
      const choice = predictions.choose(served, askedOf(named, query, parameters(asked)), { arrived, resolution });
      if (choice.deadline === undefined && answerPending(services, request, response, choice.child(0, 1, true).child)) return;
      const predicted = await predictions.predict({ served, choice, top: top(asked), signal }, 'images' in input ? { sent: input } : input);
      answer(response, asked, predicted, served, parameter(request, 'model')!);
    },
  ];
}

interface Head {
  readonly named: { readonly arch?: string };
  readonly query: DeadlineQuery;
  readonly arrived: number;
}

/** The body, and which of the image workers reads it; undefined: it is read here. */
export async function bodyOf(request: Request, services: Services, jsonLength?: number): Promise<{ readonly body: Uint8Array<ArrayBuffer>; readonly worker: Thread<ImageRole> | undefined }> {
  const body = await readBody(request, services.options.maxBody, services, jsonLength);
  const small = (jsonLength ?? body.length) <= SMALL_JSON && body.length <= SMALL_BODY;
  return { body, worker: small ? undefined : leastLoaded(services.images) };
}

function unknown(expected: string, got: string): BignasError {
  return new BignasError('MODEL_UNKNOWN', `${expected}, got ${got.slice(0, 64)}.`);
}
