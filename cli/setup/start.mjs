// npm start [-- arguments of bignas-serve]
import { fileURLToPath } from 'node:url';
import { checkNode } from './nodeVersion.mjs';

checkNode();
const { become, build, npmPackages, serverEnvironment, setUp } = await import('./steps.mjs');
await setUp(npmPackages, build);

const entry = fileURLToPath(new URL('../../dist/cli/bignas-serve.js', import.meta.url));
const shipped = fileURLToPath(new URL('../../checkpoints/cifar10', import.meta.url));
const args = process.argv.slice(2);
become([entry, ...args], serverEnvironment(args, process.env, shipped));
