/**
 * What the routes answer, each said once: the types of the answers and of the client, and the schemas of `GET /openapi.json`, come
 * from here.
 */
import { z } from 'zod';
import { accuracySchema, childRecordSchema, costsSchema, familyNames } from '../src/checkpoint/frontier.js';
import { preprocessingSchema } from '../src/data/preprocess.js';
import { errorCatalogue, type ErrorCode } from '../src/errors.js';

const codes = Object.keys(errorCatalogue) as [ErrorCode, ...ErrorCode[]];
const milliseconds = z.number().nonnegative();
const hexDigest = z.string().regex(/^[0-9a-f]{64}$/);

export const childSchema = z
  .object({
    id: childRecordSchema.shape.id,
    architecture: z.string().describe('canonical text'),
    name: z.enum(familyNames).optional().describe('name in the family, where it has one'),
    resolution: z.int().positive().describe('pixels: height and width of the input'),
    costs: costsSchema,
    accuracy: accuracySchema.nullable().describe('top-1 accuracy on validation images; null where nobody measured it'),
    test: z.object({ value: z.number(), images: z.int() }).nullable().describe('top-1 accuracy on the test images'),
  })
  .meta({ id: 'Child' });

export const classSchema = z.object({ label: z.string(), index: z.int().nonnegative(), probability: z.number().min(0).max(1) }).meta({ id: 'ClassProbability' });

export const predictionSchema = childSchema
  .extend({
    choice: z.enum(['asked for', 'most accurate within the budget', 'most accurate', 'most accurate in time']).describe('why it is this child'),
    predictions: z.array(z.object({ file: z.string().optional().describe('name of the file, as the form had it'), classes: z.array(classSchema).describe('the most probable first') })),
    deadline: z
      .object({
        asked: milliseconds,
        expected: milliseconds.describe('what was foreseen when the child was chosen'),
        took: milliseconds,
        met: z.boolean(),
        slid: z.boolean().describe('whether an idle server would have taken a more accurate child'),
      })
      .optional(),
    batch: z.int().positive().describe('images that ran together, those of other requests included'),
    milliseconds: z.object({ read: milliseconds, decode: milliseconds, ready: milliseconds.describe('until the child was there'), run: milliseconds.describe('its turn awaited'), total: milliseconds }),
  })
  .meta({ id: 'Prediction' });

export const imagesBodySchema = z.strictObject({ images: z.array(z.base64()).nonempty().describe('images as base64') }).meta({ id: 'Images' });

export const childStateSchema = childSchema
  .extend({
    calibration: z.enum(['in the checkpoint', 'computed', 'under way', 'when asked for']).describe('whether its batch-norm statistics are there'),
    loaded: z.boolean().describe('whether it is in memory'),
  })
  .meta({ id: 'ChildState' });

export const archsSchema = z.object({ space: z.string(), family: z.record(z.enum(familyNames), childStateSchema), front: z.array(childStateSchema) }).meta({ id: 'Architectures' });
export const archSchema = childStateSchema.extend({ layers: z.unknown().describe('the architecture as data') }).meta({ id: 'Architecture' });

export const spaceAnswerSchema = z
  .object({
    checkpoint: z.object({ name: z.string(), digest: hexDigest }),
    space: z.looseObject({ name: z.string(), classes: z.int(), resolutions: z.array(z.int()) }).describe('the legal values'),
    digest: z.string(),
    architectures: z.string().describe('how many there are, in decimal digits'),
    labels: z.array(z.string()),
    preprocessing: preprocessingSchema,
  })
  .meta({ id: 'Space' });

export const indexSchema = z
  .object({
    server: z.literal('bignas'),
    checkpoint: z.string(),
    space: z.string(),
    classes: z.int(),
    routes: z.array(z.object({ path: z.string(), methods: z.array(z.string()), summary: z.string() })),
  })
  .meta({ id: 'Index' });

export const pendingSchema = z.object({ state: z.literal('pending'), architecture: z.string(), poll: z.string().describe('path that tells how far it is') }).meta({ id: 'Pending' });

export const reloadedSchema = z
  .object({ result: z.enum(['ok', 'unchanged']), digest: hexDigest, previous: hexDigest, prebuilt: z.int().describe('children that were ready before the first request came') })
  .meta({ id: 'Reloaded' });

