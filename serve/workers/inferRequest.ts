import { z } from 'zod';
import { BignasError, shown } from '../../src/errors.js';
import { isRecord, parseJson } from '../json.js';
import { checkCount, type AskedInput, type InputLimits } from './asked.js';
import { fromBase64 } from './bodies.js';
import { checkFinite, invalid, tensorOf } from './lists.js';

/** Names in the protocol: of the network's input, of images to decode instead, and of the output. */
export const inputName = 'input';
export const imageName = 'image';
export const outputName = 'probabilities';

/** Entries of a list or an object in the JSON part, but a tensor's data. */
const MOST_ENTRIES = 64;

const parameters = z.record(z.string(), z.union([z.string(), z.number(), z.boolean()]));

const inputSchema = z.object({
  name: z.enum([inputName, imageName]).describe('`input`: the network\'s input, normalised, [N, 3, R, R] as FP32; `image`: N images to decode, as BYTES (base64 where they are in the JSON)'),
  shape: z.array(z.int().nonnegative()).min(1),
  datatype: z.enum(['FP32', 'BYTES']),
  parameters: z.looseObject({ binary_data_size: z.int().nonnegative().optional().describe('bytes of this tensor behind the JSON') }).optional(),
  data: z.unknown().optional().describe('its elements, flat or nested, where they are not behind the JSON'),
});

const outputSchema = z.object({
  name: z.literal(outputName),
  parameters: z
    .looseObject({
      classification: z.int().min(1).max(100_000).optional().describe('so many classes of each image, the most probable first, as "probability:index:label"'),
      binary_data: z.boolean().optional().describe('whether it comes behind the JSON'),
    })
    .optional(),
});

/** The JSON part of an inference request (Open Inference Protocol v2, "Inference Request JSON Object"). */
export const inferRequestSchema = z
  .object({
    id: z.string().max(256).optional().describe('comes back in the answer'),
    parameters: parameters.optional().describe('which child, as the parameters of POST /predict say it: arch, flops, …, deadline, min_accuracy; binary_data_output'),
    inputs: z.array(inputSchema).length(1),
    outputs: z.array(outputSchema).max(1).optional(),
  })
  .meta({ id: 'InferRequest' });

export interface InferAsked {
  readonly id: string | undefined;
  readonly parameters: Readonly<Record<string, string | number | boolean>>;
  readonly input: AskedInput;
  /** Classes of each image that are wanted; undefined: all probabilities. */
  readonly classification: number | undefined;
  /** Whether the output comes behind the JSON. */
  readonly binary: boolean;
}

/**
 * Reads an inference request. Elements come in the JSON, or behind it (the binary tensor extension).
 * @param jsonLength bytes of the JSON part; undefined: all of the body
 * @throws BignasError BODY_MALFORMED, TENSOR_INVALID, BODY_TOO_LARGE (too many images)
 */
export function inferRequest(body: Uint8Array<ArrayBuffer>, jsonLength: number | undefined, limits: InputLimits): InferAsked {
  if (jsonLength !== undefined && jsonLength > body.length)
    throw new BignasError('BODY_MALFORMED', `Expected \`Inference-Header-Content-Length\` to be at most the body's ${body.length} bytes, got ${jsonLength}.`);
  const json = body.subarray(0, jsonLength);
  const document = checked(parseJson(json, 'an inference request in JSON'));
  const [input] = document.inputs as [z.infer<typeof inputSchema>];
  const size = input.parameters?.binary_data_size;
  const behind = body.subarray(json.length);
  if ((size ?? 0) !== behind.length)
    throw new BignasError('BODY_MALFORMED', `Expected \`binary_data_size\` of \`${input.name}\` to be the ${behind.length} bytes behind the JSON, got ${size ?? 'none'}.`);
  if (size !== undefined && input.data !== undefined) throw new BignasError('BODY_MALFORMED', `Expected \`${input.name}\` to have either \`data\` or \`binary_data_size\`, got both.`);
  const output = document.outputs?.[0]?.parameters;
  return {
    id: document.id,
    parameters: document.parameters ?? {},
    input: input.name === inputName ? tensor(input, behind, json.length, limits) : images(input, behind, limits),
    classification: output?.classification,
    binary: output?.binary_data ?? document.parameters?.['binary_data_output'] === true,
  };
}

