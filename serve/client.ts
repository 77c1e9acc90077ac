/**
 * A client of the server, on the types of its schemas, for Node and browsers; it needs nothing but `fetch`.
 * @example
 * const bignas = new BignasClient('http://127.0.0.1:8080');
 * const { predictions } = await bignas.predict(await readFile('cat.jpg'), { deadline: '50ms' });
 */
import type { z } from 'zod';
import type { ArchAnswer, ArchsAnswer, InferAnswer, PredictionAnswer, ProblemAnswer, SpaceAnswer } from './answers.js';
import type { choiceQuery, predictQuery, sliceQuery } from './schemas.js';

export type { ArchAnswer, ArchsAnswer, InferAnswer, PredictionAnswer, ProblemAnswer, SpaceAnswer } from './answers.js';

/** A query's parameters; numbers are written as texts. */
type Parameters<S extends z.ZodType> = { readonly [K in keyof z.input<S>]?: string | number };
export type ChoiceParameters = Parameters<typeof choiceQuery>;
export type PredictParameters = Parameters<typeof predictQuery>;
export type SliceParameters = Parameters<typeof sliceQuery>;

export interface ClientOptions {
  /** Bearer token, where the server wants one. */
  readonly token?: string;
  /** Times that a request is sent again after 429 or 503, when `Retry-After` says so. Default 2. */
  readonly retries?: number;
  /** Longest wait for one of these, in milliseconds; a server that wants more gets no second request. Default 10 000. */
  readonly longestWait?: number;
  /** In place of the global one. */
  readonly fetch?: typeof fetch;
}

export interface CallOptions {
  readonly signal?: AbortSignal;
}

/** An answer that is an error. `problem` is what the server says of it, where it is one of its own. */
export class BignasClientError extends Error {
  override readonly name = 'BignasClientError';

  constructor(
    readonly status: number,
    message: string,
    readonly problem: ProblemAnswer | undefined,
    /** Seconds after which to ask again, where the server said so. */
    readonly retryAfter: number | undefined,
  ) {
    super(message);
  }
}

export interface Inferred {
  /** [count, classes] */
  readonly probabilities: Float32Array;
  readonly classes: number;
  /** Which child answered, and why. */
  readonly parameters: InferAnswer['parameters'];
}

export interface Bundle {
  /** Quoted, as the header has it: give it back to learn whether there is a new one. */
  readonly etag: string;
  readonly length: number;
  readonly body: ReadableStream<Uint8Array>;
}

export class BignasClient {
  readonly #url: string;
  readonly #options: ClientOptions;

  /** @param url of the server, with the path that a proxy gives it */
  constructor(url: string, options: ClientOptions = {}) {
    this.#url = url.replace(/\/+$/, '');
    this.#options = options;
  }

  /** Classes of one image or several: JPEG, PNG or WebP. @throws BignasClientError; what `fetch` throws */
  async predict(images: Uint8Array | readonly Uint8Array[], parameters: PredictParameters = {}, options: CallOptions = {}): Promise<PredictionAnswer> {
    if (images instanceof Uint8Array) return this.#json(`/predict${query(parameters)}`, { ...options, method: 'POST', body: own(images), headers: { 'Content-Type': 'application/octet-stream' } });
    const form = new FormData();
    for (const [i, image] of images.entries()) form.append('file', new Blob([own(image)]), String(i));
    return this.#json(`/predict${query(parameters)}`, { ...options, method: 'POST', body: form });
  }

