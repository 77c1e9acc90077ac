import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import request from 'supertest';
import type { RunningServer } from '../serve/server.js';
import type { InferAnswer } from '../serve/answers.js';
import { inferRequest } from '../serve/workers/inferRequest.js';
import { predictRequest } from '../serve/workers/predictRequest.js';
import type { Checkpoint } from '../src/checkpoint/checkpoint.js';
import { decodeImage } from '../src/data/images.js';
import { fixedCrop, normalisedBatch } from '../src/data/preprocess.js';
import { BignasError } from '../src/errors.js';
import { makeCheckpoint } from './support/checkpoint.js';
import { png } from './support/images.js';
import { temporaryFolder, testServer } from './support/server.js';
import { tiny } from '../src/space/presets/tiny.js';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let checkpoint: Checkpoint;
let server: RunningServer;
let photo: Buffer;

before(async () => {
  folder = await temporaryFolder();
  checkpoint = await makeCheckpoint(tiny, folder.path);
  server = await testServer(folder.path, { maxBody: 8 * 2 ** 20 });
  photo = await png(30, 24);
});
after(async () => {
  await server.stop(1000);
  await folder.remove();
});

const resolutionOf = (name: 'S' | 'M' | 'L' | 'biggest'): number => server.services.inService.current.describe(checkpoint.frontier.family[name].architecture).resolution;

/** The photo as the network takes it, [1, 3, R, R]; `NHWC`: [1, R, R, 3]. */
async function tensor(resolution: number, layout: 'NCHW' | 'NHWC' = 'NCHW'): Promise<Float32Array> {
  const { preprocessing } = checkpoint.manifest;
  return normalisedBatch(fixedCrop(await decodeImage(photo, {}), preprocessing), preprocessing, resolution, layout);
}

function nested(data: Float32Array, shape: readonly number[]): unknown {
  if (shape.length === 1) return Array.from(data);
  const size = data.length / shape[0]!;
  return Array.from({ length: shape[0]! }, (_, i) => nested(data.subarray(i * size, (i + 1) * size), shape.slice(1)));
}

/** What POST /predict says of the photo: probability by class. */
async function expected(arch: string): Promise<number[]> {
  const { body } = (await request(server.url).post(`/predict?arch=${arch}&top=1000`).set('Content-Type', 'image/png').send(photo).expect(200)) as {
    body: { predictions: { classes: { index: number; probability: number }[] }[] };
  };
  const probabilities: number[] = [];
  for (const { index, probability } of body.predictions[0]!.classes) probabilities[index] = probability;
  return probabilities;
}

function close(got: ArrayLike<number>, wanted: readonly number[]): void {
  assert.equal(got.length, wanted.length);
  wanted.forEach((value, i) => assert.ok(Math.abs(got[i]! - value) < 1e-6, `${got[i]} is not ${value}`));
}

const infer = (path: string, body: unknown) => request(server.url).post(`/v2/models/${path}/infer`).send(body as object);

/** A request of the binary tensor extension. */
function binary(path: string, document: object, tensors: Uint8Array) {
  const json = Buffer.from(JSON.stringify(document));
  return request(server.url)
    .post(`/v2/models/${path}/infer`)
    .set('Inference-Header-Content-Length', String(json.length))
    .set('Content-Type', 'application/octet-stream')
    .buffer(true)
    .parse((response, done) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => done(null, Buffer.concat(chunks)));
    })
    .send(Buffer.concat([json, tensors]));
}

function split(response: request.Response): { document: InferAnswer; behind: Buffer } {
  const length = Number(response.get('Inference-Header-Content-Length'));
  const all = response.body as Buffer;
  return { document: JSON.parse(all.subarray(0, length).toString()) as InferAnswer, behind: all.subarray(length) };
}

