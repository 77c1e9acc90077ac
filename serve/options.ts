import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { parseLatencyTable, type LatencyTable } from '../src/cost/latency.js';
import { BignasError, shown } from '../src/errors.js';
import { parseBytes } from '../src/search/budget.js';
import type { ServiceOptions } from './services.js';

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

/** What a user may say, as texts; what is not said has a default. */
export type OptionTexts = { readonly [K in keyof Omit<ServerOptions, 'maxImages' | 'maxPixels' | 'stalledMs' | 'latencyTables' | 'warm'>]?: string | undefined } & {
  readonly warm?: boolean | undefined;
  /** Paths of latency tables. */
  readonly latencyTable?: readonly string[] | undefined;
};

/** Threads unless a user says otherwise: networks of this size gain nothing from more, and every loaded child has threads of its own. */
const MOST_THREADS = 8;

/** Defaults, as a user would write them; `threads` is the number of processors, up to eight. */
export const defaultOptions = {
  host: '127.0.0.1',
  port: '8080',
  workers: '1',
  cacheBytes: '256MiB',
  maxBody: '20MiB',
  queue: '64',
  maxBatch: '16',
  logLevel: 'info',
} as const;

/** @throws BignasError OPTION_INVALID, naming the option. @param checkpoint where none is named */
export function parseOptions({ latencyTable, warm = true, ...texts }: OptionTexts, checkpoint: string): ServerOptions {
  const text = { ...defaultOptions, threads: String(Math.min(availableParallelism(), MOST_THREADS)), ...given(texts) };
  return {
    checkpoint: texts.checkpoint ?? checkpoint,
    host: text.host,
    port: integer('--port', text.port, 0, 65535),
    threads: integer('--threads', text.threads, 1, 1024),
    workers: integer('--workers', text.workers, 1, 64),
    cacheBytes: bytes('--cache-bytes', text.cacheBytes),
    maxBody: bytes('--max-body', text.maxBody, 2 ** 30),
    queue: integer('--queue', text.queue, 1, 100_000),
    maxBatch: integer('--max-batch', text.maxBatch, 1, 1024),
    logLevel: oneOf('--log-level', text.logLevel, logLevels),
    warm,
    latencyTables: (latencyTable ?? []).map(readTable),
  };
}

/** What was said; an empty text is what an environment variable without a value gives. */
function given(texts: Omit<OptionTexts, 'latencyTable' | 'warm'>): Partial<Record<Exclude<keyof OptionTexts, 'latencyTable' | 'warm'>, string>> {
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
