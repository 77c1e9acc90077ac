import { z } from 'zod';
import { BignasError } from '../errors.js';
import { foldableBatchNorms } from '../graph/folding.js';
import { elements, inputsOf, type Graph, type GraphNode } from '../graph/graph.js';
import { nodeFlops } from './cost.js';

/**
 * One operation of a folded child as an engine runs it: a convolution takes its batch norm with it, and the activation that alone reads
 * the result. Two operations that are equal take the same time.
 */
export const operationSchema = z.strictObject({
  op: z.string().describe('such as conv2d, depthwiseConv2d, squeezeExcite, add'),
  activation: z.string().optional().describe('that follows at once, such as swish'),
  input: z.array(z.int().positive()).min(1).max(3).describe('[height, width, channels] or [channels], of the first input'),
  output: z.array(z.int().positive()).min(1).max(3),
  kernel: z.int().positive().optional().describe('side of a convolution\'s kernel, or of a pooling\'s window'),
  stride: z.int().positive().optional(),
  bottleneck: z.int().positive().optional().describe('channels between the two layers of a squeeze-and-excitation'),
});

export type Operation = Readonly<z.infer<typeof operationSchema>>;

export const latencyTableFormat = 'bignas-latency-table';
const tableVersion = 1;
const seconds = z.number().nonnegative().max(3600);

/** How long operations take on a device, one image at a time: what `bignas-profile` writes, or a user from measurements of their own. */
export const latencyTableSchema = z.strictObject({
  format: z.literal(latencyTableFormat),
  version: z.literal(tableVersion),
  device: z.string().min(1).max(100).describe('its name, such as pixel-8'),
  runtime: z.string().describe('what ran the operations, with its version'),
  threads: z.int().positive(),
  measured: z.iso.datetime().optional(),
  overhead: seconds.describe('of a run, whatever the network'),
  operations: z.array(operationSchema.extend({ seconds })).min(1).max(100_000),
});

export type LatencyTable = Readonly<z.infer<typeof latencyTableSchema>>;

/** @throws BignasError LATENCY_TABLE_INVALID, naming the field */
export function parseLatencyTable(data: unknown): LatencyTable {
  const result = latencyTableSchema.safeParse(data);
  if (result.success) return result.data;
  throw new BignasError('LATENCY_TABLE_INVALID', `The latency table is not valid:\n${z.prettifyError(result.error)}\nbignas-profile writes one; docs/latency.md has its form.`);
}

/** A graph's operation, and the nodes that it does the work of: the one that it is named after first. */
export interface GraphOperation {
  readonly operation: Operation;
  readonly nodes: readonly string[];
  /** Multiply-adds of one image. */
  readonly flops: number;
}

/** The operations of a graph in their order. */
export function operationsOf(graph: Graph): GraphOperation[] {
  const folded = foldableBatchNorms(graph);
  const readers = new Map<string, GraphNode[]>();
  for (const node of graph.nodes) for (const input of inputsOf(node)) readers.set(input, [...(readers.get(input) ?? []), node]);
  const shapes = new Map(graph.nodes.map(({ name, shape }) => [name, shape]));
  const done = new Set<string>();
  const operations: GraphOperation[] = [];
  for (const node of graph.nodes) {
    if (done.has(node.name) || node.op === 'input' || node.op === 'dropout') continue;
    const nodes = [node.name];
    const batchNorm = folded.get(node.name);
    if (batchNorm) nodes.push(batchNorm.name);
    const [reader, ...others] = readers.get(nodes.at(-1)!) ?? [];
    const activation = reader?.op === 'activation' && others.length === 0 && node.op !== 'activation' ? reader : undefined;
    if (activation) nodes.push(activation.name);
    nodes.forEach((name) => done.add(name));
    operations.push({ operation: operationOf(node, shapes.get(inputsOf(node)[0]!)!, activation?.function), nodes, flops: nodeFlops(node) });
  }
  return operations;
}

function operationOf(node: GraphNode, input: readonly number[], activation: string | undefined): Operation {
  return {
    op: node.op,
    ...(activation !== undefined && { activation }),
    input: [...input],
    output: [...node.shape],
    ...('kernel' in node && node.op !== 'dense' && { kernel: node.kernel.size.at(-1)! }),
    ...('window' in node && { kernel: node.window }),
    ...('stride' in node && { stride: node.stride }),
    ...(node.op === 'squeezeExcite' && { bottleneck: node.reduceKernel.size[0]! }),
  };
}

/** A text that equal operations share. */
export function operationKey({ op, activation = '', input, output, kernel = 0, stride = 0, bottleneck = 0 }: Operation): string {
  return `${op} ${activation} ${input.join('x')} ${output.join('x')} ${kernel} ${stride} ${bottleneck}`;
}

/** A predicted latency, and how much of it was read from the table. */
export interface LatencyPrediction {
  /** Of one image. */
  readonly seconds: number;
  /** Part of the time of operations that the table has, 0 to 1; the rest is interpolated. */
  readonly known: number;
}

/**
 * Predicts latency as the sum of a child's operations. One that the table does not have is interpolated from those like it (same op, activation,
 * kernel and stride; else same op): a constant, a part for each multiply-add and a part for each element moved, by least squares, none of them negative.
 * @throws BignasError LATENCY_TABLE_INVALID from the prediction, where the table has no operation like one of the child's
 */
