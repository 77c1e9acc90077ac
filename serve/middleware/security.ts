import { createHash, timingSafeEqual } from 'node:crypto';
import cors from 'cors';
import type { Request, RequestHandler } from 'express';
import { ipKeyGenerator, rateLimit } from 'express-rate-limit';
import helmet from 'helmet';
import { BignasError } from '../../src/errors.js';
import { scopes, type Operation, type Scope } from '../routes/route.js';

export interface SecurityOptions {
  /** Tokens that open the routes of a scope; of none listed, the scope is open, but `admin`, which is closed then. */
  readonly tokens: Readonly<Record<Scope, readonly string[]>>;
  /** Requests that one client may make in so many seconds; undefined: any number. */
  readonly rateLimit: { readonly requests: number; readonly seconds: number } | undefined;
  /** Origins whose pages may use this server; `*` for all. */
  readonly corsOrigins: readonly string[];
  /** Proxies before the server, whose word on a client's address is believed. */
  readonly trustedProxies: number;
}

export const openToAll: SecurityOptions = { tokens: { predict: [], slice: [], admin: [] }, rateLimit: undefined, corsOrigins: [], trustedProxies: 0 };

/** Headers that keep a browser from doing more with an answer than it should. */
export function securityHeaders(): RequestHandler {
  return helmet({ contentSecurityPolicy: { useDefaults: false, directives: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] } } });
}

/** Lets pages of other origins use the server: none unless they are listed. */
export function crossOrigin({ corsOrigins }: SecurityOptions): RequestHandler {
  if (corsOrigins.length === 0) return (_request, _response, next) => next();
  return cors({
    origin: corsOrigins.includes('*') ? '*' : [...corsOrigins],
    methods: ['GET', 'HEAD', 'POST'],
    exposedHeaders: ['Accept-Ranges', 'Content-Disposition', 'Content-Location', 'Content-Range', 'ETag', 'Inference-Header-Content-Length', 'Location', 'Retry-After', 'X-Request-Id'],
    maxAge: 3600,
  });
}

/** What comes before the handlers of an operation that has a scope: the client's rate, then its token. */
export function guards(options: SecurityOptions): (operation: Operation) => readonly RequestHandler[] {
  const limiter = options.rateLimit && limited(options.rateLimit);
  return ({ scope }) => (scope === undefined ? [] : [...(limiter ? [limiter] : []), authorised(scope, options)]);
}

/** One count for all the routes that compute. */
function limited({ requests, seconds }: NonNullable<SecurityOptions['rateLimit']>): RequestHandler {
  return rateLimit({
    windowMs: 1000 * seconds,
    limit: requests,
    standardHeaders: 'draft-8',
    legacyHeaders: false,
    keyGenerator: (request) => ipKeyGenerator(request.ip ?? ''),
    handler: (_request, _response, next) => {
      next(new BignasError('RATE_LIMITED', `Expected at most ${requests} requests in ${seconds} s from one client. RateLimit-Policy and RateLimit say how many are left.`, { requests, seconds }));
    },
  });
}

function authorised(scope: Scope, { tokens }: SecurityOptions): RequestHandler {
  const opens = digests(tokens[scope]);
  const others = digests(scopes.flatMap((other) => (other === scope ? [] : tokens[other])));
  return function authorised(request, response, next) {
    if (opens.length === 0) {
      if (scope !== 'admin') {
        next();
        return;
      }
      throw new BignasError('FORBIDDEN', 'This route is closed: the server was started without an admin token (BIGNAS_TOKEN_ADMIN). SIGHUP reloads too.');
    }
    const token = bearer(request);
    if (token !== undefined && isOneOf(token, opens)) {
      next();
      return;
    }
    if (token !== undefined && isOneOf(token, others)) throw new BignasError('FORBIDDEN', `Expected a token for ${scope}, got one that is for something else.`);
    response.set('WWW-Authenticate', `Bearer realm="bignas"${token === undefined ? '' : ', error="invalid_token"'}`);
    throw new BignasError('UNAUTHORISED', `Expected \`Authorization: Bearer …\` with a token for ${scope}, got ${token === undefined ? 'none' : 'one that is not known'}.`);
  };
}

function bearer(request: Request): string | undefined {
  return /^Bearer +(\S+) *$/i.exec(request.get('authorization') ?? '')?.[1];
}

/** Digests have one length, so that comparing them takes the same time whatever they are of. */
function digests(tokens: readonly string[]): Buffer[] {
  return tokens.map(digest);
}

function digest(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

function isOneOf(token: string, known: readonly Buffer[]): boolean {
  const got = digest(token);
  // Every one is compared, whichever fits.
  return known.reduce((found, one) => timingSafeEqual(got, one) || found, false);
}
