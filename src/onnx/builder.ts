import {
  encodeModel,
  floatTensor,
  int64Tensor,
  IR_VERSION,
  OPSET,
  type AttributeProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from './proto.js';

export interface ModelOptions {
  /** Name of the graph in the file. Default `bignas`. */
  readonly name?: string;
  /** `metadata_props` of the file; written in the order of their keys. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** A graph without its edges: nodes in order of execution, and constants. */
export interface Content {
  readonly nodes: readonly NodeProto[];
  readonly initializers: readonly TensorProto[];
}

/** Appends ONNX nodes and initialisers, in order of execution. A value is known by its name. */
export class OnnxBuilder {
  readonly #nodes: NodeProto[] = [];
  readonly #initializers: TensorProto[] = [];

  /** Appends a node with one output, and returns that output, which has the node's name. */
  node(opType: string, name: string, input: readonly string[], attribute: readonly AttributeProto[] = []): string {
    this.#nodes.push({ opType, name, input, output: [name], attribute });
    return name;
  }

  /** Appends a float32 constant, as it is: the array must not change before `build`. */
  tensor(name: string, dims: readonly number[], values: Float32Array): string {
    return this.constant(floatTensor(name, dims, values));
  }

  /** Appends a list of integers. */
  integers(name: string, values: readonly number[]): string {
    return this.constant(int64Tensor(name, values));
  }

  /** Appends a constant of any type. */
  constant(tensor: TensorProto): string {
    this.#initializers.push(tensor);
    return tensor.name;
  }

  /** Appends all of a graph. */
  append({ nodes, initializers }: Content): void {
    this.#nodes.push(...nodes);
    this.#initializers.push(...initializers);
  }

  /** What was appended so far. */
  content(): Content {
    return { nodes: [...this.#nodes], initializers: [...this.#initializers] };
  }

  /** The model's bytes. */
  build(input: readonly ValueInfoProto[], output: readonly ValueInfoProto[], options: ModelOptions = {}): Uint8Array {
    const { name = 'bignas', metadata = {} } = options;
    return encodeModel({
      irVersion: IR_VERSION,
      producerName: 'bignas',
      graph: { node: this.#nodes, name, initializer: this.#initializers, input, output },
      opsetImport: [{ domain: '', version: OPSET }],
      metadataProps: Object.keys(metadata)
        .sort()
        .map((key) => ({ key, value: metadata[key]! })),
    });
  }
}
