/**
 * What calibration costs, and what stopping early costs in accuracy: over all crops, until converged, and until converged where what earlier children share is kept.
 * Every child is calibrated in all three ways, in turn, and measured on test images.
 */
import { availableParallelism, loadavg } from 'node:os';
import { Command } from 'commander';
import { calibrate, TOLERANCE, type CalibrateOptions } from '../../src/calibrate/calibrate.js';
import { PrefixStore } from '../../src/calibrate/prefixStore.js';
import { graphOf, openCheckpoint } from '../../src/checkpoint/checkpoint.js';
import { loadCifar10 } from '../../src/data/cifar10.js';
import { writeFileAtomic } from '../../src/files/atomic.js';
import type { Statistics } from '../../src/graph/statistics.js';
import { onnxEngine } from '../../src/onnx/engine.js';
import { accuracy } from '../../src/search/evaluate.js';
import { formatArchitecture } from '../../src/space/architecture.js';
import { sampleArchitecture } from '../../src/space/sample.js';
import { positiveInteger } from '../../cli/numbers.js';
import { packagePath } from '../../serve/packagePath.js';
import { spread } from '../train/report.js';

const PREFIX_BYTES = 128 * 2 ** 20;

interface Way {
  readonly name: string;
  readonly options: CalibrateOptions;
}

interface Measured {
  readonly seconds: number;
  readonly images: number;
  readonly accuracy: number;
  /** Largest difference from the full calibration's means, in deviations. */
  readonly difference: number;
}

const command = new Command('bench:calibrate')
  .option('--children <n>', 'random children beside those of the front', positiveInteger, 20)
  .option('--images <n>', 'test images, the first ones', positiveInteger, 2000)
  .option('--tolerance <x>', 'of convergence', String(TOLERANCE))
  .option('--output <file>', 'results as JSON')
  .parse();
const given = command.opts<{ children: number; images: number; tolerance: string; output?: string }>();

const checkpoint = await openCheckpoint(packagePath('checkpoints', 'cifar10'));
const { manifest, weights, calibration: crops, frontier } = checkpoint;
const test = (await loadCifar10({ log: console.log })).splits.test;
const engine = onnxEngine();
const source = { crops, preprocessing: manifest.preprocessing, batch: manifest.calibration.batch };
const store = new PrefixStore(PREFIX_BYTES);
const tolerance = Number(given.tolerance);
const ways: readonly Way[] = [
  { name: 'all crops', options: { tolerance: 0 } },
  { name: 'until converged', options: { tolerance } },
  { name: 'until converged, prefixes kept', options: { tolerance, prefixes: { store, context: checkpoint.digest } } },
];
const random = Array.from({ length: given.children }, (_, seed) => formatArchitecture(sampleArchitecture(manifest.space, [20, seed])));
const children = [...frontier.front.map(({ architecture }) => architecture), ...random];

const load = loadavg()[0]!;
if (load > 0.5) console.log(`The machine was busy when this began (load average ${load.toFixed(1)}): times are worth little.`);
console.log(`${children.length} children of ${manifest.name}: ${frontier.front.length} of its front, ${random.length} random; ${crops.count} crops; ${availableParallelism()} threads`);
const results: Measured[][] = [];
for (const [i, architecture] of children.entries()) {
  const graph = graphOf(checkpoint, architecture);
  const measured: Measured[] = [];
  let full: Statistics | undefined;
  for (const { options } of ways) {
    const started = performance.now();
    const { statistics, images } = await calibrate(engine, graph, weights, source, options);
    const seconds = (performance.now() - started) / 1000;
    full ??= statistics;
    const { value } = await accuracy(engine, graph, weights, statistics, source, test, { images: given.images });
    measured.push({ seconds, images, accuracy: value, difference: difference(full, statistics) });
  }
  results.push(measured);
  console.log(`${i + 1}/${children.length}  ${measured.map(({ seconds, images, accuracy }) => `${seconds.toFixed(2)} s, ${images} crops, ${(100 * accuracy).toFixed(2)} %`).join('   ')}`);
}

console.log('\nway | seconds a child | speed against all crops | crops | accuracy | change of accuracy, mean (worst) | largest change of a mean');
for (const [w, { name }] of ways.entries()) {
  const of = (pick: (measured: Measured) => number): number[] => results.map((child) => pick(child[w]!));
  const ratios = results.map((child) => child[0]!.seconds / child[w]!.seconds);
  const changes = results.map((child) => 100 * (child[w]!.accuracy - child[0]!.accuracy));
  console.log(
    `${name} | ${spread(of(({ seconds }) => seconds)).median.toFixed(2)} | ${spread(ratios).median.toFixed(2)} | ${mean(of(({ images }) => images)).toFixed(0)} | ${(100 * mean(of(({ accuracy }) => accuracy))).toFixed(2)} % | ${mean(changes).toFixed(3)} (${Math.min(...changes).toFixed(2)}) points | ${Math.max(...of((measured) => measured.difference)).toFixed(3)} σ`,
  );
}
console.log(`${store.hits} prefixes were shared, ${(store.bytes / 2 ** 20).toFixed(0)} MiB are kept`);
if (given.output !== undefined) await writeFileAtomic(given.output, `${JSON.stringify({ ways: ways.map(({ name }) => name), tolerance, children, results }, null, 1)}\n`);

function difference(full: Statistics, other: Statistics): number {
  let largest = 0;
  for (const [name, { mean, variance }] of full)
    mean.forEach((value, c) => {
      if (variance[c]! > 0) largest = Math.max(largest, Math.abs(value - other.get(name)!.mean[c]!) / Math.sqrt(variance[c]!));
    });
  return largest;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
