import { join } from 'node:path';
import sharp from 'sharp';
import type { TopLevelSpec } from 'vega-lite';
import { writeFileAtomic } from '../files/atomic.js';

export interface Plot {
  /** Text stays text: a browser takes its own sans-serif. */
  readonly svg: string;
  readonly png: Uint8Array;
}

/** Okabe and Ito's colours, which most colour-blind people can tell apart. */
export const palette = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000'];

/** What all plots have alike. */
export const plotStyle = {
  $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
  background: 'white',
  config: {
    font: 'sans-serif',
    axis: { labelFontSize: 11, titleFontSize: 12, labelFlush: false },
    axisY: { minExtent: 36 }, // the titles of plots above each other
    legend: { labelFontSize: 11, labelLimit: 0, symbolStrokeWidth: 2, symbolSize: 300 },
  },
} as const;

/** Pixels of the PNG per pixel of the plot. */
const scale = 2;

/** Draws a plot without a browser or a canvas. The PNG's text is drawn in a font of the machine (on one without any, as boxes). */
export async function drawPlot(spec: TopLevelSpec): Promise<Plot> {
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

/** Writes `NAME.svg` and `NAME.png`. */
export async function writePlot(folder: string, name: string, { svg, png }: Plot): Promise<void> {
  await writeFileAtomic(join(folder, `${name}.svg`), svg);
  await writeFileAtomic(join(folder, `${name}.png`), png);
}
