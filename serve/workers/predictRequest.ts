import { z } from 'zod';
import { BignasError, shown } from '../../src/errors.js';
import { isRecord, parseJson } from '../json.js';
import { checkCount, type AskedInput, type InputLimits } from './asked.js';
import { fromBase64 } from './bodies.js';
import { imageName, inputName } from './inferRequest.js';
import { invalid, tensorOf, type Tensor } from './lists.js';

/** A predict request (TensorFlow Serving's REST API, "Predict API"): a list of instances, or columns. */
export const predictRequestSchema = z
  .object({
    signature_name: z.literal('serving_default').optional(),
    instances: z.array(z.unknown()).optional().describe('of each image its pixels, [R, R, 3], normalised; or {"b64": "…"}, an image to decode; either also as the value of `input` or `image`'),
    inputs: z.unknown().optional().describe('in place of `instances`: all pixels, [N, R, R, 3], or a list of {"b64": "…"}; also as the value of `input` or `image`'),
  })
  .meta({ id: 'PredictRequest' });

export interface PredictAsked {
  readonly input: AskedInput;
  /** Whether the client gave columns, and wants them back. */
  readonly columns: boolean;
}

/** @throws BignasError BODY_MALFORMED, TENSOR_INVALID, BODY_TOO_LARGE (too many images) */
export function predictRequest(body: Uint8Array, limits: InputLimits): PredictAsked {
  const value = parseJson(body, 'a predict request in JSON');
  if (!isRecord(value)) throw malformed(value);
  const { signature_name: signature = 'serving_default', instances, inputs } = value;
  if (signature !== 'serving_default') throw new BignasError('BODY_MALFORMED', `Expected \`signature_name\` to be serving_default, the only one, got ${shown(signature)}.`);
  const columns = inputs !== undefined;
  if (columns === (instances !== undefined)) throw malformed(value);
  const given = columns ? column(inputs) : row(instances);
  if (!Array.isArray(given)) throw malformed(value);
  checkCount(given.length, columns ? 'inputs' : 'instances', limits);
  return { input: inputOf(given, body.length), columns };
}

/** The only tensor of the columns, whether it is named or not. */
function column(inputs: unknown): unknown {
  if (!isRecord(inputs)) return inputs;
  return inputs[onlyName(inputs, 'inputs')];
}

function row(instances: unknown): unknown {
  if (!Array.isArray(instances)) return instances;
  return (instances as readonly unknown[]).map((instance) => (isRecord(instance) && !('b64' in instance) ? instance[onlyName(instance, 'instances')] : instance));
}

function onlyName(named: Readonly<Record<string, unknown>>, where: string): string {
  const [name, ...others] = Object.keys(named);
  if ((name === inputName || name === imageName) && others.length === 0) return name;
  throw new BignasError('BODY_MALFORMED', `Expected \`${where}\` to name \`${inputName}\` or \`${imageName}\`, and nothing else, got ${shown(Object.keys(named).slice(0, 4).join(', '))}.`);
}

function inputOf(given: readonly unknown[], bytes: number): AskedInput {
  if (given.some((each) => isRecord(each)))
    return {
      images: given.map((each, i) => {
        if (!isRecord(each) || !('b64' in each)) throw invalid(`instances[${i}]`, '{"b64": "…"} like the others', each);
        return fromBase64(each['b64'], `instances[${i}].b64`, i);
      }),
    };
  const { shape, data } = tensorOf(given, inputName, bytes);
  const [count, height, width, channels] = shape;
  if (shape.length !== 4 || channels !== 3 || height !== width) throw invalid(inputName, 'of shape [N, R, R, 3]', shape);
  return { tensor: { data: channelsFirst({ shape, data }), count: count!, resolution: height! } };
}

/** [N, R, R, 3] to [N, 3, R, R]. */
function channelsFirst({ shape, data }: Tensor): Float32Array<ArrayBuffer> {
  const pixels = shape[1]! * shape[2]!;
  const moved = new Float32Array(data.length);
  for (let image = 0; image < data.length; image += 3 * pixels)
    for (let pixel = 0; pixel < pixels; pixel++) for (let channel = 0; channel < 3; channel++) moved[image + channel * pixels + pixel] = data[image + 3 * pixel + channel]!;
  return moved;
}

function malformed(got: unknown): BignasError {
  return new BignasError('BODY_MALFORMED', `Expected a predict request with either \`instances\` or \`inputs\`, such as {"instances": [{"b64": "…"}]}, got ${shown(got)}.`);
}
