import { frontierChildren } from '../checkpoint/checkpoint.js';
import type { ChildRecord, Frontier } from '../checkpoint/frontier.js';
import { latencyPredictor, type LatencyTable } from '../cost/latency.js';
import { buildGraph } from '../graph/buildGraph.js';
import { parseArchitecture } from '../space/architecture.js';
import type { SearchSpace } from '../space/space.js';

/**
 * A frontier with the latencies that a device's table predicts, in place of those that it had.
 * @throws BignasError LATENCY_TABLE_INVALID where the table lacks an operation of the space
 */
export function frontierOnDevice(space: SearchSpace, frontier: Frontier, table: LatencyTable): Frontier {
  const predict = latencyPredictor(table);
  const records = new Map(
    frontierChildren(frontier).map((child): [string, ChildRecord] => {
      const { seconds } = predict(buildGraph(space, parseArchitecture(space, child.architecture)));
      return [child.id, { ...child, costs: { ...child.costs, latency: { value: seconds, how: 'predicted', device: table.device } } }];
    }),
  );
  return mapped(frontier, ({ id }) => records.get(id)!);
}

/** A frontier with each child's record replaced. */
export function mapped({ family, front }: Frontier, replace: (child: ChildRecord) => ChildRecord): Frontier {
  return {
    family: Object.fromEntries(Object.entries(family).map(([name, child]) => [name, replace(child)])) as Frontier['family'],
    front: front.map(replace) as [ChildRecord, ...ChildRecord[]],
  };
}
