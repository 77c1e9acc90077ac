import { LOGITS } from '../graph/modelNames.js';
import { availableParallelism } from 'node:os';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { freeAtOnce } from '../memory.js';
import type { Batch, Engine, Runnable } from '../graph/engine.js';
import { batchNorms } from '../graph/graph.js';
import type { ChannelStatistics } from '../graph/statistics.js';
import { calibrationModel, meanOf, OUTPUT, varianceOf } from './calibrationModel.js';
import { onnxModel } from './model.js';

export interface OnnxOptions {
  /** Threads that one run may use, at least 1. Default: as many as the machine runs at once. */
  readonly threads?: number;
}

/**
 * ONNX Runtime on the CPU. It blocks the thread that calls it, although its calls return promises: where others wait for that
 * thread, use it in a worker.
 */
export function onnxEngine({ threads = availableParallelism() }: OnnxOptions = {}): Engine {
  return {
    name: 'onnx',

    async load(graph, weights, statistics) {
      return loadModel(onnxModel(graph, weights, statistics), threads);
    },

    async calibrationSegment(segment, weights, { last }) {
      const model = calibrationModel(segment, weights, { last });
      const session = await createSession(model, threads, { lean: true });
      freeAtOnce(model);
      return {
        async run(batch) {
          const outputs = await session.run(feed(session, batch));
          const statistics = batchNorms(segment).map(({ name }): [string, ChannelStatistics] => [
            name,
            { mean: values(outputs, meanOf(name)), variance: values(outputs, varianceOf(name)) },
          ]);
          return { output: last ? undefined : view(outputs, OUTPUT), statistics: new Map(statistics) };
        },
        dispose: () => session.release(),
      };
    },
  };
}

/**
 * Makes the bytes of a model (`onnxModel`) ready to run; they may be let go afterwards.
 * @param threads that one run may use. Default: as many as the machine runs at once.
 */
export async function loadModel(bytes: Uint8Array, threads = availableParallelism()): Promise<Runnable> {
  const session = await createSession(bytes, threads, { spinning: true });
  return {
    async run(batch) {
      return values(await session.run(feed(session, batch), [LOGITS]), LOGITS);
    },
    dispose: () => session.release(),
  };
}

/**
 * No session keeps memory of its own between runs (an arena): a child near 650 MFLOPs would hold 650 MB for good after one batch of 32, against 20, and many sessions live side by side. glibc keeps it for all of
 * them instead (cli/setup/serverMemory.mjs).
 * @param spinning whether threads that wait within a run do so without sleeping, which makes runs on few cores up to twice as fast; between runs they always sleep. It takes the processor from
 * others that run meanwhile, so it is for what a client waits for
 * @param lean whether a run takes memory for each activation by itself and gives it back when it has been read. Else, from the second run on, all lie in one block, which is larger than what lives at a time
 * @param profile beginning of the path of a file that gets the times of all nodes, when the session ends its profiling
 */
export function createSession(
  bytes: Uint8Array,
  threads: number,
  { spinning = false, lean = false, profile }: { readonly spinning?: boolean; readonly lean?: boolean; readonly profile?: string } = {},
): Promise<InferenceSession> {
  return InferenceSession.create(unshared(bytes), {
    executionProviders: ['cpu'],
    graphOptimizationLevel: 'all',
    executionMode: 'sequential',
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    enableCpuMemArena: false,
    enableMemPattern: !lean,
    extra: { session: { intra_op: { allow_spinning: spinning ? '1' : '0' }, force_spinning_stop: '1' } },
    ...(profile !== undefined && { enableProfiling: true, profileFilePrefix: profile }),
  });
}

/** The batch as a model's input, [count, 3, height, width]. @throws Error where it has another size than count says. */
export function feed({ inputMetadata: [input] }: InferenceSession, { data, count }: Batch): InferenceSession.FeedsType {
  if (!input?.isTensor) throw new Error('Expected a model with one tensor as input.');
  return { [input.name]: new Tensor('float32', unshared(data), [count, ...input.shape.slice(1).map(Number)]) };
}

/** The same values on memory of this thread's own: ONNX Runtime's binding refuses shared memory. */
function unshared<T extends Float32Array | Uint8Array>(array: T): T {
  return array.buffer instanceof SharedArrayBuffer ? (array.slice() as T) : array;
}

/** An output's values: a copy, which outlives the session. */
function values(outputs: InferenceSession.ReturnType, name: string): Float32Array {
  return view(outputs, name).slice();
}

/** An output's values, on memory of ONNX Runtime's. */
export function view(outputs: InferenceSession.ReturnType, name: string): Float32Array {
  const data = outputs[name]?.data;
  if (!(data instanceof Float32Array)) throw new Error(`${name}: expected a float32 output.`);
  return data;
}
