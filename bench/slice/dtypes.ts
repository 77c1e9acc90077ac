/**
 * What a child's numbers cost in float32, float16 and int8: accuracy on the test images, the file's size, and latency in ONNX Runtime on one thread. Of each child, all three are
 * timed in turn, run by run, so that what else the machine does falls on all alike.
 */
import { INPUT, LOGITS } from '../../src/graph/modelNames.js';
import { loadavg } from 'node:os';
import { Command } from 'commander';
import { Tensor, type InferenceSession } from 'onnxruntime-node';
import { calibrateInt8 } from '../../src/calibrate/int8.js';
import { graphOf, openCheckpoint, type Checkpoint } from '../../src/checkpoint/checkpoint.js';
import { loadCifar10 } from '../../src/data/cifar10.js';
import type { Graph } from '../../src/graph/graph.js';
import { createSession, loadModel, onnxEngine } from '../../src/onnx/engine.js';
import { onnxModel, type DType, type OnnxModelOptions } from '../../src/onnx/model.js';
import { accuracy } from '../../src/search/evaluate.js';
import { positiveInteger } from '../../cli/numbers.js';
import { packagePath } from '../../serve/packagePath.js';
import { spread } from '../train/report.js';

const BATCHES = [1, 32] as const;

interface Family {
  readonly names: string;
  readonly id: string;
  readonly graph: Graph;
}

const command = new Command('bench:dtypes')
  .option('--images <n>', 'test images, the first ones', positiveInteger, 10_000)
  .option('--runs <n>', 'timed runs of each model with one image; a batch of 32 has a quarter of them', positiveInteger, 400)
  .parse();
const given = command.opts<{ images: number; runs: number }>();

const checkpoint = await openCheckpoint(packagePath('checkpoints', 'cifar10'));
const test = (await loadCifar10({ log: console.log })).splits.test;
console.log(`Load average ${loadavg()[0]!.toFixed(1)} when this began\n`);
console.log(['child', 'type', 'accuracy', 'points', 'bytes', ...BATCHES.map((batch) => `ms, batch ${batch}`)].join(' | '));
console.log('--- | --- | ---: | ---: | ---: | ---: | ---:');
for (const child of family(checkpoint)) await measure(child);

/** The checkpoint's family, each child once. */
function family({ frontier }: Checkpoint): Family[] {
  const names = new Map<string, string[]>();
  for (const [name, { id }] of Object.entries(frontier.family)) names.set(id, [...(names.get(id) ?? []), name]);
  const children = new Map(Object.values(frontier.family).map((child) => [child.id, child]));
  return [...children.values()].map(({ id, architecture }) => ({ names: names.get(id)!.join(', '), id, graph: graphOf(checkpoint, architecture) }));
}

async function measure(child: Family): Promise<void> {
  const models = await modelsOf(child);
  const latencies = await latenciesOf(child.graph, [...models.values()]);
  let whole: number | undefined;
  for (const [i, [dtype, bytes]] of [...models].entries()) {
    const value = await accuracyOf(child, bytes);
    whole ??= value;
    const times = latencies[i]!.map((ms) => ms.toFixed(3));
    console.log([child.names, dtype, `${(100 * value).toFixed(2)} %`, (100 * (value - whole)).toFixed(2), bytes.length, ...times].join(' | '));
  }
}

async function modelsOf({ graph, id }: Family): Promise<ReadonlyMap<DType, Uint8Array>> {
  const { weights, calibration, manifest } = checkpoint;
  const statistics = checkpoint.statistics.get(id)!;
  const source = { crops: calibration, preprocessing: manifest.preprocessing, batch: manifest.calibration.batch };
  const { ranges } = checkpoint.int8.get(id) ?? (await calibrateInt8(graph, weights, statistics, source));
  const model = (options: OnnxModelOptions): Uint8Array => onnxModel(graph, weights, statistics, options);
  return new Map([
    ['float32', model({})],
    ['float16', model({ dtype: 'float16' })],
    ['int8', model({ dtype: 'int8', ranges })],
  ]);
}

async function accuracyOf({ graph, id }: Family, bytes: Uint8Array): Promise<number> {
  const engine = { ...onnxEngine(), load: () => loadModel(bytes) };
  const { value } = await accuracy(engine, graph, checkpoint.weights, checkpoint.statistics.get(id)!, checkpoint.manifest, test, { images: given.images });
  return value;
}

/** Median milliseconds of each model for each batch size. */
async function latenciesOf(graph: Graph, models: readonly Uint8Array[]): Promise<number[][]> {
  const sessions: InferenceSession[] = [];
  try {
    for (const bytes of models) sessions.push(await createSession(bytes, 1, { spinning: true }));
    const medians: number[][] = sessions.map(() => []);
    for (const batch of BATCHES) {
      const times = await interleaved(sessions, inputOf(graph, batch), batch === 1 ? given.runs : Math.ceil(given.runs / 4));
      times.forEach((list, i) => medians[i]!.push(spread(list).median));
    }
    return medians;
  } finally {
    for (const session of sessions) await session.release();
  }
}

function inputOf(graph: Graph, batch: number): Tensor {
  const [height, width, channels] = graph.nodes[0]!.shape as [number, number, number];
  return new Tensor('float32', Float32Array.from({ length: batch * channels * height * width }, (_, i) => Math.sin(i)), [batch, channels, height, width]);
}

/** Each turn runs every model twice: the first brings its weights back into the processor's caches and is not timed. */
async function interleaved(sessions: readonly InferenceSession[], input: Tensor, turns: number): Promise<number[][]> {
  const times: number[][] = sessions.map(() => []);
  for (let turn = 0; turn < turns; turn++)
    for (const [i, session] of sessions.entries()) {
      await session.run({ [INPUT]: input }, [LOGITS]);
      const started = performance.now();
      await session.run({ [INPUT]: input }, [LOGITS]);
      times[i]!.push(performance.now() - started);
    }
  return times;
}
