import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import sharp from 'sharp';
import type { History } from '../src/train/watch/history.js';
import { plotRuns, plottedRun, writePlots } from '../src/train/watch/plot.js';
import { watchRun } from '../src/train/watch/watch.js';
import { hearing, steps, stepsPerEpoch } from './support/run.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bignas-plot-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A run of so many epochs, evaluated after each: both accuracies go from 0 to their highest in a straight line. */
function history(epochs: number, highest: { biggest: number; smallest: number }): History {
  const time = '2026-01-01T00:00:00.000Z';
  return Array.from({ length: epochs * stepsPerEpoch }, (_, i) => i + 1).flatMap((step): History => {
    const epoch = step / stepsPerEpoch;
    const accuracy = { biggest: (highest.biggest * epoch) / epochs, smallest: (highest.smallest * epoch) / epochs };
    return [
      { event: 'step', step, time, epoch, rate: 0.01, losses: [{ child: 'biggest', architecture: 'a', loss: 1 }], imagesPerSecond: 1, seconds: 1 },
      ...(step % stepsPerEpoch === 0 ? [{ event: 'evaluation', step, time, accuracy } as const] : []),
    ];
  });
}

/** The curves of an SVG: colour, whether dashed, and the points. */
function curves(svg: string): { colour: string; dashed: boolean; points: [number, number][] }[] {
  return [...svg.matchAll(/<path [^>]*d="(M[^"]+L[^"]+)" stroke="(#\w+)" stroke-width="1.5"([^>]*)>/g)].map(([, d, colour, rest]) => ({
    colour: colour!,
    dashed: rest!.includes('stroke-dasharray="5,3"'),
    points: [...d!.matchAll(/(-?[\d.]+),(-?[\d.]+)/g)].map(([, x, y]): [number, number] => [Number(x), Number(y)]),
  }));
}

test('a folder gets a plot of its run, as SVG and as PNG, from the history alone', async () => {
  const watch = await watchRun({ folder, step: 0, report: hearing().report });
  await assert.rejects(writePlots(folder), { code: 'HISTORY_INVALID' });
  for (let epoch = 0; epoch < 3; epoch++) {
    await steps(watch, epoch * stepsPerEpoch + 1, (epoch + 1) * stepsPerEpoch);
    await watch.evaluation((epoch + 1) * stepsPerEpoch, { biggest: 0.3 + epoch / 10, smallest: 0.2 + epoch / 10 });
  }
  await watch.close();
  await writePlots(folder);
  const svg = readFileSync(join(folder, 'plot.svg'), 'utf8');
  for (const text of ['validation accuracy', 'learning rate', 'epoch', 'biggest', 'smallest', '30%']) assert.ok(svg.includes(`>${text}</text>`), text);
  const [biggest, smallest, rate, ...others] = curves(svg);
  assert.deepEqual([biggest!.points.length, smallest!.points.length, rate!.points.length, others.length], [3, 3, 30, 0]);
  assert.deepEqual([biggest!.dashed, smallest!.dashed], [false, true]);
  assert.ok(biggest!.points.every(([, y], i) => y < smallest!.points[i]![1]), 'higher is better, and up');

  const png = await sharp(join(folder, 'plot.png')).stats();
  const { width, height } = await sharp(join(folder, 'plot.png')).metadata();
  assert.ok(width > 1000 && height > 800, `${width} × ${height}`);
  assert.ok(png.isOpaque && png.channels[0]!.min < 50 && png.channels[0]!.max === 255);
});

test('accuracies stand at their epochs', async () => {
  const { svg } = await plotRuns([plottedRun('one', history(4, { biggest: 0.8, smallest: 0.4 }))]);
  const [biggest, smallest] = curves(svg);
  // 560 pixels for 4 epochs; the axis begins at 0.
  assert.deepEqual(biggest!.points.map(([x]) => x), [140, 280, 420, 560]);
  const falls = (points: [number, number][]): number => points[0]![1] - points.at(-1)![1];
  assert.ok(Math.abs(falls(biggest!.points) / falls(smallest!.points) - 2) < 1e-3);
});

test('several runs have a colour each, and one name each in the legend', async () => {
  const runs = [
    plottedRun('He <init>', history(4, { biggest: 0.8, smallest: 0.6 })),
    plottedRun('zero γ', history(8, { biggest: 0.7, smallest: 0.5 })),
  ];
  const { svg } = await plotRuns(runs);
  for (const text of ['He &lt;init&gt;', 'zero γ', 'biggest', 'smallest']) assert.equal(svg.split(`>${text}</text>`).length, 2, text);
  const legend = [...svg.matchAll(/<path [^>]*d="M-[\d.]+,0L[\d.]+,0"([^>]*)>/g)].map(([, rest]) => rest!.includes('stroke-dasharray="5,3"'));
  assert.deepEqual(legend, [false, false, false, true], 'a stroke a run, then one for the biggest and a dashed one for the smallest');
  const drawn = curves(svg).map(({ colour, dashed, points }) => `${colour} ${dashed ? 'dashed' : 'solid'} ${points.length}`);
  assert.deepEqual(drawn.sort(), ['#0072b2 dashed 4', '#0072b2 solid 4', '#0072b2 solid 40', '#d55e00 dashed 8', '#d55e00 solid 80', '#d55e00 solid 8'].sort());
});

test('a long run does not make a large plot', async () => {
  const { svg } = await plotRuns([plottedRun('long', history(3000, { biggest: 0.8, smallest: 0.6 }))]);
  assert.ok(curves(svg).every(({ points }) => points.length > 500 && points.length <= 1001));
  assert.ok(!existsSync(join(folder, 'plot.svg')));
});