export const errorsSchema = z.object({ errors: z.array(z.object({ id: z.string(), code: z.enum(codes), status: z.int(), title: z.string() })) }).meta({ id: 'ErrorCatalogue' });

export const problemSchema = z
  .looseObject({ type: z.string(), title: z.string(), status: z.int(), detail: z.string(), code: z.enum(codes), requestId: z.string() })
  .meta({ id: 'Problem', description: 'RFC 9457' });

/** Under /v1 and /v2. */
export const protocolErrorSchema = z.object({ error: z.string() }).meta({ id: 'ProtocolError' });

export const liveSchema = z.object({ live: z.boolean() }).meta({ id: 'Live' });
export const readySchema = z.object({ ready: z.boolean() }).meta({ id: 'Ready' });

/** The Open Inference Protocol's answers. */
const tensorMetadata = z.object({ name: z.string(), datatype: z.string(), shape: z.array(z.int()).describe('-1: any length') });
export const serverMetadataSchema = z.object({ name: z.string(), version: z.string(), extensions: z.array(z.string()) }).meta({ id: 'ServerMetadata' });
export const modelMetadataSchema = z
  .object({ name: z.string(), versions: z.array(z.string()), platform: z.string(), inputs: z.array(tensorMetadata), outputs: z.array(tensorMetadata) })
  .meta({ id: 'ModelMetadata' });
export const repositorySchema = z.array(z.object({ name: z.string(), version: z.string(), state: z.string(), reason: z.string() })).meta({ id: 'RepositoryIndex' });
export const inferAnswerSchema = z
  .object({
    model_name: z.string(),
    model_version: z.string(),
    id: z.string().optional(),
    parameters: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).describe('which child answered, and why'),
    outputs: z.array(
      z.object({
        name: z.string(),
        datatype: z.enum(['FP32', 'BYTES']),
        shape: z.array(z.int()),
        parameters: z.object({ binary_data_size: z.int() }).optional(),
        data: z.array(z.union([z.number(), z.string()])).optional().describe('where it is not behind the JSON'),
      }),
    ),
  })
  .meta({ id: 'InferAnswer' });

/** TensorFlow Serving's answers. */
export const modelStatusSchema = z
  .object({ model_version_status: z.array(z.object({ version: z.string(), state: z.string(), status: z.object({ error_code: z.string(), error_message: z.string() }) })) })
  .meta({ id: 'ModelStatus' });
const signatureTensors = z.record(
  z.string(),
  z.object({ dtype: z.string(), tensor_shape: z.object({ dim: z.array(z.object({ size: z.string(), name: z.string() })), unknown_rank: z.boolean() }), name: z.string() }),
);
export const servingMetadataSchema = z
  .object({
    model_spec: z.object({ name: z.string(), signature_name: z.string(), version: z.string() }),
    metadata: z.object({ signature_def: z.object({ signature_def: z.record(z.string(), z.object({ inputs: signatureTensors, outputs: signatureTensors, method_name: z.string() })) }) }),
  })
  .meta({ id: 'ServingMetadata' });
export const servingPredictSchema = z
  .union([z.object({ predictions: z.array(z.array(z.number())) }), z.object({ outputs: z.array(z.array(z.number())) })])
  .meta({ id: 'ServingPrediction' });

export type PredictionAnswer = z.infer<typeof predictionSchema>;
export type ChildState = z.infer<typeof childStateSchema>;
export type ArchsAnswer = z.infer<typeof archsSchema>;
export type ArchAnswer = z.infer<typeof archSchema>;
export type SpaceAnswer = z.infer<typeof spaceAnswerSchema>;
export type IndexAnswer = z.infer<typeof indexSchema>;
export type PendingAnswer = z.infer<typeof pendingSchema>;
export type ReloadedAnswer = z.infer<typeof reloadedSchema>;
export type ErrorsAnswer = z.infer<typeof errorsSchema>;
export type ProblemAnswer = z.infer<typeof problemSchema>;
export type ModelMetadata = z.infer<typeof modelMetadataSchema>;
export type InferAnswer = z.infer<typeof inferAnswerSchema>;
export type ModelStatus = z.infer<typeof modelStatusSchema>;
export type ServingMetadata = z.infer<typeof servingMetadataSchema>;
export type ServingPredict = z.infer<typeof servingPredictSchema>;
