import assert from 'node:assert/strict';
import { cp, readFile, writeFile } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import request from 'supertest';
import type { RunningServer } from '../serve/server.js';
import { decodeSafetensors, encodeSafetensors } from '../src/checkpoint/safetensors.js';
import type { Checkpoint } from '../src/checkpoint/checkpoint.js';
import { errorCatalogue, type ErrorCode } from '../src/errors.js';
import { cifar10 } from '../src/space/presets/cifar10.js';
import { makeCheckpoint } from './support/checkpoint.js';
import { blankPng, jpeg, png } from './support/images.js';
import { temporaryFolder, testServer } from './support/server.js';

interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: ErrorCode;
  readonly [detail: string]: unknown;
}

const maxBody = 256 * 1024;
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let checkpoint: Checkpoint;
let server: RunningServer;
let photo: Buffer;

before(async () => {
  folder = await temporaryFolder();
  checkpoint = await makeCheckpoint(cifar10, join(folder.path, 'checkpoint'), { calibrated: ['M'] });
  server = await testServer(checkpoint.folder, { maxBody });
  photo = await png(40, 32);
});
after(async () => {
  await server.stop(1000);
  await folder.remove();
});
/** Whatever came before: the server goes on. */
afterEach(async () => {
  const answer = await request(server.url).post('/predict?arch=M').set('Content-Type', 'image/png').send(photo);
  assert.equal(answer.status, 200, answer.text);
});

const post = (query: string, body: Buffer | string = photo, type = 'image/png') => request(server.url).post(`/predict${query}`).set('Content-Type', type).send(body);
const get = (path: string) => request(server.url).get(path);

/** Checks that the answer is the problem document of the code, and returns it. */
function problem(response: request.Response, code: ErrorCode): Problem {
  const document = response.body as Problem;
  assert.equal(document.code, code, response.text);
  assert.match(response.get('Content-Type')!, /^application\/problem\+json/);
  const { status, title } = errorCatalogue[code];
  assert.deepEqual([response.status, document.status, document.title, document.type], [status, status, title, `/errors#${code.toLowerCase()}`]);
  assert.ok(document.detail.length > 10 && !document.detail.includes(folder.path));
  return document;
}

