import { float16Bits } from '../encoding/float16.js';
import { littleEndian } from '../encoding/littleEndian.js';
import { encodeMessage, message, type Message } from '../encoding/wire.js';
import { isConstant, type Attribute, type Attributes, type DataType, type TfConstant, type TfGraph, type TfNode, type TfValue } from './nodes.js';

/**
 * TensorFlow's SavedModel (saved_model.proto and what it holds, names in camel case): the part that a graph without variables needs. Such a one has no
 * folder of variables and nothing to restore. The same graph is the same bytes.
 */

/** DataType of types.proto. */
const dataTypes = { DT_FLOAT: 1, DT_INT32: 3, DT_UINT8: 4, DT_HALF: 19 } as const satisfies Record<DataType, number>;

/** Version of TensorFlow's graphs that the operations are of (TensorFlow 2.4's; every later one reads it). */
export const PRODUCER = 561;
const MIN_CONSUMER = 12;

const dimension = message(['size', 1, 'int']);
const tensorShape = message(['dim', 2, () => dimension, 'repeated']);
const tensor = message(['dtype', 1, 'int'], ['tensorShape', 2, () => tensorShape], ['tensorContent', 4, 'bytes']);
const listValue = message(['i', 3, 'int', 'repeated']);
const attrValue = message(
  ['list', 1, () => listValue],
  ['s', 2, 'string'],
  ['i', 3, 'int'],
  ['b', 5, 'bool'],
  ['type', 6, 'int'],
  ['shape', 7, () => tensorShape],
  ['tensor', 8, () => tensor],
);
const nodeDef = message(['name', 1, 'string'], ['op', 2, 'string'], ['input', 3, 'string', 'repeated'], ['attr', 5, () => attrValue, 'map']);
const versionDef = message(['producer', 1, 'int'], ['minConsumer', 2, 'int']);
const graphDef = message(['node', 1, () => nodeDef, 'repeated'], ['versions', 4, () => versionDef]);
const metaInfoDef = message(['tags', 4, 'string', 'repeated'], ['tensorflowVersion', 5, 'string'], ['strippedDefaultAttrs', 7, 'bool']);
const tensorInfo = message(['name', 1, 'string'], ['dtype', 2, 'int'], ['tensorShape', 3, () => tensorShape]);
const signatureDef = message(['inputs', 1, () => tensorInfo, 'map'], ['outputs', 2, () => tensorInfo, 'map'], ['methodName', 3, 'string']);
const metaGraphDef = message(['metaInfoDef', 1, () => metaInfoDef], ['graphDef', 2, () => graphDef], ['signatureDef', 5, () => signatureDef, 'map']);
const savedModel: Message = message(['savedModelSchemaVersion', 1, 'int'], ['metaGraphs', 2, () => metaGraphDef, 'repeated']);

/** A SavedModel's files by their paths in its folder: one graph with the tag `serve` and the signature `serving_default`. */
export function savedModelFiles(tf: TfGraph): Map<string, Uint8Array> {
  const metaGraph = {
    metaInfoDef: { tags: ['serve'], tensorflowVersion: '2.4.0', strippedDefaultAttrs: true },
    graphDef: { node: tf.nodes.flatMap(nodeDefs), versions: { producer: PRODUCER, minConsumer: MIN_CONSUMER } },
    signatureDef: {
      serving_default: { inputs: tensorInfos([tf.input]), outputs: tensorInfos(tf.outputs), methodName: 'tensorflow/serving/predict' },
    },
  };
  return new Map([['saved_model.pb', encodeMessage(savedModel, { savedModelSchemaVersion: 1, metaGraphs: [metaGraph] })]]);
}

function tensorInfos(values: readonly TfValue[]): Record<string, object> {
  return Object.fromEntries(values.map(({ name, type, shape }) => [name, { name: `${name}:0`, dtype: dataTypes[type], tensorShape: shapeProto(shape) }]));
}

const shapeProto = (shape: readonly number[]): object => ({ dim: shape.map((size) => ({ size })) });

/** A node as TensorFlow has it. Halves are a constant of their own, cast to float32. */
function nodeDefs(node: TfNode): object[] {
  if (!isConstant(node)) return [{ name: node.name, op: node.op, input: node.inputs, attr: attrValues(node.attributes) }];
  if (node.halves === undefined) return [constantDef(node.name, node)];
  const attributes: Attributes = { SrcT: { type: 'DT_HALF' }, DstT: { type: 'DT_FLOAT' }, Truncate: { b: false } };
  return [constantDef(node.halves, node), { name: node.name, op: 'Cast', input: [node.halves], attr: attrValues(attributes) }];
}

function constantDef(name: string, { shape, values, halves }: TfConstant): object {
  const type = values instanceof Int32Array ? 'DT_INT32' : halves === undefined ? 'DT_FLOAT' : 'DT_HALF';
  const stored = type === 'DT_HALF' ? float16Bits(values as Float32Array) : values;
  const value = { dtype: dataTypes[type], tensorShape: shapeProto(shape), tensorContent: littleEndian(stored) };
  return { name, op: 'Const', attr: { dtype: { type: dataTypes[type] }, value: { tensor: value } } };
}

/** In the order of their names, as TensorFlow writes maps where it must always write the same. */
function attrValues(attributes: Attributes): Record<string, object> {
  return Object.fromEntries(Object.keys(attributes).sort().map((name) => [name, attrValueOf(attributes[name]!)]));
}

function attrValueOf(attribute: Attribute): object {
  if ('type' in attribute) return { type: dataTypes[attribute.type] };
  if ('shape' in attribute) return { shape: shapeProto(attribute.shape) };
  if ('ints' in attribute) return { list: { i: attribute.ints } };
  return attribute;
}
