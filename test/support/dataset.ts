import { memorySplit, type Dataset } from '../../src/data/dataset.js';
import { stream } from '../../src/random.js';

/** Images of `classes` kinds (each a colour and a gradient of its own, with noise) that a small network learns in a few steps. */
export function syntheticDataset(classes: number, crop: number, count: { train: number; validation: number; test: number }): Dataset {
  const split = (name: 'train' | 'validation' | 'test'): Dataset['splits']['train'] => {
    const draws = stream(77, name.length);
    const labels = Array.from({ length: count[name] }, (_, i) => i % classes);
    const pixels = Uint8Array.from({ length: count[name] * crop * crop * 3 }, (_, i) => {
      const label = labels[Math.floor(i / (crop * crop * 3))]!;
      const [row, channel] = [Math.floor(i / (crop * 3)) % crop, i % 3];
      return Math.max(0, Math.min(255, 128 + 60 * Math.cos(label * 2 + channel) + (label % 2 ? 4 : -4) * (row - crop / 2) + 25 * draws.normal()));
    });
    return memorySplit(name, pixels, labels, crop);
  };
  return {
    name: 'synthetic',
    source: 'made in the test',
    classes: Array.from({ length: classes }, (_, i) => `class ${i}`),
    preprocessing: {
      shorterSide: crop,
      crop,
      resize: { kernel: 'bicubic', a: -0.5, halfPixelCentres: true, antialias: true },
      rounding: 'uint8-after-crop',
      mean: [0.5, 0.5, 0.5],
      deviation: [0.25, 0.25, 0.25],
      colour: 'RGB',
    },
    splits: { train: split('train'), validation: split('validation'), test: split('test') },
    augmentation: 'flip',
    digest: '0'.repeat(64),
  };
}
