import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { frontierChildren, graphOf, openCheckpoint, type Checkpoint } from '../../src/checkpoint/checkpoint.js';
import type { ChildRecord } from '../../src/checkpoint/frontier.js';
import { loadCifar10 } from '../../src/data/cifar10.js';
import { fixedCrop, normalisedBatch } from '../../src/data/preprocess.js';
import { littleEndian } from '../../src/encoding/littleEndian.js';
import type { Graph } from '../../src/graph/graph.js';
import { networks } from '../../src/graph/networks/index.js';
import type { Statistics } from '../../src/graph/statistics.js';
import type { SharedWeights } from '../../src/graph/weights.js';
import { onnxModel } from '../../src/onnx/model.js';
import { tfGraph, type TfGraphOptions } from '../../src/tfgraph/emit.js';
import { savedModelFiles } from '../../src/tfgraph/savedModel.js';
import { everyOperation, oddGraph, weightsOf } from '../support/graphs.js';
import { channelsLast } from '../support/layout.js';
import { tensorflowPython } from '../support/python.js';
import { randomBatch, randomStatistics } from '../support/random.js';

/**
 * Runs each SavedModel on input.bin, as TensorFlow loads it, in a session, and converted to TensorFlow Lite with its own operations only. Prints a JSON list of
 * logits and probabilities by runtime.
 */
const SCRIPT = `
import json, sys
import numpy, tensorflow as tf
outputs = ["logits", "probabilities"]
results = []
for folder in sys.argv[1:]:
    with open(f"{folder}/input.json") as file:
        given = json.load(file)
    x = numpy.fromfile(f"{folder}/input.bin", dtype=given["dtype"]).reshape(given["shape"])
    saved = f"{folder}/saved"
    loaded = tf.saved_model.load(saved)
    eager = loaded.signatures["serving_default"](**{given["name"]: tf.constant(x)})
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], saved)
        signature = meta.signature_def["serving_default"]
        assert signature.method_name == "tensorflow/serving/predict"
        served = session.run([signature.outputs[name].name for name in outputs], {signature.inputs[given["name"]].name: x})
    converter = tf.lite.TFLiteConverter.from_saved_model(saved)
    assert converter.target_spec.supported_ops == {tf.lite.OpsSet.TFLITE_BUILTINS}
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    runner = interpreter.get_signature_runner("serving_default")
    lite = runner(**{given["name"]: x})
    results.append({
        "TensorFlow": [eager[name].numpy().ravel().tolist() for name in outputs],
        "TensorFlow, session": [values.ravel().tolist() for values in served],
        "TensorFlow Lite": [lite[name].ravel().tolist() for name in outputs],
        "operations": sorted({op["op_name"] for op in interpreter._get_ops_details()}),
    })
print(json.dumps(results))
`;

type Outputs<T> = readonly [logits: T, probabilities: T];

interface Result extends Readonly<Record<'TensorFlow' | 'TensorFlow, session' | 'TensorFlow Lite', Outputs<readonly number[]>>> {
  readonly operations: readonly string[];
}

interface Case {
  readonly what: string;
  readonly graph: Graph;
  readonly weights: SharedWeights;
  readonly statistics: Statistics;
  readonly options: TfGraphOptions;
  /** Given to TensorFlow: images or normalised, [count, height, width, 3] */
  readonly input: Uint8Array | Float32Array;
  readonly shape: readonly number[];
  /** Given to ONNX Runtime: normalised, [count, 3, resolution, resolution] */
  readonly reference: Float32Array;
  readonly tolerance: number;
}

let folder: string;
let python: string;
let checkpoint: Checkpoint;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bignas-tfgraph-'));
  python = tensorflowPython();
  checkpoint = await openCheckpoint(fileURLToPath(new URL('../../../checkpoints/cifar10', import.meta.url)));
});
after(() => rmSync(folder, { recursive: true, force: true }));

async function onnxOutputs({ graph, weights, statistics, reference }: Case): Promise<Outputs<Float32Array>> {
  const [h, w, c] = graph.nodes[0]!.shape as [number, number, number];
  const session = await InferenceSession.create(onnxModel(graph, weights, statistics));
  const { logits, probabilities } = await session.run({ input: new Tensor('float32', reference, [reference.length / (c * h * w), c, h, w]) });
  await session.release();
  return [logits!.data as Float32Array, probabilities!.data as Float32Array];
}

function write(each: Case, i: number): string {
  const target = join(folder, String(i));
  mkdirSync(join(target, 'saved'), { recursive: true });
  for (const [name, bytes] of savedModelFiles(tfGraph(each.graph, each.weights, each.statistics, each.options))) writeFileSync(join(target, 'saved', name), bytes);
  writeFileSync(join(target, 'input.bin'), littleEndian(each.input));
  const [name, dtype] = each.options.preprocessing ? ['image', '|u1'] : ['input', '<f4'];
  writeFileSync(join(target, 'input.json'), JSON.stringify({ name, dtype, shape: each.shape }));
  return target;
}

/** The largest difference, in units of `scale`. */
function difference(actual: ArrayLike<number>, expected: ArrayLike<number>, scale = 1): number {
  assert.equal(actual.length, expected.length);
  return Math.max(...Array.from(actual, (value, i) => Math.abs(value - expected[i]!))) / scale;
}

