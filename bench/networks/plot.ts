/** Draws docs/networks.svg: published accuracy over multiply-adds as we count them, of the networks of the literature and of the paper's own family. */
import { fileURLToPath } from 'node:url';
import { flops } from '../../src/cost/cost.js';
import { writeFileAtomic } from '../../src/files/atomic.js';
import { networks } from '../../src/graph/networks/index.js';
import { drawPlot, palette, plotStyle } from '../../src/plot/plot.js';

/** BigNAS's own children (Yu et al., 2020, table 1 and figure 3), as published. */
const bignas = [[242, 0.765], [418, 0.789], [586, 0.795], [1040, 0.809]] as const;

const family = 'BigNAS, as its paper publishes';
const others = "others, each as its own paper publishes";
const values = [
  ...bignas.map(([megaflops, accuracy], i) => ({ group: family, name: `BigNAS-${['S', 'M', 'L', 'XL'][i]!}`, megaflops, accuracy })),
  ...Object.values(networks).map(({ title, published: { resolution, accuracy }, build }) => ({ group: others, name: title, megaflops: flops(build({ classes: 1000, resolution })) / 1e6, accuracy })),
];
const encoding = {
  x: { field: 'megaflops', type: 'quantitative', title: 'multiply-adds of one image, millions', scale: { type: 'log', nice: false, padding: 30 } },
  y: { field: 'accuracy', type: 'quantitative', title: 'ImageNet top-1 accuracy, published', axis: { format: '.0%' }, scale: { zero: false, padding: 10 } },
} as const;
const { svg } = await drawPlot({
  ...plotStyle,
  title: { text: 'Networks of the literature', anchor: 'start', fontSize: 13 },
  width: 760,
  height: 480,
  data: { values },
  layer: [
    {
      mark: { type: 'point', filled: true, size: 40 },
      encoding: { ...encoding, color: { field: 'group', type: 'nominal', title: null, sort: [family, others], scale: { domain: [family, others], range: palette }, legend: { orient: 'bottom' } } },
    },
    { transform: [{ filter: { field: 'group', equal: family } }], mark: { type: 'line', color: palette[0]!, strokeWidth: 1.5 }, encoding },
    { mark: { type: 'text', align: 'left', dx: 6, dy: -4, fontSize: 9 }, encoding: { ...encoding, text: { field: 'name' } } },
  ],
});
await writeFileAtomic(fileURLToPath(new URL('../../../docs/networks.svg', import.meta.url)), svg);
