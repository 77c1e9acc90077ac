import type { ChildRecord } from '../../src/checkpoint/frontier.js';
import { describeChild, type ChildDescription } from '../../src/bundle/child.js';
import { findArchitecture } from '../../src/search/find.js';
import { parseArchitecture } from '../../src/space/architecture.js';
import { noQuery, parseQuery } from '../schemas.js';
import type { Services } from '../services.js';
import type { Route } from './route.js';

/** `GET /archs`: the family and the front. */
export function archsRoute(services: Services): Route {
  const { manifest, frontier } = services.checkpoint;
  const shown = ({ architecture }: ChildRecord) =>
    stateOf(services, describeChild(services.checkpoint, parseArchitecture(manifest.space, architecture)));
  return {
    path: '/archs',
    summary: 'the named children and the Pareto front: costs, accuracy, calibration',
    get: [
      function archs(request, response) {
        parseQuery(noQuery, request.query);
        response.json({
          space: manifest.space.name,
          family: Object.fromEntries(Object.entries(frontier.family).map(([name, child]) => [name, shown(child)])),
          front: frontier.front.map(shown),
        });
      },
    ],
  };
}

/** `GET /archs/:arch`: one child of the space, whether the frontier has it or not. */
export function archRoute(services: Services): Route {
  const { checkpoint } = services;
  return {
    path: '/archs/:arch',
    summary: 'one child by name, id or text: costs, accuracy, calibration',
    get: [
      function arch(request, response) {
        parseQuery(noQuery, request.query);
        const architecture = findArchitecture(checkpoint.manifest.space, checkpoint.frontier, request.params['arch'] as string);
        response.json({ ...stateOf(services, describeChild(checkpoint, architecture)), layers: architecture });
      },
    ],
  };
}

/** A child, and how much of it is there already: how long a first request would wait. */
function stateOf({ checkpoint, children }: Services, child: ChildDescription) {
  return {
    ...child,
    calibration: checkpoint.statistics.has(child.id) ? 'in the checkpoint' : children.has(child) ? 'computed' : 'when asked for',
    loaded: children.has(child),
  };
}
