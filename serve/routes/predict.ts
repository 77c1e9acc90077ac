import { describeChild } from '../../src/bundle/child.js';
import { BignasError } from '../../src/errors.js';
import { parseArchitecture } from '../../src/space/architecture.js';
import { BodyRoom, readBody } from '../body.js';
import { bodyKind } from '../media.js';
import { nameLabel } from '../metrics.js';
import { childInTime } from '../deadlines.js';
import { childOf, deadlineOf, parseQuery, predictQuery, type ChosenChild } from '../schemas.js';
import type { Services } from '../services.js';
import { leastLoaded } from '../workers/thread.js';
import { clientSignal, type Route } from './route.js';

/** `POST /predict`: classifies the images of the body with the child that the query asks for. */
export function predictRoute(services: Services): Route {
  const { checkpoint, children, images, admission, metrics, options } = services;
  // What those that compute may hold, once more for those that are still being read.
  const room = new BodyRoom(options.queue * options.maxBody);
  const labels = checkpoint.manifest.dataset.classes;
  const decodeMs = new RecentMean();
  const inTime = ({ asked, frontier }: NonNullable<ReturnType<typeof deadlineOf>>) => (spent: number): ChosenInTime => {
    // Bodies that wait for an image worker are decoded first.
    const before = decodeMs.value * (1 + leastLoaded(images).load);
    const { child, expected, slid } = childInTime(frontier, asked, spent, before, (id) => children.expected(id));
    return { child: { ...describeChild(checkpoint, parseArchitecture(checkpoint.manifest.space, child.architecture)), costs: child.costs }, choice: 'most accurate in time', expected, slid };
  };
  return {
    path: '/predict',
    summary: 'classify images: a JPEG, PNG or WebP, a form of several, or JSON; ?arch= or a budget (?flops=, ?params=, ?bytes=, ?memory=, ?latency=), ?top=',
    post: [
      // What is wrong with the request's head is said before its body is read.
      function check(request, response, next) {
        const query = parseQuery(predictQuery, request.query);
        const contentType = request.get('content-type');
        bodyKind(contentType);
        const deadline = deadlineOf(services, query);
        response.locals['asked'] = { choose: deadline ? inTime(deadline) : chosen(childOf(services, query)), deadline: deadline?.asked.deadline, top: Number(query.top), contentType, arrived: performance.now() } satisfies Asked;
        admission.check();
        next();
      },
      async function predict(request, response) {
        const { choose, deadline, top, contentType, arrived } = response.locals['asked'] as Asked;
        const started = performance.now();
        const signal = clientSignal(response);
        const body = await readBody(request, options.maxBody, room);
        const read = performance.now();
        // After the body: how fast a client sends is not the others' affair.
        const leave = admission.enter();
        try {
          const { child, choice, expected, slid } = choose(read - arrived);
          const { resolution } = child;
          // Before the child is made: what cannot be answered shall not cost a calibration.
          const prepared = await leastLoaded(images).call('prepare', { body, contentType, resolution }, { transfer: [body.buffer], signal });
          const decoded = performance.now();
          decodeMs.observe(decoded - read);
          const { classes, ready, run, rows } = await children.classify(child, prepared, top, signal, deadline === undefined ? undefined : arrived + deadline);
          const took = performance.now() - arrived;
          if (deadline !== undefined) metrics.deadlines.inc({ result: took <= deadline ? 'met' : 'missed' });
          if (slid) metrics.slides.inc();
          metrics.predictions.inc({ name: nameLabel(child.name) }, prepared.count);
          response.json({
            ...child,
            choice,
            predictions: classes.map((best, i) => ({
              file: prepared.files[i],
              classes: best.map(({ index, probability }) => ({ label: labels[index], index, probability })),
            })),
            ...(deadline !== undefined && { deadline: { asked: deadline, expected: round(expected!), took: round(took), met: took <= deadline, slid } }),
            batch: rows,
            milliseconds: {
              read: round(read - started),
              decode: round(decoded - read),
              ready: round(ready),
              run: round(run),
              total: round(performance.now() - started),
            },
          });
        } catch (error) {
          if (deadline !== undefined && error instanceof BignasError && ['DEADLINE_TOO_SHORT', 'DEADLINE_MISSED', 'OVERLOADED'].includes(error.code)) metrics.deadlines.inc({ result: 'refused' });
          throw error;
        } finally {
          leave();
        }
      },
    ],
  };
}

interface Asked {
  /** The child, after the request has taken so many milliseconds. */
  readonly choose: (spent: number) => ChosenInTime;
  /** Milliseconds. */
  readonly deadline: number | undefined;
  /** When the request's head was there. */
  readonly arrived: number;
  readonly top: number;
  readonly contentType: string | undefined;
}

type ChosenInTime = ChosenChild & { readonly expected?: number; readonly slid?: boolean };

function chosen(child: ChosenChild): () => ChosenInTime {
  return () => child;
}

/** What decoding took lately, a running mean. */
class RecentMean {
  #value: number | undefined;

  get value(): number {
    return this.#value ?? 0;
  }

  observe(value: number): void {
    this.#value = this.#value === undefined ? value : 0.9 * this.#value + 0.1 * value;
  }
}

/** Milliseconds to two digits: more would be noise. */
function round(milliseconds: number): number {
  return Math.round(milliseconds * 100) / 100;
}
