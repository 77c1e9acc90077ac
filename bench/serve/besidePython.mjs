// Sets up what a benchmark of the server and its peer in Python need, then compares.
import { fileURLToPath } from 'node:url';
import { checkNode } from '../../cli/setup/nodeVersion.mjs';

// ONNX Runtime of the version that the server has.
const packages = ['torch==2.13.0', 'numpy==2.2.6', 'onnxruntime==1.30.0', 'onnx==1.19.1'];

/** @param {string} name of the benchmark's folder */
export async function besidePython(name) {
  checkNode();
  const { become, build, npmPackages, setUp } = await import('../../cli/setup/steps.mjs');
  const { pytorch } = await import('../train/setup.mjs');
  let python;
  await setUp(npmPackages, build, async () => (python = await pytorch({ packages })));
  become([fileURLToPath(new URL(`../../dist/bench/${name}/main.js`, import.meta.url)), '--python', python, ...process.argv.slice(2)], {});
}