/** Counted before the schema looks at them: a fault in each of a million entries would be told a million times. */
function checked(value: unknown): z.infer<typeof inferRequestSchema> {
  if (!isRecord(value)) throw new BignasError('BODY_MALFORMED', `Expected an inference request such as {"inputs": […]}, got ${shown(value)}.`);
  for (const [name, part] of [['the request', value], ...Object.entries(value)] as const) checkSize(part, name);
  if (Array.isArray(value['inputs'])) {
    for (const input of value['inputs'] as readonly unknown[]) {
      if (!isRecord(input)) continue;
      checkSize(input, 'inputs');
      checkSize(input['shape'], 'shape');
      checkSize(input['parameters'], 'parameters');
    }
  }
  const result = inferRequestSchema.safeParse(value);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0]!;
  throw new BignasError('BODY_MALFORMED', `Expected an inference request: \`${path.join('.')}\`: ${message}.`);
}

function checkSize(value: unknown, name: string): void {
  const entries = Array.isArray(value) ? value.length : isRecord(value) ? Object.keys(value).length : 0;
  if (entries > MOST_ENTRIES) throw new BignasError('BODY_MALFORMED', `Expected at most ${MOST_ENTRIES} entries of \`${name}\`, got ${entries}.`);
}

function tensor({ shape, datatype, parameters: { binary_data_size: size } = {}, data }: z.infer<typeof inputSchema>, behind: Uint8Array<ArrayBuffer>, jsonLength: number, limits: InputLimits): AskedInput {
  if (datatype !== 'FP32') throw invalid(inputName, 'of datatype FP32', datatype);
  const [count, channels, height, width] = shape;
  if (shape.length !== 4 || channels !== 3 || height !== width) throw invalid(inputName, 'of shape [N, 3, R, R]', shape);
  checkCount(count!, inputName, limits);
  const elements = shape.reduce((product, length) => product * length, 1);
  const values = size === undefined ? tensorOf(data, inputName, jsonLength).data : floats(behind, elements);
  if (values.length !== elements) throw invalid(inputName, `${elements} elements, as its shape [${shape.join(', ')}] says`, values.length);
  if (size !== undefined) checkFinite(values, inputName);
  return { tensor: { data: values, count: count!, resolution: height! } };
}

/** Little-endian, as every machine is that this runs on. */
function floats(bytes: Uint8Array<ArrayBuffer>, elements: number): Float32Array<ArrayBuffer> {
  if (bytes.length !== 4 * elements) throw invalid(inputName, `${4 * elements} bytes, as its shape says`, bytes.length);
  // Where they lie, as `readBody` has put them: a copy would be as much memory again to collect.
  if (bytes.byteOffset % 4 === 0) return new Float32Array(bytes.buffer, bytes.byteOffset, elements);
  const values = new Float32Array(elements);
  new Uint8Array(values.buffer).set(bytes);
  return values;
}

function images({ shape, datatype, parameters: { binary_data_size: size } = {}, data }: z.infer<typeof inputSchema>, behind: Uint8Array<ArrayBuffer>, limits: InputLimits): AskedInput {
  if (datatype !== 'BYTES') throw invalid(imageName, 'of datatype BYTES', datatype);
  const count = shape.reduce((product, length) => product * length, 1);
  checkCount(count, imageName, limits);
  const found = size === undefined ? (Array.isArray(data) ? (data as readonly unknown[]).map((text, i) => fromBase64(text, `${imageName}[${i}]`, i)) : []) : elementsOf(behind, count);
  if (found.length !== count) throw invalid(imageName, `${count} images, as its shape says`, found.length);
  return { images: found };
}

/** BYTES elements: of each its length, as four bytes little-endian, then itself. */
function elementsOf(bytes: Uint8Array<ArrayBuffer>, count: number): Uint8Array<ArrayBuffer>[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const elements: Uint8Array<ArrayBuffer>[] = [];
  let at = 0;
  while (elements.length < count && at + 4 <= bytes.length) {
    const length = view.getUint32(at, true);
    if (at + 4 + length > bytes.length) break;
    elements.push(bytes.subarray(at + 4, (at += 4 + length)));
  }
  if (at !== bytes.length) throw invalid(imageName, `${count} elements, each with its length (4 bytes) before it`, `${bytes.length} bytes that are not`);
  return elements;
}
