import { join } from 'node:path';
import type { TopLevelSpec } from 'vega-lite';
import { BignasError } from '../../errors.js';
import { drawPlot, palette, plotStyle, writePlot, type Plot } from '../../plot/plot.js';
import { eventsOf, historyFile, readHistory, type History } from './history.js';

/** One run of a plot. */
export interface PlottedRun {
  /** As the legend calls it: no two alike. */
  readonly name: string;
  /** Of the averaged weights on the validation images, fractions. */
  readonly accuracies: readonly { readonly epoch: number; readonly child: 'biggest' | 'smallest'; readonly accuracy: number }[];
  readonly rates: readonly { readonly epoch: number; readonly rate: number }[];
}

/** Points of a curve, at most: more cannot be told apart, and make an SVG of megabytes. */
const mostPoints = 1000;
const [width, height] = [560, 260];

/** Plots a run: the validation accuracy of the biggest and the smallest child, and the learning rate, over the epochs (the paper's Figures 2 and 6). */
export function plotHistory(history: History): Promise<Plot> {
  return plotRuns([plottedRun('', history)]);
}

/** A run as a plot takes it, from its history. */
export function plottedRun(name: string, history: History): PlottedRun {
  const steps = eventsOf(history, 'step');
  const epochs = new Map(steps.map(({ step, epoch }) => [step, epoch])); // not in proportion where the batch changed on the way
  const epochsPerStep = steps.length > 0 ? steps.at(-1)!.epoch / steps.at(-1)!.step : 0;
  const accuracies = eventsOf(history, 'evaluation').flatMap(({ step, accuracy }) =>
    (['biggest', 'smallest'] as const).map((child) => ({ epoch: epochs.get(step) ?? step * epochsPerStep, child, accuracy: accuracy[child] })),
  );
  return { name, accuracies, rates: steps };
}

/** Plots runs against each other: a colour each, the biggest child's curve solid, the smallest's dashed (as in the paper's Figures 4 to 7). */
export function plotRuns(runs: readonly PlottedRun[]): Promise<Plot> {
  return drawPlot(plotSpec(runs));
}

/** Writes `plot.svg` and `plot.png` of the run in a folder, from its history alone. @throws BignasError HISTORY_INVALID */
export async function writePlots(folder: string): Promise<void> {
  const history = await readHistory(folder);
  if (eventsOf(history, 'step').length === 0)
    throw new BignasError('HISTORY_INVALID', `Expected steps to plot in ${join(folder, historyFile)}, but it has none yet. Train on first.`);
  await writePlot(folder, 'plot', await plotHistory(history));
}

/** The plot as Vega-Lite has it, with its data: two panels above each other that share the axis of epochs. */
export function plotSpec(runs: readonly PlottedRun[]): TopLevelSpec {
  const accuracies = runs.flatMap(({ name: run, accuracies: points }) =>
    (['biggest', 'smallest'] as const).flatMap((child) => thinned(points.filter((point) => point.child === child)).map(({ epoch, accuracy }) => ({ run, child, epoch, accuracy }))),
  );
  const rates = runs.flatMap(({ name: run, rates: points }) => thinned(points).map(({ epoch, rate }) => ({ run, epoch, rate })));
  const names = runs.map(({ name }) => name);
  const several = runs.length > 1;

  const domain = [0, Math.max(1, ...rates.map((point) => point.epoch))];
  const epoch = { field: 'epoch', type: 'quantitative', title: 'epoch', scale: { domain } } as const;
  const legend = { symbolType: 'stroke' } as const; // a point has no dashes
  const byRun = { field: 'run', type: 'nominal', title: null, sort: names, legend, scale: { domain: names, range: palette } } as const;
  const children = ['biggest', 'smallest'];
  const byChild = { field: 'child', type: 'nominal', title: null, sort: children, legend } as const;
  return {
    ...plotStyle,
    vconcat: [
      {
        width,
        height,
        data: { values: accuracies },
        // A curve that has just begun is a point.
        mark: { type: 'line', strokeWidth: 1.5, point: accuracies.length <= 60 * runs.length ? { size: 16, filled: false } : false },
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

/** Every so-manieth point, the last one included. */
function thinned<T>(points: readonly T[]): T[] {
  const every = Math.ceil(points.length / mostPoints);
  return points.filter((_, i) => i % every === 0 || i === points.length - 1);
}
