import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { BignasError } from '../src/errors.js';

export interface Download {
  /** Of the server, with the path that a proxy gives it. */
  readonly server: string;
  /** As of `GET /slice`. */
  readonly query: Readonly<Record<string, string | undefined>>;
  readonly output: string | undefined;
  readonly token: string | undefined;
  /** Times in a row that a download is gone on with although it got no further. Default 5. */
  readonly attempts?: number;
  readonly progress?: (line: string) => void;
}

export interface Downloaded {
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
  /** Requests that it took. */
  readonly requests: number;
}

/**
 * Downloads a bundle and goes on where a connection broke, or where an earlier call did: until it is whole, its bytes lie in `OUTPUT.part`, and the ETag that they belong to in
 * `OUTPUT.part.etag`. The ETag is the bundle's SHA-256, which is checked in the end.
 * @throws BignasError for what the server answers with an error; BUNDLE_INVALID where it cannot be had whole
 */
export async function download({ server, query, output, token, attempts = 5, progress }: Download): Promise<Downloaded> {
  const given = Object.entries(query).flatMap(([name, text]) => (text === undefined ? [] : [[name, text] as [string, string]]));
  const url = `${server.replace(/\/+$/, '')}/slice?${new URLSearchParams(given).toString()}`;
  const target = output === undefined ? await nameOf(url, token) : resolve(output);
  const [part, note] = [`${target}.part`, `${target}.part.etag`];
  let requests = 0;
  for (let failures = 0; ; ) {
    const before = await sizeOf(part);
    try {
      requests++;
      const etag = await fetchInto(url, token, part, note);
      const sha256 = await digestOf(part);
      if (`"${sha256}"` !== etag) {
        await discard(part, note);
        throw new BignasError('BUNDLE_INVALID', `What came has SHA-256 ${sha256}, the server promised ${etag}.`);
      }
      await rename(part, target);
      await rm(note, { force: true });
      return { path: target, bytes: await sizeOf(target), sha256, requests };
    } catch (error) {
      if (error instanceof BignasError && error.code !== 'BUNDLE_INVALID') throw error;
      failures = (await sizeOf(part)) > before ? 0 : failures + 1;
      if (failures >= attempts) throw error instanceof BignasError ? error : new BignasError('BUNDLE_INVALID', `The bundle could not be downloaded whole from ${url}: ${(error as Error).message}. Call again to go on from ${await sizeOf(part)} bytes.`, {}, { cause: error });
      progress?.(`The connection broke at ${await sizeOf(part)} bytes (${(error as Error).message}); going on.`);
      if (failures > 0) await new Promise((done) => setTimeout(done, 100 * 2 ** failures));
    }
  }
}

/** Appends to the part what it lacks. @returns the ETag of the whole */
async function fetchInto(url: string, token: string | undefined, part: string, note: string): Promise<string> {
  const etag = await readFile(note, 'utf8').catch(() => undefined);
  const begin = etag === undefined ? 0 : await sizeOf(part);
  const response = await fetch(url, { headers: { ...authorisation(token), ...(begin > 0 && { Range: `bytes=${begin}-`, 'If-Range': etag! }) } });
  if (response.status === 416 && response.headers.get('Content-Range') === `bytes */${begin}`) return etag!; // it was whole already
  if (response.status !== 200 && response.status !== 206) throw await problemOf(url, response);
  const tag = response.headers.get('ETag');
  if (!tag || !response.body) throw new BignasError('BUNDLE_INVALID', `${url} answers without an ETag: it is no server of bundles.`);
  // Another bundle than the part's comes whole: the part is of no use then.
  const file = await open(part, response.status === 206 ? 'a' : 'w');
  try {
    await writeFile(note, tag);
    for await (const chunk of response.body) await file.write(chunk as Uint8Array);
  } finally {
    await file.close();
  }
  return tag;
}

/** The name that the server gives the bundle, in the working folder. */
async function nameOf(url: string, token: string | undefined): Promise<string> {
  const response = await fetch(url, { method: 'HEAD', headers: authorisation(token) });
  if (!response.ok) throw await problemOf(url, await fetch(url, { headers: authorisation(token) }));
  const name = /filename="([\w.-]+)"/.exec(response.headers.get('Content-Disposition') ?? '')?.[1];
  if (name === undefined) throw new BignasError('BUNDLE_INVALID', `${url} names no file: say where the bundle goes by --output.`);
  return resolve(name);
}

async function problemOf(url: string, response: Response): Promise<BignasError> {
  const text = await response.text();
  let detail = text.slice(0, 200);
  try {
    detail = (JSON.parse(text) as { readonly detail?: string }).detail ?? detail;
  } catch {
    // A proxy's page.
  }
  return new BignasError('OPTION_INVALID', `${url} answers ${response.status}: ${detail}`);
}

function authorisation(token: string | undefined): Record<string, string> {
  return token === undefined ? {} : { Authorization: `Bearer ${token}` };
}

async function discard(...paths: readonly string[]): Promise<void> {
  for (const path of paths) await rm(path, { force: true });
}

async function sizeOf(path: string): Promise<number> {
  return (await stat(path).catch(() => undefined))?.size ?? 0;
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}
