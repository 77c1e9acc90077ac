/** The server under load, beside Python's side of the same child: see bench/README.md. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { Agent } from 'node:http';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { unzipSync } from 'fflate';
import sharp from 'sharp';
import { positiveInteger } from '../../cli/numbers.js';
import { BignasClient } from '../../serve/client.js';
import { packagePath } from '../../serve/packagePath.js';
import { loadCifar10 } from '../../src/data/cifar10.js';
import { openCheckpoint } from '../../src/checkpoint/checkpoint.js';
import { flops } from '../../src/cost/cost.js';
import { writeFileAtomic } from '../../src/files/atomic.js';
import { buildGraph } from '../../src/graph/buildGraph.js';
import { createSession, feed } from '../../src/onnx/engine.js';
import { formatArchitecture } from '../../src/space/architecture.js';
import { cifar10 } from '../../src/space/presets/cifar10.js';
import { imagenet } from '../../src/space/presets/imagenet.js';
import { sampleArchitecture } from '../../src/space/sample.js';
import { makeCheckpoint } from '../../test/support/checkpoint.js';
import { jpeg, png } from '../../test/support/images.js';
import { parsePrometheus, valueOf } from '../../test/support/prometheus.js';
import type { LoadRequest, LoadResult } from './load.js';
import { timed } from './once.js';
import { bare, bignas, least, load, openLoop, peer, type Bare, type Party, type PeerKind } from './parties.js';
import { imageRequest, noise, tensorRequest } from './requests.js';

const options = new Command('bench:serve')
  .description('The server under load, beside ONNX Runtime and PyTorch in Python.')
  .addOption(new Option('--scenario <name>', 'what to measure').choices(['child', 'added', 'rotation', 'overload', 'churn', 'all']).default('all'))
  .option('--connections <list>', 'connections, with commas between', (text) => text.split(',').map(positiveInteger), [1, 8, 64, 512])
  .option('--seconds <n>', 'seconds of each measurement', positiveInteger, 10)
  .option('--threads <n>', 'threads of the engine, of each side', positiveInteger, availableParallelism())
  .option('--deadline <ms>', 'of the overload', positiveInteger, 100)
  .option('--images <n>', 'test images of the overload', positiveInteger, 10_000)
  .option('--minutes <n>', 'of the churn', positiveInteger, 5)
  .option('--output <file>', 'results as JSON')
  .addOption(new Option('--python <path>').makeOptionMandatory().hideHelp())
  .parse()
  .opts<{ scenario: string; connections: number[]; seconds: number; threads: number; deadline: number; images: number; minutes: number; output?: string; python: string }>();

const folder = await mkdtemp(join(tmpdir(), 'bignas-bench-'));
const results: Record<string, unknown> = {};
const say = (text: string): void => console.log(text);
const threads = String(options.threads);

try {
  const busy = loadavg()[0]!;
  if (busy > 0.5) say(`The machine was busy when this began (load average ${busy.toFixed(1)}): measure again when it is quiet.`);
  say(`${availableParallelism()} processors, ${threads} threads of the engine`);
  for (const [name, scenario] of Object.entries({ child: oneChild, added, rotation, overload, churn })) {
    if (options.scenario !== 'all' && options.scenario !== name) continue;
    say(`\n## ${name}`);
    results[name] = await scenario();
    if (options.output !== undefined) await writeFileAtomic(options.output, `${JSON.stringify(results, null, 1)}\n`);
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}

/** A server of a child of `imagenet` near 600 MFLOPs, random weights, and the child's model as a file. */
async function near600() {
  const { folder: path } = await makeCheckpoint(imagenet, await mkdtemp(join(folder, 'imagenet-')), { calibrated: [], crops: 32 });
  let seed = 0;
  const near = (): boolean => Math.abs(flops(buildGraph(imagenet, sampleArchitecture(imagenet, [600, seed]))) / 600e6 - 1) < 0.05;
  while (!near()) seed++;
  const architecture = sampleArchitecture(imagenet, [600, seed]);
  const [arch, { resolution }] = [formatArchitecture(architecture), architecture];
  const ours = await bignas(['--checkpoint', path, '--threads', threads, '--no-warm', '--queue', '1024', '--cache-bytes', '1GiB']);
  const model = join(folder, 'model.onnx');
  const client = new BignasClient(ours.url);
  await writeFile(model, unzipSync(new Uint8Array(await new Response((await client.slice({ arch }))!.body).arrayBuffer()))['model.onnx']!);
  say(`${arch}, ${resolution} pixels`);
  return { path, arch, resolution, ours, client, model };
}

