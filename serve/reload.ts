import type { Logger } from 'pino';
import type { ChildDescription } from '../src/bundle/child.js';
import type { Checkpoint } from '../src/checkpoint/checkpoint.js';
import { BignasError } from '../src/errors.js';
import { spaceDigest } from '../src/space/identity.js';
import type { Children } from './children.js';
import { warnOfMemory } from './memory.js';
import type { Metrics } from './metrics.js';
import { nextSerial, served, type InService, type Served } from './served.js';
import type { ServiceOptions } from './services.js';
import type { BuildRole } from './workers/building.js';
import { receiveCheckpoint } from './workers/checkpoint.js';
import type { Thread } from './workers/thread.js';

export interface Reloaded {
  readonly result: 'ok' | 'unchanged';
  readonly digest: string;
  readonly previous: string;
  /** Children that were ready before the first request came. */
  readonly prebuilt: number;
}

export interface ReloadServices {
  readonly inService: InService;
  readonly build: Thread<BuildRole>;
  readonly children: Children;
  /** Lets go of all that belongs to a checkpoint. */
  readonly retire: (served: Pick<Served, 'serial'>) => void;
  /** Has the family in memory, in time, where that is wanted. */
  readonly warm: (served: Served) => void;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly options: ServiceOptions;
}

/** Children that are built anew before the new checkpoint is served: those used last. */
const HOT = 8;

/**
 * Replaces the served checkpoint by what its folder holds now. The new one is read and checked whole, and the children that are in use are built from it and run
 * once; only then do new requests get it, while those under way end with the old one. Whatever goes wrong before leaves the old one in service.
 */
export class Reloader {
  #underWay: Promise<Reloaded> | undefined;
  /** What the memory was shared out for; without the weights, which go when the checkpoint does. */
  readonly #begun: Pick<Checkpoint, 'manifest'>;

  constructor(
    private readonly services: ReloadServices,
    /** A checkpoint's folder, or a training run's. */
    private readonly path: string,
  ) {
    this.#begun = { manifest: services.inService.current.checkpoint.manifest };
  }

  /** All who ask while one is under way get its result. @throws BignasError RELOAD_REFUSED: the old one is still served */
  reload(): Promise<Reloaded> {
    this.#underWay ??= this.#reload().finally(() => {
      this.#underWay = undefined;
    });
    return this.#underWay;
  }

  async #reload(): Promise<Reloaded> {
    const { metrics, logger, inService } = this.services;
    const previous = inService.current.checkpoint.digest;
    try {
      const reloaded = await this.#replace(previous);
      metrics.reloads.inc({ result: reloaded.result });
      logger.info(reloaded, 'reloaded');
      return reloaded;
    } catch (error) {
      metrics.reloads.inc({ result: 'refused' });
      logger.error({ err: error }, 'the new checkpoint was refused; the old one is still served');
      throw new BignasError('RELOAD_REFUSED', `The checkpoint was not replaced, the old one is still served: ${(error as Error).message}`, { digest: previous }, { cause: error });
    }
  }

  async #replace(previous: string): Promise<Reloaded> {
    const { inService, build, children, options, metrics, logger, retire, warm } = this.services;
    const serial = nextSerial();
    try {
      // Reading and hashing take the build worker's time, not this thread's.
      const checkpoint = receiveCheckpoint(await build.call('open', { serial, path: this.path }));
      const { digest } = checkpoint;
      if (digest === previous) {
        retire({ serial });
        return { result: 'unchanged', digest, previous, prebuilt: 0 };
      }
      const next = served(serial, checkpoint, options.latencyTables ?? []);
      warnOfMemory(options.cacheBytes, checkpoint, logger, this.#begun);
      inService.announce(next);
      const hot = this.#hot(inService.current, next);
      for (const child of hot) await children.warm(next, child);
      metrics.serve(next.checkpoint);
      inService.replace(next);
      warm(next);
      return { result: 'ok', digest, previous, prebuilt: hot.length };
    } catch (error) {
      inService.announce(undefined);
      // Of what could not even be opened there is nothing to let go of.
      retire({ serial });
      throw error;
    }
  }

  /** What to build before the swap: the children in memory, where the new checkpoint has the same space, else its smallest and biggest. */
  #hot(current: Served, { checkpoint, describe }: Served): ChildDescription[] {
    const { smallest, biggest } = checkpoint.frontier.family;
    const loaded = this.services.children.loaded(current).slice(0, HOT);
    const sameSpace = spaceDigest(checkpoint.manifest.space) === spaceDigest(current.checkpoint.manifest.space);
    if (!sameSpace || loaded.length === 0) return [describe(smallest.architecture), describe(biggest.architecture)];
    return loaded.map(({ architecture }) => describe(architecture));
  }
}
