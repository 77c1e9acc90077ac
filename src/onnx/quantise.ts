import { OnnxBuilder, type Content } from './builder.js';
import { DataType, floatValues, intAttribute, tensorOf, type NodeProto, type TensorProto } from './proto.js';

/** Least and most of the elements of each of `rangedValues`, in their order: [n, 2]. */
export type ActivationRanges = Float32Array;

/**
 * A weight's largest magnitude in steps. Kernels of AVX2 add two products of a uint8 and an int8 in 16 bits, saturating: up to 64 the sum is
 * at most 2 · 255 · 64 = 32640, which fits, so that results do not depend on the processor. Eight bits measured
 * 0.1 points of accuracy more; uint8 weights around 128, which no kernel saturates, would have them, but other runtimes want symmetric int8.
 */
const WEIGHT_STEPS = 64;

/** A bias's largest magnitude in steps: leaves as much of int32 for the sum that it is added to. */
const BIAS_STEPS = 2 ** 30;

/** Of a channel without weights and bias. Not so small that products with it are denormal. */
const LEAST_STEP = 2 ** -60;

/** Operators that only move or choose elements: they work on a value's bytes as they are. */
const MOVING = new Set(['Slice', 'Pad', 'MaxPool', 'Flatten']);

/** Activations that ONNX Runtime joins with the operator before them, as a bound of its result. */
const BOUNDING = new Set(['Relu', 'Clip']);

/** Operators whose results lie between 0 and 1, whatever the images. A hard one has the slope that networks give it. */
const GATES: Readonly<Record<string, (x: number) => number>> = {
  Sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  HardSigmoid: (x) => Math.min(Math.max(x / 6 + 0.5, 0), 1),
};
const UNIT = new Set(Object.keys(GATES));

/** Which values of a float32 graph are quantised: all activations, but what only a bound reads that is joined with its operator, and the dense layer's result. */
class Plan {
  /** In the order of execution. */
  readonly quantised: ReadonlySet<string>;
  /** The operator that a value is the result of. */
  readonly operators: ReadonlyMap<string, string>;
  /** The operators that read a value. */
  readonly readers: ReadonlyMap<string, readonly string[]>;

  constructor({ nodes }: Content, input: string) {
    const readers = new Map<string, string[]>();
    this.readers = readers;
    for (const { opType, input } of nodes) for (const value of input) readers.set(value, [...(readers.get(value) ?? []), opType]);
    const isBounded = (value: string): boolean => {
      const [reader, another] = readers.get(value) ?? [];
      return reader !== undefined && another === undefined && BOUNDING.has(reader);
    };
    this.operators = new Map(nodes.map(({ opType, output }) => [output[0]!, opType]));
    this.quantised = new Set([input, ...[...this.operators].filter(([value, opType]) => opType !== 'Gemm' && !isBounded(value)).map(([value]) => value)]);
  }
}

/** A value whose range `quantised` needs. */
export interface RangedValue {
  readonly name: string;
  /** What the network makes of an element of it: of a convolution's result, its swish or its gate. */
  readonly becomes: (x: number) => number;
}

/** In the order of execution. */
export function rangedValues(content: Content, input: string): RangedValue[] {
  const { quantised, operators, readers } = new Plan(content, input);
  return [...quantised]
    .filter((value) => {
      const opType = operators.get(value);
      return opType === undefined || !(UNIT.has(opType) || MOVING.has(opType));
    })
    .map((name) => ({ name, becomes: becomesBy(readers.get(name) ?? []) }));
}

/** By the operators that read a value: a gate alone, or the gate and the product with it (swish). */
function becomesBy(readers: readonly string[]): (x: number) => number {
  const gateOf = readers.map((opType) => GATES[opType]).find((gate) => gate !== undefined);
  if (!gateOf || readers.some((opType) => opType !== 'Mul' && GATES[opType] === undefined)) return (x) => x;
  return readers.includes('Mul') ? (x) => x * gateOf(x) : gateOf;
}

/**
 * The same graph in QDQ form: each quantised value v is followed by `v/quantised`, uint8 with a zero point, and `v/dequantised`, which its readers
 * read; kernels are int8, a step for each channel. ONNX Runtime joins what lies between them to operators on bytes.
 */
export function quantised(content: Content, input: string, ranges: ActivationRanges): Content {
  const values = rangedValues(content, input);
  if (ranges.length !== 2 * values.length) throw new Error(`Expected ranges of ${values.length} values, got ${ranges.length / 2}.`);
  return new Quantiser(content, input, new Map(values.map(({ name }, i) => [name, [ranges[2 * i]!, ranges[2 * i + 1]!]]))).write();
}

interface Encoding {
  readonly step: number;
  readonly zero: number;
}

/** An encoding with the names of the constants that hold it. Values that a node moves share that of what it reads. */
interface WrittenEncoding {
  readonly step: number;
  readonly operands: readonly [step: string, zero: string];
}

class Quantiser {
  readonly #b = new OnnxBuilder();
  readonly #plan: Plan;
  readonly #constants: ReadonlyMap<string, TensorProto>;
  readonly #encodings = new Map<string, WrittenEncoding>();
  /** Constants, and values' dequantised forms, that were written already. */
  readonly #written = new Set<string>();

  constructor(
    private readonly content: Content,
    private readonly input: string,
    private readonly ranges: ReadonlyMap<string, readonly [least: number, most: number]>,
  ) {
    this.#plan = new Plan(content, input);
    this.#constants = new Map(content.initializers.map((tensor) => [tensor.name, tensor]));
  }

  write(): Content {
    this.#quantise(this.input);
    for (const node of this.content.nodes) this.#write(node);
    return this.#b.content();
  }

