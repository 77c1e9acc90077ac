import { z } from 'zod';

const measure = z.strictObject({
  value: z.number().nonnegative(),
  how: z.enum(['measured', 'predicted']),
  device: z.string().optional(),
});

/** What a child costs. Computed costs are functions of its graph; `latency` is there where somebody measured or predicted it. */
export const costsSchema = z.strictObject({
  flops: measure.describe('multiply-adds of one image'),
  params: measure.describe('trainable parameters'),
  bytes: measure.describe('size of the ONNX model'),
  memory: measure.describe('peak bytes of activations of one image'),
  latency: measure.optional().describe('seconds for one image, on `device`'),
});

export type Costs = Readonly<z.infer<typeof costsSchema>>;
export type CostName = keyof Costs;
export const costNames = Object.keys(costsSchema.shape) as CostName[];

/** Top-1 accuracy, a fraction of `images` images of `split`. */
export const accuracySchema = z.strictObject({
  value: z.number().min(0).max(1),
  split: z.enum(['train', 'validation', 'test']),
  images: z.int().positive(),
});

export const childRecordSchema = z.strictObject({
  id: z.string().regex(/^[0-9a-f]{12}$/),
  architecture: z.string(),
  costs: costsSchema,
  accuracy: accuracySchema.nullable(),
});

/** The named children, from small to big. */
export const familyNames = ['smallest', 'S', 'M', 'L', 'XL', 'biggest'] as const;
export type FamilyName = (typeof familyNames)[number];

/** The named children, and the Pareto front over each cost and accuracy: `frontier.json`. */
export const frontierSchema = z.strictObject({
  family: z.record(z.enum(familyNames), childRecordSchema),
  front: z.array(childRecordSchema).nonempty(),
});

/** A `frontier.json` as a file may have it: before format version 3 it had `flops` and `params` alone. */
export const storedFrontierSchema = z.strictObject({
  family: z.record(z.enum(familyNames), storedChild()),
  front: z.array(storedChild()).nonempty(),
});

function storedChild() {
  return childRecordSchema.extend({ costs: costsSchema.partial({ bytes: true, memory: true }) });
}

export type ChildRecord = Readonly<z.infer<typeof childRecordSchema>>;
export type Frontier = Readonly<z.infer<typeof frontierSchema>>;
export type Accuracy = Readonly<z.infer<typeof accuracySchema>>;
