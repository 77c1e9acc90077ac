import { createHash } from 'node:crypto';
import { formatArchitecture, type Architecture } from './architecture.js';
import type { SearchSpace } from './space.js';

/** 12 hex digits of SHA-256 over the space's digest and the canonical text. */
export function architectureId(space: SearchSpace, architecture: Architecture): string {
  return createHash('sha256')
    .update(`${spaceDigest(space)}\n${formatArchitecture(architecture)}`)
    .digest('hex')
    .slice(0, 12);
}

/** Hex SHA-256 of the space's content, whatever the order of its keys. */
export function spaceDigest(space: SearchSpace): string {
  return createHash('sha256').update(canonicalJson(space)).digest('hex');
}

function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, v: unknown) =>
    v !== null && typeof v === 'object' && !Array.isArray(v)
      ? Object.fromEntries(Object.entries(v).sort(([a], [b]) => (a < b ? -1 : 1)))
      : v,
  );
}
