/**
 * AutoAugment (Cubuk et al., 2019): policies that were learnt on ImageNet and on CIFAR-10 (tables 9 and 7 of the paper's appendix),
 * with magnitudes 0 … 9 as torchvision and the authors' code have them.
 */
import type { Stream } from '../random.js';
import {
  autoContrast, brightness, colour, contrast, equalize, invert, posterize, rotate, sharpness, shearX, shearY, solarize, translateX, translateY,
} from './imageOperations.js';

interface Operation {
  /** Whether the magnitude's sign is drawn too. */
  readonly signed: boolean;
  /** @param strength the magnitude as a part of the largest, −1 … 1 */
  readonly apply: (image: Uint8Array, side: number, strength: number) => void;
}

/** The longest translation, as a part of the side: 150 pixels of the paper's 331. */
const LONGEST = 150 / 331;

export const operations = {
  ShearX: { signed: true, apply: (image, side, s) => shearX(image, side, 0.3 * s) },
  ShearY: { signed: true, apply: (image, side, s) => shearY(image, side, 0.3 * s) },
  TranslateX: { signed: true, apply: (image, side, s) => translateX(image, side, LONGEST * side * s) },
  TranslateY: { signed: true, apply: (image, side, s) => translateY(image, side, LONGEST * side * s) },
  Rotate: { signed: true, apply: (image, side, s) => rotate(image, side, 30 * s) },
  Brightness: { signed: true, apply: (image, _, s) => brightness(image, 1 + 0.9 * s) },
  Color: { signed: true, apply: (image, _, s) => colour(image, 1 + 0.9 * s) },
  Contrast: { signed: true, apply: (image, _, s) => contrast(image, 1 + 0.9 * s) },
  Sharpness: { signed: true, apply: (image, side, s) => sharpness(image, side, 1 + 0.9 * s) },
  Posterize: { signed: false, apply: (image, _, s) => posterize(image, 8 - Math.round(4 * s)) },
  Solarize: { signed: false, apply: (image, _, s) => solarize(image, 255 - 255 * s) },
  AutoContrast: { signed: false, apply: autoContrast },
  Equalize: { signed: false, apply: equalize },
  Invert: { signed: false, apply: invert },
} as const satisfies Record<string, Operation>;

export type OperationName = keyof typeof operations;

/** Two operations in turn, each with its probability and its magnitude of 0 … 9 (none where it has no strength). */
type SubPolicy = readonly [Step, Step];
type Step = readonly [name: OperationName, probability: number, magnitude?: number];

export const policies = {
  imagenet: [
    [['Posterize', 0.4, 8], ['Rotate', 0.6, 9]],
    [['Solarize', 0.6, 5], ['AutoContrast', 0.6]],
    [['Equalize', 0.8], ['Equalize', 0.6]],
    [['Posterize', 0.6, 7], ['Posterize', 0.6, 6]],
    [['Equalize', 0.4], ['Solarize', 0.2, 4]],
    [['Equalize', 0.4], ['Rotate', 0.8, 8]],
    [['Solarize', 0.6, 3], ['Equalize', 0.6]],
    [['Posterize', 0.8, 5], ['Equalize', 1]],
    [['Rotate', 0.2, 3], ['Solarize', 0.6, 8]],
    [['Equalize', 0.6], ['Posterize', 0.4, 6]],
    [['Rotate', 0.8, 8], ['Color', 0.4, 0]],
    [['Rotate', 0.4, 9], ['Equalize', 0.6]],
    [['Equalize', 0], ['Equalize', 0.8]],
    [['Invert', 0.6], ['Equalize', 1]],
    [['Color', 0.6, 4], ['Contrast', 1, 8]],
    [['Rotate', 0.8, 8], ['Color', 1, 2]],
    [['Color', 0.8, 8], ['Solarize', 0.8, 7]],
    [['Sharpness', 0.4, 7], ['Invert', 0.6]],
    [['ShearX', 0.6, 5], ['Equalize', 1]],
    [['Color', 0.4, 0], ['Equalize', 0.6]],
    [['Equalize', 0.4], ['Solarize', 0.2, 4]],
    [['Solarize', 0.6, 5], ['AutoContrast', 0.6]],
    [['Invert', 0.6], ['Equalize', 1]],
    [['Color', 0.6, 4], ['Contrast', 1, 8]],
    [['Equalize', 0.8], ['Equalize', 0.6]],
  ],
  cifar10: [
    [['Invert', 0.1], ['Contrast', 0.2, 6]],
    [['Rotate', 0.7, 2], ['TranslateX', 0.3, 9]],
    [['Sharpness', 0.8, 1], ['Sharpness', 0.9, 3]],
    [['ShearY', 0.5, 8], ['TranslateY', 0.7, 9]],
    [['AutoContrast', 0.5], ['Equalize', 0.9]],
    [['ShearY', 0.2, 7], ['Posterize', 0.3, 7]],
    [['Color', 0.4, 3], ['Brightness', 0.6, 7]],
    [['Sharpness', 0.3, 9], ['Brightness', 0.7, 9]],
    [['Equalize', 0.6], ['Equalize', 0.5]],
    [['Contrast', 0.6, 7], ['Sharpness', 0.6, 5]],
    [['Color', 0.7, 7], ['TranslateX', 0.5, 8]],
    [['Equalize', 0.3], ['AutoContrast', 0.4]],
    [['TranslateY', 0.4, 3], ['Sharpness', 0.2, 6]],
    [['Brightness', 0.9, 6], ['Color', 0.2, 8]],
    [['Solarize', 0.5, 2], ['Invert', 0]],
    [['Equalize', 0.2], ['AutoContrast', 0.6]],
    [['Equalize', 0.2], ['Equalize', 0.6]],
    [['Color', 0.9, 9], ['Equalize', 0.6]],
    [['AutoContrast', 0.8], ['Solarize', 0.2, 8]],
    [['Brightness', 0.1, 3], ['Color', 0.7, 0]],
    [['Solarize', 0.4, 5], ['AutoContrast', 0.9]],
    [['TranslateY', 0.9, 9], ['TranslateY', 0.7, 9]],
    [['AutoContrast', 0.9], ['Solarize', 0.8, 3]],
    [['Equalize', 0.8], ['Invert', 0.1]],
    [['TranslateY', 0.7, 9], ['AutoContrast', 0.9]],
  ],
} as const satisfies Record<string, readonly SubPolicy[]>;

export type PolicyName = keyof typeof policies;

const LARGEST = 9;

/** Applies one of the policy's 25 pairs of operations, drawn from `draws`, in place to a crop (side × side × 3, uint8). */
export function autoAugment(image: Uint8Array, side: number, policy: PolicyName, draws: Stream): void {
  const pairs: readonly SubPolicy[] = policies[policy];
  for (const [name, probability, magnitude = 0] of pairs[draws.integer(pairs.length)]!) {
    // Both are drawn whatever they decide, so that the first operation does not shift the second one's draws.
    const applied = draws.uniform() < probability;
    const sign = draws.integer(2) === 1 ? 1 : -1;
    const { signed, apply }: Operation = operations[name];
    if (applied) apply(image, side, (signed ? sign : 1) * (magnitude / LARGEST));
  }
}
