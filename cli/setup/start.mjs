// npm start [-- arguments of bignas-serve]
import { fileURLToPath } from 'node:url';
import { checkNode } from './nodeVersion.mjs';

checkNode();
const { build, npmPackages, setUp } = await import('./steps.mjs');
await setUp(npmPackages, build);

// In this very process: signals reach the server, and its exit code is ours.
const entry = new URL('../../dist/cli/bignas-serve.js', import.meta.url);
process.argv = [process.argv[0], fileURLToPath(entry), ...process.argv.slice(2)];
await import(entry.href);
