import { denseResizeMatrix } from '../data/resize.js';
import type { Preprocessing } from '../data/preprocess.js';
import type { Attributes, TfBuilder } from './nodes.js';

const INT32: Attributes = { T: { type: 'DT_INT32' } };

/**
 * The reference preprocessing (src/data/preprocess.ts) as part of a graph: from uint8 images [N, height, width, 3] of any size to a network's input
 * [N, resolution, resolution, 3]. Resizing is by matrices. Those to the crop are computed from the images' size: their weights' arguments are
 * fractions of whole numbers, so that float32 suffices.
 */
export function emitPreprocessing(b: TfBuilder, image: string, p: Preprocessing, resolution: number): string {
  const crop = croppedPlanes(b, image, p);
  const resized = resolution === p.crop ? crop : resizedPlanes(b, crop, p.crop, resolution);
  return normalised(b, resized, p);
}

/** The crop of each image, rounded and clamped: [N, 3, crop, crop]. */
function croppedPlanes(b: TfBuilder, image: string, p: Preprocessing): string {
  const planes = b.transpose('preprocessing/planes', b.cast('preprocessing/float', image, 'DT_UINT8', 'DT_FLOAT'), [0, 3, 1, 2]);
  const [height, width] = sides(b, image);
  const shorter = b.node('Minimum', 'preprocessing/shorter', [height, width], INT32);
  const target = shorterTarget(b, height, width, shorter, p);
  const [down, across] = ([['down', height], ['across', width]] as const).map(([name, side]) => cropMatrix(b, `preprocessing/${name}`, side, shorter, target, p.crop));
  const cropped = resize(b, 'preprocessing/crop', planes, down!, across!);
  const rounded = b.node('Floor', 'preprocessing/rounded', [b.node('AddV2', 'preprocessing/raised', [cropped, b.scalar('preprocessing/half', 0.5)])]);
  const least = b.node('Maximum', 'preprocessing/least', [rounded, b.scalar('preprocessing/0', 0)]);
  return b.node('Minimum', 'preprocessing/clamped', [least, b.scalar('preprocessing/255', 255)]);
}

/** Height and width of the images, scalars. */
function sides(b: TfBuilder, image: string): readonly [string, string] {
  const shape = b.node('Shape', 'preprocessing/shape', [image], { T: { type: 'DT_UINT8' }, out_type: { type: 'DT_INT32' } });
  const side = (name: string, axis: number): string =>
    b.stridedSlice(`preprocessing/${name}`, shape, { begin: [axis], end: [axis + 1], strides: [1] }, { shrink: [0] }, 'DT_INT32');
  return [side('height', 1), side('width', 2)];
}

/** What the shorter side is resized to. An image that has the crop's size already is to be taken as it is: resized to its own size. */
function shorterTarget(b: TfBuilder, height: string, width: string, shorter: string, { shorterSide, crop }: Preprocessing): string {
  const named = (part: string): string => `preprocessing/target/${part}`;
  if (shorterSide === crop) return b.integers('preprocessing/target', [crop], []);
  const size = b.integers(named('crop'), [crop], []);
  const longer = b.node('Maximum', named('longer'), [height, width], INT32);
  const over = b.node('Sub', named('over'), [longer, size], INT32);
  const under = b.node('Sub', named('under'), [size, shorter], INT32);
  const off = b.node('Maximum', named('off'), [over, under], INT32);
  const differs = b.node('Minimum', named('differs'), [off, b.integers(named('one'), [1], [])], INT32);
  const more = b.node('Mul', named('more'), [differs, b.integers(named('most'), [shorterSide - crop], [])], INT32);
  return b.node('AddV2', 'preprocessing/target', [size, more], INT32);
}

/**
 * The rows of one axis's resize matrix that the crop needs, [crop, side]: the element of output g and input j is
 * keys(|(2j + 1) · to − (2g + 1) · side| / (2 · max(side, to))), each row divided by its sum.
 */
