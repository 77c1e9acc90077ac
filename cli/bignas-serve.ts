#!/usr/bin/env node
import { Command, Option } from 'commander';
import { main } from '../serve/main.js';
import { defaultOptions, logLevels, parseOptions, tokenVariables, type OptionTexts } from '../serve/options.js';
import { BignasError } from '../src/errors.js';
import { packagePath } from '../serve/packagePath.js';

/** An option that the environment may set too: `--cache-bytes` is BIGNAS_CACHE_BYTES. */
function option(flags: string, description: string, fallback?: string): Option {
  const made = new Option(flags, description);
  if (fallback !== undefined) made.default(fallback);
  return made.env(`BIGNAS_${made.long!.slice(2).replaceAll('-', '_').toUpperCase()}`);
}

const repeated = (text: string, before: readonly string[] = []): string[] => [...before, text];

const command = new Command('bignas-serve')
  .description('Serves one checkpoint: predictions (POST /predict) and children to deploy (GET /slice) of any size. GET / lists the routes.')
  .addOption(option('--checkpoint <folder>', 'a checkpoint, or the folder of a training run (default: the shipped one, for CIFAR-10); SIGHUP has it read again'))
  .addOption(new Option('--host <address>', 'address to listen on; 0.0.0.0 for every interface').default(defaultOptions.host).env('HOST'))
  .addOption(new Option('--port <n>', 'port to listen on; 0 takes any').default(defaultOptions.port).env('PORT'))
  .addOption(option('--engine <name>', 'what computes: onnx, tensorflow, or auto (TensorFlow where it is installed and sees a GPU)', 'auto'))
  .addOption(option('--threads <n>', 'threads of the engine, in each worker (default: one a processor, up to 8)'))
  .addOption(option('--workers <n>', 'run workers; a child lives in one of them, and what waits for it is shared out over its threads', defaultOptions.workers))
  .addOption(option('--cache-bytes <bytes>', 'memory that the server may grow by, calibrations included; as much again of bundles on disk, and of statistics', defaultOptions.cacheBytes))
  .addOption(option('--cache-folder <folder>', 'where calibrated statistics and bundles are kept over restarts (default: serve in the cache folder)'))
  .option('--no-cache-folder', 'keep nothing over restarts')
  .addOption(option('--max-body <bytes>', "a request's largest body", defaultOptions.maxBody))
  .addOption(option('--queue <n>', 'requests that compute or wait; more are answered 503', defaultOptions.queue))
  .addOption(option('--latency-table <file>', 'latencies of a device, made by bignas-profile, for ?latency=…&device=NAME; may be repeated').argParser(repeated))
  .addOption(option('--max-batch <n>', 'images that run together, of several requests', defaultOptions.maxBatch))
  .addOption(option('--no-warm', 'do not build the family when the server starts; a deadline then finds only children that somebody asked for'))
  .addOption(option('--rate-limit <requests/time>', 'what one client may ask of the routes that compute, such as 600/60s (default: any number)'))
  .addOption(option('--cors-origin <origin>', 'origin whose pages may use the server, or *; may be repeated (default: none)').argParser(repeated))
  .addOption(option('--trust-proxy <n>', "proxies before the server, whose X-Forwarded-For tells the client's address (default: 0)"))
  .addOption(option('--log-level <level>', logLevels.join(', '), defaultOptions.logLevel))
  .addHelpText('after', `
Bearer tokens, in the environment only, each several with commas between:
  ${tokenVariables.predict}, ${tokenVariables.slice}  open to all where not set
  ${tokenVariables.admin}                        closed where not set`);

command.parse(process.argv);
try {
  await main(parseOptions(command.opts<OptionTexts>(), packagePath('checkpoints', 'cifar10'), process.env));
} catch (error) {
  if (!(error instanceof BignasError)) throw error;
  console.error(`bignas-serve: ${error.message}`);
  process.exit(1);
}
