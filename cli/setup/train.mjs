// npm run train -- arguments of bignas-train
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { checkNode } from './nodeVersion.mjs';

checkNode();
const { TENSORFLOW_ENVIRONMENT, become, build, engine, npmPackages, setUp } = await import('./steps.mjs');
await setUp(npmPackages, build, engine);

const entry = fileURLToPath(new URL('../../dist/cli/bignas-train.js', import.meta.url));
// Photos are decoded in libuv's pool, which all the loader's threads share.
become([entry, ...process.argv.slice(2)], { ...TENSORFLOW_ENVIRONMENT, UV_THREADPOOL_SIZE: String(Math.max(4, availableParallelism())) });
