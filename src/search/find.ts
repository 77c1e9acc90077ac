import { frontierChildren } from '../checkpoint/checkpoint.js';
import { familyNames, type FamilyName, type Frontier } from '../checkpoint/frontier.js';
import { BignasError, shown } from '../errors.js';
import { parseArchitecture, type Architecture } from '../space/architecture.js';
import type { SearchSpace } from '../space/space.js';

/**
 * The architecture that a user names: a family name (`M`), an id of the frontier (12 hex digits) or a canonical text.
 * @param parameter that names it, for the error
 * @throws BignasError ARCHITECTURE_UNKNOWN for a name or an id that is not there, ARCHITECTURE_MALFORMED or
 * ARCHITECTURE_OUTSIDE_SPACE for a text that is no child of the space
 */
export function findArchitecture(space: SearchSpace, frontier: Frontier, text: string, parameter = 'arch'): Architecture {
  const named = isFamilyName(text) ? frontier.family[text] : frontierChildren(frontier).find(({ id }) => id === text);
  if (named) return parseArchitecture(space, named.architecture);
  // Whatever begins like a canonical text is read as one, so that its error says what is wrong with it.
  if (text.includes('_') || /^r\d/.test(text)) return parseArchitecture(space, text);
  throw new BignasError(
    'ARCHITECTURE_UNKNOWN',
    `Expected \`${parameter}\` to be a name (${familyNames.join(', ')}), an id of this checkpoint or an architecture's text, got ${shown(text)}.`,
    { parameter, legal: { names: familyNames, ids: frontierChildren(frontier).map(({ id }) => id) } },
  );
}

export function isFamilyName(text: string): text is FamilyName {
  return (familyNames as readonly string[]).includes(text);
}

