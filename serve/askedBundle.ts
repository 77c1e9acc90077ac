import type { ChildDescription } from '../src/bundle/child.js';
import { outside } from '../src/bundle/delta.js';
import type { BundleOptions } from '../src/bundle/formats.js';
import { frontierChildren, graphOf } from '../src/checkpoint/checkpoint.js';
import { familyNames } from '../src/checkpoint/frontier.js';
import { BignasError } from '../src/errors.js';
import type { AskedBundle } from './bundles.js';
import type { SliceQuery } from './schemas.js';
import type { Served } from './served.js';

/** The bundle that a query asks for: the whole of a child, or what it has beyond another. @throws BignasError DELTA_IMPOSSIBLE, DELTA_NOT_NESTED, or what finding a child throws */
export function askedBundle(served: Served, child: ChildDescription, options: BundleOptions, { have, overlap }: Pick<SliceQuery, 'have' | 'overlap'>): AskedBundle {
  if (have === undefined) return { child, options, have, nested: true };
  if (options.format !== 'safetensors' || options.dtype !== 'float32')
    throw new BignasError('DELTA_IMPOSSIBLE', `Expected \`format=safetensors\` in float32 beside \`have\`: a folded or rounded child cannot yield another; got ${options.format} in ${options.dtype}.`, { parameter: 'format', legal: ['safetensors'] });
  const held = served.find(have, 'have');
  const [from, to] = [graphOf(served.checkpoint, held.architecture), graphOf(served.checkpoint, child.architecture)];
  const over = outside(from, to);
  if (over && overlap !== 'true')
    throw new BignasError(
      'DELTA_NOT_NESTED',
      `Expected a child that nests in ${child.architecture}, but ${over.tensor.name} of ${held.architecture} is [${over.size.join(', ')}], which the other does not hold. Download the whole bundle, or ask with \`overlap=true\` for what the two do not share.`,
      { parameter: 'have', tensor: over.tensor.name, nesting: nestingIn(served, child) },
    );
  return { child, options, have: held, nested: !over };
}

/** Names and ids of the frontier's children that nest in a child. */
function nestingIn({ checkpoint }: Served, child: ChildDescription): string[] {
  const into = graphOf(checkpoint, child.architecture);
  const { family } = checkpoint.frontier;
  const nesting = frontierChildren(checkpoint.frontier).filter(({ id, architecture }) => id !== child.id && !outside(graphOf(checkpoint, architecture), into));
  return nesting.map(({ id }) => familyNames.find((name) => family[name].id === id) ?? id);
}
