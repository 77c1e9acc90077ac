import { z } from 'zod';

const measure = z.strictObject({
  value: z.number().nonnegative(),
  how: z.enum(['measured', 'predicted']),
  device: z.string().optional(),
});

/** Top-1 accuracy, a fraction of `images` images of `split`. */
export const accuracySchema = z.strictObject({
  value: z.number().min(0).max(1),
  split: z.enum(['train', 'validation', 'test']),
  images: z.int().positive(),
});

export const childRecordSchema = z.strictObject({
  id: z.string().regex(/^[0-9a-f]{12}$/),
  architecture: z.string(),
  costs: z.strictObject({
    /** Multiply-adds of one image. */
    flops: measure,
    /** Trainable parameters. */
    params: measure,
  }),
  accuracy: accuracySchema.nullable(),
});

/** The named children, from small to big. */
export const familyNames = ['smallest', 'S', 'M', 'L', 'XL', 'biggest'] as const;
export type FamilyName = (typeof familyNames)[number];

/** `frontier.json`: the named children, and the Pareto front over cost and accuracy. */
export const frontierSchema = z.strictObject({
  family: z.record(z.enum(familyNames), childRecordSchema),
  front: z.array(childRecordSchema).nonempty(),
});

export type ChildRecord = Readonly<z.infer<typeof childRecordSchema>>;
export type Frontier = Readonly<z.infer<typeof frontierSchema>>;
export type Accuracy = Readonly<z.infer<typeof accuracySchema>>;
