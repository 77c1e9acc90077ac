import type { TopLevelSpec } from 'vega-lite';
import type { ChildRecord } from '../checkpoint/frontier.js';
import { drawPlot, palette, plotStyle, type Plot } from '../plot/plot.js';

/** A group of measured children in one colour. */
export interface PlottedChildren {
  readonly name: string;
  readonly children: readonly ChildRecord[];
  /** Joined by a line in the order of their multiply-adds. Default: points alone. */
  readonly line?: boolean;
}

/** Accuracy over multiply-adds (as in the paper's Figures 3 and 8), a colour each group. */
export function plotChildren(title: string, groups: readonly PlottedChildren[]): Promise<Plot> {
  return drawPlot(childrenSpec(title, groups));
}

/** The plot as Vega-Lite has it, with its data. */
export function childrenSpec(title: string, groups: readonly PlottedChildren[]): TopLevelSpec {
  const names = groups.map(({ name }) => name);
  const valuesOf = ({ name, children }: PlottedChildren): object[] =>
    children.flatMap(({ accuracy, architecture, costs }) => (accuracy ? [{ group: name, architecture, megaflops: costs.flops.value / 1e6, accuracy: accuracy.value }] : []));
  const split = groups.flatMap(({ children }) => children.flatMap(({ accuracy }) => accuracy?.split ?? [])).at(0);
  const encoding = {
    x: { field: 'megaflops', type: 'quantitative', title: 'multiply-adds of one image, millions', scale: { type: 'log', nice: false, padding: 10 } },
    y: { field: 'accuracy', type: 'quantitative', title: `top-1 accuracy, ${split ?? ''} images`, axis: { format: '.0%' }, scale: { zero: false } },
    color: { field: 'group', type: 'nominal', title: null, sort: names, scale: { domain: names, range: palette } },
  } as const;
  const lines = groups.filter(({ line }) => line).flatMap(valuesOf);
  return {
    ...plotStyle,
    title: { text: title, anchor: 'start', fontSize: 13 },
    width: 560,
    height: 360,
    layer: [
      { data: { values: groups.flatMap(valuesOf) }, mark: { type: 'point', filled: true, size: 26, opacity: 0.75 }, encoding },
      ...(lines.length > 0 ? [{ data: { values: lines }, mark: { type: 'line', strokeWidth: 1.5 }, encoding } as const] : []),
    ],
  };
}
