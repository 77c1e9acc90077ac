import { elements } from '../graph/graph.js';

/**
 * A TensorFlow graph as a list of nodes in the order of execution (NodeDef, names in camel case), before it is written to a file. Values have the
 * names of the nodes that make them.
 */

/** The part of DataType that bignas writes. */
export type DataType = 'DT_FLOAT' | 'DT_INT32' | 'DT_UINT8' | 'DT_HALF';

/** AttrValue: one of its kinds. Sizes of −1 in a shape are known at run time only. */
export type Attribute =
  | { readonly type: DataType }
  | { readonly s: string }
  | { readonly i: number }
  | { readonly b: boolean }
  | { readonly ints: readonly number[] }
  | { readonly shape: readonly number[] };

export type Attributes = Readonly<Record<string, Attribute>>;

export interface TfOperation {
  readonly name: string;
  readonly op: string;
  readonly inputs: readonly string[];
  readonly attributes: Attributes;
}

/** A constant. Its array must not change before the graph is written. */
export interface TfConstant {
  readonly name: string;
  readonly op: 'Const';
  readonly shape: readonly number[];
  readonly values: Float32Array | Int32Array;
  /** Present where files hold the values as halves: a name for the node that does so. */
  readonly halves?: string;
}

export type TfNode = TfOperation | TfConstant;

/** An input or an output of a graph. */
export interface TfValue {
  readonly name: string;
  readonly type: DataType;
  readonly shape: readonly number[];
}

export interface TfGraph {
  readonly nodes: readonly TfNode[];
  readonly input: TfValue;
  readonly outputs: readonly TfValue[];
}

export function isConstant(node: TfNode): node is TfConstant {
  return node.op === 'Const';
}

/** Which bounds of a strided slice are the whole side's, and which sides it drops: lists of axes. */
export interface SliceMasks {
  readonly begin?: readonly number[];
  readonly end?: readonly number[];
  readonly shrink?: readonly number[];
}

const mask = (axes: readonly number[] = []): Attribute => ({ i: axes.reduce((bits, axis) => bits | (1 << axis), 0) });

/**
 * Appends nodes in the order of execution. Every method returns the name of its result: the one asked for, made a valid one of TensorFlow's, and unique.
 */
export class TfBuilder {
  readonly #nodes: TfNode[] = [];
  readonly #names: Set<string>;

  /** @param reserved names that only the graph's input and outputs get. */
  constructor(
    private readonly dtype: 'float32' | 'float16',
    reserved: readonly string[],
  ) {
    this.#names = new Set(reserved);
  }

  /** Appends an operation whose operands (attribute T) are of one type, float32 where not given. */
  node(op: string, name: string, inputs: readonly string[], attributes: Attributes = {}): string {
    const unique = this.#unique(name);
    this.#nodes.push({ name: unique, op, inputs, attributes: { T: { type: 'DT_FLOAT' }, ...attributes } });
    return unique;
  }

  /** Appends an operation that has no attribute T. */
  untyped(op: string, name: string, inputs: readonly string[], attributes: Attributes): string {
    const unique = this.#unique(name);
    this.#nodes.push({ name: unique, op, inputs, attributes });
    return unique;
  }

  /** Appends the graph's input, under its own name. */
  placeholder({ name, type, shape }: TfValue): string {
    this.#nodes.push({ name, op: 'Placeholder', inputs: [], attributes: { dtype: { type }, shape: { shape } } });
    return name;
  }

  /** Appends an operation whose result is an output of the graph, under that output's own name. */
  output(op: string, name: string, x: string): string {
    this.#nodes.push({ name, op, inputs: [x], attributes: { T: { type: 'DT_FLOAT' } } });
    return name;
  }

  /** Appends a weight: where the graph's are halves, one of two or more dimensions is stored as such. */
  weight(name: string, shape: readonly number[], values: Float32Array): string {
    return this.#constant(name, shape, values, this.dtype === 'float16' && shape.length > 1);
  }

  /** Appends a constant that is float32 in every file. */
  floats(name: string, shape: readonly number[], values: Float32Array): string {
    return this.#constant(name, shape, values, false);
  }

  scalar(name: string, value: number): string {
    return this.floats(name, [], Float32Array.of(value));
  }

  integers(name: string, values: readonly number[], shape: readonly number[] = [values.length]): string {
    return this.#constant(name, shape, Int32Array.from(values), false);
  }

  cast(name: string, x: string, from: DataType, to: DataType): string {
    return this.untyped('Cast', name, [x], { SrcT: { type: from }, DstT: { type: to }, Truncate: { b: false } });
  }

  /** x[begin:end:strides], one of each an axis. */
  stridedSlice(name: string, x: string, bounds: { readonly begin: readonly number[]; readonly end: readonly number[]; readonly strides: readonly number[] }, masks: SliceMasks, type: DataType = 'DT_FLOAT'): string {
    const operands = (['begin', 'end', 'strides'] as const).map((bound) => this.integers(`${name}/${bound}`, bounds[bound]));
    return this.node('StridedSlice', name, [x, ...operands], {
      T: { type },
      Index: { type: 'DT_INT32' },
      begin_mask: mask(masks.begin),
      end_mask: mask(masks.end),
      ellipsis_mask: mask(),
      new_axis_mask: mask(),
      shrink_axis_mask: mask(masks.shrink),
    });
  }

  /** Zeros around x: [before, after] of each axis. */
  pad(name: string, x: string, paddings: readonly (readonly [number, number])[]): string {
    const operand = this.integers(`${name}/paddings`, paddings.flat(), [paddings.length, 2]);
    return this.node('Pad', name, [x, operand], { Tpaddings: { type: 'DT_INT32' } });
  }

  /** Mean or sum over axes. */
  reduce(op: 'Mean' | 'Sum', name: string, x: string, axes: readonly number[], { keep }: { readonly keep: boolean }): string {
    return this.node(op, name, [x, this.integers(`${name}/axes`, axes)], { Tidx: { type: 'DT_INT32' }, keep_dims: { b: keep } });
  }

  transpose(name: string, x: string, permutation: readonly number[]): string {
    return this.node('Transpose', name, [x, this.integers(`${name}/permutation`, permutation)], { Tperm: { type: 'DT_INT32' } });
  }

  build(input: TfValue, outputs: readonly TfValue[]): TfGraph {
    return { nodes: this.#nodes, input, outputs };
  }

  #constant(name: string, shape: readonly number[], values: Float32Array | Int32Array, halves: boolean): string {
    if (values.length !== elements(shape)) throw new Error(`${name}: expected ${elements(shape)} values, got ${values.length}.`);
    const unique = this.#unique(name);
    this.#nodes.push({ name: unique, op: 'Const', shape, values, ...(halves ? { halves: this.#unique(`${name}/halves`) } : {}) });
    return unique;
  }

  #unique(name: string): string {
    const valid = name.replace(/[^\w.\-/]/g, '_').replace(/^(?![A-Za-z0-9.])/, 'n');
    let unique = valid;
    for (let i = 1; this.#names.has(unique); i++) unique = `${valid}_${i}`;
    this.#names.add(unique);
    return unique;
  }
}
