import { width, type Value } from '../builder.js';
import type { Graph } from '../graph.js';
import { Blocks } from './blocks.js';
import type { Network, NetworkOptions } from './network.js';

/** Layers of the networks that are stacks of cells with two inputs. Every operation begins with a ReLU. */
class Cells extends Blocks {
  relu(name: string, x: Value): Value {
    return this.b.activation(`${name}.relu`, x, 'relu');
  }

  /** ReLU, convolution, batch norm. */
  reluConv(name: string, x: Value, out: number, kernel = 1, stride = 1): Value {
    return this.conv(name, this.relu(name, x), out, kernel, stride);
  }

  /** Twice: ReLU, depthwise separable convolution, batch norm; the first time with the stride. */
  separable(name: string, x: Value, out: number, kernel: number, stride: number, middle = x.full): Value {
    const half = (part: string, value: Value, channels: number, s: number): Value => {
      const deep = this.b.depthwiseConv2d(`${name}.${part}.depthwise`, this.relu(`${name}.${part}`, value), width(kernel), s);
      return this.conv(`${name}.${part}`, deep, channels, 1, 1);
    };
    return half('second', half('first', x, middle, stride), out, 1);
  }

  /** ReLU, then half of the channels from every other pixel and half from the pixels between. */
  factorisedReduction(name: string, x: Value, out: number): Value {
    const { b } = this;
    const active = this.relu(name, x);
    const path = (part: string, value: Value, channels: number): Value =>
      b.conv2d(`${name}.${part}`, b.averagePool(`${name}.${part}.pool`, value, 1, 2), width(channels), width(1), 1);
    const [first, second] = [path('even', active, Math.floor(out / 2)), path('odd', b.shift(`${name}.shift`, active), out - Math.floor(out / 2))];
    return this.batchNorm(name, b.concatenate(`${name}.concatenate`, [first, second]));
  }
}

/**
 * NASNet-A, 4 @ 1056 (Zoph et al., 2018, figure 4; section A.3's stem of two reduction cells). An input of the other size or width is reduced or projected first.
 */
function nasNetAMobile({ classes, resolution }: NetworkOptions): Graph {
  const n = new NasNetA(1e-3);
  const filters = 1056 / 24;
  const { b } = n;
  const stem = n.conv('stem', b.input(resolution, 3), 32, 3, 2);
  let [before, x]: [Value, Value] = [stem, n.reduction('stem1', stem, undefined, filters / 4)];
  [before, x] = [x, n.reduction('stem2', x, before, filters / 2)];
  [1, 2, 4].forEach((multiple, i) => {
    // A reduction's own input, not its output, is what the cell after the next one looks back on.
    if (i > 0) [before, x] = [x, n.reduction(`reduction${i}`, x, before, filters * multiple)];
    for (let j = 0; j < 4; j++) [before, x] = [x, n.normal(`group${i + 1}.cell${j + 1}`, x, before, filters * multiple)];
  });
  return n.classify(n.relu('head', x), classes);
}

class NasNetA extends Cells {
  normal(name: string, input: Value, before: Value, filters: number): Value {
    const { b } = this;
    const p = this.#adjusted(`${name}.before`, before, input, filters);
    const h = this.reluConv(`${name}.input`, input, filters);
    const separable = (part: string, x: Value, kernel: number): Value => this.separable(`${name}.${part}`, x, filters, kernel, 1, filters);
    const average = (part: string, x: Value): Value => b.averagePool(`${name}.${part}`, x, 3, 1);
    const add = (part: string, x: Value, y: Value): Value => b.add(`${name}.${part}`, x, y);
    return b.concatenate(`${name}.concatenate`, [
      p,
      add('add1', separable('left1', h, 5), separable('right1', p, 3)),
      add('add2', separable('left2', p, 5), separable('right2', p, 3)),
      add('add3', average('left3', h), p),
      add('add4', average('left4', p), average('right4', p)),
      add('add5', separable('left5', h, 3), h),
    ]);
  }

  reduction(name: string, input: Value, before: Value | undefined, filters: number): Value {
    const { b } = this;
    const p = this.#adjusted(`${name}.before`, before ?? input, input, filters);
    const h = this.reluConv(`${name}.input`, input, filters);
    const separable = (part: string, x: Value, kernel: number, stride = 2): Value => this.separable(`${name}.${part}`, x, filters, kernel, stride, filters);
    const add = (part: string, x: Value, y: Value): Value => b.add(`${name}.${part}`, x, y);
    const first = add('add1', separable('left1', h, 5), separable('right1', p, 7));
    const second = add('add2', b.maxPool(`${name}.left2`, h, 3, 2), separable('right2', p, 7));
    const third = add('add3', b.averagePool(`${name}.left3`, h, 3, 2), separable('right3', p, 5));
    const fourth = add('add4', b.averagePool(`${name}.left4`, first, 3, 1), second);
    const fifth = add('add5', separable('left5', first, 3, 1), b.maxPool(`${name}.right5`, h, 3, 2));
    return b.concatenate(`${name}.concatenate`, [second, third, fourth, fifth]);
  }

