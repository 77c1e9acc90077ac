import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A path under the package's root, which is the nearest folder above this file that has a package.json: the same for sources and dist/. */
export function packagePath(...parts: readonly string[]): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('bignas has lost its package.json.');
    folder = parent;
  }
  return join(folder, ...parts);
}
