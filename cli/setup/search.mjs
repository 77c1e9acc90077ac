// npm run search -- arguments of bignas-search
import { fileURLToPath } from 'node:url';
import { checkNode } from './nodeVersion.mjs';

checkNode();
const { become, build, npmPackages, setUp } = await import('./steps.mjs');
await setUp(npmPackages, build);

const entry = fileURLToPath(new URL('../../dist/cli/bignas-search.js', import.meta.url));
become([entry, ...process.argv.slice(2)], {});
