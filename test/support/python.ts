import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** A user's Python to run our models in (340 MB). Not the onnxruntime that Node runs, and not ours: a user's. For Python 3.10 to 3.13. */
export function userPython(): string {
  return pythonWith('onnxruntime==1.23.2', 'onnx==1.19.1', 'numpy==2.2.6', 'pillow==12.0.0');
}

/** A Python with TensorBoard, without TensorFlow (100 MB). */
export function tensorBoardPython(): string {
  return pythonWith('tensorboard==2.21.0', 'numpy==2.2.6', 'protobuf==7.36.2', 'setuptools==80.9.0');
}

/** A Python with a client of the Open Inference Protocol that people have, NVIDIA's. */
export function tritonPython(): string {
  return pythonWith('tritonclient[http]==2.73.0', 'numpy==2.2.6', 'pillow==12.0.0');
}

/** A Python with a fuzzer of HTTP interfaces, which reads their OpenAPI document. */
export function schemathesisPython(): string {
  return pythonWith('schemathesis==4.32.5');
}

/** A Python with TensorFlow, which has TensorFlow Lite and its converter (1 GB). BIGNAS_TF_PYTHON names one that is there already. For Python 3.10 to 3.13. */
export function tensorflowPython(): string {
  return process.env['BIGNAS_TF_PYTHON'] || pythonWith('tensorflow-cpu==2.21.0', 'numpy==2.2.6', 'pillow==12.0.0', 'onnxruntime==1.23.2');
}

/** A Python with the packages, in a virtual environment kept in the user's cache folder; made on first use. */
function pythonWith(...packages: readonly string[]): string {
  const cache = process.env['BIGNAS_CACHE'] || join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'bignas');
  const environment = join(cache, `python-${packages.join('-').replaceAll(/[=[\]]+/g, '-')}`);
  const interpreter = join(environment, 'bin', 'python');
  if (existsSync(interpreter)) return interpreter;
  mkdirSync(cache, { recursive: true });
  // Made beside its place and renamed: one that was cut off is never taken for whole.
  const making = mkdtempSync(join(cache, 'making-python-'));
  try {
    execFileSync('python3', ['-m', 'venv', making], { stdio: 'inherit' });
    const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--only-binary=:all:', ...packages];
    execFileSync(join(making, 'bin', 'python'), pip, { stdio: 'inherit' });
    renameSync(making, environment);
  } finally {
    rmSync(making, { recursive: true, force: true });
  }
  return interpreter;
}
