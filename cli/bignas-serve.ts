#!/usr/bin/env node
import { Command, Option } from 'commander';
import { main } from '../serve/main.js';
import { defaultOptions, logLevels, parseOptions, type OptionTexts } from '../serve/options.js';
import { BignasError } from '../src/errors.js';
import { packagePath } from '../serve/packagePath.js';

const command = new Command('bignas-serve')
  .description('Serves one checkpoint: predictions (POST /predict) and children to deploy (GET /slice) of any size. GET / lists the routes.')
  .option('--checkpoint <folder>', 'a checkpoint, or the folder of a training run (default: the shipped one, for CIFAR-10)')
  .addOption(new Option('--host <address>', 'address to listen on; 0.0.0.0 for every interface').default(defaultOptions.host).env('HOST'))
  .addOption(new Option('--port <n>', 'port to listen on; 0 takes any').default(defaultOptions.port).env('PORT'))
  .option('--threads <n>', 'threads of the engine, in each worker (default: one a processor, up to 8)')
  .option('--workers <n>', 'run workers; a child lives in one of them', defaultOptions.workers)
  .option('--cache-bytes <bytes>', 'children kept in memory, and as much again of bundles on disk', defaultOptions.cacheBytes)
  .option('--max-body <bytes>', "a request's largest body", defaultOptions.maxBody)
  .option('--queue <n>', 'requests that compute or wait; more are answered 503', defaultOptions.queue)
  .option('--latency-table <file>', 'latencies of a device, made by bignas-profile, for ?latency=…&device=NAME; may be repeated', (path: string, before: string[]) => [...before, path], [] as string[])
  .option('--max-batch <n>', 'images that run together, of several requests', defaultOptions.maxBatch)
  .option('--no-warm', 'do not build the family when the server starts; a deadline then finds only children that somebody asked for')
  .option('--log-level <level>', logLevels.join(', '), defaultOptions.logLevel);

command.parse(process.argv);
try {
  await main(parseOptions(command.opts<OptionTexts>(), packagePath('checkpoints', 'cifar10')));
} catch (error) {
  if (!(error instanceof BignasError)) throw error;
  console.error(`bignas-serve: ${error.message}`);
  process.exit(1);
}
