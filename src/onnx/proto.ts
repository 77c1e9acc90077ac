import { endianness } from 'node:os';
import protobuf from 'protobufjs/light.js';

/**
 * The part of ONNX's file format that bignas writes (onnx.proto3, names in camel case). Fields are written in the order of their
 * numbers and nothing depends on the clock or the machine, so the same model is the same bytes everywhere.
 */

export const IR_VERSION = 8;
/** Version of the default operator set. */
export const OPSET = 17;

/** TensorProto.DataType */
export const DataType = { float: 1, int64: 7 } as const;
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
  readonly type: { readonly tensorType: { readonly elemType: DataType; readonly shape: { readonly dim: readonly DimensionProto[] } } };
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

type Rule = 'optional' | 'repeated';

/** A message type: its fields as [name, number, type, rule]. */
function message(...fields: readonly (readonly [string, number, string, Rule?])[]): protobuf.IType {
  return { fields: Object.fromEntries(fields.map(([name, id, type, rule = 'optional']) => [name, { id, type, rule }])) };
}

const root = protobuf.Root.fromJSON({
  nested: {
    ModelProto: message(
      ['irVersion', 1, 'int64'],
      ['producerName', 2, 'string'],
      ['graph', 7, 'GraphProto'],
      ['opsetImport', 8, 'OperatorSetIdProto', 'repeated'],
      ['metadataProps', 14, 'StringStringEntryProto', 'repeated'],
    ),
    GraphProto: message(
      ['node', 1, 'NodeProto', 'repeated'],
      ['name', 2, 'string'],
      ['initializer', 5, 'TensorProto', 'repeated'],
      ['input', 11, 'ValueInfoProto', 'repeated'],
      ['output', 12, 'ValueInfoProto', 'repeated'],
    ),
    NodeProto: message(
      ['input', 1, 'string', 'repeated'],
      ['output', 2, 'string', 'repeated'],
      ['name', 3, 'string'],
      ['opType', 4, 'string'],
      ['attribute', 5, 'AttributeProto', 'repeated'],
    ),
    AttributeProto: message(
      ['name', 1, 'string'],
      ['f', 2, 'float'],
      ['i', 3, 'int64'],
      ['ints', 8, 'int64', 'repeated'],
      ['type', 20, 'int32'],
    ),
    TensorProto: message(['dims', 1, 'int64', 'repeated'], ['dataType', 2, 'int32'], ['name', 8, 'string'], ['rawData', 9, 'bytes']),
    ValueInfoProto: message(['name', 1, 'string'], ['type', 2, 'TypeProto']),
    TypeProto: message(['tensorType', 1, 'TensorTypeProto']),
    TensorTypeProto: message(['elemType', 1, 'int32'], ['shape', 2, 'TensorShapeProto']),
    TensorShapeProto: message(['dim', 1, 'DimensionProto', 'repeated']),
    DimensionProto: message(['dimValue', 1, 'int64'], ['dimParam', 2, 'string']),
    OperatorSetIdProto: message(['domain', 1, 'string'], ['version', 2, 'int64']),
    StringStringEntryProto: message(['key', 1, 'string'], ['value', 2, 'string']),
  },
});
const modelType = root.lookupType('ModelProto');

/** The bytes of an .onnx file. */
export function encodeModel(model: ModelProto): Uint8Array {
  return modelType.encode(model).finish();
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
  return { name, type: { tensorType: { elemType: DataType.float, shape: { dim } } } };
}

/** The bytes of an array, without a copy where the machine is little-endian. */
function littleEndian(values: Float32Array | BigInt64Array): Uint8Array {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  if (endianness() === 'LE') return bytes;
  const swapped = Buffer.from(bytes);
  return values.BYTES_PER_ELEMENT === 8 ? swapped.swap64() : swapped.swap32();
}
