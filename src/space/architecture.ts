import { BignasError, shown } from '../errors.js';
import { isNetworkSpace } from './kind.js';
import type { MbconvSpace, SearchSpace } from './space.js';

/** One layer of a stage: its depthwise kernel size and its output channels. */
export interface Layer {
  readonly kernel: number;
  readonly channels: number;
}

/** One point of a space of inverted residual blocks. */
export interface MbconvArchitecture {
  /** Input height and width in pixels. */
  readonly resolution: number;
  /** Output channels of the stem convolution. */
  readonly stem: number;
  /** Per stage its layers; a stage's depth is their number. */
  readonly stages: readonly (readonly Layer[])[];
  /** Output channels of the head convolution. */
  readonly head: number;
}

/** One point of a network's space. */
export interface NetworkArchitecture {
  readonly resolution: number;
  /** Width multiplier. */
  readonly width: number;
}

/** One point of a search space. An immutable value; its canonical text says all of it. */
export type Architecture = MbconvArchitecture | NetworkArchitecture;

/**
 * The canonical text: `r32_c16_3x8_3x16-3x16_…_c320`, or `r224_w0.75` of a network. URL-safe, and `parseArchitecture` gives the same value back.
 */
export function formatArchitecture(architecture: Architecture): string {
  if ('width' in architecture) return `r${architecture.resolution}_w${architecture.width}`;
  const { resolution, stem, stages, head } = architecture;
  const fields = stages.map((layers) => layers.map(({ kernel, channels }) => `${kernel}x${channels}`).join('-'));
  return [`r${resolution}`, `c${stem}`, ...fields, `c${head}`].join('_');
}

/**
 * Reads a canonical text and checks it against the space.
 * @throws BignasError ARCHITECTURE_MALFORMED or ARCHITECTURE_OUTSIDE_SPACE; its details name the field at fault and what is legal there.
 */