/** With tensors and with photos, beside the bare model and Python servers of it. */
async function oneChild(): Promise<unknown> {
  const { arch, resolution, ours, client, model } = await near600();
  const python = { interpreter: options.python, model, resolution, threads: options.threads };
  const alone = await bare('onnxruntime', python, options.seconds / 2);
  const eager = await bare('torch', python, options.seconds / 2);
  const bestOf = (runs: Bare): number => Math.max(...Object.values(runs).map(({ perSecond }) => perSecond));
  say(`ONNX Runtime alone: ${(1000 * alone['1']!.median).toFixed(2)} ms at batch 1, at best ${bestOf(alone).toFixed(1)} images/s`);
  say(`PyTorch eager alone: ${(1000 * eager['1']!.median).toFixed(2)} ms at batch 1, at best ${bestOf(eager).toFixed(1)} images/s`);

  const peers = { onnxruntime: await peer('onnxruntime', python), torch: await peer('torch', python) };
  const all: [string, Party][] = [['bignas', ours], ...Object.entries(peers)];
  try {
    await agree(client, arch, resolution, peers);
    const { request, bytes } = tensorRequest(arch, resolution, 0);
    const raw: LoadRequest = { path: '/', headers: { 'Content-Type': 'application/octet-stream' }, body: 0 };
    const tensor = new Uint8Array(noise(resolution).buffer);
    const photo = await jpeg(500, 375);
    const photoRequest: LoadRequest = { ...imageRequest(arch, 0), headers: { 'Content-Type': 'image/jpeg' } };
    const rows: Record<string, Record<string, LoadResult>> = {};
    for (const connections of options.connections) {
      const run = (party: Party, one: LoadRequest, body: Uint8Array): Promise<LoadResult> => load({ url: party.url, connections, seconds: options.seconds, requests: [one], bodies: [body] });
      rows[connections] = {
        'bignas, tensors': await run(ours, request, bytes),
        'bignas, photos': await run(ours, photoRequest, photo),
        'ONNX Runtime in Python': await run(peers.onnxruntime, raw, tensor),
        'PyTorch eager': await run(peers.torch, raw, tensor),
      };
      table(connections, rows[connections]);
    }
    const many = rows['64'];
    // Before and after: the machine may have become slower or faster.
    const again = bestOf(await bare('onnxruntime', python, options.seconds / 2));
    const best = (bestOf(alone) + again) / 2;
    say(`ONNX Runtime alone, afterwards: at best ${again.toFixed(1)} images/s`);
    if (many) say(`At 64 connections it has ${(many['bignas, tensors']!.perSecond / best).toFixed(2)} of the bare model's batched throughput; the generator took ${many['bignas, tensors']!.generator.toFixed(2)} of a processor.`);
    return { arch, alone, again, eager, rows };
  } finally {
    for (const [, party] of all) await party.stop();
  }
}

/** What one connection's answer takes beyond the model's run, taken in turn: the machine is as fast for all. */
async function added(): Promise<unknown> {
  const { path, arch, resolution, ours, model } = await near600();
  const node = await least(model, threads, path);
  const agent = new Agent({ keepAlive: true });
  const session = await createSession(new Uint8Array(await readFile(model)), options.threads, { spinning: true });
  try {
    const tensor = noise(resolution);
    const { request, bytes } = tensorRequest(arch, resolution, 0);
    const photo = await jpeg(500, 375);
    const ask = async (url: string, one: Omit<LoadRequest, 'body'>, body: Uint8Array): Promise<number> => {
      const milliseconds = await timed(agent, url, one, body);
      if (milliseconds === undefined) throw new Error(`${url} refused`);
      return milliseconds;
    };
    const all: Record<string, () => Promise<number>> = {
      'ONNX Runtime alone': async () => {
        const began = performance.now();
        await session.run(feed(session, { data: tensor, count: 1 }));
        return performance.now() - began;
      },
      'the least of servers, tensors': () => ask(node.url, { path: '/', headers: {} }, new Uint8Array(tensor.buffer)),
      'bignas, tensors': () => ask(ours.url, request, bytes),
      'bignas, photos': () => ask(ours.url, { ...imageRequest(arch, 0), headers: { 'Content-Type': 'image/jpeg' } }, photo),
    };
    const times: Record<string, number[]> = {};
    const end = performance.now() + 4 * 1000 * options.seconds;
    for (let round = 0; performance.now() < end || round < 3; round++) {
      for (const [name, one] of Object.entries(all)) {
        // The first of each ten finds another's data in the caches; the first round warms.
        for (let i = 0; i < 10; i++) {
          const milliseconds = await one();
          if (round > 0) (times[name] ??= []).push(milliseconds);
        }
      }
    }
    const at = (part: number, [...values]: readonly number[]): number => values.sort((a, b) => a - b)[Math.floor(part * values.length)]!;
    const rows = Object.fromEntries(Object.entries(times).map(([name, values]) => [name, { tenth: at(0.1, values), quarter: at(0.25, values), median: at(0.5, values), runs: values.length }]));
    const [[, alone], ...others] = Object.entries(rows) as [[string, (typeof rows)[string]], ...[string, (typeof rows)[string]][]];
    say(`ONNX Runtime alone: ${alone.tenth.toFixed(2)} ms at the tenth percentile, ${alone.quarter.toFixed(2)} at the quarter, ${alone.median.toFixed(2)} at the median, of ${alone.runs}`);
    for (const [name, { tenth, quarter, median }] of others) say(`${name}: adds ${(tenth - alone.tenth).toFixed(2)}, ${(quarter - alone.quarter).toFixed(2)}, ${(median - alone.median).toFixed(2)} ms`);
    return rows;
  } finally {
    agent.destroy();
    await session.release();
    await node.stop();
    await ours.stop();
  }
}