describe('Open Inference Protocol', () => {
  test('says what the server and its models are', async () => {
    const { body: meta } = (await request(server.url).get('/v2').expect(200)) as { body: { name: string; extensions: string[] } };
    assert.equal(meta.name, 'bignas');
    assert.deepEqual(meta.extensions, ['binary_tensor_data', 'classification', 'model_repository']);
    const { body: any } = (await request(server.url).get('/v2/models/bignas').expect(200)) as { body: { inputs: unknown[] } };
    assert.deepEqual(any.inputs, [{ name: 'input', datatype: 'FP32', shape: [-1, 3, -1, -1] }]);
    for (const path of ['M', 'M/versions/1', 'bignas/versions/M']) {
      const { body } = (await request(server.url).get(`/v2/models/${path}`).expect(200)) as { body: { inputs: { shape: number[] }[]; outputs: { shape: number[] }[] } };
      assert.deepEqual([body.inputs[0]!.shape, body.outputs[0]!.shape], [[-1, 3, resolutionOf('M'), resolutionOf('M')], [-1, tiny.classes]]);
      await request(server.url).get(`/v2/models/${path}/ready`).expect(200, { ready: true });
    }
    const index = (await request(server.url).post('/v2/repository/index').expect(200)).body as { name: string; state: string }[];
    assert.deepEqual(index.map(({ name }) => name), ['bignas', 'smallest', 'S', 'M', 'L', 'XL', 'biggest']);
    assert.ok(index.every(({ state }) => state === 'READY'));
    await request(server.url).post('/v2/repository/index').send({ ready: true }).expect(200);
  });

  test('infers from a tensor in JSON, flat or nested, and from binary ones, as POST /predict does from the image', async () => {
    const wanted = await expected('M');
    const size = resolutionOf('M');
    const data = await tensor(size);
    const shape = [1, 3, size, size];
    for (const given of [Array.from(data), nested(data, shape)]) {
      const { body } = (await infer('M', { id: 'mine', inputs: [{ name: 'input', shape, datatype: 'FP32', data: given }] }).expect(200)) as { body: InferAnswer };
      assert.deepEqual([body.id, body.model_name, body.model_version, body.parameters['architecture']], ['mine', 'M', '1', checkpoint.frontier.family.M.architecture]);
      assert.deepEqual(body.outputs[0]!.shape, [1, tiny.classes]);
      close(body.outputs[0]!.data as number[], wanted);
    }
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const inputs = [{ name: 'input', shape, datatype: 'FP32', parameters: { binary_data_size: bytes.length } }];
    for (const document of [{ inputs, outputs: [{ name: 'probabilities', parameters: { binary_data: true } }] }, { inputs, parameters: { binary_data_output: true } }]) {
      const answer = await binary('bignas/versions/M', document, bytes).expect(200);
      const { document: head, behind } = split(answer);
      assert.deepEqual(head.outputs[0]!.parameters, { binary_data_size: 4 * tiny.classes });
      close(new Float32Array(Uint8Array.from(behind).buffer), wanted);
    }
  });

  test('infers from images, in JSON and binary, of several at a time; parameters choose the child', async () => {
    const wanted = await expected('S');
    const { flops } = checkpoint.frontier.family.S.costs;
    const document = (data: string[]) => ({ parameters: { flops: flops.value }, inputs: [{ name: 'image', shape: [data.length], datatype: 'BYTES', data }] });
    const text = photo.toString('base64');
    const { body } = (await infer('bignas', document([text, text])).expect(200)) as { body: InferAnswer };
    assert.equal(body.parameters['choice'], 'most accurate within the budget');
    const named = (await infer('S', { ...document([text]), parameters: {} }).expect(200)).body as InferAnswer;
    close(named.outputs[0]!.data as number[], wanted);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(photo.length);
    const element = Buffer.concat([length, photo]);
    const answer = await binary('S', { inputs: [{ name: 'image', shape: [2, 1], datatype: 'BYTES', parameters: { binary_data_size: 2 * element.length } }], outputs: [{ name: 'probabilities', parameters: { classification: 2, binary_data: true } }] }, Buffer.concat([element, element])).expect(200);
    const { document: head, behind } = split(answer);
    assert.deepEqual([head.outputs[0]!.datatype, head.outputs[0]!.shape], ['BYTES', [2, 2]]);
    const best = wanted.indexOf(Math.max(...wanted));
    assert.equal(behind.subarray(4, 4 + behind.readUInt32LE(0)).toString(), `${wanted[best]!.toFixed(6)}:${best}:${checkpoint.manifest.dataset.classes[best]}`);
  });

  test('a tensor has a resolution: the child is one of that', async () => {
    const size = resolutionOf('S');
    const input = { name: 'input', shape: [1, 3, size, size], datatype: 'FP32', data: Array.from(await tensor(size)) };
    const { body } = (await infer('bignas', { inputs: [input] }).expect(200)) as { body: InferAnswer };
    assert.equal(server.services.inService.current.describe(String(body.parameters['architecture'])).resolution, size);
    const odd = (await infer('bignas', { inputs: [{ ...input, shape: [1, 3, 5, 5], data: Array.from({ length: 75 }, () => 0) }] }).expect(400)) as { body: { error: string } };
    assert.match(odd.body.error, /resolution of one of the frontier's children/);
  });

  test('takes a large JSON tensor through a worker', async () => {
    const size = resolutionOf('biggest');
    const one = await tensor(size);
    const count = 8; // of some 20 characters a number: over 64 KiB
    const data = Array.from({ length: count }, () => Array.from(one)).flat();
    const { body } = (await infer('biggest', { inputs: [{ name: 'input', shape: [count, 3, size, size], datatype: 'FP32', data }] }).expect(200)) as { body: InferAnswer };
    close((body.outputs[0]!.data as number[]).slice(-tiny.classes), await expected('biggest'));
  });

  test('refuses what is wrong, as the protocol has it', async () => {
    const size = resolutionOf('M');
    const input = { name: 'input', shape: [1, 3, size, size], datatype: 'FP32', data: Array.from(await tensor(size)) };
    const wrong: [string, unknown, number, RegExp][] = [
      ['nobody', { inputs: [input] }, 404, /Expected the model bignas/],
      ['M/versions/2', { inputs: [input] }, 404, /version 1/],
      ['M', { inputs: [] }, 400, /inputs/],
      ['M', { inputs: [input, input] }, 400, /inputs/],
      ['M', { inputs: [{ ...input, name: 'x' }] }, 400, /inputs\.0\.name/],
      ['M', { inputs: [{ ...input, shape: [1, 3, size + 1, size + 1] }] }, 400, /elements/],
      ['M', { inputs: [{ ...input, shape: [0, 3, size, size] }] }, 400, /at least one/],
      ['M', { inputs: [{ ...input, datatype: 'BYTES' }] }, 400, /FP32/],
      ['M', { inputs: [{ ...input, data: [...input.data.slice(1), 'x'] }] }, 400, /finite/],
      ['M', { inputs: [{ ...input, data: [...input.data.slice(1), 1e39] }] }, 400, /finite/],
      ['M', { inputs: [input], outputs: [{ name: 'logits' }] }, 400, /outputs/],
      ['M', { inputs: [input], parameters: { flop: '600M' } }, 400, /flop/],
      ['M', { inputs: [input], parameters: { flops: '600M' } }, 400, /arch/],
      ['M', { inputs: Array.from({ length: 1000 }, () => 0) }, 400, /at most 64 entries/],
      ['S', { inputs: [{ ...input, shape: [1, 3, 8, 8], data: Array.from({ length: 192 }, () => 0) }] }, 400, /shape \[N, 3/],
      ['M', [], 400, /inference request/],
    ];
    for (const [path, body, status, message] of wrong) {
      const answer = await infer(path, body);
      assert.equal(answer.status, status, `${path} ${answer.text}`);
      assert.deepEqual(Object.keys(answer.body as object), ['error']);
      assert.match((answer.body as { error: string }).error, message);
    }
    await request(server.url).post('/v2/models/bignas/infer?arch=M').send({ inputs: [input], parameters: { arch: 'M' } }).expect(400);
    const bytes = new Uint8Array(4 * 3 * size * size);
    const document = { inputs: [{ name: 'input', shape: [1, 3, size, size], datatype: 'FP32', parameters: { binary_data_size: bytes.length } }] };
    await binary('M', document, bytes.subarray(4)).expect(400);
    await binary('M', document, new Uint8Array(bytes.length).fill(0xff)).expect(400); // not a number
    await request(server.url).post('/v2/models/M/infer').set('Inference-Header-Content-Length', '9999').send({ inputs: [input] }).expect(400);
    await request(server.url).post('/v2/models/M/infer').set('Inference-Header-Content-Length', 'x').send({ inputs: [input] }).expect(400);
    await request(server.url).get('/v2/models/M/infer').expect(405);
  });
});

describe("TensorFlow Serving's REST API", () => {
  test('says whether a model is there, and its signature', async () => {
    for (const path of ['M', 'bignas', 'M/versions/1', 'bignas/labels/M']) {
      await request(server.url)
        .get(`/v1/models/${path}`)
        .expect(200, { model_version_status: [{ version: '1', state: 'AVAILABLE', status: { error_code: 'OK', error_message: '' } }] });
      const { body } = (await request(server.url).get(`/v1/models/${path}/metadata`).expect(200)) as { body: { metadata: { signature_def: { signature_def: { serving_default: { method_name: string } } } } } };
      assert.equal(body.metadata.signature_def.signature_def.serving_default.method_name, 'tensorflow/serving/predict');
    }
    const { body } = (await request(server.url).get('/v1/models/nobody').expect(404)) as { body: { error: string } };
    assert.match(body.error, /nobody/);
  });

  test('predicts rows and columns, pixels and images', async () => {
    const wanted = await expected('M');
    const size = resolutionOf('M');
    const pixels = nested(await tensor(size, 'NHWC'), [size, size, 3]);
    const image = { b64: photo.toString('base64') };
    const rows = [[pixels], [{ input: pixels }], [image], [{ image }]];
    for (const instances of rows) {
      const { body } = (await request(server.url).post('/v1/models/M:predict').send({ signature_name: 'serving_default', instances }).expect(200)) as { body: { predictions: number[][] } };
      assert.deepEqual(Object.keys(body), ['predictions']);
      close(body.predictions[0]!, wanted);
    }
    for (const inputs of [[pixels], { input: [pixels] }, { image: [image, image] }]) {
      const { body } = (await request(server.url).post('/v1/models/bignas/labels/M:predict').send({ inputs }).expect(200)) as { body: { outputs: number[][] } };
      close(body.outputs[0]!, wanted);
    }
    const best = await request(server.url).post('/v1/models/bignas:predict?deadline=20s').send({ instances: [image] });
    assert.ok([200, 503].includes(best.status), best.text); // 503: no child of a deadline's was warmed
  });

  test('refuses what is wrong', async () => {
    const wrong: [unknown, RegExp][] = [
      [{}, /instances/],
      [{ instances: [], inputs: [] }, /either/],
      [{ instances: [] }, /at least one/],
      [{ instances: [[1, [2]]] }, /finite/],
      [{ instances: [[[1, 2]]] }, /R, R, 3/],
      [{ instances: [{ b64: '?' }] }, /base64/],
      [{ instances: [{ b64: photo.toString('base64') }, [1]] }, /like the others/],
      [{ instances: [{ pixels: [1] }] }, /name/],
      [{ signature_name: 'other', instances: [[1]] }, /serving_default/],
      [{ instances: { b64: '' } }, /predict request/],
    ];
    for (const [body, message] of wrong) {
      const answer = await request(server.url).post('/v1/models/M:predict').send(body as object);
      assert.equal(answer.status, 400, `${JSON.stringify(body)} ${answer.text}`);
      assert.match((answer.body as { error: string }).error, message);
    }
    await request(server.url).post('/v1/models/M:classify').send({}).expect(405);
    await request(server.url).get('/v1/models/M:predict').expect(405);
  });
});

describe('bodies of the protocols', () => {
  const limits = { maxImages: 4 };
  const json = fc.jsonValue({ maxDepth: 5 });
  const text = (value: unknown): Uint8Array<ArrayBuffer> => new Uint8Array(Buffer.from(JSON.stringify(value)));

  /** Whatever comes, the answer is a request or an error of the catalogue. */
  function onlyCoded(read: () => unknown): void {
    try {
      read();
    } catch (error) {
      if (!(error instanceof BignasError)) throw error;
    }
  }

  test('any JSON, and any bytes behind it', () => {
    const shape = fc.array(fc.oneof(fc.integer({ min: -1, max: 9 }), json), { maxLength: 5 });
    const input = fc.record({ name: fc.constantFrom('input', 'image', 'x'), shape, datatype: fc.constantFrom('FP32', 'BYTES'), data: json, parameters: fc.record({ binary_data_size: fc.nat(64) }, { requiredKeys: [] }) }, { requiredKeys: [] });
    const document = fc.oneof(json, fc.record({ inputs: fc.array(input, { maxLength: 2 }), outputs: json, parameters: json, id: fc.string() }, { requiredKeys: [] }));
    fc.assert(
      fc.property(document, fc.uint8Array({ maxLength: 64 }), fc.integer({ min: -2, max: 2 }), (value, behind, off) => {
        const head = text(value);
        const body = new Uint8Array([...head, ...behind]);
        onlyCoded(() => inferRequest(body, Math.max(0, head.length + off), limits));
        onlyCoded(() => inferRequest(head, undefined, limits));
        onlyCoded(() => predictRequest(head, limits));
      }),
      { numRuns: 300 },
    );
    fc.assert(fc.property(fc.record({ instances: json, inputs: json }, { requiredKeys: [] }), (value) => onlyCoded(() => predictRequest(text(value), limits))), { numRuns: 300 });
  });

  test('lists that promise more than they hold take no memory for it', () => {
    const long = Array.from({ length: 1000 }, () => 0);
    const lists = [[long], ...Array.from({ length: 999 }, () => [[0]])].slice(0, 4);
    assert.throws(() => predictRequest(text({ instances: lists }), limits), { code: 'TENSOR_INVALID' });
  });
});
