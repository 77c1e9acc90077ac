import { createHash } from 'node:crypto';
import * as zlib from 'node:zlib';
import type { Checkpoint } from '../checkpoint/checkpoint.js';
import type { Int8Calibration } from '../checkpoint/tensors.js';
import { containerParts, type Container, type Crc32, type Files } from '../encoding/container.js';
import { sha256Sums } from '../encoding/sha256.js';
import type { Graph } from '../graph/graph.js';
import type { Statistics } from '../graph/statistics.js';
import { spaceDigest } from '../space/identity.js';
import type { ChildDescription } from './child.js';
import { MANIFEST, SUMS } from './delta.js';
import { tolerances, type BundleOptions } from './formats.js';
import { bundleFormat, bundleVersion, type BundleManifest } from './manifest.js';
import { goldenFile, modelFiles, modelTensors } from './models.js';
import { bundleReadme } from './readme.js';

/** A child as a bundle needs it: what is known of it, and what it computes. */
export interface BundledChild {
  readonly description: ChildDescription;
  readonly graph: Graph;
  readonly statistics: Statistics;
  /** Its logits for the golden photograph (`goldenLogits`). */
  readonly golden: Float32Array;
  /** Only int8 needs it. */
  readonly int8?: Int8Calibration | undefined;
  /** What computed the statistics; null where they came with the checkpoint. */
  readonly engine: BundleManifest['calibration']['engine'];
}

type Source = Pick<Checkpoint, 'manifest' | 'digest' | 'weights'>;

/**
 * What a user downloads, as files: manifest, README, golden vector, the model, and the digests of all. A pure function: the same checkpoint, child, statistics and
 * options give the same bytes on every machine and at every time.
 */
export async function bundleFiles(checkpoint: Source, child: BundledChild, options: BundleOptions): Promise<Files> {
  const { manifest, weights } = checkpoint;
  const { space, preprocessing } = manifest;
  const { description: { id, architecture, resolution }, graph, statistics, golden, int8 } = child;
  const model = modelFiles({ id, architecture, space, graph, weights, statistics, preprocessing, ranges: int8?.ranges }, options);
  const described = describeBundle(checkpoint, child, options, model);
  const rest = new Map([['README.md', text(bundleReadme(described))], ['golden.safetensors', goldenFile(options, preprocessing, resolution, options.dtype === 'int8' ? int8!.golden : golden)], ...model]);
  const digests = Object.fromEntries([...rest].map(([name, bytes]) => [name, fastSha256(bytes)] as const));
  const files = new Map([[MANIFEST, text(`${JSON.stringify({ ...described, files: digests } satisfies BundleManifest, null, 2)}\n`)], ...rest]);
  files.set(SUMS, await sha256Sums(files, digests, fastSha256));
  return files;
}

/** A bundle's bytes, in parts. */
export function bundleParts(container: Container, files: Files): Uint8Array[] {
  return containerParts(container, files, fastCrc32);
}

/** Hex SHA-256. */
export function fastSha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Node has one since 20.15; not by name, which an older one would refuse to link. */
export const fastCrc32: Crc32 | undefined = 'crc32' in zlib ? (bytes) => zlib.crc32(bytes) : undefined;

function describeBundle({ manifest, digest }: Source, child: BundledChild, options: BundleOptions, model: Files): Omit<BundleManifest, 'files'> {
  const { id, architecture, name, resolution, costs, accuracy, test } = child.description;
  const { format, dtype, preprocess } = options;
  const bytes = [...model.values()].reduce((sum, { length }) => sum + length, 0);
  return {
    format: bundleFormat,
    version: bundleVersion,
    architecture,
    id,
    name: name ?? null,
    space: { name: manifest.space.name, digest: spaceDigest(manifest.space) },
    model: { format, dtype, preprocess, folded: format !== 'safetensors', files: [...model.keys()] as [string, ...string[]] },
    costs: {
      flops: { ...costs.flops, unit: 'multiply-adds an image' },
      params: { ...costs.params, unit: 'trainable parameters' },
      bytes: { ...costs.bytes, value: bytes, how: 'measured', unit: 'bytes of the model' },
      memory: { ...costs.memory, unit: 'peak bytes of activations of one image' },
      ...(costs.latency && { latency: { ...costs.latency, unit: 'seconds for one image' } }),
    },
    accuracy,
    test,
    labels: manifest.dataset.classes,
    preprocessing: { ...manifest.preprocessing, resolution },
    ...modelTensors(options, resolution, manifest.space.classes),
    checkpoint: { name: manifest.name, digest },
    calibration: {
      images: manifest.calibration.images,
      batch: manifest.calibration.batch,
      crops: manifest.files['calibration.safetensors'],
      statistics: statisticsDigest(child.statistics),
      engine: child.engine,
    },
    golden: { file: 'golden.safetensors', tolerance: tolerances[dtype] },
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

function text(content: string): Uint8Array {
  return new TextEncoder().encode(content);
}
