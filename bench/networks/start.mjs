// npm run networks: draws docs/networks.svg.
import { fileURLToPath } from 'node:url';
import { checkNode } from '../../cli/setup/nodeVersion.mjs';

checkNode();
const { become, build, npmPackages, setUp } = await import('../../cli/setup/steps.mjs');
await setUp(npmPackages, build);
become([fileURLToPath(new URL('../../dist/bench/networks/plot.js', import.meta.url))], {});
