import { PROBABILITIES } from '../graph/modelNames.js';
import { z } from 'zod';
import { decodeSafetensors, type Tensors } from '../checkpoint/safetensors.js';
import { file, readContainer, sameBytes, type Container, type Files } from '../encoding/container.js';
import { sha256Sums } from '../encoding/sha256.js';
import { BignasError } from '../errors.js';
import { fastCrc32 } from './bundle.js';
import { isDelta, MANIFEST, readHead, SUMS, type DeltaHead } from './delta.js';
import { bundleManifestSchema, type BundleManifest } from './manifest.js';
import { runtimes } from './runtimes.js';

/** A bundle that is right: every byte as it was written, and its model gives the golden vector. */
export interface Verified {
  readonly container: Container;
  readonly manifest: BundleManifest;
  /** The highest difference of a probability from the golden vector's. */
  readonly difference: number;
  /** Of a delta bundle, which has no model to run: between what it leads. */
  readonly delta?: DeltaHead;
}

/**
 * Checks every byte of a bundle and runs its model on the golden vector.
 * @throws BignasError BUNDLE_INVALID that says what is wrong
 */
export async function verifyBundle(bundle: Uint8Array): Promise<Verified> {
  try {
    const { container, files } = readContainer(bundle, fastCrc32);
    await checkSums(files);
    const manifest = readManifest(files);
    if (isDelta(files)) return { container, manifest, difference: 0, delta: readHead(files) };
    const listed = Object.entries(manifest.files);
    const sums = new TextDecoder().decode(file(files, SUMS));
    const lied = listed.find(([name, digest]) => !sums.includes(`${digest}  ${name}\n`));
    if (lied) throw new Error(`${MANIFEST} has another digest of ${lied[0]}`);
    if (listed.length !== files.size - 2) throw new Error(`${MANIFEST} lists ${listed.length} files, the bundle has ${files.size - 2} besides it and ${SUMS}`);
    return { container, manifest, difference: await goldenDifference(files, manifest) };
  } catch (error) {
    if (error instanceof BignasError) throw error;
    throw new BignasError('BUNDLE_INVALID', `The bundle is not right: ${(error as Error).message}.`, {}, { cause: error });
  }
}

/** `SHA256SUMS` must be the one that the files have, to the byte. */
async function checkSums(files: Files): Promise<void> {
  const others = new Map([...files].filter(([name]) => name !== SUMS));
  const [found, right] = [file(files, SUMS), await sha256Sums(others)];
  if (sameBytes(found, right)) return;
  const said = new TextDecoder().decode(found);
  const wrong = new TextDecoder().decode(right).split('\n').find((line) => !said.includes(line));
  throw new Error(wrong ? `${wrong.slice(66)} is not what ${SUMS} says` : `${SUMS} is not as it was written`);
}

function readManifest(files: Files): BundleManifest {
  const data: unknown = JSON.parse(new TextDecoder().decode(file(files, MANIFEST)));
  const result = bundleManifestSchema.safeParse(data);
  if (!result.success) throw new Error(`${MANIFEST}: ${z.prettifyError(result.error)}`);
  return result.data;
}

async function goldenDifference(files: Files, manifest: BundleManifest): Promise<number> {
  const golden: Tensors = decodeSafetensors(file(files, manifest.golden.file));
  const expected = golden.get(PROBABILITIES)?.data as Float32Array | undefined;
  if (!expected) throw new Error(`${manifest.golden.file} holds no probabilities`);
  const got = await runtimes[manifest.model.format](files, manifest, golden);
  if (got.length !== expected.length) throw new Error(`the model gives ${got.length} probabilities, expected ${expected.length}`);
  // Not by Math.max alone: of a NaN nothing is higher.
  const differences = [...got].map((p, i) => Math.abs(p - expected[i]!));
  const difference = differences.every(Number.isFinite) ? Math.max(...differences) : NaN;
  if (!(difference <= manifest.golden.tolerance)) throw new Error(`the model's probabilities differ by ${difference} from the golden vector's, expected at most ${manifest.golden.tolerance}`);
  return difference;
}
