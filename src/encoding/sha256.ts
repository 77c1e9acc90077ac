/** Hex SHA-256, in a browser as well; several at a time where the machine can. */
export async function sha256Hex(bytes: Uint8Array): Promise<string> {
  // No digest of shared memory.
  const own = bytes.buffer instanceof ArrayBuffer ? (bytes as Uint8Array<ArrayBuffer>) : Uint8Array.from(bytes);
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', own));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Hex SHA-256 of bytes; Node has a faster one. */
export type Sha256 = (bytes: Uint8Array) => string | Promise<string>;

/** A file that `sha256sum --check` reads: every file's digest. @param known digests that need not be computed again */
export async function sha256Sums(files: ReadonlyMap<string, Uint8Array>, known: Readonly<Record<string, string>> = {}, sha256: Sha256 = sha256Hex): Promise<Uint8Array> {
  const lines = await Promise.all([...files].map(async ([name, bytes]) => `${known[name] ?? (await sha256(bytes))}  ${name}\n`));
  return new TextEncoder().encode(lines.join(''));
}
