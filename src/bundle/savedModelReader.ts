import protobuf from 'protobufjs/light.js';
import type { GraphModel } from './runtimes.js';

/** The part of saved_model.proto that a bundle's SavedModel uses, as its reader sees it: field numbers of TensorFlow's own files. */
const SavedModel = protobuf.Root.fromJSON({
  nested: {
    SavedModel: { fields: { metaGraphs: { id: 2, type: 'MetaGraph', rule: 'repeated' } } },
    MetaGraph: { fields: { graphDef: { id: 2, type: 'GraphDef' } } },
    GraphDef: { fields: { node: { id: 1, type: 'NodeDef', rule: 'repeated' } } },
    NodeDef: {
      fields: {
        name: { id: 1, type: 'string' },
        op: { id: 2, type: 'string' },
        input: { id: 3, type: 'string', rule: 'repeated' },
        attr: { keyType: 'string', id: 5, type: 'AttrValue' } as protobuf.IField,
      },
    },
    AttrValue: {
      fields: {
        list: { id: 1, type: 'ListValue' },
        s: { id: 2, type: 'bytes' },
        i: { id: 3, type: 'int64' },
        f: { id: 4, type: 'float' },
        b: { id: 5, type: 'bool' },
        type: { id: 6, type: 'DataType' },
        shape: { id: 7, type: 'TensorShape' },
        tensor: { id: 8, type: 'TensorProto' },
      },
    },
    ListValue: { fields: { i: { id: 3, type: 'int64', rule: 'repeated' } } },
    TensorProto: { fields: { dtype: { id: 1, type: 'DataType' }, tensorShape: { id: 2, type: 'TensorShape' }, tensorContent: { id: 4, type: 'bytes' } } },
    TensorShape: { fields: { dim: { id: 2, type: 'Dim', rule: 'repeated' } } },
    Dim: { fields: { size: { id: 1, type: 'int64' } } },
    DataType: { values: { DT_INVALID: 0, DT_FLOAT: 1, DT_INT32: 3, DT_UINT8: 4, DT_BOOL: 10, DT_HALF: 19 } },
  },
}).lookupType('SavedModel');

interface ReadNode {
  readonly name: string;
  readonly op: string;
  readonly attr?: Readonly<Record<string, { readonly tensor?: { readonly dtype: string; readonly tensorShape?: { readonly dim?: readonly { readonly size?: string }[] }; readonly tensorContent?: string } }>>;
}

const dtypes: Readonly<Record<string, object>> = {
  DT_FLOAT: { dtype: 'float32' },
  DT_INT32: { dtype: 'int32' },
  // TensorFlow.js knows no halves: it widens them, and the cast that follows does nothing.
  DT_HALF: { dtype: 'float32', quantization: { dtype: 'float16' } },
};

/** The graph of a SavedModel without variables, its constants taken out, as TensorFlow.js takes it. @throws Error for a constant of another type */
export function graphModelOf(savedModel: Uint8Array): GraphModel {
  const read = SavedModel.toObject(SavedModel.decode(savedModel), { longs: String, enums: String, bytes: String }) as { metaGraphs?: { graphDef?: { node?: ReadNode[] } }[] };
  const nodes = read.metaGraphs?.[0]?.graphDef?.node;
  if (!nodes) throw new Error('saved_model.pb holds no graph');
  const weightSpecs: object[] = [];
  const weightData: Uint8Array[] = [];
  const topology = nodes.map((node): object => {
    const tensor = node.attr?.['value']?.tensor;
    if (node.op !== 'Const' || !tensor) return node;
    const dtype = dtypes[tensor.dtype];
    if (!dtype) throw new Error(`the constant ${node.name} of saved_model.pb is of ${tensor.dtype}`);
    weightSpecs.push({ name: node.name, shape: (tensor.tensorShape?.dim ?? []).map(({ size }) => Number(size ?? 0)), ...dtype });
    weightData.push(Buffer.from(tensor.tensorContent ?? '', 'base64'));
    return { ...node, attr: { dtype: { type: tensor.dtype === 'DT_HALF' ? 'DT_FLOAT' : tensor.dtype } } };
  });
  return { modelTopology: { node: topology, versions: {} }, weightSpecs, weightData };
}
