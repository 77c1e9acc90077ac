import request from 'supertest';
import type { ChildRecord } from '../../src/checkpoint/frontier.js';
import { key, stream } from '../../src/random.js';

/** The architecture that a budget is answered with; the code of the error where there is one. */
export async function answerTo(url: string, query: string): Promise<string> {
  const response = await request(url).get(`/slice?${query}`).responseType('arraybuffer');
  if (response.status === 200) return /arch=([^&]+)/.exec(response.get('Content-Location')!)![1]!;
  return (JSON.parse((response.body as Buffer).toString()) as { code: string }).code;
}

/** By brute force: every child that fits, the most accurate, of those the one that costs least, of those the first by id. */
export function expected(children: readonly { readonly record: ChildRecord; readonly cost: number }[], limit: number): string {
  const orderOf = ({ accuracy, costs: { flops, params, memory }, id }: ChildRecord): readonly (number | string)[] => [-accuracy!.value, flops.value, params.value, memory.value, id];
  let best: ChildRecord | undefined;
  for (const { record, cost } of children) {
    if (cost > limit) continue;
    const [had, has] = [best && orderOf(best), orderOf(record)];
    const differs = had?.findIndex((value, i) => value !== has[i]) ?? -1;
    if (!had || (differs >= 0 && has[differs]! < had[differs]!)) best = record;
  }
  return best?.architecture ?? 'BUDGET_TOO_SMALL';
}

/** Fifty budgets from below the least to above the most, and each child's own cost exactly and a hair below. */
export function budgets(costs: readonly number[]): number[] {
  const [least, most] = [Math.min(...costs), Math.max(...costs)];
  const draws = stream(key('limits'));
  return [...Array.from({ length: 50 }, () => least * 0.9 * ((most * 1.2) / least) ** draws.uniform()), ...costs.slice(0, 10), ...costs.slice(0, 10).map((cost) => cost * (1 - 1e-9))];
}