describe('which child', () => {
  test('an unknown family name: the names there are', async () => {
    for (const response of [await post('?arch=XXL'), await get('/slice?arch=XXL'), await get('/archs/XXL')]) {
      const { legal, detail } = problem(response, 'ARCHITECTURE_UNKNOWN');
      assert.deepEqual((legal as { names: string[] }).names, ['smallest', 'S', 'M', 'L', 'XL', 'biggest']);
      assert.match(detail, /got `XXL`/);
    }
    problem(await post('?arch='), 'ARCHITECTURE_UNKNOWN');
    problem(await post('?arch=000000000000'), 'ARCHITECTURE_UNKNOWN');
    problem(await get('/archs/__proto__'), 'ARCHITECTURE_MALFORMED');
    problem(await get('/archs/constructor'), 'ARCHITECTURE_UNKNOWN');
  });

  test('a malformed descriptor: the legal values of the stage at fault', async () => {
    const text = checkpoint.frontier.family.M.architecture;
    const fields = text.split('_');
    const broken = [...fields.slice(0, 4), 'banana', ...fields.slice(5)].join('_');
    const { field, legal } = problem(await post(`?arch=${broken}`), 'ARCHITECTURE_MALFORMED');
    const { depths, channels, kernels } = cifar10.stages[2]!;
    assert.deepEqual([field, legal], ['stage 3', { depths, channels, kernels }]);
    problem(await post('?arch=r32'), 'ARCHITECTURE_MALFORMED');
    problem(await post(`?arch=${text}_c3`), 'ARCHITECTURE_MALFORMED');
  });

  test('a value outside the space', async () => {
    const text = checkpoint.frontier.family.M.architecture;
    const resolution = problem(await post(`?arch=${text.replace(/^r\d+/, 'r33')}`), 'ARCHITECTURE_OUTSIDE_SPACE');
    assert.deepEqual(resolution['legal'], { resolutions: cifar10.resolutions });
    const fields = text.split('_');
    const channels = problem(await get(`/slice?arch=${[...fields.slice(0, 3), '3x17', ...fields.slice(4)].join('_')}`), 'ARCHITECTURE_OUTSIDE_SPACE');
    assert.equal(channels['field'], 'stage 2');
  });

  test('a budget that is no number', async () => {
    for (const [text, shown] of [['abc', 'abc'], ['-3M', '-3M'], ['0', '0'], ['', ''], ['1e999', '1e999'], ['600MB', '600MB'], ['NaN', 'NaN'], ['0x10', '0x10']]) {
      const { detail } = problem(await get(`/slice?flops=${text!}`), 'BUDGET_MALFORMED');
      assert.equal(detail, `Expected \`flops\` to be a positive number such as 600M, got \`${shown!}\`.`);
    }
    assert.equal(problem(await post('?params=many'), 'BUDGET_MALFORMED')['parameter'], 'params');
  });

  test('a budget below the smallest child: 422 with the nearest cost', async () => {
    const { smallest } = checkpoint.frontier.family;
    for (const response of [await post('?flops=1000'), await get('/slice?flops=1k')]) {
      const { nearest } = problem(response, 'BUDGET_TOO_SMALL');
      assert.deepEqual(nearest, { architecture: smallest.architecture, id: smallest.id, costs: { flops: smallest.costs.flops.value } });
    }
    const both = problem(await post('?flops=1000&params=10M'), 'BUDGET_TOO_SMALL')['nearest'] as { costs: object };
    assert.deepEqual(Object.keys(both.costs), ['flops', 'params']);
  });

  test('`arch` and a budget; unknown, doubled and malformed parameters', async () => {
    assert.match(problem(await post('?arch=M&flops=6M'), 'PARAMETER_INVALID').detail, /either `arch` or a budget/);
    assert.deepEqual(problem(await post('?flop=6M'), 'PARAMETER_INVALID')['legal'], ['arch', 'flops', 'params', 'bytes', 'memory', 'latency', 'device', 'deadline', 'min_accuracy', 'top']);
    assert.deepEqual(problem(await get('/slice?top=3'), 'PARAMETER_INVALID')['legal'], ['arch', 'flops', 'params', 'bytes', 'memory', 'latency', 'device', 'format', 'dtype', 'preprocess', 'container', 'have', 'overlap']);
    assert.match(problem(await post('?arch=M&arch=S'), 'PARAMETER_INVALID').detail, /expected it once/);
    for (const top of ['0', '-1', '1.5', 'many', '']) assert.equal(problem(await post(`?top=${top}`), 'PARAMETER_INVALID')['parameter'], 'top');
    problem(await get('/space?x=1'), 'PARAMETER_INVALID');
    problem(await get('/archs/%E0%A4%A'), 'PARAMETER_INVALID');
  });

  test('a dtype, a preprocessing or a container that a format does not have', async () => {
    assert.deepEqual(problem(await get('/slice?arch=M&dtype=int4'), 'PARAMETER_INVALID')['legal'], ['float32', 'float16', 'int8']);
    assert.deepEqual(problem(await get('/slice?arch=M&format=savedmodel&dtype=int8'), 'PARAMETER_INVALID')['legal'], ['float32', 'float16']);
    assert.deepEqual(problem(await get('/slice?arch=M&container=7z'), 'PARAMETER_INVALID')['legal'], ['zip', 'tar']);
    assert.deepEqual(problem(await get('/slice?arch=M&format=safetensors&preprocess=true'), 'PARAMETER_INVALID')['legal'], ['false']);
  });

  test('an unknown format', async () => {
    assert.deepEqual(problem(await get('/slice?arch=M&format=pdf'), 'FORMAT_UNKNOWN')['legal'], ['onnx', 'tfjs', 'savedmodel', 'safetensors']);
  });
});

