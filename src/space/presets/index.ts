import { readFileSync } from 'node:fs';
import { BignasError, shown } from '../../errors.js';
import { parseSpace, type MbconvSpace, type SearchSpace } from '../space.js';
import { cifar10 } from './cifar10.js';
import { cifar10Micro } from './cifar10Micro.js';
import { imagenet } from './imagenet.js';
import { tiny } from './tiny.js';

export const presets: Readonly<Record<string, MbconvSpace>> = { imagenet, cifar10, 'cifar10-micro': cifar10Micro, tiny };

/** A preset by name, or a space from a JSON file. @throws BignasError SPACE_INVALID */
export function loadSpace(nameOrFile: string): SearchSpace {
  const preset = Object.hasOwn(presets, nameOrFile) ? presets[nameOrFile] : undefined;
  if (preset) return preset;
  if (!nameOrFile.endsWith('.json'))
    throw new BignasError(
      'SPACE_INVALID',
      `Expected a space to be ${Object.keys(presets).join(', ')} or a .json file, got ${shown(nameOrFile)}.`,
    );
  let data: unknown;
  try {
    data = JSON.parse(readFileSync(nameOrFile, 'utf8'));
  } catch (error) {
    throw new BignasError('SPACE_INVALID', `The space ${shown(nameOrFile)} cannot be read: ${(error as Error).message}`);
  }
  return parseSpace(data);
}
