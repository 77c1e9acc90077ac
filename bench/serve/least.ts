/**
 * The least of Node's servers: least.js MODEL THREADS. One thread reads bodies, another runs the model; no router, no queue, no checks. It answers POSTs of a float32 tensor, [1, 3, R, R], with
 * probabilities, one at a time, and prints its address.
 */
import { readFile } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { createSession, feed, view } from '../../src/onnx/engine.js';

if (isMainThread) serve(...(process.argv.slice(2) as [string, string]));
else await run(workerData as RunData);

interface RunData {
  readonly model: string;
  readonly threads: number;
}

function serve(model: string, threads: string): void {
  const worker = new Worker(new URL(import.meta.url), { workerData: { model, threads: Number(threads) } satisfies RunData });
  let waiting: ServerResponse | undefined;
  worker.once('message', () => {
    server.listen(0, '127.0.0.1', () => console.log(`on http://127.0.0.1:${(server.address() as AddressInfo).port}`));
    worker.on('message', (probabilities: Float32Array) => {
      waiting!.setHeader('Content-Type', 'application/octet-stream').end(new Uint8Array(probabilities.buffer));
    });
  });
  const server = createServer((request, response) => {
    const body = new Uint8Array(Number(request.headers['content-length']));
    let length = 0;
    request.on('data', (chunk: Buffer) => {
      body.set(chunk, length);
      length += chunk.length;
    });
    request.on('end', () => {
      waiting = response;
      worker.postMessage(body, [body.buffer]);
    });
  });
  process.once('SIGTERM', () => process.exit(0));
}

async function run({ model, threads }: RunData): Promise<void> {
  const session = await createSession(new Uint8Array(await readFile(model)), threads, { spinning: true });
  parentPort!.on('message', (body: Uint8Array<ArrayBuffer>) => {
    void session.run(feed(session, { data: new Float32Array(body.buffer), count: 1 }), ['probabilities']).then((outputs) => {
      const probabilities = view(outputs, 'probabilities').slice();
      parentPort!.postMessage(probabilities, [probabilities.buffer]);
    });
  });
  parentPort!.postMessage('ready');
}
