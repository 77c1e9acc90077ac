// npm run slice -- arguments of bignas-slice
import { fileURLToPath } from 'node:url';
import { checkNode } from './nodeVersion.mjs';

checkNode();
const { become, build, npmPackages, setUp } = await import('./steps.mjs');
await setUp(npmPackages, build);

const entry = fileURLToPath(new URL('../../dist/cli/bignas-slice.js', import.meta.url));
become([entry, ...process.argv.slice(2)], {});