  #write(node: NodeProto): void {
    const value = node.output[0]!;
    if (MOVING.has(node.opType)) {
      this.#move(node);
      return;
    }
    this.#b.append({ nodes: [{ ...node, input: this.#operands(node) }], initializers: [] });
    if (this.#plan.quantised.has(value)) this.#quantise(value);
  }

  /** What a node reads, for the names that the float graph has. */
  #operands(node: NodeProto): string[] {
    if (node.opType === 'Conv' || node.opType === 'Gemm') return this.#layer(node);
    return node.input.map((value) => this.#read(value));
  }

  #read(value: string): string {
    const isWritten = this.#written.has(value);
    this.#written.add(value);
    const constant = this.#constants.get(value);
    if (constant) return isWritten ? value : this.#b.constant(constant);
    const encoding = this.#encodings.get(value);
    if (!encoding) return value;
    const name = `${value}/dequantised`;
    return isWritten ? name : this.#b.node('DequantizeLinear', name, [`${value}/quantised`, ...encoding.operands]);
  }

  /** Operands of a convolution or dense layer. Its bias is a whole number of steps of the products that it is added to. */
  #layer({ input: [x, kernel, bias] }: NodeProto): string[] {
    const weights = this.#constants.get(kernel!)!;
    const { step } = this.#encodings.get(x!)!;
    const offsets = bias === undefined ? undefined : floatValues(this.#constants.get(bias)!);
    const steps = weightSteps(weights, offsets, step);
    const operands = [this.#read(x!), this.#weights(weights, steps)];
    return offsets ? [...operands, this.#bias(bias!, offsets, steps.map((weightStep) => weightStep * step))] : operands;
  }

  #weights(weights: TensorProto, steps: Float32Array): string {
    const { name, dims } = weights;
    const each = dims.slice(1).reduce((product, n) => product * n, 1);
    const b = this.#b;
    const floats = floatValues(weights);
    const values = new Int8Array(floats.length);
    for (let c = 0; c < steps.length; c++) for (let i = c * each; i < (c + 1) * each; i++) values[i] = Math.round(floats[i]! / steps[c]!);
    const operands = [
      b.constant(tensorOf(`${name}/quantised`, DataType.int8, dims, values)),
      b.tensor(`${name}/step`, [steps.length], steps),
      // ONNX Runtime joins no dense layer whose kernel leaves it out.
      b.constant(tensorOf(`${name}/zero`, DataType.int8, [steps.length], new Int8Array(steps.length))),
    ];
    return b.node('DequantizeLinear', `${name}/dequantised`, operands, [intAttribute('axis', 0)]);
  }

  #bias(name: string, values: Float32Array, steps: Float32Array): string {
    const b = this.#b;
    const dims = [values.length];
    const operands = [
      b.constant(tensorOf(`${name}/quantised`, DataType.int32, dims, Int32Array.from(values, (value, c) => Math.round(value / steps[c]!)))),
      b.tensor(`${name}/step`, dims, steps),
    ];
    return b.node('DequantizeLinear', `${name}/dequantised`, operands, [intAttribute('axis', 0)]);
  }

  /** Quantises a value that was just written. */
  #quantise(value: string): void {
    const opType = this.#plan.operators.get(value);
    const range = opType !== undefined && UNIT.has(opType) ? ([0, 1] as const) : this.ranges.get(value);
    if (!range) throw new Error(`${value}: expected its range, got none.`);
    const { step, zero } = encodingOf(range, value);
    const operands = [
      this.#b.tensor(`${value}/step`, [], Float32Array.of(step)),
      this.#b.constant(tensorOf(`${value}/zero`, DataType.uint8, [], Uint8Array.of(zero))),
    ] as const;
    this.#b.node('QuantizeLinear', `${value}/quantised`, [value, ...operands]);
    this.#encodings.set(value, { step, operands });
  }

  /** A node that moves bytes. What it pads with is their zero. */
  #move({ input: [x, ...rest], output: [value], ...node }: NodeProto): void {
    const encoding = this.#encodings.get(x!)!;
    this.#encodings.set(value!, encoding);
    const input = [`${x!}/quantised`, ...rest.map((each) => this.#read(each)), ...(node.opType === 'Pad' ? [encoding.operands[1]] : [])];
    this.#b.append({ nodes: [{ ...node, input, output: [`${value!}/quantised`] }], initializers: [] });
  }
}

/** 256 steps from the least to the most, 0 being one of them. */
function encodingOf([least, most]: readonly [number, number], value: string): Encoding {
  const [from, to] = [Math.min(least, 0), Math.max(most, 0)];
  const step = Math.fround((to - from) / 255);
  if (!(step < Infinity)) throw new Error(`${value}: expected a finite range, got ${from} to ${to}.`);
  if (step < LEAST_STEP) return { step: 1, zero: 0 };
  return { step, zero: Math.round(-from / step) };
}

/** Steps of the channels of a kernel, [out, …]: its largest weight is so many, and the bias is a whole number of steps that fits. */
function weightSteps(weights: TensorProto, bias: Float32Array | undefined, inputStep: number): Float32Array {
  const values = floatValues(weights);
  const out = weights.dims[0]!;
  const each = values.length / out;
  return Float32Array.from({ length: out }, (_, c) => {
    let largest = 0;
    for (let i = c * each; i < (c + 1) * each; i++) largest = Math.max(largest, Math.abs(values[i]!));
    return Math.max(largest / WEIGHT_STEPS, Math.abs(bias?.[c] ?? 0) / (inputStep * BIAS_STEPS), LEAST_STEP);
  });
}