  /** The input before the last, brought to the last one's size and to `filters` channels. */
  #adjusted(name: string, before: Value, input: Value, filters: number): Value {
    if (before.shape[0] !== input.shape[0]) return this.factorisedReduction(name, before, filters);
    return before.full === filters ? before : this.reluConv(name, before, filters);
  }
}

/** An operation of a DARTS cell, and which of the cell's states it reads. */
type DartsOperation = readonly ['separable3' | 'separable5' | 'dilated3' | 'dilated5' | 'skip' | 'maxPool', number];

/** The genotype of second order (Liu et al., 2019, figures 4 and 5): two operations a node, four nodes. */
const darts: Readonly<Record<'normal' | 'reduction', readonly DartsOperation[]>> = {
  normal: [['separable3', 0], ['separable3', 1], ['separable3', 0], ['separable3', 1], ['separable3', 1], ['skip', 0], ['skip', 0], ['dilated3', 2]],
  reduction: [['maxPool', 0], ['maxPool', 1], ['skip', 2], ['maxPool', 1], ['maxPool', 0], ['skip', 2], ['skip', 2], ['maxPool', 1]],
};

function dartsNetwork({ classes, resolution }: NetworkOptions): Graph {
  const n = new Darts(1e-5);
  const [layers, channels] = [14, 48];
  const { b } = n;
  let x = n.conv('stem1.first', b.input(resolution, 3), channels / 2, 3, 2, 'relu');
  x = n.conv('stem1.second', x, channels, 3, 2);
  let before = x;
  x = n.reluConv('stem2', x, channels, 3, 2);
  let filters = channels;
  let reducedBefore = true;
  for (let i = 0; i < layers; i++) {
    const reduces = i === Math.floor(layers / 3) || i === Math.floor((2 * layers) / 3);
    if (reduces) filters *= 2;
    const next = n.cell(`cell${i + 1}`, before, x, filters, reduces, reducedBefore);
    [before, x, reducedBefore] = [x, next, reduces];
  }
  return n.classify(x, classes);
}

class Darts extends Cells {
  cell(name: string, before: Value, input: Value, filters: number, reduces: boolean, reducedBefore: boolean): Value {
    const states = [
      reducedBefore ? this.factorisedReduction(`${name}.before`, before, filters) : this.reluConv(`${name}.before`, before, filters),
      this.reluConv(`${name}.input`, input, filters),
    ];
    const operations = darts[reduces ? 'reduction' : 'normal'];
    for (let node = 0; node < operations.length / 2; node++) {
      const [left, right] = [0, 1].map((side) => {
        const [operation, from] = operations[2 * node + side]!;
        return this.#operation(`${name}.node${node + 1}.${side === 0 ? 'left' : 'right'}`, operation, states[from]!, filters, reduces && from < 2 ? 2 : 1);
      }) as [Value, Value];
      states.push(this.b.add(`${name}.node${node + 1}.add`, left, right));
    }
    return this.b.concatenate(`${name}.concatenate`, states.slice(2));
  }

  #operation(name: string, operation: DartsOperation[0], x: Value, filters: number, stride: number): Value {
    switch (operation) {
      case 'separable3':
        return this.separable(name, x, filters, 3, stride);
      case 'separable5':
        return this.separable(name, x, filters, 5, stride);
      case 'dilated3':
      case 'dilated5': {
        const deep = this.b.depthwiseConv2d(`${name}.depthwise`, this.relu(name, x), width(operation === 'dilated3' ? 3 : 5), stride, 2);
        return this.conv(name, deep, filters, 1, 1);
      }
      case 'skip':
        return stride === 1 ? x : this.factorisedReduction(name, x, filters);
      case 'maxPool':
        return this.b.maxPool(name, x, 3, stride);
    }
  }
}

export const cellNetworks = {
  'nasnet-a-mobile': {
    title: 'NASNet-A (4 @ 1056)',
    published: { flops: 564e6, params: 5.3e6, resolution: 224, accuracy: 0.74, source: 'Zoph et al., 2018, table 3' },
    build: nasNetAMobile,
  },
  darts: {
    title: 'DARTS (second order)',
    published: { flops: 574e6, params: 4.7e6, resolution: 224, accuracy: 0.733, source: 'Liu et al., 2019, table 3' },
    build: dartsNetwork,
  },
} as const satisfies Record<string, Network>;