describe('bodies', () => {
  test('no body', async () => {
    problem(await post('', ''), 'BODY_EMPTY');
    problem(await request(server.url).post('/predict'), 'BODY_EMPTY');
    problem(await post('', '{"images": []}', 'application/json'), 'BODY_EMPTY');
    problem(await request(server.url).post('/predict').field('note', 'no file'), 'BODY_EMPTY');
    problem(await request(server.url).post('/predict').attach('a', Buffer.alloc(0), 'empty.png'), 'BODY_EMPTY');
  });

  test('what is no image', async () => {
    assert.match(problem(await post('', 'Dear sirs, this is a letter.', 'image/jpeg'), 'IMAGE_UNREADABLE').detail, /text/);
    const whole = await jpeg(200, 150);
    problem(await post('', whole.subarray(0, whole.length / 2), 'image/jpeg'), 'IMAGE_UNREADABLE');
    problem(await post('', Buffer.concat([photo.subarray(0, 40), Buffer.alloc(40)])), 'IMAGE_UNREADABLE');
    const second = await request(server.url).post('/predict').attach('a', photo, 'a.png').attach('b', whole.subarray(0, 900), 'b.jpg');
    const { image, file } = problem(second, 'IMAGE_UNREADABLE');
    assert.deepEqual([image, file], [1, 'b.jpg']);
  });

  test('a picture of a hundred megapixels', async () => {
    const bomb = blankPng(10_000, 10_000);
    assert.ok(bomb.length < maxBody);
    const started = performance.now();
    const { maxPixels } = problem(await post('', bomb), 'IMAGE_TOO_LARGE');
    assert.equal(maxPixels, 50_000_000);
    assert.ok(performance.now() - started < 2000, 'refused before it is decoded');
  });

  test('over the limit, with and without a length', async () => {
    assert.deepEqual(problem(await post('', Buffer.alloc(maxBody + 1)), 'BODY_TOO_LARGE')['maxBytes'], maxBody);
    const chunked = await new Promise<{ status: number | undefined; body: string }>((resolve, reject) => {
      const sent = httpRequest(`${server.url}/predict`, { method: 'POST', headers: { 'Content-Type': 'image/png', 'Transfer-Encoding': 'chunked' } }, (response) => {
        let body = '';
        response.on('data', (chunk: Buffer) => (body += chunk.toString()));
        response.on('end', () => {
          resolve({ status: response.statusCode, body });
        });
      });
      sent.on('error', reject);
      for (let i = 0; i < 20; i++) sent.write(Buffer.alloc(64 * 1024));
      sent.end();
    });
    assert.equal(chunked.status, 413);
    assert.equal((JSON.parse(chunked.body) as Problem).code, 'BODY_TOO_LARGE');
    // Exactly the limit is no error of size.
    problem(await post('', Buffer.alloc(maxBody)), 'IMAGE_UNREADABLE');
  });

  test('more images than a request may have', async () => {
    const images = Array.from({ length: 33 }, () => photo.toString('base64'));
    problem(await post('', JSON.stringify({ images }), 'application/json'), 'BODY_TOO_LARGE');
    const form = request(server.url).post('/predict');
    for (let i = 0; i < 40; i++) form.attach('a', photo, `${i}.png`);
    assert.equal(problem(await form, 'BODY_TOO_LARGE')['maxImages'], 32);
  });

  test('malformed JSON, wrong JSON, bad base64', async () => {
    for (const text of ['{"images": ["', '[]', 'null', '"x"', '{"image": []}', '{"images": "x"}', '{"images": [1]}', '{"images": ["AAAA"], "more": 1}'])
      problem(await post('', text, 'application/json'), 'BODY_MALFORMED');
    problem(await post('', Buffer.from([0x7b, 0xff, 0xfe]), 'application/json'), 'BODY_MALFORMED');
    for (const text of ['not base64!', 'AAA', '====', '']) {
      const { image } = problem(await post('', JSON.stringify({ images: [text] }), 'application/json'), 'BODY_MALFORMED');
      assert.equal(image, 0);
    }
    assert.match(problem(await post('', JSON.stringify({ images: ['data:image/png;base64,AAAA'] }), 'application/json'), 'BODY_MALFORMED').detail, /before the comma/);
    problem(await post('', JSON.stringify({ images: ['AAAA'] }), 'application/json'), 'IMAGE_UNREADABLE');
  });

  test('bad forms', async () => {
    problem(await post('', 'x', 'multipart/form-data'), 'BODY_MALFORMED');
    problem(await post('', 'no boundary in here', 'multipart/form-data; boundary=b'), 'BODY_MALFORMED');
    const cut = Buffer.concat([Buffer.from('--b\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\n'), photo]);
    problem(await post('', cut, 'multipart/form-data; boundary=b'), 'BODY_MALFORMED');
    problem(await post('', '--b\r\nnonsense\r\n\r\n', 'multipart/form-data; boundary=b'), 'BODY_MALFORMED');
  });

  test('content types and encodings that are not taken', async () => {
    assert.ok((problem(await post('', 'x', 'text/plain'), 'MEDIA_TYPE_UNSUPPORTED')['accepted'] as string[]).includes('image/webp'));
    assert.match(problem(await post('', 'x=1', 'application/x-www-form-urlencoded'), 'MEDIA_TYPE_UNSUPPORTED').detail, /curl/);
    problem(await post('').set('Content-Encoding', 'gzip'), 'MEDIA_TYPE_UNSUPPORTED');
  });

  test('a client that hangs up in the middle of its body', async () => {
    const { port } = new URL(server.url);
    await new Promise<void>((resolve) => {
      const socket = connect(Number(port), '127.0.0.1', () => {
        socket.write('POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nabc', () => {
          socket.destroy();
          resolve();
        });
      });
    });
  });
});

