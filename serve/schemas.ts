import { z } from 'zod';
import { BignasError, shown } from '../src/errors.js';
import { childWithin, parseCount } from '../src/search/budget.js';
import { findArchitecture, isFamilyName } from '../src/search/find.js';
import { describeChild, type ChildDescription } from '../src/bundle/child.js';
import type { Checkpoint } from '../src/checkpoint/checkpoint.js';
import { parseArchitecture } from '../src/space/architecture.js';

/**
 * What the routes' queries may hold, each said once: the same schemas check the requests and describe the interface. A query's values
 * are texts; what they mean is read by the modules that know (budgets, architectures).
 */
const budget = (what: string) =>
  z.string().optional().describe(`most ${what} of the child: a positive number such as 600M, 1.2G or 5.4e6; not beside \`arch\``);

/** Which child: by name, id or text, or the most accurate within budgets; of all where nothing is said. */
const whichChild = {
  arch: z.string().optional().describe('a family name such as M, an id of the checkpoint, or the text of an architecture'),
  flops: budget('multiply-adds an image'),
  params: budget('trainable parameters'),
};
const budgetNames = ['flops', 'params'] as const;

export const bundleFormats = ['onnx'] as const;

export const predictQuery = z.strictObject({
  ...whichChild,
  top: z
    .string()
    .regex(/^[1-9]\d{0,4}$/, 'expected a whole number from 1')
    .default('5')
    .describe('how many classes of each image come back, the most probable first'),
});

export const sliceQuery = z.strictObject({
  ...whichChild,
  format: z.string().default('onnx').describe(`format of the model in the bundle: ${bundleFormats.join(', ')}`),
});

export const noQuery = z.strictObject({});

/**
 * A route's query, checked.
 * @throws BignasError PARAMETER_INVALID: a parameter that is unknown (with those that are legal), given twice, or not of its form
 */
export function parseQuery<S extends z.ZodObject>(schema: S, query: unknown): z.infer<S> {
  const legal = Object.keys(schema.shape);
  const result = schema.safeParse(query);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  if (issue.code === 'unrecognized_keys') {
    const names = issue.keys.map((key) => shown(key)).join(', ');
    const expected = legal.length > 0 ? `only ${legal.map((name) => `\`${name}\``).join(', ')}` : 'no parameters';
    throw new BignasError('PARAMETER_INVALID', `Expected ${expected}, got ${names}.`, { legal });
  }
  const name = String(issue.path[0]);
  const value = (query as Record<string, unknown>)[name];
  const why = Array.isArray(value) ? 'expected it once' : issue.message;
  throw new BignasError('PARAMETER_INVALID', `\`${name}\`: ${why}, got ${shown(value)}.`, { parameter: name, legal });
}

/** A child, and why it is this one. */
export interface ChosenChild {
  readonly child: ChildDescription;
  readonly choice: 'asked for' | 'most accurate within the budget' | 'most accurate';
}

/**
 * The child that a query asks for; the most accurate one where it says nothing.
 * @throws BignasError PARAMETER_INVALID for `arch` beside a budget, and what reading either of them throws
 */
export function childOf(
  checkpoint: Checkpoint,
  query: { readonly arch?: string | undefined; readonly flops?: string | undefined; readonly params?: string | undefined },
): ChosenChild {
  const { manifest, frontier } = checkpoint;
  const given = budgetNames.filter((name) => query[name] !== undefined);
  if (query.arch !== undefined) {
    if (given.length > 0)
      throw new BignasError('PARAMETER_INVALID', `Expected either \`arch\` or a budget, got \`arch\` and ${given.map((name) => `\`${name}\``).join(', ')}.`, {
        parameter: 'arch',
      });
    const child = describeChild(checkpoint, findArchitecture(manifest.space, frontier, query.arch));
    // A child of two names has the one that it was asked by.
    return { child: isFamilyName(query.arch) ? { ...child, name: query.arch } : child, choice: 'asked for' };
  }
  const limits = Object.fromEntries(given.map((name) => [name, parseCount(name, query[name]!)]));
  const child = describeChild(checkpoint, parseArchitecture(manifest.space, childWithin(frontier, limits).architecture));
  return { child, choice: given.length > 0 ? 'most accurate within the budget' : 'most accurate' };
}
