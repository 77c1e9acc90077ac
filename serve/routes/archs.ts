import { familyNames, type ChildRecord } from '../../src/checkpoint/frontier.js';
import type { Response } from 'express';
import type { ChildDescription } from '../../src/bundle/child.js';
import { archSchema, archsSchema, type ArchAnswer, type ArchsAnswer, type ChildState } from '../answers.js';
import { findArchitecture } from '../../src/search/find.js';
import { noQuery, parseQuery } from '../schemas.js';
import type { Services } from '../services.js';
import { calibrationOf } from './pending.js';
import { servedOf, type Route } from './route.js';

/** `GET /archs`: the family and the front. */
export function archsRoute(services: Services): Route {
  return {
    path: '/archs',
    get: {
      id: 'archs',
      summary: 'the named children and the Pareto front: costs, accuracy, calibration',
      query: noQuery,
      answers: { 200: { description: 'the frontier', content: { 'application/json': archsSchema } } },
      handlers: [
        function archs(request, response) {
          parseQuery(noQuery, request.query);
          const { checkpoint: { manifest, frontier }, describe } = servedOf(response);
          const shown = ({ architecture }: ChildRecord): ChildState => stateOf(services, response, describe(architecture));
          response.json({
            space: manifest.space.name,
            family: Object.fromEntries(familyNames.map((name) => [name, shown(frontier.family[name])])) as ArchsAnswer['family'],
            front: frontier.front.map(shown),
          } satisfies ArchsAnswer);
        },
      ],
    },
  };
}

/** `GET /archs/:arch`: one child of the space, whether the frontier has it or not. */
export function archRoute(services: Services): Route {
  return {
    path: '/archs/:arch',
    get: {
      id: 'arch',
      summary: 'one child by name, id or text: costs, accuracy, calibration',
      query: noQuery,
      answers: { 200: { description: 'the child', content: { 'application/json': archSchema } } },
      handlers: [
        function arch(request, response) {
          parseQuery(noQuery, request.query);
          const { checkpoint, describe } = servedOf(response);
          const architecture = findArchitecture(checkpoint.manifest.space, checkpoint.frontier, request.params['arch'] as string);
          response.json({ ...stateOf(services, response, describe(architecture)), layers: architecture } satisfies ArchAnswer);
        },
      ],
    },
  };
}

function stateOf(services: Services, response: Response, child: ChildDescription): ChildState {
  return { ...child, calibration: calibrationOf(services, response, child), loaded: services.children.stateOf(servedOf(response), child) === 'ready' };
}
