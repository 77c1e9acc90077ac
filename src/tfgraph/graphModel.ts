import { concatenated } from '../encoding/container.js';
import { float16Bits } from '../encoding/float16.js';
import { littleEndian } from '../encoding/littleEndian.js';
import { isConstant, type Attribute, type Attributes, type DataType, type TfConstant, type TfGraph, type TfNode, type TfValue } from './nodes.js';
import { PRODUCER } from './savedModel.js';

/** A TF.js GraphModel: the graph as JSON, and its constants' values, one after the other, in files of 4 MiB. The same graph is the same bytes. */

const SHARD = 4 * 2 ** 20;

/** The files by their paths in the model's folder: `model.json` and the shards that it names. */
export function graphModelFiles(tf: TfGraph): Map<string, Uint8Array> {
  const constants = tf.nodes.filter(isConstant);
  const data = concatenated(constants.map(storedValues));
  const count = Math.ceil(data.length / SHARD);
  const shards = Array.from({ length: count }, (_, i): [string, Uint8Array] => [`group1-shard${i + 1}of${count}.bin`, data.subarray(i * SHARD, (i + 1) * SHARD)]);
  const model = {
    format: 'graph-model',
    generatedBy: 'bignas',
    convertedBy: null,
    signature: { inputs: tensorInfos([tf.input]), outputs: tensorInfos(tf.outputs) },
    modelTopology: { node: tf.nodes.map(nodeDef), library: {}, versions: { producer: PRODUCER } },
    weightsManifest: [{ paths: shards.map(([name]) => name), weights: constants.map(manifestEntry) }],
  };
  return new Map([['model.json', new TextEncoder().encode(JSON.stringify(model))], ...shards]);
}

function storedValues({ values, halves }: TfConstant): Uint8Array {
  return littleEndian(halves === undefined ? values : float16Bits(values as Float32Array));
}

function manifestEntry({ name, shape, values, halves }: TfConstant): object {
  const dtype = values instanceof Int32Array ? 'int32' : 'float32';
  return { name, shape, dtype, ...(halves === undefined ? {} : { quantization: { dtype: 'float16', original_dtype: 'float32' } }) };
}

/** TF.js has no tensors of bytes: they are int32 there. */
const typeOf = (type: DataType): DataType => (type === 'DT_UINT8' ? 'DT_INT32' : type);

function tensorInfos(values: readonly TfValue[]): Record<string, object> {
  return Object.fromEntries(values.map(({ name, type, shape }) => [name, { name: `${name}:0`, dtype: typeOf(type), tensorShape: shapeJson(shape) }]));
}

/** A 64-bit integer in protobuf's JSON is a string. */
const shapeJson = (shape: readonly number[]): object => ({ dim: shape.map((size) => ({ size: String(size) })) });

function nodeDef(node: TfNode): object {
  if (!isConstant(node)) return { name: node.name, op: node.op, input: node.inputs, attr: attributesJson(node.attributes) };
  const dtype = node.values instanceof Int32Array ? 'DT_INT32' : 'DT_FLOAT';
  return { name: node.name, op: 'Const', attr: { dtype: { type: dtype }, value: { tensor: { dtype, tensorShape: shapeJson(node.shape) } } } };
}

function attributesJson(attributes: Attributes): Record<string, object> {
  return Object.fromEntries(Object.entries(attributes).map(([name, attribute]) => [name, attributeJson(attribute)]));
}

function attributeJson(attribute: Attribute): object {
  if ('type' in attribute) return { type: typeOf(attribute.type) };
  if ('shape' in attribute) return { shape: shapeJson(attribute.shape) };
  if ('ints' in attribute) return { list: { i: attribute.ints.map(String) } };
  if ('i' in attribute) return { i: String(attribute.i) };
  return 's' in attribute ? { s: base64(attribute.s) } : attribute;
}

const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

/** As protobuf's JSON has bytes. */
function base64(text: string): string {
  const bytes = new TextEncoder().encode(text);
  let encoded = '';
  for (let i = 0; i < bytes.length; i += 3) {
    const bits = (bytes[i]! << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0);
    const digits = [18, 12, 6, 0].map((shift) => DIGITS[(bits >> shift) & 63]!).join('');
    encoded += digits.slice(0, Math.min(bytes.length - i, 3) + 1).padEnd(4, '=');
  }
  return encoded;
}
