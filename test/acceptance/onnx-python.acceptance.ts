import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { cifar10Preprocessing } from '../../src/data/cifar10.js';
import { buildGraph } from '../../src/graph/buildGraph.js';
import type { Batch } from '../../src/graph/engine.js';
import { calibrationModel } from '../../src/onnx/calibrationModel.js';
import { loadModel } from '../../src/onnx/engine.js';
import { onnxModel } from '../../src/onnx/model.js';
import { activationRanges } from '../../src/onnx/ranges.js';
import { biggest, formatArchitecture, parseArchitecture, smallest, type Architecture } from '../../src/space/architecture.js';
import { cifar10 } from '../../src/space/presets/cifar10.js';
import { imagenet } from '../../src/space/presets/imagenet.js';
import { tiny } from '../../src/space/presets/tiny.js';
import { sampleArchitecture } from '../../src/space/sample.js';
import type { SearchSpace } from '../../src/space/space.js';
import { userPython } from '../support/python.js';
import { randomBatch, randomStatistics, randomWeights } from '../support/random.js';

/** Checks all models, runs those of every type on input.bin and those with preprocessing on crops.bin, and writes what came out. */
const SCRIPT = `
import json, sys
import numpy, onnx, onnxruntime
for folder in sys.argv[1:]:
    for name in ("model", "calibration", "float16", "int8", "float32-image", "float16-image", "int8-image"):
        onnx.checker.check_model(f"{folder}/{name}.onnx", full_check=True)
    session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    images = numpy.fromfile(f"{folder}/input.bin", dtype="<f4").reshape(-1, *given.shape[1:])
    logits, probabilities = session.run(["logits", "probabilities"], {"input": images})
    logits.astype("<f4").tofile(f"{folder}/logits.bin")
    probabilities.astype("<f4").tofile(f"{folder}/probabilities.bin")
    for name in ("float16", "int8"):
        other = onnxruntime.InferenceSession(f"{folder}/{name}.onnx", providers=["CPUExecutionProvider"])
        other.run(["logits"], {"input": images})[0].astype("<f4").tofile(f"{folder}/{name}.bin")
    crops = numpy.fromfile(f"{folder}/crops.bin", dtype="u1").reshape(-1, 37, 29, 3)
    for name in ("float32", "float16", "int8"):
        other = onnxruntime.InferenceSession(f"{folder}/{name}-image.onnx", providers=["CPUExecutionProvider"])
        assert other.run(["logits"], {"image": crops})[0].shape == (len(crops), logits.shape[1])
    meta = session.get_modelmeta()
    described = {
        "input": [given.name, given.type, given.shape],
        "outputs": [[output.name, output.type, output.shape] for output in session.get_outputs()],
        "producer": meta.producer_name,
        "metadata": meta.custom_metadata_map,
    }
    with open(f"{folder}/described.json", "w") as file:
        json.dump(described, file)
`;

const near650M = 'r256_c32_3x16_3x24-3x24_5x48-5x48_3x88-3x88_5x128-5x128-5x128-5x128_5x216-5x216-5x216-5x216_3x352_c1408';
const children: [SearchSpace, Architecture][] = [
  [tiny, smallest(tiny)],
  [tiny, { ...biggest(tiny), resolution: 13 }],
  [cifar10, smallest(cifar10)],
  [cifar10, biggest(cifar10)],
  ...Array.from({ length: 8 }, (_, i): [SearchSpace, Architecture] => [cifar10, sampleArchitecture(cifar10, [i])]),
  [imagenet, parseArchitecture(imagenet, near650M)],
];

/** Versions of ONNX Runtime round in other places: steps of halves, and of bytes where the last bit of an activation decides. */
const tolerances = { float16: 4e-3, int8: 5e-2 };

let folder: string;
let python: string;

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'bignas-onnx-'));
  python = userPython();
});
after(() => rmSync(folder, { recursive: true, force: true }));

