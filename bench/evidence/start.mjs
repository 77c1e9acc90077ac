// npm run evidence -- COMMAND: sets up what training needs, then runs experiments or reports on them.
import { fileURLToPath } from 'node:url';
import { checkNode } from '../../cli/setup/nodeVersion.mjs';

checkNode();
const { TENSORFLOW_ENVIRONMENT, become, build, engine, npmPackages, setUp } = await import('../../cli/setup/steps.mjs');
await setUp(npmPackages, build, engine);

const entry = fileURLToPath(new URL('../../dist/bench/evidence/main.js', import.meta.url));
become([entry, ...process.argv.slice(2)], TENSORFLOW_ENVIRONMENT);
