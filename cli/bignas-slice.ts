#!/usr/bin/env node
import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { Command, Option } from 'commander';
import { z } from 'zod';
import { download } from '../serve/download.js';
import { sliceOffline } from '../serve/offlineSlice.js';
import { tokenVariables } from '../serve/options.js';
import { packagePath } from '../serve/packagePath.js';
import { applyDelta } from '../src/bundle/delta.js';
import { bundleDtypes, bundleFormats, defaultBundle } from '../src/bundle/formats.js';
import { fastCrc32 } from '../src/bundle/bundle.js';
import { bundleManifestSchema } from '../src/bundle/manifest.js';
import { verifyBundle } from '../src/bundle/verify.js';
import { containers } from '../src/encoding/container.js';
import { BignasError } from '../src/errors.js';
import { writeFileAtomic } from '../src/files/atomic.js';
import { cacheFolder } from '../src/files/cacheFolder.js';
import { bundleOnnx } from '../src/slice/index.js';

const command = new Command('bignas-slice').description('Cuts children out of a checkpoint or a server as bundles to deploy; checks, updates and converts bundles.');

interface GetOptions extends Readonly<Record<string, string | boolean | undefined>> {
  readonly checkpoint?: string;
  readonly server?: string;
  readonly output?: string;
  readonly preprocess?: true;
  readonly overlap?: true;
}

command
  .command('get', { isDefault: true })
  .description('writes a child as a bundle')
  .option('--checkpoint <folder>', 'a checkpoint, or the folder of a training run (default: the shipped one, for CIFAR-10)')
  .option('--server <url>', `a server to download from instead; a token for it is taken from ${tokenVariables.slice}`)
  .option('-o, --output <file>', 'where the bundle goes (default: a name of its own, here)')
  .optionsGroup('Which child (the most accurate within the bounds):')
  .option('--arch <text>', "a family name (smallest, S, M, L, XL, biggest), an id, or an architecture's text")
  .option('--flops <n>', 'multiply-adds an image, such as 600M')
  .option('--params <n>', 'trainable parameters, such as 5M')
  .option('--bytes <n>', 'bytes of the ONNX model, such as 20MB')
  .option('--memory <n>', 'bytes of activations, such as 8MiB')
  .option('--latency <t>', 'time for one image, such as 20ms')
  .optionsGroup('What of it:')
  .addOption(new Option('--format <name>', 'what the model is written for').choices(bundleFormats).default(defaultBundle.format))
  .addOption(new Option('--dtype <name>', 'of the weights; int8 of onnx alone').choices(bundleDtypes).default(defaultBundle.dtype))
  .option('--preprocess', 'the model takes images as they are and prepares them itself')
  .addOption(new Option('--container <name>').choices(containers).default(defaultBundle.container))
  .option('--have <child>', 'a child whose unfolded bundle you hold: writes a delta, what the other has beyond it (--format safetensors)')
  .option('--overlap', 'beside --have: also from a child that does not nest in the other')
  .action(async ({ checkpoint, server, output, preprocess, overlap, ...texts }: GetOptions) => {
    if (checkpoint !== undefined && server !== undefined) throw new BignasError('OPTION_INVALID', 'Expected either --checkpoint or --server, got both.');
    const query = { ...(texts as Readonly<Record<string, string | undefined>>), ...(preprocess && { preprocess: 'true' }), ...(overlap && { overlap: 'true' }) };
    if (server !== undefined) {
      const { path, bytes, sha256 } = await download({ server, query, output, token: process.env[tokenVariables.slice], progress: (line) => console.error(line) });
      console.log(`${path}: ${bytes} bytes, SHA-256 ${sha256}`);
      return;
    }
    const folder = checkpoint ?? packagePath('checkpoints', 'cifar10');
    const { path, bytes, sha256, architecture, calibration } = await sliceOffline({ checkpoint: folder, query, output, cacheFolder: cacheFolder('serve'), threads: availableParallelism() });
    console.log(`${path}: ${architecture}, ${bytes} bytes, SHA-256 ${sha256}${calibration === null ? '' : ` (calibrated in ${calibration.toFixed(1)} s)`}`);
  });

command
  .command('verify <bundle>')
  .description('checks every byte of a bundle, and that its model gives the golden vector')
  .action(async (bundle: string) => {
    const { manifest, difference, delta } = await verifyBundle(await read(bundle));
    if (delta) console.log(`${bundle}: right. A delta from ${delta.from.architecture} to ${delta.to.architecture}; it has no model to run.`);
    else console.log(`${bundle}: right. ${manifest.architecture}, ${manifest.model.format} in ${manifest.model.dtype}; golden vector within ${difference.toExponential(1)} (allowed: ${manifest.golden.tolerance}).`);
  });

command
  .command('apply <have> <delta>')
  .description('makes the bundle that a delta leads to out of the unfolded bundle that you have')
  .requiredOption('-o, --output <file>', 'where the new bundle goes')
  .action(async (have: string, delta: string, { output }: { readonly output: string }) => {
    const bundle = await valid(async () => applyDelta(await read(have), await read(delta), fastCrc32));
    await writeFileAtomic(output, bundle);
    console.log(`${output}: ${bundle.length} bytes`);
  });

command
  .command('onnx <bundle>')
  .description('writes the ONNX model of an unfolded bundle (--format safetensors), as a server would')
  .requiredOption('-o, --output <file>', 'where the model goes')
  .addOption(new Option('--dtype <name>').choices(['float32', 'float16']).default('float32'))
  .option('--preprocess', 'the model takes images as they are and prepares them itself')
  .action(async (bundle: string, { output, dtype, preprocess = false }: { readonly output: string; readonly dtype: 'float32' | 'float16'; readonly preprocess?: boolean }) => {
    const model = await valid(async () => bundleOnnx(await read(bundle), { dtype, preprocess }));
    await writeFileAtomic(output, model);
    console.log(`${output}: ${model.length} bytes`);
  });

command
  .command('schema')
  .description("prints the JSON Schema of a bundle's manifest.json")
  .action(() => {
    console.log(JSON.stringify(z.toJSONSchema(bundleManifestSchema), null, 2));
  });

async function read(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new BignasError('OPTION_INVALID', `Expected a bundle, but ${path} cannot be read: ${(error as Error).message}.`);
  }
}

async function valid<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof BignasError ? error : new BignasError('BUNDLE_INVALID', (error as Error).message, {}, { cause: error });
  }
}

try {
  await command.parseAsync(process.argv);
} catch (error) {
  // What the system says of a file or a connection tells which, and why.
  const { syscall, message } = error as NodeJS.ErrnoException;
  if (!(error instanceof BignasError) && syscall === undefined) throw error;
  console.error(`bignas-slice: ${message}`);
  process.exit(1);
}
