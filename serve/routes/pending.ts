import type { Request, Response } from 'express';
import type { ChildDescription } from '../../src/bundle/child.js';
import type { PendingAnswer } from '../answers.js';
import type { Services } from '../services.js';
import { servedOf } from './route.js';

/** How much of a child is there: how long a first request for it would wait. */
export function calibrationOf({ children }: Pick<Services, 'children'>, response: Response, child: ChildDescription): 'in the checkpoint' | 'computed' | 'under way' | 'when asked for' {
  const served = servedOf(response);
  if (served.checkpoint.statistics.has(child.id)) return 'in the checkpoint';
  if (served.calibrated.has(child.id)) return 'computed';
  return children.stateOf(served, child) === 'making' ? 'under way' : 'when asked for';
}

/**
 * Where the client would rather not wait (`Prefer: respond-async`, RFC 7240) for a child that has yet to be calibrated: has it made, and answers 202 with the
 * place that tells when it is there.
 * @returns whether it has answered
 * @throws BignasError OVERLOADED: what is made in the background has a place among the requests that compute
 */
export function answerPending(services: Services, request: Request, response: Response, child: ChildDescription): boolean {
  if (!prefersAsync(request.get('prefer'))) return false;
  const state = calibrationOf(services, response, child);
  if (state === 'in the checkpoint' || state === 'computed') return false;
  const served = servedOf(response);
  if (state === 'when asked for') {
    const { admission, children, inService, logger } = services;
    const leave = admission.enter();
    const held = inService.hold(served); // the answer is sent long before
    void children
      .build(served, child)
      .catch((error: unknown) => {
        logger.warn({ err: error, architecture: child.architecture }, 'a child could not be made in the background');
      })
      .finally(() => {
        held();
        leave();
      });
  }
  const poll = `/archs/${child.architecture}`;
  response
    .status(202)
    .set({ Location: poll, 'Preference-Applied': 'respond-async', 'Retry-After': '1' })
    .json({ state: 'pending', architecture: child.architecture, poll } satisfies PendingAnswer);
  return true;
}

function prefersAsync(prefer: string | undefined): boolean {
  return (prefer ?? '').split(',').some((preference) => preference.split(';', 1)[0]!.trim().toLowerCase() === 'respond-async');
}
