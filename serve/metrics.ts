import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import { familyNames } from '../src/checkpoint/frontier.js';
import type { Checkpoint } from '../src/checkpoint/checkpoint.js';
import type { BatchObserver } from './batches.js';
import type { CacheObserver } from './heldCache.js';
import { sharedBytes } from './workers/checkpoint.js';

const prefix = 'bignas_';
/** Seconds: from a warm prediction of a small child to a calibration of a large one. */
const buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];

/** Family name of a child as a label; `other` for the rest, so that labels stay few. */
export function nameLabel(name: string | undefined): string {
  return name ?? 'other';
}

const names = [...familyNames, 'other'];

/** What `GET /metrics` shows: a registry of its own, so that two servers of one process do not add up. */
export class Metrics {
  readonly registry = new Registry();

  readonly requestSeconds = new Histogram({
    name: `${prefix}http_request_duration_seconds`,
    help: 'Time from the request line to the end of the answer.',
    labelNames: ['method', 'route', 'status'],
    buckets,
    registers: [this.registry],
  });
  readonly requestsInFlight = new Gauge({
    name: `${prefix}http_requests_in_flight`,
    help: 'Requests that compute or wait for it.',
    registers: [this.registry],
  });
  readonly predictions = new Counter({
    name: `${prefix}predictions_total`,
    help: 'Images classified, by family name.',
    labelNames: ['name'],
    registers: [this.registry],
  });
  readonly batchRows = new Histogram({
    name: `${prefix}batch_rows`,
    help: 'Images that ran together.',
    buckets: [1, 2, 4, 8, 16, 32, 64],
    registers: [this.registry],
  });
  readonly batchPredictions = new Histogram({
    name: `${prefix}batch_predictions`,
    help: 'Predictions whose images ran together.',
    buckets: [1, 2, 4, 8, 16, 32, 64],
    registers: [this.registry],
  });
  readonly queueSeconds = new Histogram({
    name: `${prefix}queue_seconds`,
    help: 'Time that a prediction waited for its turn to run.',
    buckets,
    registers: [this.registry],
  });
  readonly queuePredictions = new Gauge({
    name: `${prefix}queue_predictions`,
    help: 'Predictions that wait for their turn to run.',
    registers: [this.registry],
  });
  readonly problems = new Counter({
    name: `${prefix}problems_total`,
    help: 'Requests answered with an error, by its code.',
    labelNames: ['code'],
    registers: [this.registry],
  });
  readonly reloads = new Counter({
    name: `${prefix}reloads_total`,
    help: 'Reloads of the checkpoint: ok, refused (the old one is still served) or unchanged.',
    labelNames: ['result'],
    registers: [this.registry],
  });
  readonly calibrations = new Counter({
    name: `${prefix}calibrations_total`,
    help: 'Children built, by where their batch-norm statistics came from.',
    labelNames: ['source'],
    registers: [this.registry],
  });
  readonly deadlines = new Counter({
    name: `${prefix}deadlines_total`,
    help: 'Predictions with a deadline: met, missed, or refused without being computed.',
    labelNames: ['result'],
    registers: [this.registry],
  });
  readonly slides = new Counter({
    name: `${prefix}slides_total`,
    help: 'Predictions that took a smaller child than an idle server would have, to be in time.',
    registers: [this.registry],
  });
  readonly slices = new Counter({
    name: `${prefix}slices_total`,
    help: 'Bundles asked for and found (ranges and revalidations included), by family name.',
    labelNames: ['name'],
    registers: [this.registry],
  });
  readonly buildSeconds = new Histogram({
    name: `${prefix}build_seconds`,
    help: 'Time to slice, fold and serialise a child, without its calibration.',
    buckets,
    registers: [this.registry],
  });
  readonly calibrationSeconds = new Histogram({
    name: `${prefix}calibration_seconds`,
    help: "Time to compute a child's batch-norm statistics.",
    buckets,
    registers: [this.registry],
  });
  readonly workerDeaths = new Counter({
    name: `${prefix}worker_deaths_total`,
    help: 'Workers that died and were started again, by role.',
    labelNames: ['role'],
    registers: [this.registry],
  });
  readonly sharedWeightBytes = new Gauge({
    name: `${prefix}shared_weight_bytes`,
    help: 'Resident bytes of the shared weights, there once for all workers.',
    registers: [this.registry],
  });
  readonly checkpointInfo = new Gauge({
    name: `${prefix}checkpoint_info`,
    help: '1, with the name, space and digest of the checkpoint that is served.',
    labelNames: ['checkpoint', 'space', 'digest'],
    registers: [this.registry],
  });

  readonly #cacheHits = this.#cacheCounter('hits', 'Requests that found what they needed there, or being made.');
  readonly #cacheMisses = this.#cacheCounter('misses', 'Requests that had it made.');
  readonly #cacheEvictions = this.#cacheCounter('evictions', 'Values that left for want of room.');
  readonly #cacheBytes = new Gauge({
    name: `${prefix}cache_bytes`,
    help: 'Bytes of all values, those evicted but still in use included.',
    labelNames: ['cache'],
    registers: [this.registry],
  });

  constructor() {
    collectDefaultMetrics({ register: this.registry, prefix });
    for (const result of ['met', 'missed', 'refused']) this.deadlines.inc({ result }, 0);
    for (const result of ['ok', 'refused', 'unchanged']) this.reloads.inc({ result }, 0);
    for (const source of ['checkpoint', 'disk', 'memory', 'computed']) this.calibrations.inc({ source }, 0);
    for (const name of names) {
      this.predictions.inc({ name }, 0);
      this.slices.inc({ name }, 0);
    }
  }

  /** The checkpoint that is served from now on. */
  serve(checkpoint: Checkpoint): void {
    const { manifest, digest } = checkpoint;
    this.sharedWeightBytes.set(sharedBytes(checkpoint).weights);
    this.checkpointInfo.reset();
    this.checkpointInfo.set({ checkpoint: manifest.name, space: manifest.space.name, digest }, 1);
  }

  /** What the run workers' queues report to. */
  readonly batchObserver: BatchObserver = {
    ran: (rows, predictions) => {
      this.batchRows.observe(rows);
      this.batchPredictions.observe(predictions);
    },
    waited: (seconds) => {
      this.queueSeconds.observe(seconds);
    },
    waiting: (change) => {
      this.queuePredictions.inc(change);
    },
  };

  /** What a cache reports to. @param report called with what went wrong when a value was disposed of */
  cacheObserver(cache: 'children' | 'bundles', report: (error: unknown) => void): CacheObserver {
    for (const counter of [this.#cacheHits, this.#cacheMisses, this.#cacheEvictions]) counter.inc({ cache }, 0);
    this.#cacheBytes.set({ cache }, 0);
    return {
      hit: () => {
        this.#cacheHits.inc({ cache });
      },
      miss: () => {
        this.#cacheMisses.inc({ cache });
      },
      eviction: () => {
        this.#cacheEvictions.inc({ cache });
      },
      bytes: (bytes) => {
        this.#cacheBytes.set({ cache }, bytes);
      },
      error: report,
    };
  }

  #cacheCounter(what: string, help: string): Counter<'cache'> {
    return new Counter({ name: `${prefix}cache_${what}_total`, help, labelNames: ['cache'], registers: [this.registry] });
  }
}
