// npm run bench:dtypes [-- --images N --runs N --crops N]
import { fileURLToPath } from 'node:url';
import { checkNode } from '../../cli/setup/nodeVersion.mjs';

checkNode();
const { become, build, npmPackages, setUp } = await import('../../cli/setup/steps.mjs');
await setUp(npmPackages, build);
become([fileURLToPath(new URL('../../dist/bench/slice/dtypes.js', import.meta.url)), ...process.argv.slice(2)], {});
