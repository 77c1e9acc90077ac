import { z } from 'zod';
import { BignasError } from '../errors.js';
import { isNetworkSpace } from './kind.js';
import { networkNames } from './networkNames.js';

/** Bounds hold what a file may ask of a reader, and keep every value within what an architecture's text can say. */
const positive = (most: number) => z.int().positive().max(most);
const choices = (what: string, most: number) =>
  z
    .array(positive(most))
    .nonempty()
    .max(1024)
    .refine((list) => list.every((value, i) => i === 0 || value > list[i - 1]!), `${what} must ascend`);

const stageSchema = z.strictObject({
  /** Inverted residual block (MBConv): 1×1 expansion, depthwise convolution, squeeze-and-excitation, 1×1 projection. */
  operator: z.literal('mbconv'),
  /** Width of the depthwise convolution over the width of the block's input. */
  expansion: positive(64),
  /** Of the stage's first layer; the others have 1. */
  stride: z.union([z.literal(1), z.literal(2)]),
  /** Legal output channels of a layer. */
  channels: choices('channels', 65_536),
  /** Legal numbers of layers. */
  depths: choices('depths', 64),
  /** Legal depthwise kernel sizes of a layer, odd and from 3: at stride 2 a 1×1 kernel is not the centre of a larger one. */
  kernels: choices('kernels', 31).refine((list) => list.every((k) => k % 2 === 1 && k >= 3), 'kernels must be odd and at least 3'),
});

const spaceName = z.string().regex(/^[a-z0-9][a-z0-9.-]{0,31}$/, 'name must be 1 to 32 of a–z, 0–9, . and -');

/** A space of inverted residual blocks as data (the paper's Table 1). An unknown key is an error. */
const mbconvSchema = z
  .strictObject({
    name: spaceName,
    /** Number of classes that the network tells apart. */
    classes: positive(100_000),
    /** Legal input sizes in pixels (square), those not trained included. */
    resolutions: choices('resolutions', 4096),
    /** The input sizes trained: the smallest child takes the first, the biggest the last, random ones those between. */
    trainResolutions: choices('trainResolutions', 4096),
    stem: z.strictObject({ channels: choices('channels', 65_536), kernel: positive(31), stride: z.union([z.literal(1), z.literal(2)]) }),
    stages: z.array(stageSchema).nonempty().max(64),
    head: z.strictObject({ channels: choices('channels', 65_536) }),
    /** Width of a squeeze-and-excitation bottleneck over the width of the block's input. */
    squeezeExcitation: z.number().positive().max(1),
    /** ε of every batch norm. */
    batchNormEpsilon: z.number().positive(),
  })
  .refine(trainsLegal, { message: 'trainResolutions must be among resolutions', path: ['trainResolutions'] });

/** A network of the literature as a space: of its widths, where it is made for several (a slimmable network), else of itself alone. */
const networkSchema = z
  .strictObject({
    name: spaceName,
    network: z.enum(networkNames),
    classes: positive(100_000),
    resolutions: choices('resolutions', 4096),
    trainResolutions: choices('trainResolutions', 4096),
    /** Legal width multipliers; all share the weights of the widest. */
    widths: z
      .array(z.number().positive().max(4))
      .nonempty()
      .max(64)
      .refine((list) => list.every((value, i) => i === 0 || value > list[i - 1]!), 'widths must ascend'),
  })
  .refine(trainsLegal, { message: 'trainResolutions must be among resolutions', path: ['trainResolutions'] });

function trainsLegal(space: { readonly resolutions: readonly number[]; readonly trainResolutions: readonly number[] }): boolean {
  return space.trainResolutions.every((r) => space.resolutions.includes(r));
}

export type MbconvSpace = Readonly<z.infer<typeof mbconvSchema>>;
export type NetworkSpace = Readonly<z.infer<typeof networkSchema>>;
export type SearchSpace = MbconvSpace | NetworkSpace;
export type StageSpace = MbconvSpace['stages'][number];

/** A search space as data; its errors are those of the kind of space that the data claim to be. */
export const spaceSchema = z.unknown().transform((data, context): SearchSpace => {
  const named = typeof data === 'object' && data !== null && 'network' in data;
  const result = (named ? networkSchema : mbconvSchema).safeParse(data);
  if (result.success) return result.data;
  for (const issue of result.error.issues) context.issues.push({ ...issue, input: data } as (typeof context.issues)[number]);
  return z.NEVER;
});

/** Checks data that claims to be a search space. @throws BignasError SPACE_INVALID, naming the field. */
export function parseSpace(data: unknown): SearchSpace {
  const result = spaceSchema.safeParse(data);
  if (result.success) return result.data;
  throw new BignasError('SPACE_INVALID', `The search space is not valid:\n${z.prettifyError(result.error)}`);
}

/** How many architectures the space holds: layer-wise choices within a stage, summed over its depths. */
export function countArchitectures(space: SearchSpace): bigint {
  if (isNetworkSpace(space)) return BigInt(space.resolutions.length * space.widths.length);
  const stages = space.stages.map((stage) => {
    const layer = BigInt(stage.channels.length * stage.kernels.length);
    return stage.depths.reduce((sum, depth) => sum + layer ** BigInt(depth), 0n);
  });
  const rest = BigInt(space.resolutions.length * space.stem.channels.length * space.head.channels.length);
  return stages.reduce((product, n) => product * n, rest);
}
