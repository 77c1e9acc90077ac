/** What the routes of the two protocols share: which child a name means, and their requests' bodies. */
import type { Request, Response } from 'express';
import { BignasError } from '../../src/errors.js';
import type { ChildDescription } from '../../src/bundle/child.js';
import { findArchitecture } from '../../src/search/find.js';
import { readBody } from '../body.js';
import { choiceQuery, parseQuery, type DeadlineQuery } from '../schemas.js';
import type { Served } from '../served.js';
import type { Services } from '../services.js';
import type { AskedInput } from '../workers/asked.js';
import type { ImageRole } from '../workers/image.js';
import { leastLoaded, type Thread } from '../workers/thread.js';
import { servedOf } from './route.js';

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
export function namedChild(served: Served, model: string, version: string = onlyVersion): { readonly arch?: string } {
  const arch = model === anyChild ? (version === onlyVersion ? undefined : version) : model;
  if (model !== anyChild && version !== onlyVersion) throw unknown(`Expected version ${onlyVersion} of ${model}, the only one`, version);
  if (arch === undefined) return {};
  try {
    findArchitecture(served.checkpoint.manifest.space, served.checkpoint.frontier, arch);
  } catch (error) {
    throw new BignasError('MODEL_UNKNOWN', `Expected the model ${anyChild}, or an architecture. ${(error as Error).message}`, {}, { cause: error });
  }
  return { arch };
}

/** The child that a model's metadata are of: the named one, or the most accurate. */
export function describedChild(served: Served, asked: { readonly arch?: string }): ChildDescription {
  const { family } = served.checkpoint.frontier;
  return served.describe(asked.arch === undefined ? family.biggest.architecture : findArchitecture(served.checkpoint.manifest.space, served.checkpoint.frontier, asked.arch));
}

/**
 * Which child a request means: by its model's name, its query, and its parameters where the protocol has them.
 * @param parameters are known to be legal: they have gone through `choiceOf`'s schema
 * @throws BignasError PARAMETER_INVALID where two of them say the same thing
 */
export function askedOf(named: { readonly arch?: string }, query: DeadlineQuery, parameters: DeadlineQuery = {}): DeadlineQuery {
  const asked: Record<string, string> = {};
  for (const [where, said] of [['the model\'s name', named], ['the query', query], ['`parameters`', parameters]] as const)
    for (const [name, value] of Object.entries(said)) {
      if (value === undefined) continue;
      if (name in asked) throw new BignasError('PARAMETER_INVALID', `Expected \`${name}\` once, got it in ${where} as well.`, { parameter: name });
      asked[name] = value;
    }
  return asked;
}

export function queryOf(request: Request): DeadlineQuery {
  return parseQuery(choiceQuery, request.query);
}

/** A path parameter that the route has. */
export function parameter(request: Request, name: string): string | undefined {
  const value = request.params[name];
  return Array.isArray(value) ? value[0] : value;
}

/** The checkpoint that answers, and what the path and the query say of the child. */
export function askedByPath(request: Request, response: Response): { readonly served: Served; readonly named: { readonly arch?: string }; readonly query: DeadlineQuery } {
  const served = servedOf(response);
  return { served, named: namedChild(served, parameter(request, 'model')!, parameter(request, 'version')), query: queryOf(request) };
}

/** The body, and which of the image workers reads it; undefined: it is read here. */
export async function bodyOf(request: Request, { options, room, images }: Services, jsonLength?: number): Promise<{ readonly body: Uint8Array<ArrayBuffer>; readonly worker: Thread<ImageRole> | undefined }> {
  const body = await readBody(request, options.maxBody, room);
  const small = (jsonLength ?? body.length) <= SMALL_JSON && body.length <= SMALL_BODY;
  return { body, worker: small ? undefined : leastLoaded(images) };
}

/** Of a tensor; images have none yet. */
export function resolutionOf(input: AskedInput): number | undefined {
  return 'tensor' in input ? input.tensor.resolution : undefined;
}

function unknown(expected: string, got: string): BignasError {
  return new BignasError('MODEL_UNKNOWN', `${expected}, got ${got.slice(0, 64)}.`);
}