/** Both sides answer the same, or nothing is timed. */
async function agree(client: BignasClient, arch: string, resolution: number, peers: Record<PeerKind, Party>): Promise<void> {
  const tensor = noise(resolution);
  const { probabilities } = await client.infer(tensor, [1, 3, resolution, resolution], { arch });
  for (const [name, { url }] of Object.entries(peers)) {
    const answer = new Float32Array(await (await fetch(url, { method: 'POST', body: tensor })).arrayBuffer());
    const worst = Math.max(...probabilities.map((probability, i) => Math.abs(probability - answer[i]!)));
    if (!(worst < 1e-4) || answer.length !== probabilities.length) throw new Error(`${name} answers differently (by ${worst}).`);
  }
}

/** Children of the shipped checkpoint: one, and a hundred in turn. */
async function rotation(): Promise<unknown> {
  const ours = await bignas(['--threads', threads, '--queue', '1024', '--cache-bytes', '2GiB']);
  try {
    const client = new BignasClient(ours.url);
    const children = Array.from({ length: 100 }, (_, seed) => sampleArchitecture(cifar10, [100, seed]));
    const photo = await png(32, 32);
    for (const child of children) await client.predict(photo, { arch: formatArchitecture(child) });
    const rows: Record<string, Record<string, LoadResult>> = {};
    for (const connections of options.connections) {
      const of = async (count: number, tensors: boolean): Promise<LoadResult> => {
        const asked = children.slice(0, count).map((child, i) => {
          const arch = formatArchitecture(child);
          return tensors ? tensorRequest(arch, child.resolution, i) : { request: imageRequest(arch, i), bytes: photo };
        });
        return load({ url: ours.url, connections, seconds: options.seconds, requests: asked.map(({ request }) => request), bodies: asked.map(({ bytes }) => bytes) });
      };
      rows[connections] = { 'one child, tensors': await of(1, true), 'one child, images': await of(1, false), 'a hundred, tensors': await of(100, true), 'a hundred, images': await of(100, false) };
      table(connections, rows[connections]);
    }
    return rows;
  } finally {
    await ours.stop();
  }
}

