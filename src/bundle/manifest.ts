import { z } from 'zod';
import { accuracySchema, childRecordSchema, costsSchema, familyNames } from '../checkpoint/frontier.js';
import { preprocessingSchema } from '../data/preprocess.js';
import { bundleDtypes, bundleFormats } from './formats.js';

export const bundleFormat = 'bignas-bundle';
/** 2: bytes, memory and latency. 3: formats, golden vector, digest of the calibration crops. */
export const bundleVersion = 3;

const digest = z.string().regex(/^[0-9a-f]{64}$/, 'expected a hex SHA-256');

const tensorSchema = z.strictObject({
  name: z.string(),
  dtype: z.enum(['float32', 'uint8', 'int32']),
  shape: z
    .array(z.union([z.int().positive(), z.enum(['batch', 'height', 'width'])]))
    .describe('`batch` is any number of images, `height` and `width` any size of them'),
  meaning: z.string(),
});

/** `manifest.json` of a bundle. An unknown key is an error. */
export const bundleManifestSchema = z.strictObject({
  format: z.literal(bundleFormat),
  version: z.literal(bundleVersion),
  /** Canonical text; with the space it says all of the network. */
  architecture: z.string(),
  id: childRecordSchema.shape.id,
  name: z.enum(familyNames).nullable().describe('name in the family, where it has one'),
  space: z.strictObject({ name: z.string(), digest }),
  costs: z.strictObject({
    flops: costsSchema.shape.flops.extend({ unit: z.literal('multiply-adds an image') }),
    params: costsSchema.shape.params.extend({ unit: z.literal('trainable parameters') }),
    bytes: costsSchema.shape.bytes.extend({ unit: z.literal('bytes of the model') }),
    memory: costsSchema.shape.memory.extend({ unit: z.literal('peak bytes of activations of one image') }),
    latency: costsSchema.shape.latency.unwrap().extend({ unit: z.literal('seconds for one image') }).optional(),
  }),
  model: z
    .strictObject({
      format: z.enum(bundleFormats),
      dtype: z.enum(bundleDtypes).describe('of the weights; int8: of the weights and most activations'),
      preprocess: z.boolean().describe('whether the model prepares images itself'),
      folded: z.boolean().describe('whether batch norms are folded into the convolutions'),
      files: z.array(z.string()).nonempty(),
    })
    .describe('what the bundle holds'),
  accuracy: accuracySchema.nullable().describe('expected top-1 accuracy, a fraction, measured in float32; null where nobody measured it'),
  test: z
    .strictObject({ value: z.number().min(0).max(1), images: z.int().positive() })
    .nullable()
    .describe('top-1 accuracy on the test split, which neither training nor search looked at, measured in float32'),
  labels: z.array(z.string()).nonempty().describe('class names by output index'),
  preprocessing: preprocessingSchema.safeExtend({
    resolution: z.int().positive().describe('pixels: height and width of the input; the crop is resized to it'),
  }),
  inputs: z.array(tensorSchema).nonempty(),
  outputs: z.array(tensorSchema).nonempty(),
  checkpoint: z.strictObject({ name: z.string(), digest }),
  calibration: z
    .strictObject({
      images: z.int().positive().describe('crops of the checkpoint: as many as there are, of which it takes as many as its statistics need to converge'),
      batch: z.int().positive(),
      crops: digest.describe('SHA-256 of the file of crops, `calibration.safetensors` of the checkpoint'),
      statistics: digest.describe('SHA-256 of the batch-norm statistics that the model has'),
      engine: z
        .strictObject({ name: z.enum(['onnx', 'tensorflow']), version: z.string() })
        .nullable()
        .describe('what computed them; null where they came with the checkpoint'),
    })
    .describe('batch-norm statistics: computed for this child from crops of the checkpoint'),
  golden: z
    .strictObject({
      file: z.literal('golden.safetensors'),
      tolerance: z.number().positive().describe('the highest difference of a probability that counts as right'),
    })
    .describe('proof: an image (`image`), what the model takes for it (`input`), and the answer (`logits`, `probabilities`): of float32 and float16 what float32 gives, of int8 its own'),
  licence: z.string(),
  files: z.record(z.string(), digest).describe('SHA-256 of every other file but SHA256SUMS'),
});

export type BundleManifest = Readonly<z.infer<typeof bundleManifestSchema>>;
