import { readFileSync } from 'node:fs';
import { packagePath } from './packagePath.js';

/** The version of bignas. */
export function packageVersion(): string {
  return (JSON.parse(readFileSync(packagePath('package.json'), 'utf8')) as { readonly version: string }).version;
}
