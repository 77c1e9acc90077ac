/** Whether two sides compute the same: without that, their times say nothing. */
import { join } from 'node:path';
import { readFloats, type Plan } from './plan.js';
import type { Side } from './side.js';

/** How far one side is from the other, relative to the other. */
export interface Deviation {
  readonly what: string;
  readonly relative: number;
}

/** What float32 sums in another order may differ by, with room; a wrong padding or a forgotten term is far beyond. */
export const tolerance = 1e-3;

/** A side's state: weights, mean square, momentum and average, flat. */
interface State {
  readonly weights: Float32Array;
  readonly meanSquare: Float32Array;
  readonly momentum: Float32Array;
  readonly average: Float32Array;
}

interface Trace {
  readonly losses: readonly (readonly number[])[];
  /** After the first step and after the second. */
  readonly states: readonly [State, State];
}

/** Runs two steps (of a plan without dropout, whose masks the sides draw differently) on both and compares losses, gradient and update. */
export async function compareSides(ours: Side, theirs: Side, plan: Plan, start: Float32Array, folder: string): Promise<Deviation[]> {
  const [a, b] = [await traceOf(ours, folder), await traceOf(theirs, folder)];
  return deviations(a, b, plan, start);
}

async function traceOf(side: Side, folder: string): Promise<Trace> {
  const one = async (): Promise<{ losses: readonly (readonly number[])[]; state: State }> => {
    const { losses } = await side.run(1);
    const file = join(folder, 'state.bin');
    await side.save(file);
    return { losses, state: split(await readFloats(file)) };
  };
  const [first, second] = [await one(), await one()];
  return { losses: [...first.losses, ...second.losses], states: [first.state, second.state] };
}

function split(flat: Float32Array): State {
  const n = flat.length / 4;
  const part = (i: number): Float32Array => flat.subarray(i * n, (i + 1) * n);
  return { weights: part(0), meanSquare: part(1), momentum: part(2), average: part(3) };
}

/** @param start the weights that both sides started from */
export function deviations(ours: Trace, theirs: Trace, { recipe, steps }: Pick<Plan, 'recipe' | 'steps'>, start: Float32Array): Deviation[] {
  const losses = theirs.losses.flatMap((children, step) =>
    children.map((loss, i) => ({
      what: `loss of step ${step + 1}, child ${steps[step]!.children[i]!}`,
      relative: Math.abs(ours.losses[step]![i]! - loss) / Math.abs(loss),
    })),
  );
  const [[a1, a2], [b1, b2]] = [ours.states, theirs.states];
  // The first step's summed gradient: RMSProp's momentum was zero before it, so v = rate · g / √(ms + ε).
  const gradient = ({ momentum, meanSquare }: State): Float32Array =>
    momentum.map((v, i) => (v / steps[0]!.rate) * Math.sqrt(meanSquare[i]! + recipe.rmsprop.epsilon));
  const change = (after: Float32Array): Float32Array => after.map((w, i) => w - start[i]!);
  return [
    ...losses,
    { what: 'summed gradient of step 1', relative: distance(gradient(a1), gradient(b1)) },
    { what: 'mean square after step 1', relative: distance(a1.meanSquare, b1.meanSquare) },
    { what: 'change of the weights in two steps', relative: distance(change(a2.weights), change(b2.weights)) },
    { what: 'change of their average in two steps', relative: distance(change(a2.average), change(b2.average)) },
  ];
}

/** ‖a − b‖ / ‖b‖ */
function distance(a: Float32Array, b: Float32Array): number {
  let [difference, norm] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    difference += (a[i]! - b[i]!) ** 2;
    norm += b[i]! ** 2;
  }
  return a.length === b.length ? Math.sqrt(difference / norm) : Infinity;
}

/** Those out of tolerance; a NaN is. */
export function outOfTolerance(all: readonly Deviation[]): Deviation[] {
  return all.filter(({ relative }) => !(relative <= tolerance));
}