export function latencyPredictor(table: LatencyTable): (graph: Graph) => LatencyPrediction {
  const known = new Map(table.operations.map((entry) => [operationKey(entry), entry.seconds]));
  const groups = new Map<string, Entry[]>();
  for (const entry of table.operations) {
    const features = { features: featuresOf(entry), seconds: entry.seconds };
    for (const group of [narrowGroup(entry), entry.op]) {
      const entries = groups.get(group); // grown in place: a client's table may have 100,000 operations of one kind
      if (entries) entries.push(features);
      else groups.set(group, [features]);
    }
  }
  const fits = new Map<string, readonly number[]>();
  const interpolated = (operation: Operation): number => {
    const group = [narrowGroup(operation), operation.op].find((name) => (groups.get(name)?.length ?? 0) >= enough) ?? operation.op;
    const entries = groups.get(group);
    if (!entries)
      throw new BignasError('LATENCY_TABLE_INVALID', `The latency table of ${table.device} has no ${operation.op}, which this child needs (${operationKey(operation)}). Add its time, or make the table by bignas-profile for this space.`);
    let fit = fits.get(group);
    if (!fit) fits.set(group, (fit = nonNegativeFit(entries)));
    return dot(fit, featuresOf(operation));
  };
  return (graph) => {
    let [sum, read] = [0, 0];
    for (const { operation } of operationsOf(graph)) {
      const time = known.get(operationKey(operation));
      sum += time ?? interpolated(operation);
      read += time ?? 0;
    }
    return { seconds: table.overhead + sum, known: sum > 0 ? read / sum : 1 };
  };
}

/** Entries that a narrow group must have to be interpolated from. */
const enough = 6;

interface Entry {
  readonly features: readonly number[];
  readonly seconds: number;
}

function narrowGroup({ op, activation = '', kernel = 0, stride = 0 }: Operation): string {
  return `${op} ${activation} ${kernel} ${stride}`;
}

/** 1, millions of multiply-adds, millions of elements read and written. */
function featuresOf({ op, input, output, kernel = 1, bottleneck = 0 }: Operation): number[] {
  const channels = input.at(-1)!;
  const multiplyAdds: Readonly<Record<string, number>> = {
    conv2d: elements(output) * channels * kernel ** 2,
    depthwiseConv2d: elements(output) * kernel ** 2,
    squeezeExcite: 2 * channels * bottleneck,
    dense: channels * elements(output),
  };
  return [1, (multiplyAdds[op] ?? 0) / 1e6, (elements(input) + elements(output)) / 1e6];
}

/** Least squares with non-negative coefficients: of every subset of the features the best fit that has none below 0. Errors are relative. */
function nonNegativeFit(entries: readonly Entry[]): number[] {
  const size = entries[0]!.features.length;
  let best: { readonly coefficients: number[]; readonly error: number } | undefined;
  for (let subset = 1; subset < 1 << size; subset++) {
    const chosen = Array.from({ length: size }, (_, d) => d).filter((d) => subset & (1 << d));
    const coefficients = Array.from({ length: size }, () => 0);
    const solved = leastSquares(entries.map(({ features, seconds: time }) => ({ features: chosen.map((d) => features[d]! / scaleOf(time)), value: time / scaleOf(time) })));
    if (!solved || solved.some((c) => c < 0)) continue;
    chosen.forEach((d, i) => (coefficients[d] = solved[i]!));
    const error = entries.reduce((sum, { features, seconds: time }) => sum + ((dot(coefficients, features) - time) / scaleOf(time)) ** 2, 0);
    if (!best || error < best.error) best = { coefficients, error };
  }
  return best?.coefficients ?? [entries.reduce((sum, { seconds: time }) => sum + time, 0) / entries.length, 0, 0];
}

/** What an error counts relative to: times too short to be measured well count little. */
function scaleOf(time: number): number {
  return Math.max(time, 2e-6);
}

/** Normal equations by elimination with pivots; undefined where they are singular. */
function leastSquares(rows: readonly { readonly features: readonly number[]; readonly value: number }[]): number[] | undefined {
  const n = rows[0]!.features.length;
  const a = Array.from({ length: n }, (_, i) => [
    ...Array.from({ length: n }, (_, j) => rows.reduce((sum, { features }) => sum + features[i]! * features[j]!, 0)),
    rows.reduce((sum, { features, value }) => sum + features[i]! * value, 0),
  ]);
  for (let i = 0; i < n; i++) {
    const pivot = a.slice(i).reduce((most, row) => (Math.abs(row[i]!) > Math.abs(most[i]!) ? row : most));
    if (Math.abs(pivot[i]!) < 1e-12 * rows.length) return undefined;
    a.splice(a.indexOf(pivot), 1);
    a.splice(i, 0, pivot);
    for (let r = 0; r < n; r++) {
      if (r === i) continue;
      const factor = a[r]![i]! / pivot[i]!;
      for (let c = i; c <= n; c++) a[r]![c]! -= factor * pivot[c]!;
    }
  }
  return a.map((row, i) => row[n]! / row[i]!);
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, v, i) => sum + v * b[i]!, 0);
}
