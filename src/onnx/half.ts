import { float16Bits } from '../encoding/float16.js';
import { OnnxBuilder, type Content } from './builder.js';
import { DataType, floatValues, intAttribute, tensorOf, type TensorProto } from './proto.js';

/** The values at which a graph stays float32. */
export interface Edges {
  readonly input: string;
  readonly output: string;
}

/** The same graph with halves for all its constants and activations; its input and output stay float32. */
export function inHalfPrecision({ nodes, initializers }: Content, { input, output }: Edges): Content {
  const b = new OnnxBuilder();
  const half = (value: string): string => (value === input || value === output ? `${value}/half` : value);
  b.node('Cast', half(input), [input], [intAttribute('to', DataType.float16)]);
  b.append({
    nodes: nodes.map((node) => ({ ...node, name: half(node.name), input: node.input.map(half), output: node.output.map(half) })),
    initializers: initializers.map(halved),
  });
  b.node('Cast', output, [half(output)], [intAttribute('to', DataType.float)]);
  return b.content();
}

/** Integers stay: they are sizes. */
function halved(tensor: TensorProto): TensorProto {
  if (tensor.dataType !== DataType.float) return tensor;
  return tensorOf(tensor.name, DataType.float16, tensor.dims, float16Bits(floatValues(tensor)));
}
