import { zipSync, type Zippable } from 'fflate';

/**
 * A zip that is the same bytes every time: files in the given order, stored, all of one time. The time is written as local time by
 * the zip writer, so it is made from local fields: 1980-01-01, noon (an hour that exists in every time zone's year 1980).
 */
export function reproducibleZip(files: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const mtime = new Date(1980, 0, 1, 12);
  const entries: Zippable = {};
  for (const [name, bytes] of files) entries[name] = [bytes, { level: 0, mtime, os: 3, attrs: 0o100644 << 16 }];
  return zipSync(entries);
}