function cropMatrix(b: TfBuilder, name: string, side: string, shorter: string, target: string, crop: number): string {
  const int = (op: string, part: string, ...inputs: readonly string[]): string => b.node(op, `${name}/${part}`, inputs, INT32);
  const one = b.integers(`${name}/one`, [1], []);
  const two = b.integers(`${name}/two`, [2], []);
  const twice = (part: string, x: string): string => int('Mul', part, x, two);
  // ⌊side · target / shorter + 1/2⌋
  const halves = int('AddV2', 'halves', twice('scaled/twice', int('Mul', 'scaled', side, target)), shorter);
  const to = int('FloorDiv', 'to', halves, twice('shorter/twice', shorter));
  const before = int('FloorDiv', 'before', int('Sub', 'rest', to, b.integers(`${name}/crop`, [crop], [])), two);
  const outputs = int('AddV2', 'outputs', b.integers(`${name}/within`, Array.from({ length: crop }, (_, i) => i), [crop, 1]), before);
  const inputs = b.untyped('Range', `${name}/inputs`, [b.integers(`${name}/zero`, [0], []), side, one], { Tidx: { type: 'DT_INT32' } });
  const centre = (part: string, index: string, scale: string): string => int('Mul', part, int('AddV2', `${part}/odd`, twice(`${part}/twice`, index), one), scale);
  const distance = int('Sub', 'distance', centre('inputCentre', inputs, to), centre('outputCentre', outputs, side));
  const unit = twice('unit', int('Maximum', 'larger', side, to));
  const apart = b.node('Abs', `${name}/apart`, [b.cast(`${name}/distance/float`, distance, 'DT_INT32', 'DT_FLOAT')]);
  const weights = keys(b, `${name}/keys`, b.node('RealDiv', `${name}/x`, [apart, b.cast(`${name}/unit/float`, unit, 'DT_INT32', 'DT_FLOAT')]));
  return b.node('RealDiv', name, [weights, b.reduce('Sum', `${name}/sum`, weights, [1], { keep: true })]);
}

/**
 * Keys's cubic convolution kernel with a = −0.5, of x ≥ 0, without a condition: v² (v − 1) / 2 + u² (1 − 2u), where v = max(2 − x, 0) and u = max(1 − x, 0).
 */
function keys(b: TfBuilder, name: string, x: string): string {
  const float = (op: string, part: string, ...inputs: readonly string[]): string => b.node(op, `${name}/${part}`, inputs);
  const [half, one, two] = ([['half', 0.5], ['one', 1], ['two', 2]] as const).map(([part, value]) => b.scalar(`${name}/${part}`, value)) as [string, string, string];
  const below = (part: string, limit: string): string => float('Relu', part, float('Sub', `${part}/signed`, limit, x));
  const u = below('u', one);
  const v = below('v', two);
  const square = (part: string, of: string): string => float('Mul', part, of, of);
  const outer = float('Mul', 'outer', float('Mul', 'v/square/half', square('v/square', v), half), float('Sub', 'v/less', v, one));
  const inner = float('Mul', 'inner', square('u/square', u), float('Sub', 'u/less', one, float('Mul', 'u/twice', u, two)));
  return b.node('AddV2', name, [outer, inner]);
}

/** The crop at the network's resolution, neither rounded nor clamped. */
function resizedPlanes(b: TfBuilder, planes: string, from: number, to: number): string {
  const matrix = b.floats('preprocessing/matrix', [to, from], denseResizeMatrix(from, to));
  return resize(b, 'preprocessing/resized', planes, matrix, matrix);
}

/** down · plane · acrossᵀ of each plane. */
function resize(b: TfBuilder, name: string, planes: string, down: string, across: string): string {
  const rows = b.node('BatchMatMulV2', `${name}/rows`, [down, planes], { adj_x: { b: false }, adj_y: { b: false } });
  return b.node('BatchMatMulV2', name, [rows, across], { adj_x: { b: false }, adj_y: { b: true } });
}

/** (x / 255 − mean) / deviation, channels last. */
function normalised(b: TfBuilder, planes: string, { mean, deviation }: Preprocessing): string {
  const scale = b.floats('preprocessing/scale', [3, 1, 1], Float32Array.from(deviation, (d) => 1 / (255 * d)));
  const shift = b.floats('preprocessing/shift', [3, 1, 1], Float32Array.from(mean, (m, c) => -m / deviation[c]!));
  const scaled = b.node('Mul', 'preprocessing/scaled', [planes, scale]);
  return b.transpose('preprocessing/input', b.node('AddV2', 'preprocessing/shifted', [scaled, shift]), [0, 2, 3, 1]);
}
