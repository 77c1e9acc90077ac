import { LRUCache } from 'lru-cache';
import type { Checkpoint } from '../src/checkpoint/checkpoint.js';
import type { Frontier } from '../src/checkpoint/frontier.js';
import type { LatencyTable } from '../src/cost/latency.js';
import { describeChild, type ChildDescription } from '../src/bundle/child.js';
import { findArchitecture } from '../src/search/find.js';
import { frontierOnDevice } from '../src/search/devices.js';
import { formatArchitecture, parseArchitecture, type Architecture } from '../src/space/architecture.js';

/** A checkpoint in service. A request works with one from its beginning to its end, whatever is served meanwhile. */
export interface Served {
  /** Tells it from every other that this process served, of the same digest too. */
  readonly serial: number;
  /** On shared memory. */
  readonly checkpoint: Checkpoint;
  /** The frontier with a device's latencies, by the device's name. */
  readonly devices: ReadonlyMap<string, Frontier>;
  /**
   * The child that a text of a client means: a name, an id or an architecture. A text is read once.
   * @throws what `findArchitecture` throws
   */
  readonly find: (text: string, parameter?: string) => ChildDescription;
  /** A child of its space. Counting the costs of one that the frontier lacks takes a moment, so the latest ones are kept. */
  readonly describe: (architecture: Architecture | string) => ChildDescription;
  /** Ids of children whose statistics were computed, or found on disk: building them takes a moment. */
  readonly calibrated: LRUCache<string, true>;
}

const DESCRIPTIONS = 4096;
const CALIBRATED = 100_000;

let serials = 0;

export function nextSerial(): number {
  return ++serials;
}

export function served(serial: number, checkpoint: Checkpoint, latencyTables: readonly LatencyTable[]): Served {
  const devices = new Map(latencyTables.map((table) => [table.device, frontierOnDevice(checkpoint.manifest.space, checkpoint.frontier, table)]));
  const descriptions = new LRUCache<string, ChildDescription>({ max: DESCRIPTIONS });
  const { space } = checkpoint.manifest;
  const describe = (architecture: Architecture | string): ChildDescription => {
    const text = typeof architecture === 'string' ? architecture : formatArchitecture(architecture);
    let description = descriptions.get(text);
    if (!description) descriptions.set(text, (description = describeChild(checkpoint, parseArchitecture(space, text))));
    return description;
  };
  const found = new LRUCache<string, ChildDescription>({ max: DESCRIPTIONS });
  const find = (text: string, parameter?: string): ChildDescription => {
    let child = found.get(text);
    if (!child) found.set(text, (child = describe(findArchitecture(space, checkpoint.frontier, text, parameter))));
    return child;
  };
  return { serial, checkpoint, devices, find, describe, calibrated: new LRUCache({ max: CALIBRATED }) };
}

/** Which checkpoint new requests get; an old one lives until its last request has been answered. */
export class InService {
  #current: Served;
  #next: Served | undefined;
  readonly #users = new Map<Served, number>();

  /** @param retired called once for each that was replaced, when nobody uses it any more */
  constructor(
    first: Served,
    private readonly retired: (served: Served) => void,
  ) {
    this.#current = first;
  }

  get current(): Served {
    return this.#current;
  }

  /** All that somebody uses or is about to: a build worker that starts needs them. */
  get all(): Served[] {
    return [...new Set([...this.#users.keys(), this.#current, ...(this.#next ? [this.#next] : [])])];
  }

  /** The current one, held until `leave` is called (once). */
  enter(): { readonly served: Served; readonly leave: () => void } {
    return { served: this.#current, leave: this.hold(this.#current) };
  }

  /** Holds one that the caller holds already, or the current one, a second time. @returns what lets it go (call it once) */
  hold(served: Served): () => void {
    this.#users.set(served, (this.#users.get(served) ?? 0) + 1);
    return () => {
      const left = this.#users.get(served)! - 1;
      if (left > 0) this.#users.set(served, left);
      else {
        this.#users.delete(served);
        if (served !== this.#current) this.retired(served);
      }
    };
  }

  /** Says which one is to come; undefined: none after all. */
  announce(next: Served | undefined): void {
    this.#next = next;
  }

  replace(next: Served): void {
    const old = this.#current;
    this.#current = next;
    this.#next = undefined;
    if (!this.#users.has(old)) this.retired(old);
  }
}
