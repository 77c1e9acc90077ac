import { float32From, littleEndian, type Numbers } from '../encoding/littleEndian.js';
import { encodeMessage, message, type Message } from '../encoding/wire.js';

/**
 * The part of ONNX's file format that bignas writes (onnx.proto3, names in camel case). Fields are written in the order of their
 * numbers and nothing depends on the clock or the machine, so the same model is the same bytes everywhere.
 */

export const IR_VERSION = 8;
/** Version of the default operator set. */
export const OPSET = 17;

/** TensorProto.DataType */
export const DataType = { float: 1, uint8: 2, int8: 3, int32: 6, int64: 7, float16: 10, double: 11 } as const;
export type DataType = (typeof DataType)[keyof typeof DataType];

export interface TensorProto {
  readonly dims: readonly number[];
  readonly dataType: DataType;
  readonly name: string;
  /** Little-endian. */
  readonly rawData: Uint8Array;
}

/** AttributeProto.AttributeType */
const AttributeType = { float: 1, int: 2, ints: 7 } as const;

export interface AttributeProto {
  readonly name: string;
  readonly type: (typeof AttributeType)[keyof typeof AttributeType];
  readonly f?: number;
  readonly i?: number;
  readonly ints?: readonly number[];
}

export interface NodeProto {
  readonly input: readonly string[];
  readonly output: readonly string[];
  readonly name: string;
  readonly opType: string;
  readonly attribute: readonly AttributeProto[];
}

/** A fixed size, or a name for one that is only known at run time. */
export interface DimensionProto {
  readonly dimValue?: number;
  readonly dimParam?: string;
}

export interface ValueInfoProto {
  readonly name: string;
  readonly type: { readonly tensorType: { readonly elemType: DataType; /** Absent where unknown. */ readonly shape?: { readonly dim: readonly DimensionProto[] } } };
}

export interface GraphProto {
  readonly node: readonly NodeProto[];
  readonly name: string;
  readonly initializer: readonly TensorProto[];
  readonly input: readonly ValueInfoProto[];
  readonly output: readonly ValueInfoProto[];
}

export interface ModelProto {
  readonly irVersion: number;
  readonly producerName: string;
  readonly graph: GraphProto;
  readonly opsetImport: readonly { readonly domain: string; readonly version: number }[];
  readonly metadataProps: readonly { readonly key: string; readonly value: string }[];
}

const stringStringEntry = message(['key', 1, 'string'], ['value', 2, 'string']);
const operatorSetId = message(['domain', 1, 'string'], ['version', 2, 'int']);
const dimension = message(['dimValue', 1, 'int'], ['dimParam', 2, 'string']);
const tensorShape = message(['dim', 1, () => dimension, 'repeated']);
const tensorType = message(['elemType', 1, 'int'], ['shape', 2, () => tensorShape]);
const typeProto = message(['tensorType', 1, () => tensorType]);
const valueInfo = message(['name', 1, 'string'], ['type', 2, () => typeProto]);
const tensor = message(['dims', 1, 'int', 'repeated'], ['dataType', 2, 'int'], ['name', 8, 'string'], ['rawData', 9, 'bytes']);
const attribute = message(['name', 1, 'string'], ['f', 2, 'float'], ['i', 3, 'int'], ['ints', 8, 'int', 'repeated'], ['type', 20, 'int']);
const node = message(
  ['input', 1, 'string', 'repeated'],
  ['output', 2, 'string', 'repeated'],
  ['name', 3, 'string'],
  ['opType', 4, 'string'],
  ['attribute', 5, () => attribute, 'repeated'],
);
const graph = message(
  ['node', 1, () => node, 'repeated'],
  ['name', 2, 'string'],
  ['initializer', 5, () => tensor, 'repeated'],
  ['input', 11, () => valueInfo, 'repeated'],
  ['output', 12, () => valueInfo, 'repeated'],
);
const model: Message = message(
  ['irVersion', 1, 'int'],
  ['producerName', 2, 'string'],
  ['graph', 7, () => graph],
  ['opsetImport', 8, () => operatorSetId, 'repeated'],
  ['metadataProps', 14, () => stringStringEntry, 'repeated'],
);

/** The bytes of an .onnx file. */
export function encodeModel(value: ModelProto): Uint8Array {
  return encodeMessage(model, value);
}

export function floatAttribute(name: string, f: number): AttributeProto {
  return { name, f, type: AttributeType.float };
}

export function intAttribute(name: string, i: number): AttributeProto {
  return { name, i, type: AttributeType.int };
}

export function intsAttribute(name: string, ints: readonly number[]): AttributeProto {
  return { name, ints, type: AttributeType.ints };
}

/** A constant of any type, from its elements in the type's own array (halves: their bits). */
export function tensorOf(name: string, dataType: DataType, dims: readonly number[], values: Numbers): TensorProto {
  return { dims, dataType, name, rawData: littleEndian(values) };
}

/** Elements of a float32 constant; not to be written into. */
export function floatValues({ name, dataType, rawData }: TensorProto): Float32Array {
  if (dataType !== DataType.float) throw new Error(`${name}: expected a float32 constant.`);
  return float32From(rawData);
}

export function floatTensor(name: string, dims: readonly number[], values: Float32Array): TensorProto {
  return { dims, dataType: DataType.float, name, rawData: littleEndian(values) };
}

/** A list of integers. */
export function int64Tensor(name: string, values: readonly number[]): TensorProto {
  const data = BigInt64Array.from(values, BigInt);
  return { dims: [values.length], dataType: DataType.int64, name, rawData: littleEndian(data) };
}

/** A float32 value whose first dimension is the batch, of any size. */
export function batchOf(name: string, shape: readonly number[]): ValueInfoProto {
  return floatValue(name, [{ dimParam: 'N' }, ...shape.map((dimValue) => ({ dimValue }))]);
}

export function floatValue(name: string, dim: readonly DimensionProto[]): ValueInfoProto {
  return valueOf(name, DataType.float, dim);
}

/** @param dim unknown where absent */
export function valueOf(name: string, elemType: DataType, dim?: readonly DimensionProto[]): ValueInfoProto {
  return { name, type: { tensorType: { elemType, ...(dim && { shape: { dim } }) } } };
}
