import { join } from 'node:path';
import sharp from 'sharp';
import type { TopLevelSpec } from 'vega-lite';
import { writeFileAtomic } from '../../checkpoint/atomic.js';
import { BignasError } from '../../errors.js';
import { eventsOf, historyFile, readHistory, type History } from './history.js';

/** One run of a plot, as its legend calls it: no two alike. */
export interface PlottedRun {
  readonly name: string;
  readonly history: History;
}

export interface Plot {
  /** Text stays text: a browser takes its own sans-serif. */
  readonly svg: string;
  readonly png: Uint8Array;
}

/** Points of a curve, at most: more cannot be told apart, and make an SVG of megabytes. */
const mostPoints = 1000;
/** Okabe and Ito's colours, which most colour-blind people can tell apart. */
const palette = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000'];
const [width, height] = [560, 260];
/** Pixels of the PNG per pixel of the plot. */
const scale = 2;

/** Plots a run: the validation accuracy of the biggest and the smallest child, and the learning rate, over the epochs (the paper's Figures 2 and 6). */
export function plotHistory(history: History): Promise<Plot> {
  return plotRuns([{ name: '', history }]);
}

/** Plots runs against each other: a colour each, the biggest child's curve solid, the smallest's dashed (as in the paper's Figures 4 to 7). */
export function plotRuns(runs: readonly PlottedRun[]): Promise<Plot> {
  return render(plotSpec(runs));
}

/** Writes `plot.svg` and `plot.png` of the run in a folder, from its history alone. @throws BignasError HISTORY_INVALID */
export async function writePlots(folder: string): Promise<void> {
  const history = await readHistory(folder);
  if (eventsOf(history, 'step').length === 0)
    throw new BignasError('HISTORY_INVALID', `Expected steps to plot in ${join(folder, historyFile)}, but it has none yet. Train on first.`);
  const { svg, png } = await plotHistory(history);
  await writeFileAtomic(join(folder, 'plot.svg'), svg);
  await writeFileAtomic(join(folder, 'plot.png'), png);
}

/** The plot as Vega-Lite has it, with its data: two panels above each other that share the axis of epochs. */
export function plotSpec(runs: readonly PlottedRun[]): TopLevelSpec {
  const accuracies = runs.flatMap(({ name: run, history }) => {
    const steps = eventsOf(history, 'step');
    const epochsPerStep = steps.length > 0 ? steps.at(-1)!.epoch / steps.at(-1)!.step : 0;
    return thinned(eventsOf(history, 'evaluation')).flatMap(({ step, accuracy }) =>
      (['biggest', 'smallest'] as const).map((child) => ({ run, child, epoch: step * epochsPerStep, accuracy: accuracy[child] })),
    );
  });
  const rates = runs.flatMap(({ name: run, history }) => thinned(eventsOf(history, 'step')).map(({ epoch, rate }) => ({ run, epoch, rate })));
  const names = runs.map(({ name }) => name);
  const several = runs.length > 1;

  const domain = [0, Math.max(1, ...rates.map((point) => point.epoch))];
  const epoch = { field: 'epoch', type: 'quantitative', title: 'epoch', scale: { domain } } as const;
  const byRun = { field: 'run', type: 'nominal', title: null, sort: names, scale: { domain: names, range: palette } } as const;
  const children = ['biggest', 'smallest'];
  const byChild = { field: 'child', type: 'nominal', title: null, sort: children } as const;
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    background: 'white',
    config: {
      font: 'sans-serif',
      axis: { labelFontSize: 11, titleFontSize: 12, labelFlush: false },
      axisY: { minExtent: 36 }, // the titles stand above each other
      legend: { labelFontSize: 11, labelLimit: 0, symbolStrokeWidth: 2, symbolSize: 300 },
    },
    vconcat: [
      {
        width,
        height,
        data: { values: accuracies },
        // A curve that has just begun is a point.
        mark: { type: 'line', strokeWidth: 1.5, point: accuracies.length <= 60 * runs.length ? { size: 16 } : false },
        encoding: {
          x: epoch,
          y: { field: 'accuracy', type: 'quantitative', title: 'validation accuracy', axis: { format: '.0%' }, scale: { zero: false } },
          strokeDash: { ...byChild, scale: { domain: children, range: [[1, 0], [5, 3]] } },
          color: several ? byRun : { ...byChild, scale: { domain: children, range: palette } },
        },
      },
      {
        width,
        height: height / 2,
        data: { values: rates },
        mark: { type: 'line', strokeWidth: 1.5 },
        encoding: {
          x: epoch,
          y: { field: 'rate', type: 'quantitative', title: 'learning rate' },
          color: several ? { ...byRun, legend: null } : { value: palette[2]! },
        },
      },
    ],
    resolve: { scale: { color: 'independent', strokeDash: 'independent' } },
  };
}

/** Draws a plot without a browser or a canvas. The PNG's text is drawn in a font of the machine (on one without any, as boxes). */
async function render(spec: TopLevelSpec): Promise<Plot> {
  // Half a second and tens of megabytes, once, at a run's end.
  const [vega, { compile }] = await Promise.all([import('vega'), import('vega-lite')]);
  const legendsBelowEachOther = { legend: { layout: { right: { direction: 'vertical', margin: 8 } } } } as const;
  const view = new vega.View(vega.parse(compile(spec).spec, legendsBelowEachOther), { renderer: 'none' });
  try {
    const svg = await view.toSVG();
    return { svg, png: await sharp(Buffer.from(svg), { density: 72 * scale }).png().toBuffer() };
  } finally {
    view.finalize();
  }
}

/** Every so-manieth point, the last one included. */
function thinned<T>(points: readonly T[]): T[] {
  const every = Math.ceil(points.length / mostPoints);
  return points.filter((_, i) => i % every === 0 || i === points.length - 1);
}
