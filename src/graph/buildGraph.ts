import { biggest, type Architecture, type MbconvArchitecture, type NetworkArchitecture } from '../space/architecture.js';
import type { MbconvSpace, SearchSpace, StageSpace } from '../space/space.js';
import { isNetworkSpace } from '../space/kind.js';
import { GraphBuilder, width, type Value, type Width } from './builder.js';
import { parameters, type Graph, type SharedTensor } from './graph.js';
import { networks } from './networks/index.js';

/**
 * The network of one architecture: the one place that knows how it is wired (the paper's Table 1 and section 3.1).
 *
 * The wiring depends on the space alone, so that slicing equals masking: whether a skip pools or projects is decided by strides and
 * channel ranges, never by a child's own widths. The architecture decides the slices: lower-index channels of every layer,
 * lower-index layers of every stage, the centre of every kernel.
 */
export function buildGraph(space: SearchSpace, architecture: Architecture): Graph {
  if (!isNetworkSpace(space)) return mbconvGraph(space, architecture as MbconvArchitecture);
  const { resolution, width: used } = architecture as NetworkArchitecture;
  return networks[space.network].build({ classes: space.classes, resolution, width: { used, full: space.widths.at(-1)! } });
}

function mbconvGraph(space: MbconvSpace, architecture: MbconvArchitecture): Graph {
  const b = new GraphBuilder();
  const epsilon = space.batchNormEpsilon;

  let x = b.input(architecture.resolution, 3);
  x = b.conv2d('stem.conv', x, within(space.stem.channels, architecture.stem), width(space.stem.kernel), space.stem.stride);
  x = b.batchNorm('stem.bn', x, epsilon);
  x = b.swish('stem.swish', x);

  let range: readonly number[] = space.stem.channels;
  space.stages.forEach((stage, i) => {
    architecture.stages[i]!.forEach((layer, j) => {
      const skip = j > 0 ? identity : transition(stage, range);
      const out = within(stage.channels, layer.channels);
      const name = `stage${i + 1}.layer${j + 1}`;
      const residual = mbconv(b, name, x, space, stage, out, within(stage.kernels, layer.kernel), j === 0 ? stage.stride : 1);
      x = b.add(`${name}.add`, residual, skip(b, `${name}.skip`, x, out, epsilon));
    });
    range = stage.channels;
  });

  x = b.conv2d('head.conv', x, within(space.head.channels, architecture.head), width(1), 1);
  x = b.batchNorm('head.bn', x, epsilon);
  x = b.swish('head.swish', x);
  x = b.globalAveragePool('head.pool', x);
  x = b.dropout('head.dropout', x);
  b.dense('classifier', x, space.classes);
  return b.build();
}

/** Every tensor of the shared weights: the biggest child uses them all, whole. */
export function sharedTensors(space: SearchSpace): SharedTensor[] {
  return parameters(buildGraph(space, biggest(space))).map((parameter) => parameter.tensor);
}

/** The residual branch. Its last batch norm starts at γ = 0, so a block starts as its skip (section 3.1, "Initialization"). */
function mbconv(
  b: GraphBuilder,
  name: string,
  input: Value,
  space: MbconvSpace,
  stage: StageSpace,
  out: Width,
  kernel: Width,
  stride: number,
): Value {
  const epsilon = space.batchNormEpsilon;
  const channels = input.shape.at(-1)!;
  let x = input;
  if (stage.expansion > 1) {
    x = b.conv2d(`${name}.expand.conv`, x, width(channels * stage.expansion, x.full * stage.expansion), width(1), 1);
    x = b.batchNorm(`${name}.expand.bn`, x, epsilon);
    x = b.swish(`${name}.expand.swish`, x);
  }
  x = b.depthwiseConv2d(`${name}.depthwise.conv`, x, kernel, stride);
  x = b.batchNorm(`${name}.depthwise.bn`, x, epsilon);
  x = b.swish(`${name}.depthwise.swish`, x);
  const bottleneck = (c: number): number => Math.max(1, Math.round(c * space.squeezeExcitation));
  x = b.squeezeExcite(`${name}.se`, x, width(bottleneck(channels), bottleneck(input.full)));
  x = b.conv2d(`${name}.project.conv`, x, out, width(1), 1);
  return b.batchNorm(`${name}.project.bn`, x, epsilon, { gamma: { kind: 'residualScale' } });
}

type Skip = (b: GraphBuilder, name: string, x: Value, out: Width, epsilon: number) => Value;

const identity: Skip = (b, name, x, out) => b.fitChannels(`${name}.fit`, x, out);

/** The skip across a stage transition: 2×2 average pooling where the stride is 2, a 1×1 convolution where the ranges differ. */
function transition(stage: StageSpace, rangeBefore: readonly number[]): Skip {
  const project = rangeBefore.join() !== stage.channels.join();
  return (b, name, x, out, epsilon) => {
    const pooled = stage.stride === 2 ? b.averagePool(`${name}.pool`, x, 2, 2, true) : x;
    if (!project) return identity(b, name, pooled, out, epsilon);
    return b.batchNorm(`${name}.bn`, b.conv2d(`${name}.conv`, pooled, out, width(1), 1, true), epsilon, { transition: true });
  };
}

function within(legal: readonly number[], used: number): Width {
  return width(used, legal.at(-1));
}