async function check(cases: readonly Case[]): Promise<void> {
  const folders = cases.map(write);
  const output = execFileSync(python, ['-c', SCRIPT, ...folders], {
    encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 2 ** 28, env: { ...process.env, TF_CPP_MIN_LOG_LEVEL: '3', CUDA_VISIBLE_DEVICES: '' },
  });
  const results = JSON.parse(output.trim().split('\n').at(-1)!) as Result[];
  const worst: Record<string, readonly number[]> = {};
  for (const [i, each] of cases.entries()) {
    const [logits, probabilities] = await onnxOutputs(each);
    for (const runtime of ['TensorFlow', 'TensorFlow, session', 'TensorFlow Lite'] as const) {
      const got = results[i]![runtime];
      const differences = [difference(got[0], logits, Math.max(...logits.map(Math.abs))), difference(got[1], probabilities)];
      assert.ok(differences.every((value) => value <= each.tolerance), `${each.what}: ${runtime} differs by ${differences}`);
      worst[runtime] = differences.map((value, at) => Math.max(worst[runtime]?.[at] ?? 0, value));
    }
    assert.deepEqual(results[i]!.operations.filter((name) => name.startsWith('Flex') || name === 'CUSTOM'), [], each.what);
  }
  console.log('logits (of the largest) and probabilities differ by at most', worst);
}

describe('a SavedModel in TensorFlow, in a session, and as TensorFlow Lite gives the probabilities of ONNX Runtime', () => {
  const COUNT = 30;

  /** Children of the shipped checkpoint on test images. */
  async function shipped(children: readonly ChildRecord[], options: Pick<TfGraphOptions, 'dtype'>, tolerance: number, { preprocessed }: { preprocessed: boolean }): Promise<Case[]> {
    const { preprocessing } = checkpoint.manifest;
    const { splits } = await loadCifar10({ log: console.log });
    const crops = await splits.test.crops(Array.from({ length: COUNT }, (_, i) => i));
    const { crop } = preprocessing;
    return [...new Map(children.map((child) => [child.id, child])).values()]
      .map(({ id, architecture }) => {
        const graph = graphOf(checkpoint, architecture);
        const [resolution] = graph.nodes[0]!.shape as [number];
        const [side, input] = preprocessed ? [crop, crops] : [resolution, normalisedBatch(crops, preprocessing, resolution, 'NHWC')];
        return {
          what: id, graph, weights: checkpoint.weights, statistics: checkpoint.statistics.get(id)!,
          options: { ...options, ...(preprocessed ? { preprocessing } : {}) },
          input, shape: [COUNT, side, side, 3], reference: normalisedBatch(crops, preprocessing, resolution, 'NCHW'), tolerance,
        };
      });
  }

  const family = (): ChildRecord[] => Object.values(checkpoint.frontier.family);
  test('the shipped checkpoint', async () => check(await shipped(frontierChildren(checkpoint.frontier), { dtype: 'float32' }, 1e-4, { preprocessed: false })));
  test('the shipped checkpoint, with preprocessing', async () => check(await shipped(family(), { dtype: 'float32' }, 1e-4, { preprocessed: true })));
  test('the shipped checkpoint, as halves', async () => check(await shipped(family(), { dtype: 'float16' }, 0.02, { preprocessed: true })));

  test('photos of any size', async () => {
    const [{ id, architecture }] = frontierChildren(checkpoint.frontier) as [ChildRecord];
    const graph = graphOf(checkpoint, architecture);
    const [resolution] = graph.nodes[0]!.shape as [number];
    const { preprocessing } = checkpoint.manifest;
    // Smooth: no value of a crop of noise would be far from a half.
    const cases = [[480, 640], [97, 41], [20, 32], [1, 30], [33, 1]].map(([height, width]): Case => {
      const pixels = Uint8Array.from({ length: height! * width! * 3 }, (_, i) => 128 + 100 * Math.sin((i % (width! * 3)) / 50 + i / (width! * 90)));
      const reference = normalisedBatch(fixedCrop({ pixels, height: height!, width: width! }, preprocessing), preprocessing, resolution, 'NCHW');
      return {
        what: `${height!}×${width!}`, graph, weights: checkpoint.weights, statistics: checkpoint.statistics.get(id)!, options: { dtype: 'float32', preprocessing },
        input: pixels, shape: [1, height!, width!, 3], reference, tolerance: 1e-3,
      };
    });
    await check(cases);
  });

  test('networks of the literature, and every operation', () => {
    const graphs = [
      ...Object.entries(networks).map(([what, { build }]) => [what, build({ classes: 10, resolution: 33 })] as const),
      ...[9, 12].map((size) => [`every operation, ${size} pixels`, everyOperation(size)] as const),
      ...[1, 2, 3, 13].map((size) => [`${size} pixels`, oddGraph(size)] as const),
    ];
    return check(graphs.map(([what, graph], i): Case => {
      const [side] = graph.nodes[0]!.shape as [number];
      const { data, count } = randomBatch(graph, 2, i);
      return {
        what, graph, weights: weightsOf(graph, i), statistics: randomStatistics(graph, i), options: { dtype: 'float32' },
        input: channelsLast(data, 3, side ** 2), shape: [count, side, side, 3], reference: data, tolerance: 1e-4,
      };
    }));
  });
});
