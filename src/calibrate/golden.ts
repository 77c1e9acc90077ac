import type { Frontier } from '../checkpoint/frontier.js';
import { frontierChildren } from '../checkpoint/checkpoint.js';
import { goldenInput } from '../data/golden.js';
import type { Preprocessing } from '../data/preprocess.js';
import { buildGraph } from '../graph/buildGraph.js';
import type { Engine } from '../graph/engine.js';
import type { Graph } from '../graph/graph.js';
import type { Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import { parseArchitecture } from '../space/architecture.js';
import type { SearchSpace } from '../space/space.js';

/** A child's logits for the golden photograph, [classes]: what a bundle proves itself by. Computed once, when the child is calibrated. */
export async function goldenLogits(engine: Engine, graph: Graph, weights: SharedWeights, statistics: Statistics, preprocessing: Preprocessing): Promise<Float32Array> {
  const child = await engine.load(graph, weights, statistics);
  try {
    return await child.run({ data: goldenInput(preprocessing, graph.nodes[0]!.shape[0]!, 'NCHW'), count: 1 });
  } finally {
    await child.dispose();
  }
}

/** The same for all of a frontier's children that have statistics, by id: what a checkpoint keeps. @throws the signal's reason */
export async function goldenLogitsOf(
  engine: Engine,
  { space, preprocessing, weights }: { readonly space: SearchSpace; readonly preprocessing: Preprocessing; readonly weights: SharedWeights },
  { frontier, statistics }: { readonly frontier: Frontier; readonly statistics: ReadonlyMap<string, Statistics> },
  signal?: AbortSignal,
): Promise<Map<string, Float32Array>> {
  const golden = new Map<string, Float32Array>();
  for (const { id, architecture } of frontierChildren(frontier)) {
    const calibrated = statistics.get(id);
    if (!calibrated) continue;
    signal?.throwIfAborted();
    const graph = buildGraph(space, parseArchitecture(space, architecture));
    golden.set(id, await goldenLogits(engine, graph, weights, calibrated, preprocessing));
  }
  return golden;
}
