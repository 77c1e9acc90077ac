// npm start [-- arguments of bignas-serve]
import { fileURLToPath } from 'node:url';
import { checkNode } from './nodeVersion.mjs';

checkNode();
const { SERVER_ENVIRONMENT, become, build, npmPackages, setUp } = await import('./steps.mjs');
await setUp(npmPackages, build);

const entry = fileURLToPath(new URL('../../dist/cli/bignas-serve.js', import.meta.url));
become([entry, ...process.argv.slice(2)], SERVER_ENVIRONMENT);