describe('routes', () => {
  test('an unknown route', async () => {
    assert.ok((problem(await get('/nope'), 'ROUTE_UNKNOWN')['legal'] as string[]).includes('/predict'));
    problem(await get('/%2e%2e/%2e%2e/etc/passwd'), 'ROUTE_UNKNOWN');
  });

  test('the wrong method: those that are right', async () => {
    const response = await get('/predict');
    assert.deepEqual(problem(response, 'METHOD_NOT_ALLOWED')['legal'], ['POST', 'OPTIONS']);
    assert.equal(response.get('Allow'), 'POST, OPTIONS');
    assert.equal((await request(server.url).delete('/slice')).get('Allow'), 'GET, HEAD, POST, OPTIONS');
    await request(server.url).options('/predict').expect(204).expect('Allow', 'POST, OPTIONS');
  });

  test('under /v2 an error has the form of that protocol', async () => {
    const response = await get('/v2/models').expect(404).expect('Content-Type', /^application\/json/);
    assert.deepEqual(Object.keys(response.body as object), ['error']);
  });
});

describe('a checkpoint that a server must not serve', () => {
  const damaged = async (name: string, change: (folder: string) => Promise<void>): Promise<string> => {
    const copy = join(folder.path, name);
    await cp(checkpoint.folder, copy, { recursive: true });
    await change(copy);
    return copy;
  };
  const refused = (path: string, code: ErrorCode, message: RegExp) => assert.rejects(testServer(path), { name: 'BignasError', code, message });

  test('a byte flipped', async () => {
    const path = await damaged('flipped', async (copy) => {
      const file = join(copy, 'weights.safetensors');
      const bytes = await readFile(file);
      bytes[bytes.length - 1000]! ^= 1;
      await writeFile(file, bytes);
    });
    await refused(path, 'CHECKPOINT_INVALID', /weights\.safetensors.*SHA-256/);
  });

  test('a tensor missing', async () => {
    const path = await damaged('missing', async (copy) => {
      const file = join(copy, 'weights.safetensors');
      const tensors = new Map(decodeSafetensors(new Uint8Array(await readFile(file))));
      tensors.delete('classifier.bias');
      await writeFile(file, encodeSafetensors(tensors));
      await rewriteManifest(copy, 'weights.safetensors');
    });
    await refused(path, 'CHECKPOINT_INVALID', /classifier\.bias is missing/);
  });

  test('a newer format version', async () => {
    const path = await damaged('newer', async (copy) => {
      const file = join(copy, 'manifest.json');
      await writeFile(file, JSON.stringify({ ...(JSON.parse(await readFile(file, 'utf8')) as object), version: 99 }));
    });
    await refused(path, 'CHECKPOINT_NEWER', /version 99.*Update bignas/);
  });

  test('none at all', async () => {
    await refused(join(folder.path, 'nowhere'), 'CHECKPOINT_INVALID', /manifest\.json/);
  });
});

/** Gives the manifest the file's hash of now: damage that no hash tells. */
async function rewriteManifest(copy: string, name: string): Promise<void> {
  const { createHash } = await import('node:crypto');
  const file = join(copy, 'manifest.json');
  const manifest = JSON.parse(await readFile(file, 'utf8')) as { files: Record<string, string> };
  manifest.files[name] = createHash('sha256').update(await readFile(join(copy, name))).digest('hex');
  await writeFile(file, JSON.stringify(manifest));
}
