import { decodeHeader, type TensorPlace } from '../checkpoint/safetensors.js';
import { float32From } from '../encoding/littleEndian.js';
import { buildGraph } from '../graph/buildGraph.js';
import { elements, parameters, type Graph } from '../graph/graph.js';
import { standaloneGraph, weightsFrom } from '../graph/standalone.js';
import { sliceRows, type SharedWeights } from '../graph/weights.js';
import { parseArchitecture } from '../space/architecture.js';
import type { SearchSpace } from '../space/space.js';

/** Reads bytes `begin` … `end − 1` of a file. */
export type RangeReader = (begin: number, end: number) => Promise<Uint8Array>;

export interface FetchOptions {
  /** Bytes that may be read, over those of the child's weights: what lies between two slices is read along while it fits, which saves requests. Default 1.25. */
  readonly overhead?: number;
  /** Reads at a time. Default 6, as many as browsers send to one host. */
  readonly concurrency?: number;
}

/** A child's weights, and what it took to get them. */
export interface FetchedChild {
  /** As a network of its own (`standaloneGraph`). */
  readonly graph: Graph;
  readonly weights: SharedWeights;
  /** Bytes of the child's weights. */
  readonly childBytes: number;
  /** Bytes that were read, the file's header included. */
  readonly readBytes: number;
  readonly requests: number;
}

/** Bytes of the file that are read at once, and what of them is wanted. */
interface Span {
  readonly begin: number;
  end: number;
  readonly rows: Row[];
}

/** A run of a slice: bytes `begin` … `end − 1` of the file are elements `at` … of the tensor's slice. */
interface Row {
  readonly begin: number;
  readonly end: number;
  readonly name: string;
  readonly at: number;
}

/**
 * Cuts a child out of a checkpoint's `weights.safetensors` that lies elsewhere, reading little more than the child's own bytes: tensors lie output channel first,
 * so that the lower channels of a layer are few runs.
 * @param space of the checkpoint (its manifest has it)
 * @param architecture canonical text
 * @throws BignasError for an architecture that the space does not hold; Error where the file is not the space's
 */
export async function fetchChild(space: SearchSpace, architecture: string, read: RangeReader, { overhead = 1.25, concurrency = 6 }: FetchOptions = {}): Promise<FetchedChild> {
  const graph = buildGraph(space, parseArchitecture(space, architecture));
  const head = await read(0, 8);
  const length = Number(new DataView(head.buffer, head.byteOffset, head.byteLength).getBigUint64(0, true));
  if (length > 100_000_000) throw new Error(`The file's header claims ${length} bytes: it is no safetensors file.`);
  const places = new Map(decodeHeader(await read(8, 8 + length)).map((place) => [place.name, place]));
  const rows = rowsOf(graph, places, 8 + length);
  const childBytes = rows.reduce((sum, { begin, end }) => sum + end - begin, 0);
  const spans = joined(rows, (overhead - 1) * childBytes - (8 + length));

  const slices = new Map(parameters(graph).map(({ tensor, size }) => [tensor.name, new Float32Array(elements(size))]));
  let next = 0;
  const work = async (): Promise<void> => {
    for (let span = spans[next++]; span; span = spans[next++]) {
      const bytes = await read(span.begin, span.end);
      if (bytes.length !== span.end - span.begin) throw new Error(`Expected ${span.end - span.begin} bytes from ${span.begin} on, got ${bytes.length}: does the server answer ranges?`);
      for (const { begin, end, name, at } of span.rows) {
        slices.get(name)!.set(float32From(bytes.subarray(begin - span.begin, end - span.begin)), at);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, spans.length) }, work));
  const standalone = standaloneGraph(graph);
  return {
    graph: standalone,
    weights: weightsFrom(standalone, (name) => slices.get(name)!),
    childBytes,
    readBytes: 8 + length + spans.reduce((sum, { begin, end }) => sum + end - begin, 0),
    requests: 2 + spans.length,
  };
}

function rowsOf(graph: Graph, places: ReadonlyMap<string, TensorPlace>, dataAt: number): Row[] {
  const rows: Row[] = [];
  for (const parameter of parameters(graph)) {
    const { name, shape } = parameter.tensor;
    const place = places.get(name);
    if (place?.dtype !== 'F32' || place.shape.join() !== shape.join()) throw new Error(`tensor ${name}: expected F32 [${shape}], got ${place ? `${place.dtype} [${place.shape}]` : 'none'}. The file is not of this search space.`);
    sliceRows(shape, parameter, (from, at, length) => {
      const begin = dataAt + place.begin + 4 * from;
      rows.push({ begin, end: begin + 4 * length, name, at });
    });
  }
  return rows.sort((a, b) => a.begin - b.begin);
}

/** The fewest spans that hold all rows and no more than so many bytes between them. */
function joined(rows: readonly Row[], spare: number): Span[] {
  const gaps = rows.slice(1).map((row, i) => ({ before: i + 1, bytes: row.begin - rows[i]!.end }));
  const closed = new Set<number>();
  for (const { before, bytes } of gaps.sort((a, b) => a.bytes - b.bytes)) {
    if (bytes > 0 && bytes > spare) break;
    spare -= bytes;
    closed.add(before);
  }
  const spans: Span[] = [];
  rows.forEach((row, i) => {
    const last = spans.at(-1);
    if (last && closed.has(i)) {
      last.end = row.end;
      last.rows.push(row);
    } else spans.push({ begin: row.begin, end: row.end, rows: [row] });
  });
  return spans;
}

/** Reads ranges of a file that a web server has. @throws Error where it does not answer with the range */
export function httpReader(url: string | URL, init: RequestInit = {}): RangeReader {
  return async (begin, end) => {
    const response = await fetch(url, { ...init, headers: { ...Object.fromEntries(new Headers(init.headers)), Range: `bytes=${begin}-${end - 1}` } });
    if (response.status !== 206) throw new Error(`${String(url)}: expected 206 for a range, got ${response.status}${response.status === 200 ? ': the server ignores Range' : ''}.`);
    return new Uint8Array(await response.arrayBuffer());
  };
}
