// npm run bench:train [-- options]: sets up what both sides need, then compares.
import { fileURLToPath } from 'node:url';
import { checkNode } from '../../cli/setup/nodeVersion.mjs';

checkNode();
const { become, build, engine, npmPackages, setUp } = await import('../../cli/setup/steps.mjs');
const { pytorch } = await import('./setup.mjs');

let python;
await setUp(npmPackages, build, engine, async () => (python = await pytorch()));

const entry = fileURLToPath(new URL('../../dist/bench/train/main.js', import.meta.url));
become([entry, '--python', python, ...process.argv.slice(2)], {});
