import { IMAGE } from '../graph/modelNames.js';
import { denseResizeMatrix } from '../data/resize.js';
import type { Preprocessing } from '../data/preprocess.js';
import type { OnnxBuilder } from './builder.js';
import { DataType, floatTensor, intAttribute, intsAttribute, tensorOf, valueOf, type ValueInfoProto } from './proto.js';

export function imageInput(): ValueInfoProto {
  return valueOf(IMAGE, DataType.uint8, [{ dimParam: 'N' }, { dimParam: 'H' }, { dimParam: 'W' }, { dimValue: 3 }]);
}

/** Writes what makes a network's input, the value `output`, of `image` (`fixedCrop` and `normalisedBatch` of data/preprocess.ts). */
export function emitPreprocessing(b: OnnxBuilder, preprocessing: Preprocessing, resolution: number, output: string): void {
  new Writer(b, preprocessing).write(resolution, output);
}

class Writer {
  readonly #crop: string;
  readonly #one: string;
  readonly #two: string;

  constructor(
    private readonly b: OnnxBuilder,
    private readonly preprocessing: Preprocessing,
  ) {
    this.#crop = this.#integer('crop', preprocessing.crop);
    this.#one = this.#integer('one', 1);
    this.#two = this.#integer('two', 2);
  }

  write(resolution: number, output: string): void {
    const { crop } = this.preprocessing;
    const cropped = this.#fixedCrop();
    this.#normalise(resolution === crop ? cropped : this.#resize(cropped, resolution), output);
  }

  /** The crop, [N, 3, crop, crop], whole numbers from 0 to 255. */
  #fixedCrop(): string {
    const planes = this.#node('Transpose', 'planes', [IMAGE], [intsAttribute('perm', [0, 3, 1, 2])]);
    const pixels = this.#node('Cast', 'pixels', [planes], [intAttribute('to', DataType.float)]);
    const [height, width] = [this.#side('height', 1), this.#side('width', 2)];
    const shorter = this.#node('Min', 'shorter', [height, width]);
    const isCrop = this.#node('And', 'is-crop', [height, width].map((side) => this.#node('Equal', `${side}-is-crop`.slice('image/'.length), [side, this.#crop])));
    const [down, across] = [this.#cropMatrix('down', height, shorter, isCrop), this.#cropMatrix('across', width, shorter, isCrop)];
    const narrow = this.#node('MatMul', 'narrow', [pixels, this.#node('Transpose', 'across/transposed', [across])]);
    const resized = this.#node('MatMul', 'resized', [down, narrow]);
    const rounded = this.#node('Floor', 'rounded', [this.#node('Add', 'raised', [resized, this.#float('half', 0.5)])]);
    return this.#node('Clip', 'cropped', [rounded, this.#float('black', 0), this.#float('white', 255)]);
  }

  /** A side of the image, [1]. */
  #side(name: string, axis: number): string {
    return this.#node('Shape', name, [IMAGE], [intAttribute('start', axis), intAttribute('end', axis + 1)]);
  }

