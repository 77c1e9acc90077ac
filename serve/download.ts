import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile, rename, rm, stat, writeFile, type FileHandle } from 'node:fs/promises';
import { request as http, type ClientRequest, type IncomingMessage } from 'node:http';
import { request as https } from 'node:https';
import { resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { BignasError } from '../src/errors.js';

/** Milliseconds without a byte after which a connection counts as broken. */
const STALLED_MS = 60_000;

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
      if (isOurs(error)) throw error;
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
  const response = await get(url, { ...authorisation(token), ...(begin > 0 && { Range: `bytes=${begin}-`, 'If-Range': etag! }) });
  const { statusCode, headers } = response;
  if (statusCode === 416 && headers['content-range'] === `bytes */${begin}`) {
    response.resume();
    return etag!; // it was whole already
  }
  if (statusCode !== 200 && statusCode !== 206) throw problemOf(url, statusCode, await textOf(response));
  if (headers.etag === undefined) throw new BignasError('OPTION_INVALID', `${url} answers without an ETag: it is no server of bundles.`);
  await written(response, async () => {
    await writeFile(note, headers.etag!);
    // Another bundle than the part's comes whole: the part is of no use then.
    return open(part, statusCode === 206 ? 'a' : 'w');
  });
  return headers.etag;
}

/**
 * Writes all that comes, also of an answer that breaks off. (What `fetch` has received and not handed out is lost then.)
 * @throws what broke it
 */
async function written(response: IncomingMessage, openFile: () => Promise<FileHandle>): Promise<void> {
  let file: FileHandle | undefined;
  // Listened to from the first moment on: an answer may break off while the file is being opened.
  let writing = openFile().then((opened) => {
    file = opened;
  });
  const ended = new Promise<Error | undefined>((resolve) => {
    response.on('data', (chunk: Buffer) => {
      response.pause();
      writing = writing.then(async () => {
        await file!.write(chunk);
        response.resume();
      });
      writing.catch((error: unknown) => {
        response.destroy(error as Error);
      });
    });
    response.on('end', () => {
      resolve(response.complete ? undefined : new Error('it ended too early'));
    });
    response.on('error', resolve);
    response.on('close', () => {
      resolve(new Error('the connection was closed'));
    });
  });
  try {
    const broken = await ended;
    await writing;
    if (broken) throw broken;
  } finally {
    await writing.catch(() => undefined);
    await file?.close();
  }
}

function get(url: string, headers: Readonly<Record<string, string>>, method: 'GET' | 'HEAD' = 'GET'): Promise<IncomingMessage> {
  const send = url.startsWith('https:') ? https : http;
  return new Promise((resolve, reject) => {
    send(url, { method, headers, timeout: STALLED_MS }, resolve)
      .on('timeout', function (this: ClientRequest) {
        this.destroy(new Error(`nothing came for ${STALLED_MS / 1000} s`));
      })
      .on('error', reject)
      .end();
  });
}

/** The name that the server gives the bundle, in the working folder. */
async function nameOf(url: string, token: string | undefined): Promise<string> {
  const head = await get(url, authorisation(token), 'HEAD');
  head.resume();
  if (head.statusCode !== 200) {
    const response = await get(url, authorisation(token));
    throw problemOf(url, response.statusCode, await textOf(response));
  }
  const name = /filename="([\w.-]+)"/.exec(head.headers['content-disposition'] ?? '')?.[1];
  if (name === undefined) throw new BignasError('OPTION_INVALID', `${url} names no file: say where the bundle goes by --output.`);
  return resolve(name);
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of response) text += String(chunk);
  return text;
}

function problemOf(url: string, status: number | undefined, text: string): BignasError {
  let detail = text.slice(0, 200);
  try {
    detail = (JSON.parse(text) as { readonly detail?: string }).detail ?? detail;
  } catch {
    // A proxy's page.
  }
  return new BignasError('OPTION_INVALID', `${url} answers ${status}: ${detail}`);
}

function authorisation(token: string | undefined): Record<string, string> {
  return token === undefined ? {} : { Authorization: `Bearer ${token}` };
}

/** Whether no server is at fault: what was asked for is wrong, or its file cannot be written. Another attempt would end the same. */
function isOurs(error: unknown): boolean {
  if (error instanceof BignasError) return error.code !== 'BUNDLE_INVALID';
  const { path, code } = error as NodeJS.ErrnoException;
  return path !== undefined || ['ENOSPC', 'EDQUOT', 'EFBIG', 'EIO'].includes(code ?? '');
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
