// The steps of set-up, in the order they are needed. Each is skipped where its work is done already.
export { checkNode } from './nodeVersion.mjs';
export { serverEnvironment } from './serverMemory.mjs';
export { SetupFailure, TENSORFLOW_ENVIRONMENT, become, say, setUp } from './process.mjs';
export { npmPackages } from './packages.mjs';
export { build } from './build.mjs';
export { cacheFolder, engine } from './tensorflow.mjs';