  /**
   * The rows of one axis's resize that the crop keeps, [crop, side]. Output g of T, all of them, and input j of S are
   * |(2j + 1)·T − (2g + 1)·S| / (2·max(S, T)) of the kernel's units apart. The numerator is exact, so that float32 suffices for the rest.
   */
  #cropMatrix(name: string, side: string, shorter: string, isCrop: string): string {
    const node = (opType: string, part: string, input: readonly string[]): string => this.#node(opType, `${name}/${part}`, input);
    const resized = this.#resizedSide(name, side, shorter, isCrop);
    const offset = node('Div', 'offset', [node('Sub', 'margins', [resized, this.#crop]), this.#two]); // resized ≥ crop
    const outputs = node('Add', 'outputs', [this.#range(`${name}/rows`, this.#crop), offset]);
    const inputs = this.#range(`${name}/columns`, side);
    const distance = node('Abs', 'distance', [
      node('Sub', 'difference', [
        node('Mul', 'input-centres', [this.#odd(`${name}/odd-inputs`, inputs), resized]), // [side]
        node('Unsqueeze', 'column', [node('Mul', 'output-centres', [this.#odd(`${name}/odd-outputs`, outputs), side]), this.#one]), // [crop, 1]
      ]),
    ]);
    const unit = node('Mul', 'unit', [this.#two, node('Max', 'longer', [side, resized])]);
    const weights = this.#keys(name, node('Div', 'x', [this.#cast(`${name}/distance-float`, distance), this.#cast(`${name}/unit-float`, unit)]));
    return node('Div', 'matrix', [weights, node('ReduceSum', 'sum', [weights, this.#one])]);
  }

  /** ⌊(2 · side · shorterSide + shorter) / (2 · shorter)⌋: to the nearest, halves up. A crop stays as it is. */
  #resizedSide(name: string, side: string, shorter: string, isCrop: string): string {
    const twice = this.#node('Mul', `${name}/twice`, [side, this.#integer(`${name}/twice-shorter-side`, 2 * this.preprocessing.shorterSide)]);
    const raised = this.#node('Add', `${name}/raised`, [twice, shorter]);
    const quotient = this.#node('Div', `${name}/quotient`, [raised, this.#node('Mul', `${name}/twice-shorter`, [shorter, this.#two])]);
    return this.#node('Where', `${name}/resized`, [isCrop, this.#crop, quotient]);
  }

  /** Keys's cubic convolution kernel with a = −0.5 of x ≥ 0; its second piece is 0 at 2. */
  #keys(name: string, distance: string): string {
    const node = (opType: string, part: string, input: readonly string[]): string => this.#node(opType, `${name}/${part}`, input);
    const float = (value: number): string => this.#float(`${name}/${value}`, value);
    const x = node('Min', 'within', [distance, float(2)]);
    const near1 = node('Sub', 'near-1', [node('Mul', 'near-0', [x, float(1.5)]), float(2.5)]);
    const near = node('Add', 'near', [node('Mul', 'near-3', [node('Mul', 'near-2', [near1, x]), x]), float(1)]);
    const far1 = node('Add', 'far-1', [node('Mul', 'far-0', [x, float(-0.5)]), this.#float(`${name}/2.5-far`, 2.5)]);
    const far2 = node('Sub', 'far-3', [node('Mul', 'far-2', [far1, x]), float(4)]);
    const far = node('Add', 'far', [node('Mul', 'far-4', [far2, x]), this.#float(`${name}/2-far`, 2)]);
    return node('Where', 'weights', [node('Less', 'is-near', [x, this.#float(`${name}/1-near`, 1)]), near, far]);
  }

  #resize(cropped: string, resolution: number): string {
    const { crop } = this.preprocessing;
    const matrix = denseResizeMatrix(crop, resolution);
    const transposed = Float32Array.from(matrix, (_, i) => matrix[(i % resolution) * crop + Math.floor(i / resolution)]!);
    const across = this.b.tensor('image/to-resolution/across', [crop, resolution], transposed);
    const down = this.b.tensor('image/to-resolution/down', [resolution, crop], matrix);
    return this.#node('MatMul', 'at-resolution', [down, this.#node('MatMul', 'to-resolution', [cropped, across])]);
  }

  #normalise(x: string, output: string): void {
    const { mean, deviation } = this.preprocessing;
    const perChannel = (name: string, values: readonly number[]): string => this.b.tensor(`image/${name}`, [3, 1, 1], Float32Array.from(values));
    const scaled = this.#node('Div', 'scaled', [x, this.#float('255', 255)]);
    const centred = this.#node('Sub', 'centred', [scaled, perChannel('mean', mean)]);
    this.b.node('Div', output, [centred, perChannel('deviation', deviation)]);
  }

  /** 0 … count − 1. */
  #range(name: string, count: string): string {
    const scalar = this.#node('Squeeze', `${name}/count`, [count]);
    const [start, step] = [0, 1].map((value, i) => this.b.constant(tensorOf(`image/${name}/${i === 0 ? 'start' : 'step'}`, DataType.int64, [], BigInt64Array.of(BigInt(value)))));
    return this.#node('Range', name, [start!, scalar, step!]);
  }

  /** 2x + 1 */
  #odd(name: string, x: string): string {
    return this.#node('Add', name, [this.#node('Mul', `${name}/even`, [x, this.#two]), this.#one]);
  }

  #cast(name: string, x: string): string {
    return this.#node('Cast', name, [x], [intAttribute('to', DataType.float)]);
  }

  #node(opType: string, name: string, input: readonly string[], attribute: Parameters<OnnxBuilder['node']>[3] = []): string {
    return this.b.node(opType, `image/${name}`, input, attribute);
  }

  #integer(name: string, value: number): string {
    return this.b.integers(`image/${name}`, [value]);
  }

  #float(name: string, value: number): string {
    return this.b.constant(floatTensor(`image/${name}`, [], Float32Array.of(value)));
  }
}