/** More than it can serve at the biggest child, with a deadline, and without one at S and at L. */
async function overload(): Promise<unknown> {
  const ours = await bignas(['--threads', threads, '--queue', '1024']);
  try {
    const { splits } = await loadCifar10({ log: say });
    const { manifest } = await openCheckpoint(packagePath('checkpoints', 'cifar10'));
    const count = Math.min(options.images, splits.test.count);
    const bodies: Uint8Array[] = [];
    for (let i = 0; i < count; i++) {
      const crop = await splits.test.crops([i]);
      const side = manifest.preprocessing.crop;
      bodies.push(await sharp(crop, { raw: { width: side, height: side, channels: 3 } }).png().toBuffer());
    }
    await warm(ours);
    const capacity = async (arch: string): Promise<number> => (await load({ url: ours.url, connections: 64, seconds: options.seconds, requests: [imageRequest(arch, 0)], bodies: [bodies[0]!] })).perSecond;
    const [most, least] = [await capacity('smallest'), await capacity('biggest')];
    const rate = Math.min(4 * least, 0.8 * most);
    say(`It serves ${least.toFixed(0)} images/s at the biggest child, ${most.toFixed(0)} at the smallest: asked for ${rate.toFixed(0)} a second, ${count} test images, within ${options.deadline} ms`);
    const labels = manifest.dataset.classes;
    const rows: Record<string, unknown> = {};
    for (const [name, query] of [['deadline', `deadline=${options.deadline}ms`], ['S', 'arch=S'], ['L', 'arch=L']] as const) {
      const { answers, generator } = await openLoop({ url: ours.url, path: `/predict?${query}&top=1`, headers: { 'Content-Type': 'image/png' }, rate, bodies });
      const answered = answers.filter(({ status }) => status === 200);
      const inTime = answered.filter(({ milliseconds }) => milliseconds <= options.deadline);
      const right = (part: typeof answers): number => part.filter((answer) => answer.label === labels[splits.test.labels[answers.indexOf(answer)]!]).length;
      const children: Record<string, number> = {};
      for (const { child } of answered) children[child!] = (children[child!] ?? 0) + 1;
      const row = { answered: answered.length / count, inTime: inTime.length / Math.max(1, answered.length), accuracy: right(answered) / Math.max(1, answered.length), rightInTime: right(inTime) / count, generator, children };
      rows[name] = row;
      say(`${name}: ${percent(row.answered)} answered, of these ${percent(row.inTime)} in time, ${percent(row.accuracy)} right; ${percent(row.rightInTime)} of all are right in time; ${Object.keys(children).length} children; generator ${generator.toFixed(2)} of a processor`);
    }
    return { least, most, rate, deadline: options.deadline, rows };
  } finally {
    await ours.stop();
  }
}

/** A thousand architectures at random, 64 clients. */
async function churn(): Promise<unknown> {
  const cacheBytes = 256 * 2 ** 20;
  const ours = await bignas(['--threads', threads, '--queue', '128', '--cache-bytes', String(cacheBytes), '--no-warm']);
  try {
    const photo = await png(32, 32);
    const idle = await resident(ours);
    const children = Array.from({ length: 1000 }, (_, seed) => formatArchitecture(sampleArchitecture(cifar10, [1000, seed])));
    const seen = { idle, resident: 0, lag: [] as number[] };
    const watch = setInterval(() => void look(), 5000);
    const look = async (): Promise<void> => {
      seen.resident = Math.max(seen.resident, await resident(ours));
      seen.lag.push(1000 * (await metric(ours, 'bignas_nodejs_eventloop_lag_p99_seconds')));
    };
    // Each connection takes them in the same order, from its own place on.
    const order = children.map((_, i) => imageRequest(children[(i * 387) % children.length]!, 0));
    const result = await load({ url: ours.url, connections: 64, seconds: 60 * options.minutes, requests: order, bodies: [photo] });
    clearInterval(watch);
    await look();
    const computed = await metric(ours, 'bignas_calibrations_total', { source: 'computed' });
    const lag = seen.lag.toSorted((a, b) => a - b);
    say(`${(result.perSecond * 60 * options.minutes).toFixed(0)} answers, ${result.failures} failures; ${computed} calibrations of 1000 children`);
    say(`resident ${mib(idle)} idle, at most ${mib(seen.resident)} (bound: ${mib(idle + cacheBytes)}); event loop late by ${lag.at(-1)?.toFixed(1)} ms at p99 of the worst 5 s, ${lag[Math.floor(lag.length / 2)]?.toFixed(1)} ms of the median`);
    return { result, computed, idle, resident: seen.resident, bound: idle + cacheBytes, lag: seen.lag };
  } finally {
    await ours.stop();
  }
}

function table(connections: number, rows: Readonly<Record<string, LoadResult>>): void {
  say(`\n${connections} connections | predictions/s | p50 ms | p99 ms | failures | generator's processors`);
  for (const [name, { perSecond, p50, p99, failures, generator }] of Object.entries(rows))
    say(`${name} | ${perSecond.toFixed(1)} | ${p50.toFixed(2)} | ${p99.toFixed(2)} | ${failures} | ${generator.toFixed(2)}`);
}

/** The family is in memory. */
async function warm(party: Party): Promise<void> {
  const client = new BignasClient(party.url);
  for (;;) {
    const { family } = await client.archs();
    if (Object.values(family).every(({ loaded }) => loaded)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function metric({ url }: Party, name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
  return valueOf(parsePrometheus(await (await fetch(`${url}/metrics`)).text()), name, labels);
}

async function resident({ pid }: Party): Promise<number> {
  return 1024 * Number(/VmRSS:\s+(\d+) kB/.exec(await readFile(`/proc/${pid}/status`, 'utf8'))![1]);
}

function percent(part: number): string {
  return `${(100 * part).toFixed(2)} %`;
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(0)} MiB`;
}
