/** Where a step's time goes in this process: TensorFlow's kernels by name, and JavaScript's functions by their own time. */
import { Session, type Profiler } from 'node:inspector/promises';
import { tf } from '../../src/tensorflow/tf.js';
import type { ProfileTable } from './side.js';

export interface RunningProfile {
  /** @param seconds how long the profiled part took */
  stop(seconds: number): Promise<ProfileTable[]>;
}

type Call = (...args: unknown[]) => unknown;
type Row = ProfileTable['rows'][number];

/** The addon's functions that do a step's work; the rest of its time is JavaScript's. */
const COPIES = { createTensor: 'copy into a tensor', tensorDataSync: 'copy out of a tensor' } as const;

const WORK: ReadonlySet<string> = new Set(['executeOp', ...Object.keys(COPIES)]);

/** Starts timing every call into TensorFlow, and sampling JavaScript. Both slow the step a little: what is timed elsewhere runs without. */
export async function startProfile(): Promise<RunningProfile> {
  const backend = tf.backend() as unknown as { binding: object };
  const { binding } = backend;
  const times = new Map<string, { seconds: number; calls: number }>();
  const timed =
    (name: string, original: Call): Call =>
    (...args) => {
      const began = performance.now();
      const result = original(...args);
      const label = name === 'executeOp' ? String(args[0]) : COPIES[name as keyof typeof COPIES];
      const time = times.get(label) ?? { seconds: 0, calls: 0 };
      time.seconds += (performance.now() - began) / 1000;
      time.calls++;
      times.set(label, time);
      return result;
    };
  // The addon's own object is frozen: a copy of it takes its place.
  const properties = Object.getOwnPropertyNames(binding).map((name): [string, unknown] => [name, (binding as Record<string, unknown>)[name]]);
  backend.binding = Object.fromEntries(properties.map(([name, value]) => [name, WORK.has(name) ? timed(name, value as Call) : value]));

  const session = new Session();
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.setSamplingInterval', { interval: 500 }); // microseconds
  await session.post('Profiler.start');
  return {
    stop: async (seconds) => {
      const { profile } = await session.post('Profiler.stop');
      session.disconnect();
      backend.binding = binding;
      const kernels = [...times].map(([name, time]): Row => ({ name, ...time })).sort(bySeconds);
      const inTensorFlow = kernels.reduce((sum, row) => sum + row.seconds, 0);
      return [
        { title: 'TensorFlow kernels', rows: [...kernels, { name: 'JavaScript and dispatch', seconds: seconds - inTensorFlow }].sort(bySeconds) },
        { title: 'JavaScript functions, own time', rows: ownTimes(profile) },
      ];
    },
  };
}

/** Seconds that each function was on top of the stack, native ones of the addon left out. */
export function ownTimes({ nodes, samples = [], timeDeltas = [] }: Pick<Profiler.Profile, 'nodes' | 'samples' | 'timeDeltas'>): Row[] {
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const seconds = new Map<string, number>();
  samples.forEach((id, i) => {
    const { functionName, url, lineNumber } = frames.get(id)!;
    // Without a file: the addon's functions, which have no name, and the profiler itself (`dispatch`).
    if (url === '' && ['', '(idle)', 'dispatch'].includes(functionName)) return;
    const file = url.replace(/^.*\/(node_modules|dist)\//, '');
    const name = file === '' ? functionName : `${functionName || 'anonymous'} (${file}:${lineNumber + 1})`;
    seconds.set(name, (seconds.get(name) ?? 0) + (timeDeltas[i] ?? 0) / 1e6);
  });
  return [...seconds].map(([name, own]) => ({ name, seconds: own })).sort(bySeconds);
}

function bySeconds(a: Row, b: Row): number {
  return b.seconds - a.seconds;
}
