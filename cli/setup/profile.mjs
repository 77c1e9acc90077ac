// npm run profile -- arguments of bignas-profile
import { fileURLToPath } from 'node:url';
import { checkNode } from './nodeVersion.mjs';

checkNode();
const { become, build, npmPackages, setUp } = await import('./steps.mjs');
await setUp(npmPackages, build);

const entry = fileURLToPath(new URL('../../dist/cli/bignas-profile.js', import.meta.url));
become([entry, ...process.argv.slice(2)], {});