  /**
   * Probabilities of tensors that are ready for the network, without JSON between (Open Inference Protocol, binary tensors).
   * @param tensor [count, 3, resolution, resolution], normalised as `space()` says
   */
  async infer(tensor: Float32Array, shape: readonly [number, number, number, number], parameters: ChoiceParameters = {}, options: CallOptions = {}): Promise<Inferred> {
    const json = new TextEncoder().encode(
      JSON.stringify({
        inputs: [{ name: 'input', shape, datatype: 'FP32', parameters: { binary_data_size: tensor.byteLength } }],
        outputs: [{ name: 'probabilities', parameters: { binary_data: true } }],
      }),
    );
    const body = new Uint8Array(json.length + tensor.byteLength);
    body.set(json);
    body.set(new Uint8Array(tensor.buffer, tensor.byteOffset, tensor.byteLength), json.length);
    const answer = await this.#fetch(`/v2/models/bignas/infer${query(parameters)}`, {
      ...options,
      method: 'POST',
      body,
      headers: { 'Content-Type': 'application/octet-stream', 'Inference-Header-Content-Length': String(json.length) },
    });
    const head = Number(answer.headers.get('Inference-Header-Content-Length'));
    const bytes = await answer.arrayBuffer();
    const document = JSON.parse(new TextDecoder().decode(bytes.slice(0, head))) as InferAnswer;
    return { probabilities: new Float32Array(bytes.slice(head)), classes: document.outputs[0]!.shape[1]!, parameters: document.parameters };
  }

  /** A child as a bundle, streamed; undefined where it is still the one of `etag`. */
  async slice(parameters: SliceParameters = {}, { etag, ...options }: CallOptions & { readonly etag?: string } = {}): Promise<Bundle | undefined> {
    const answer = await this.#fetch(`/slice${query(parameters)}`, { ...options, ...(etag !== undefined && { headers: { 'If-None-Match': etag } }) });
    if (answer.status === 304) return undefined;
    return { etag: answer.headers.get('ETag')!, length: Number(answer.headers.get('Content-Length')), body: answer.body! };
  }

  /** The family and the front. */
  archs(options: CallOptions = {}): Promise<ArchsAnswer> {
    return this.#json('/archs', options);
  }

  /** @param arch a name, an id or a text */
  arch(arch: string, options: CallOptions = {}): Promise<ArchAnswer> {
    return this.#json(`/archs/${encodeURIComponent(arch)}`, options);
  }

  /** The search space, labels and preprocessing. */
  space(options: CallOptions = {}): Promise<SpaceAnswer> {
    return this.#json('/space', options);
  }

  /** Whether a request sent now would be computed. */
  async ready(options: CallOptions = {}): Promise<boolean> {
    const send = this.#options.fetch ?? fetch;
    return (await send(`${this.#url}/v2/health/ready`, options)).ok;
  }

  async #json<T>(path: string, init: RequestInit): Promise<T> {
    return (await (await this.#fetch(path, init)).json()) as T;
  }

  /** The answer, once it is no error. */
  async #fetch(path: string, init: RequestInit): Promise<Response> {
    const { token, retries = 2, longestWait = 10_000, fetch: send = fetch } = this.#options;
    const headers = { ...(init.headers as Record<string, string> | undefined), ...(token !== undefined && { Authorization: `Bearer ${token}` }) };
    for (let tries = 0; ; tries++) {
      const answer = await send(`${this.#url}${path}`, { ...init, headers });
      if (answer.ok || answer.status === 304) return answer;
      const error = await errorOf(answer);
      const wait = 1000 * (error.retryAfter ?? Infinity);
      if (![429, 503].includes(answer.status) || tries >= retries || wait > longestWait) throw error;
      await sleep(wait, init.signal ?? undefined);
    }
  }
}

async function errorOf(answer: Response): Promise<BignasClientError> {
  const text = await answer.text();
  const after = Number(answer.headers.get('Retry-After') ?? NaN);
  const retryAfter = Number.isFinite(after) ? after : undefined;
  try {
    const document = JSON.parse(text) as ProblemAnswer | { readonly error: string };
    // Under /v2 an error is a text alone.
    if ('detail' in document) return new BignasClientError(answer.status, document.detail, document as ProblemAnswer, retryAfter);
    if ('error' in document) return new BignasClientError(answer.status, document.error, undefined, retryAfter);
  } catch {
    // A proxy's page.
  }
  return new BignasClientError(answer.status, `The server answered ${answer.status}: ${text.slice(0, 200)}`, undefined, retryAfter);
}

function query(parameters: Readonly<Record<string, string | number | undefined>>): string {
  const given = Object.entries(parameters).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)] as [string, string]]));
  return given.length === 0 ? '' : `?${new URLSearchParams(given).toString()}`;
}

/** Not on shared memory, which `fetch` refuses. */
function own(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes.buffer instanceof ArrayBuffer ? (bytes as Uint8Array<ArrayBuffer>) : new Uint8Array(bytes);
}

function sleep(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const gone = (): void => {
      clearTimeout(timer);
      reject(signal!.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', gone);
      resolve();
    }, milliseconds);
    signal?.addEventListener('abort', gone, { once: true });
  });
}
