import { createHash } from 'node:crypto';
import type { Checkpoint } from '../checkpoint/checkpoint.js';
import type { Statistics } from '../graph/statistics.js';
import { LOGITS, PROBABILITIES } from '../onnx/model.js';
import { INPUT } from '../onnx/emit.js';
import { spaceDigest } from '../space/identity.js';
import type { ChildDescription } from './child.js';
import { bundleFormat, bundleVersion, type BundleManifest } from './manifest.js';
import { bundleReadme } from './readme.js';
import { reproducibleZip } from './zip.js';

/** A child as a bundle needs it: what is known of it, and what it computes. */
export interface BundledChild {
  readonly description: ChildDescription;
  readonly statistics: Statistics;
  /** What computed the statistics; null where they came with the checkpoint. */
  readonly engine: BundleManifest['calibration']['engine'];
  /** `onnxModel` of the child's graph, weights and statistics. */
  readonly model: Uint8Array;
}

/**
 * What a user downloads: a zip of `model.onnx`, `manifest.json` and `README.md`. A pure function: the same checkpoint, child and
 * statistics give the same bytes on every machine and at every time.
 */
export function onnxBundle(checkpoint: Pick<Checkpoint, 'manifest' | 'digest'>, child: BundledChild): Uint8Array {
  const described = describeBundle(checkpoint, child);
  const readme = text(bundleReadme(described));
  const manifest: BundleManifest = { ...described, files: { 'model.onnx': sha256(child.model), 'README.md': sha256(readme) } };
  return reproducibleZip(
    new Map([
      ['manifest.json', text(`${JSON.stringify(manifest, null, 2)}\n`)],
      ['README.md', readme],
      ['model.onnx', child.model],
    ]),
  );
}

function describeBundle({ manifest, digest }: Pick<Checkpoint, 'manifest' | 'digest'>, child: BundledChild): Omit<BundleManifest, 'files'> {
  const { id, architecture, name, resolution, costs, accuracy, test } = child.description;
  const classes = manifest.space.classes;
  return {
    format: bundleFormat,
    version: bundleVersion,
    architecture,
    id,
    name: name ?? null,
    space: { name: manifest.space.name, digest: spaceDigest(manifest.space) },
    costs: {
      flops: { ...costs.flops, unit: 'multiply-adds an image' },
      params: { ...costs.params, unit: 'trainable parameters' },
      bytes: { ...costs.bytes, value: child.model.length, how: 'measured', unit: 'bytes of the ONNX model' },
      memory: { ...costs.memory, unit: 'peak bytes of activations of one image' },
      ...(costs.latency && { latency: { ...costs.latency, unit: 'seconds for one image' } }),
    },
    accuracy,
    test,
    labels: manifest.dataset.classes,
    preprocessing: { ...manifest.preprocessing, resolution },
    inputs: [{ name: INPUT, dtype: 'float32', shape: ['batch', 3, resolution, resolution], meaning: 'prepared images, channels R, G, B' }],
    outputs: [
      { name: LOGITS, dtype: 'float32', shape: ['batch', classes], meaning: 'logits by class' },
      { name: PROBABILITIES, dtype: 'float32', shape: ['batch', classes], meaning: 'softmax of the logits' },
    ],
    checkpoint: { name: manifest.name, digest },
    calibration: {
      images: manifest.calibration.images,
      batch: manifest.calibration.batch,
      statistics: statisticsDigest(child.statistics),
      engine: child.engine,
    },
    licence: manifest.licence,
  };
}

/** Hex SHA-256 of statistics: each batch norm's name, mean and variance, in the order of the names. */
export function statisticsDigest(statistics: Statistics): string {
  const hash = createHash('sha256');
  for (const name of [...statistics.keys()].sort()) {
    const { mean, variance } = statistics.get(name)!;
    // Copied: the arrays may lie on shared memory.
    hash.update(`${name}\n${mean.length}\n`).update(Buffer.from(Float32Array.from(mean).buffer)).update(Buffer.from(Float32Array.from(variance).buffer));
  }
  return hash.digest('hex');
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function text(content: string): Uint8Array {
  return new TextEncoder().encode(content);
}