export function parseArchitecture(space: MbconvSpace, text: string): MbconvArchitecture;
export function parseArchitecture(space: SearchSpace, text: string): Architecture;
export function parseArchitecture(space: SearchSpace, text: string): Architecture {
  const example = formatArchitecture(smallest(space));
  const malformed = (expected: string, details: Record<string, unknown> = {}): BignasError =>
    new BignasError('ARCHITECTURE_MALFORMED', `Expected ${expected}, got ${shown(text)}.`, { ...details, example });

  if (isNetworkSpace(space)) {
    const match = /^r([1-9]\d{0,3})_w(\d{1,2}(?:\.\d{1,4})?)$/.exec(text);
    if (!match) throw malformed(`a resolution and a width multiplier such as \`${example}\``);
    return checkArchitecture(space, { resolution: Number(match[1]), width: Number(match[2]) });
  }

  const fields = text.split('_');
  const wanted = space.stages.length + 3;
  if (fields.length !== wanted)
    throw malformed(
      `an architecture of ${wanted} fields joined by \`_\` (resolution, stem, ${space.stages.length} stages, head) such as \`${example}\``,
    );
  const number = (field: string | undefined, pattern: RegExp, expected: string, details: Record<string, unknown>): number => {
    const match = pattern.exec(field ?? '');
    if (!match) throw malformed(`${expected} but not \`${shown(field ?? '').replaceAll('`', '')}\``, details);
    return Number(match[1]);
  };
  const resolution = number(fields[0], /^r([1-9]\d{0,3})$/, 'the first field to be a resolution such as `r32`', {
    field: 'resolution',
    legal: { resolutions: space.resolutions },
  });
  const stem = number(fields[1], /^c([1-9]\d{0,4})$/, 'the second field to be the stem\'s channels such as `c16`', {
    field: 'stem',
    legal: { channels: space.stem.channels },
  });
  const head = number(fields.at(-1), /^c([1-9]\d{0,4})$/, 'the last field to be the head\'s channels such as `c320`', {
    field: 'head',
    legal: { channels: space.head.channels },
  });
  const stages = fields.slice(2, -1).map((field, i) =>
    field.split('-').map((layer): Layer => {
      const match = /^([1-9]\d?)x([1-9]\d{0,4})$/.exec(layer);
      if (!match)
        throw malformed(`stage ${i + 1} to be layers such as \`3x16-5x24\` (kernel x channels)`, stageDetails(space, i));
      return { kernel: Number(match[1]), channels: Number(match[2]) };
    }),
  );
  return checkArchitecture(space, { resolution, stem, stages, head });
}

/** @throws BignasError ARCHITECTURE_OUTSIDE_SPACE where a value is not legal in the space. Returns the architecture. */
export function checkArchitecture(space: MbconvSpace, architecture: MbconvArchitecture): MbconvArchitecture;
export function checkArchitecture(space: SearchSpace, architecture: Architecture): Architecture;
export function checkArchitecture(space: SearchSpace, architecture: Architecture): Architecture {
  const check: Check = (what, value, legal, details) => {
    if (legal.includes(value)) return;
    throw new BignasError('ARCHITECTURE_OUTSIDE_SPACE', `Expected ${what} to be ${listed(legal)}, got ${value}.`, details);
  };
  check('the resolution', architecture.resolution, space.resolutions, {
    field: 'resolution',
    legal: { resolutions: space.resolutions },
  });
  if (isNetworkSpace(space)) {
    const { width } = architecture as NetworkArchitecture;
    check('the width', width, space.widths, { field: 'width', legal: { widths: space.widths } });
    return architecture;
  }
  checkLayers(space, architecture as MbconvArchitecture, check);
  return architecture;
}

type Check = (what: string, value: number, legal: readonly number[], details: Record<string, unknown>) => void;

function checkLayers(space: MbconvSpace, architecture: MbconvArchitecture, check: Check): void {
  check('the stem\'s channels', architecture.stem, space.stem.channels, {
    field: 'stem',
    legal: { channels: space.stem.channels },
  });
  check('the head\'s channels', architecture.head, space.head.channels, {
    field: 'head',
    legal: { channels: space.head.channels },
  });
  check('the number of stages', architecture.stages.length, [space.stages.length], { field: 'stages' });
  space.stages.forEach((stage, i) => {
    const layers = architecture.stages[i]!;
    const details = stageDetails(space, i);
    check(`the number of layers of stage ${i + 1}`, layers.length, stage.depths, details);
    layers.forEach(({ kernel, channels }, j) => {
      check(`the kernel of stage ${i + 1}, layer ${j + 1}`, kernel, stage.kernels, details);
      check(`the channels of stage ${i + 1}, layer ${j + 1}`, channels, stage.channels, details);
    });
  });
}

function stageDetails(space: MbconvSpace, i: number): Record<string, unknown> {
  const { depths, channels, kernels } = space.stages[i]!;
  return { field: `stage ${i + 1}`, legal: { depths, channels, kernels } };
}

function listed(legal: readonly number[]): string {
  if (legal.length === 1) return String(legal[0]);
  return `${legal.slice(0, -1).join(', ')} or ${legal.at(-1)}`;
}

/** Every dimension at its least; at the lowest trained resolution. */
export function smallest(space: MbconvSpace): MbconvArchitecture;
export function smallest(space: SearchSpace): Architecture;
export function smallest(space: SearchSpace): Architecture {
  return uniform(space, (list) => list[0]!, space.trainResolutions[0]);
}

/** Every dimension at its most; at the highest trained resolution. It holds every shared weight. */
export function biggest(space: MbconvSpace): MbconvArchitecture;
export function biggest(space: SearchSpace): Architecture;
export function biggest(space: SearchSpace): Architecture {
  return uniform(space, (list) => list.at(-1)!, space.trainResolutions.at(-1));
}

/** The architecture whose every dimension is what `pick` takes from the legal values. */
export function uniform(space: SearchSpace, pick: (legal: readonly number[]) => number, resolution = pick(space.resolutions)): Architecture {
  if (isNetworkSpace(space)) return { resolution, width: pick(space.widths) };
  return {
    resolution,
    stem: pick(space.stem.channels),
    stages: space.stages.map((stage) => {
      const layer: Layer = { kernel: pick(stage.kernels), channels: pick(stage.channels) };
      return Array.from({ length: pick(stage.depths) }, () => layer);
    }),
    head: pick(space.head.channels),
  };
}
