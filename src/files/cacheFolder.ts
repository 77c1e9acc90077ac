import { homedir } from 'node:os';
import { join } from 'node:path';

/** Where what can be made again is kept: `name` in `$BIGNAS_CACHE`, else in bignas/ of `$XDG_CACHE_HOME`, else of ~/.cache. */
export function cacheFolder(name: string): string {
  const base = process.env['BIGNAS_CACHE'] || join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'bignas');
  return join(base, name);
}
