// npm run train -- arguments of bignas-train
import { fileURLToPath } from 'node:url';
import { checkNode } from './nodeVersion.mjs';

checkNode();
const { TENSORFLOW_ENVIRONMENT, become, build, engine, npmPackages, setUp } = await import('./steps.mjs');
await setUp(npmPackages, build, engine);

const entry = fileURLToPath(new URL('../../dist/cli/bignas-train.js', import.meta.url));
become([entry, ...process.argv.slice(2)], TENSORFLOW_ENVIRONMENT);
