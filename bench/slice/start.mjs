// npm run bench:slice [-- options]: sets up what both sides need, then compares.
import { fileURLToPath } from 'node:url';
import { checkNode } from '../../cli/setup/nodeVersion.mjs';

checkNode();
const { become, build, npmPackages, setUp } = await import('../../cli/setup/steps.mjs');
const { pytorch } = await import('../train/setup.mjs');

// ONNX Runtime of the version that the server has.
const packages = ['torch==2.13.0', 'numpy==2.2.6', 'onnxruntime==1.30.0', 'onnx==1.19.1'];
let python;
await setUp(npmPackages, build, async () => (python = await pytorch({ packages })));

const entry = fileURLToPath(new URL('../../dist/bench/slice/main.js', import.meta.url));
become([entry, '--python', python, ...process.argv.slice(2)], {});
