import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { eventsOf, readHistory } from '../../src/train/watch/history.js';
import { watchRun } from '../../src/train/watch/watch.js';
import { tensorBoardPython } from '../support/python.js';
import { hearing, steps } from '../support/run.js';

/** Prints the scalars of a folder by tag as [step, value], as TensorBoard keeps them after purging. */
const SCRIPT = `
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0}).Reload()
assert events.file_version == 2.0, events.file_version
print(json.dumps({tag: [[scalar.step, scalar.value] for scalar in events.Scalars(tag)] for tag in events.Tags()["scalars"]}))
`;

let folder: string;
let python: string;

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'bignas-tensorboard-'));
  python = tensorBoardPython();
});
after(() => rmSync(folder, { recursive: true, force: true }));

test('TensorBoard reads what the history has: after two sessions and a rollback, too', async () => {
  const { report } = hearing();
  const first = await watchRun({ folder, step: 0, report });
  await steps(first, 1, 1000);
  await first.evaluation(1000, { biggest: 0.3, smallest: 0.2 });
  await steps(first, 1001, 1200);
  await first.rollback({ from: 1201, to: 1000, salt: 1, reason: 'The loss is NaN.' });
  await steps(first, 1001, 1100);
  await first.close();
  await compare();
  assert.deepEqual(scalars()['accuracy/biggest'], [[1000, Math.fround(0.3)]]);

  const second = await watchRun({ folder, step: 800, report });
  await steps(second, 801, 900);
  await second.evaluation(900, { biggest: 0.7, smallest: 0.6 });
  await second.close();
  await compare();
  assert.deepEqual(scalars()['accuracy/biggest'], [[900, Math.fround(0.7)]]);
  assert.equal(scalars()['loss/biggest']!.length, 900);
});

function scalars(): Record<string, [number, number][]> {
  return JSON.parse(execFileSync(python, ['-c', SCRIPT, join(folder, 'tensorboard')], { encoding: 'utf8', maxBuffer: 2 ** 28 })) as Record<string, [number, number][]>;
}

async function compare(): Promise<void> {
  const history = await readHistory(folder);
  const events = eventsOf(history, 'step');
  const of = (value: (event: (typeof events)[number]) => number): [number, number][] => events.map((event) => [event.step, Math.fround(value(event))]);
  const accuracies = (child: 'biggest' | 'smallest'): [number, number][] => eventsOf(history, 'evaluation').map(({ step, accuracy }) => [step, Math.fround(accuracy[child])]);
  const expected: Record<string, [number, number][]> = {
    'loss/biggest': of(({ losses }) => losses[0]!.loss),
    'loss/random': of(({ losses }) => (losses[1]!.loss + losses[2]!.loss) / 2),
    'loss/smallest': of(({ losses }) => losses[3]!.loss),
    learning_rate: of(({ rate }) => rate),
    images_per_second: of(({ imagesPerSecond }) => imagesPerSecond),
  };
  for (const child of ['biggest', 'smallest'] as const) if (accuracies(child).length > 0) expected[`accuracy/${child}`] = accuracies(child);
  assert.deepEqual(scalars(), expected);
}
