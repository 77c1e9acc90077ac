import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { parseLatencyTable, type LatencyTable } from '../src/cost/latency.js';
import { BignasError, shown } from '../src/errors.js';
import { cacheFolder } from '../src/files/cacheFolder.js';
import { parseBytes } from '../src/search/budget.js';
import type { SecurityOptions } from './middleware/security.js';
import { scopes, type Scope } from './routes/route.js';
import { engineChoices, type ServiceOptions } from './services.js';

/** How a server runs: every field is checked. */
export interface ServerOptions extends ServiceOptions {
  /** A checkpoint's folder, or a training run's. */
  readonly checkpoint: string;
  readonly host: string;
  /** 0 takes any that is free. */
  readonly port: number;
  readonly logLevel: LogLevel;
}

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/** Options that are no single text, or that only programs give. */
type Structured = 'cacheFolder' | 'engine' | 'latencyTables' | 'maxImages' | 'maxPixels' | 'security' | 'stalledMs' | 'warm';

/** What a user may say, as texts; what is not said has a default. */
export type OptionTexts = { readonly [K in keyof Omit<ServerOptions, Structured>]?: string | undefined } & {
  readonly warm?: boolean | undefined;
  /** false: nothing is kept over restarts. */
  readonly cacheFolder?: string | false | undefined;
  /** Paths of latency tables. */
  readonly latencyTable?: readonly string[] | undefined;
  readonly engine?: string | undefined;
  readonly rateLimit?: string | undefined;
  readonly corsOrigin?: readonly string[] | undefined;
  readonly trustProxy?: string | undefined;
};

/** Tokens of each scope, comma-separated. They come from the environment alone: a command line is there for all to see. */
export const tokenVariables = { predict: 'BIGNAS_TOKEN_PREDICT', slice: 'BIGNAS_TOKEN_SLICE', admin: 'BIGNAS_TOKEN_ADMIN' } as const satisfies Record<Scope, string>;

/** Characters that a token has at least: fewer can be guessed. */
const LEAST_TOKEN = 16;

/** Threads unless a user says otherwise: networks of this size gain nothing from more, and every loaded child has threads of its own. */
const MOST_THREADS = 8;

/** Defaults, as a user would write them; `threads` is the number of processors, up to eight. */
export const defaultOptions = {
  host: '127.0.0.1',
  port: '8080',
  workers: '1',
  cacheBytes: '512MiB',
  maxBody: '20MiB',
  queue: '64',
  maxBatch: '16',
  logLevel: 'info',
} as const;

/**
 * @param checkpoint where none is named
 * @param environment where tokens are found
 * @throws BignasError OPTION_INVALID, naming the option
 */
export function parseOptions(options: OptionTexts, checkpoint: string, environment: NodeJS.ProcessEnv): ServerOptions {
  const { latencyTable, warm = true, cacheFolder: folder, engine = 'auto', rateLimit, corsOrigin, trustProxy, ...texts } = options;
  const text = { ...defaultOptions, threads: String(Math.min(availableParallelism(), MOST_THREADS)), ...given(texts) };
  return {
    checkpoint: texts.checkpoint ?? checkpoint,
    host: text.host,
    port: integer('--port', text.port, 0, 65535),
    engine: oneOf('--engine', engine, engineChoices),
    threads: integer('--threads', text.threads, 1, 1024),
    workers: integer('--workers', text.workers, 1, 64),
    cacheBytes: bytes('--cache-bytes', text.cacheBytes),
    maxBody: bytes('--max-body', text.maxBody, 2 ** 30),
    queue: integer('--queue', text.queue, 1, 100_000),
    maxBatch: integer('--max-batch', text.maxBatch, 1, 1024),
    logLevel: oneOf('--log-level', text.logLevel, logLevels),
    warm,
    cacheFolder: folder === false ? undefined : folder || cacheFolder('serve'),
    latencyTables: (latencyTable ?? []).map(readTable),
    security: {
      tokens: Object.fromEntries(scopes.map((scope) => [scope, tokens(tokenVariables[scope], environment)])) as Record<Scope, string[]>,
      rateLimit: rateLimit === undefined || rateLimit === '' ? undefined : rate(rateLimit),
      corsOrigins: (corsOrigin ?? []).map(origin),
      trustedProxies: integer('--trust-proxy', trustProxy || '0', 0, 16),
    },
  };
}

/** No error shows a token. */
function tokens(variable: string, environment: NodeJS.ProcessEnv): string[] {
  const found = (environment[variable] ?? '').split(',').map((token) => token.trim()).filter((token) => token !== '');
  if (found.some((token) => token.length < LEAST_TOKEN || !/^[\x21-\x7e]+$/.test(token)))
    throw new BignasError('OPTION_INVALID', `Expected each token in ${variable} to have at least ${LEAST_TOKEN} printable ASCII characters without spaces, such as \`openssl rand -hex 32\` makes.`);
  return found;
}

function rate(text: string): SecurityOptions['rateLimit'] {
  const [, requests, seconds] = /^([1-9]\d{0,8})\/([1-9]\d{0,4})s$/.exec(text) ?? [];
  if (requests === undefined) throw invalid('--rate-limit', 'requests in a time, such as 600/60s', text);
  return { requests: Number(requests), seconds: Number(seconds) };
}

function origin(text: string): string {
  if (text === '*' || (URL.canParse(text) && new URL(text).origin === text)) return text;
  throw invalid('--cors-origin', '* or an origin such as https://example.org, without a path', text);
}

/** What was said; an empty text is what an environment variable without a value gives. */
function given(texts: Readonly<Record<string, string | undefined>>): Partial<Record<keyof Omit<ServerOptions, Structured>, string>> {
  return Object.fromEntries(Object.entries(texts).filter(([, text]) => text !== undefined && text !== ''));
}

function readTable(path: string): LatencyTable {
  try {
    return parseLatencyTable(JSON.parse(readFileSync(path, 'utf8')));
  } catch (error) {
    throw new BignasError('OPTION_INVALID', `Expected --latency-table to be a latency table, but ${shown(path)} is none: ${(error as Error).message}`);
  }
}

function integer(name: string, text: string, least: number, most: number): number {
  const value = /^\d{1,6}$/.test(text) ? Number(text) : NaN;
  if (value >= least && value <= most) return value;
  throw invalid(name, `a whole number from ${least} to ${most}`, text);
}

function bytes(name: string, text: string, most = Number.MAX_SAFE_INTEGER): number {
  try {
    const value = Math.floor(parseBytes(name, text));
    if (value >= 1 && value <= most) return value;
  } catch {
    // Said below, with the most that is legal.
  }
  throw invalid(name, `bytes such as 256MiB${most < Number.MAX_SAFE_INTEGER ? `, at most ${most}` : ''}`, text);
}

function oneOf<T extends string>(name: string, text: string, legal: readonly T[]): T {
  const found = legal.find((value) => value === text);
  if (found !== undefined) return found;
  throw invalid(name, legal.join(', '), text);
}

function invalid(name: string, expected: string, got: string): BignasError {
  return new BignasError('OPTION_INVALID', `Expected ${name} to be ${expected}, got ${shown(got)}.`);
}