test("Python's onnxruntime runs the models and gives the same numbers; onnx.checker accepts them", async () => {
  const written = await Promise.all(children.map(([space, architecture], i) => write(space, architecture, i)));
  execFileSync(python, ['-c', SCRIPT, ...written.map((child) => child.folder)], { stdio: ['ignore', 'inherit', 'inherit'] });
  for (const child of written) {
    const { classes, count, logits, text } = child;
    close(read(child.folder, 'logits'), logits, text);
    for (const [dtype, expected] of child.typed) close(read(child.folder, dtype), expected, `${text} in ${dtype}`, tolerances[dtype]);
    const softmax = Array.from({ length: count }, (_, n) => probabilities(logits.subarray(n * classes, (n + 1) * classes))).flat();
    close(read(child.folder, 'probabilities'), softmax, text);
    const size = child.resolution;
    assert.deepEqual(JSON.parse(readFileSync(join(child.folder, 'described.json'), 'utf8')), {
      input: ['input', 'tensor(float)', ['N', 3, size, size]],
      outputs: ['logits', 'probabilities'].map((name) => [name, 'tensor(float)', ['N', classes]]),
      producer: 'bignas',
      metadata: { architecture: text },
    });
  }
});

/** Writes a child's two models and a batch of images, and runs it here. */
async function write(space: SearchSpace, architecture: Architecture, i: number) {
  const graph = buildGraph(space, architecture);
  const weights = randomWeights(space, i);
  const text = formatArchitecture(architecture);
  const bytes = onnxModel(graph, weights, randomStatistics(graph, i), { metadata: { architecture: text } });
  const batch = randomBatch(graph, 1 + (i % 3), i);

  const target = join(folder, String(i));
  mkdirSync(target);
  writeFileSync(join(target, 'model.onnx'), bytes);
  writeFileSync(join(target, 'calibration.onnx'), calibrationModel(graph, weights, { last: true }));
  const input = Buffer.alloc(batch.data.length * 4);
  batch.data.forEach((value, at) => input.writeFloatLE(value, at * 4));
  writeFileSync(join(target, 'input.bin'), input);

  writeFileSync(join(target, 'crops.bin'), Uint8Array.from({ length: 2 * 37 * 29 * 3 }, (_, at) => (at * 89) % 256));
  const statistics = randomStatistics(graph, i);
  const ranges = await activationRanges(graph, weights, statistics, [batch]);
  const typed: ['float16' | 'int8', Float32Array][] = [];
  for (const options of [{}, { dtype: 'float16' }, { dtype: 'int8', ranges }] as const) {
    const dtype = 'dtype' in options ? options.dtype : 'float32';
    writeFileSync(join(target, `${dtype}-image.onnx`), onnxModel(graph, weights, statistics, { ...options, preprocessing: cifar10Preprocessing }));
    if (dtype === 'float32') continue;
    const model = onnxModel(graph, weights, statistics, options);
    writeFileSync(join(target, `${dtype}.onnx`), model);
    typed.push([dtype, await run(model, batch)]);
  }
  return { typed, logits: await run(bytes, batch), folder: target, text, count: batch.count, classes: space.classes, resolution: architecture.resolution };
}

async function run(bytes: Uint8Array, batch: Batch): Promise<Float32Array> {
  const child = await loadModel(bytes);
  const logits = await child.run(batch);
  await child.dispose();
  return logits;
}

function read(from: string, name: string): number[] {
  const bytes = readFileSync(join(from, `${name}.bin`));
  return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(i * 4));
}

function probabilities(logits: Float32Array): number[] {
  const largest = Math.max(...logits);
  const exponentials = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = exponentials.reduce((a, b) => a + b);
  return exponentials.map((e) => e / sum);
}

/** Agreement to a part of the largest value. */
function close(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string, tolerance = 1e-4): void {
  assert.equal(actual.length, expected.length, what);
  const largest = Math.max(...Array.from(expected, Math.abs));
  for (let i = 0; i < expected.length; i++)
    assert.ok(Math.abs(actual[i]! - expected[i]!) <= tolerance * largest, `${what}: element ${i} is ${actual[i]}, expected ${expected[i]}`);
}
