// node cli/setup/engine.mjs [--cpu | --gpu]: sets up the TensorFlow engine alone. The build asked for by name is the one that
// npm test and npm run train use from then on.
import { checkNode } from './nodeVersion.mjs';

checkNode();
const { SetupFailure, engine, npmPackages, setUp } = await import('./steps.mjs');
const VARIANTS = { '--cpu': 'cpu', '--gpu': 'cuda' };

function variantFrom(args) {
  const unknown = args.find((arg) => !(arg in VARIANTS));
  if (unknown !== undefined || args.length > 1) {
    throw new SetupFailure(`expected --cpu, --gpu or nothing, got ${args.join(' ')}.`, 'leave the rest out');
  }
  return VARIANTS[args[0]];
}

await setUp(npmPackages, () => engine({ variant: variantFrom(process.argv.slice(2)) }));
process.stderr.write('[set-up] TensorFlow is ready\n');
