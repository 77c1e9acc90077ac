/** Bundles: how long until the first and the last byte, beside once-for-all's way in PyTorch. See bench/README.md. */
import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Command, Option } from 'commander';
import { positiveInteger } from '../../cli/numbers.js';
import { packagePath } from '../../serve/packagePath.js';
import { bundleFormats } from '../../src/bundle/formats.js';
import { graphOf, openCheckpoint, type Checkpoint } from '../../src/checkpoint/checkpoint.js';
import { flops } from '../../src/cost/cost.js';
import { writeFileAtomic } from '../../src/files/atomic.js';
import { buildGraph } from '../../src/graph/buildGraph.js';
import { formatArchitecture } from '../../src/space/architecture.js';
import { imagenet } from '../../src/space/presets/imagenet.js';
import { sampleArchitecture } from '../../src/space/sample.js';
import { makeCheckpoint } from '../../test/support/checkpoint.js';
import { bignas } from '../serve/parties.js';
import { spread, type Spread } from '../train/report.js';

const options = new Command('bench:slice')
  .description("How long a child takes to be there as a bundle, beside once-for-all's way in PyTorch.")
  .option('--rounds <n>', 'cold and warm downloads of each kind', positiveInteger, 15)
  .option('--output <file>', 'results as JSON')
  .addOption(new Option('--python <path>').makeOptionMandatory().hideHelp())
  .parse()
  .opts<{ rounds: number; output?: string; python: string }>();

const folder = await mkdtemp(join(tmpdir(), 'bignas-bench-'));
const agent = new Agent({ keepAlive: true, maxSockets: 1 });

interface Taken {
  /** Milliseconds to the first byte of the body, and to the last. */
  readonly first: number;
  readonly last: number;
  readonly bytes: number;
}

try {
  const busy = loadavg()[0]!;
  if (busy > 0.5) console.log(`The machine was busy when this began (load average ${busy.toFixed(1)}): measure again when it is quiet.`);
  const shipped = await openCheckpoint(packagePath('checkpoints', 'cifar10'));
  const random = await makeCheckpoint(imagenet, join(folder, 'imagenet'), { calibrated: [], crops: 32 });
  let seed = 0;
  while (Math.abs(flops(buildGraph(imagenet, sampleArchitecture(imagenet, [600, seed]))) / 600e6 - 1) >= 0.05) seed++;
  const results = {
    cifar10: await measure('cifar10, M', shipped, shipped.frontier.family.M.architecture),
    imagenet: await measure('imagenet, near 600M, random weights', random, formatArchitecture(sampleArchitecture(imagenet, [600, seed]))),
  };
  if (options.output !== undefined) await writeFileAtomic(options.output, `${JSON.stringify(results, null, 1)}\n`);
} finally {
  agent.destroy();
  await rm(folder, { recursive: true, force: true });
}

async function measure(name: string, checkpoint: Checkpoint, arch: string): Promise<unknown> {
  const cache = await mkdtemp(join(folder, 'cache-'));
  const server = await bignas(['--checkpoint', checkpoint.folder, '--no-warm', '--cache-folder', cache, '--cache-bytes', '1GiB']);
  const rows: Record<string, { cold: Taken[]; warm: Taken[] }> = {};
  try {
    // What is measured is without calibration: its statistics and golden logits are there from here on, int8's ranges too.
    for (const dtype of ['float32', 'int8']) await download(`${server.url}/slice?arch=${arch}&dtype=${dtype}`);
    const kinds = [...bundleFormats.map((format) => `format=${format}`), 'format=onnx&dtype=float16', 'format=onnx&dtype=int8', 'format=onnx&preprocess=true'];
    for (let round = 0; round < options.rounds; round++)
      for (const kind of kinds) {
        const row = (rows[kind] ??= { cold: [], warm: [] });
        const bundles = join(cache, 'bundles');
        for (const file of await readdir(bundles)) await rm(join(bundles, file));
        row.cold.push(await download(`${server.url}/slice?arch=${arch}&${kind}`));
        await pause(200); // the build's garbage is collected meanwhile, which is no part of a warm answer
        row.warm.push(await download(`${server.url}/slice?arch=${arch}&${kind}`));
      }
  } finally {
    await server.stop();
  }
  const peer = await onceForAll(checkpoint, arch);
  const peerTotal = spread(peer.map(({ copy, export: exported }) => 1000 * (copy + exported)));
  console.log(`\n${name}: ${arch}\n`);
  console.log('| bundle | MB | cold: first byte, ms | last byte, ms | warm: first byte, ms | last byte, ms |\n| --- | --- | --- | --- | --- | --- |');
  for (const [kind, { cold, warm }] of Object.entries(rows)) {
    const cells = [cold.map(({ first }) => first), cold.map(({ last }) => last), warm.map(({ first }) => first), warm.map(({ last }) => last)].map((times) => said(spread(times)));
    console.log(`| ${kind} | ${(cold[0]!.bytes / 1e6).toFixed(2)} | ${cells.join(' | ')} |`);
  }
  const cold = spread(rows['format=onnx']!.cold.map(({ last }) => last));
  console.log(`\nPyTorch: copied out in ${said(spread(peer.map(({ copy }) => 1000 * copy)))} ms, exported to ONNX in ${said(spread(peer.map(({ export: exported }) => 1000 * exported)))} ms (${(peer[0]!.bytes / 1e6).toFixed(2)} MB): ${(peerTotal.median / cold.median).toFixed(1)} times a cold onnx bundle, whole.`);
  return { arch, rows, peer };
}

function said({ median, lower, upper }: Spread): string {
  return `${median.toFixed(1)} (${lower.toFixed(1)}–${upper.toFixed(1)})`;
}

function download(url: string): Promise<Taken> {
  return new Promise((resolve, reject) => {
    const started = performance.now();
    request(url, { agent }, (response) => {
      let [first, bytes] = [NaN, 0];
      response.on('data', (chunk: Buffer) => {
        if (bytes === 0) first = performance.now() - started;
        bytes += chunk.length;
      });
      response.on('end', () => {
        if (response.statusCode === 200) resolve({ first, last: performance.now() - started, bytes });
        else reject(new Error(`${url} answered ${response.statusCode}.`));
      });
      response.on('error', reject);
    })
      .on('error', reject)
      .end();
  });
}

interface Exported {
  readonly copy: number;
  readonly export: number;
  readonly bytes: number;
}

async function onceForAll(checkpoint: Checkpoint, arch: string): Promise<Exported[]> {
  const given = join(folder, `peer-${checkpoint.manifest.space.name}`);
  await mkdir(given);
  await copyFile(join(checkpoint.folder, 'weights.safetensors'), join(given, 'weights.safetensors'));
  await writeFile(join(given, 'graph.json'), JSON.stringify(graphOf(checkpoint, arch)));
  const { stdout } = await promisify(execFile)(options.python, [packagePath('bench', 'slice', 'peer.py'), given, String(options.rounds)], { maxBuffer: 2 ** 24 });
  return JSON.parse(stdout) as Exported[];
}
