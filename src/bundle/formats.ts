import { BignasError, shown } from '../errors.js';
import { containers, type Container } from '../encoding/container.js';

/** What a bundle's model is written for. */
export const bundleFormats = ['onnx', 'tfjs', 'savedmodel', 'safetensors'] as const;
export type BundleFormat = (typeof bundleFormats)[number];

export const bundleDtypes = ['float32', 'float16', 'int8'] as const;
export type BundleDtype = (typeof bundleDtypes)[number];

/** What of a child a bundle holds, and how. With the child and its statistics it says every byte. */
export interface BundleOptions {
  readonly format: BundleFormat;
  readonly dtype: BundleDtype;
  /** Whether the model takes images as they are and prepares them itself. */
  readonly preprocess: boolean;
  readonly container: Container;
}

export const defaultBundle: BundleOptions = { format: 'onnx', dtype: 'float32', preprocess: false, container: 'zip' };

/** What each format can be had in. */
export const abilities: Readonly<Record<BundleFormat, { readonly runtime: string; readonly dtypes: readonly BundleDtype[]; readonly preprocess: boolean }>> = {
  onnx: { runtime: 'ONNX Runtime', dtypes: ['float32', 'float16', 'int8'], preprocess: true },
  tfjs: { runtime: 'TensorFlow.js, in a browser or in Node', dtypes: ['float32', 'float16'], preprocess: true },
  savedmodel: { runtime: 'TensorFlow, TensorFlow Serving; converts to TensorFlow Lite', dtypes: ['float32', 'float16'], preprocess: true },
  safetensors: { runtime: 'plain weights, nothing folded: to train further, to update by deltas, to write other formats', dtypes: ['float32', 'float16'], preprocess: false },
};

/** The highest difference of a probability from the golden vector's that counts as right. Of int8, whose golden vector is its own: runtimes join its operators differently. */
export const tolerances: Readonly<Record<BundleDtype, number>> = { float32: 1e-4, float16: 1e-2, int8: 0.05 };

/**
 * What texts ask for, checked. What is not said has its default.
 * @throws BignasError FORMAT_UNKNOWN or PARAMETER_INVALID, with the legal values
 */
export function bundleOptions({ format = defaultBundle.format, dtype = defaultBundle.dtype, preprocess = 'false', container = defaultBundle.container }: { readonly [K in keyof BundleOptions]?: string | undefined }): BundleOptions {
  const known = oneOf('format', format, bundleFormats, 'FORMAT_UNKNOWN');
  const able = abilities[known];
  const of = oneOf('dtype', dtype, bundleDtypes, 'PARAMETER_INVALID');
  if (!able.dtypes.includes(of)) throw illegal('dtype', `one that ${known} has: ${able.dtypes.join(', ')}`, dtype, able.dtypes, 'PARAMETER_INVALID');
  const prepares = oneOf('preprocess', preprocess, ['false', 'true'] as const, 'PARAMETER_INVALID') === 'true';
  if (prepares && !able.preprocess) throw illegal('preprocess', `false: ${known} holds weights and no program`, preprocess, ['false'], 'PARAMETER_INVALID');
  return { format: known, dtype: of, preprocess: prepares, container: oneOf('container', container, containers, 'PARAMETER_INVALID') };
}

/** The options as a query, canonical: only what is not the default, and the format always. */
export function bundleQuery({ format, dtype, preprocess, container }: BundleOptions): string {
  const parts = [`format=${format}`];
  if (dtype !== defaultBundle.dtype) parts.push(`dtype=${dtype}`);
  if (preprocess) parts.push('preprocess=true');
  if (container !== defaultBundle.container) parts.push(`container=${container}`);
  return parts.join('&');
}

/** A bundle's file name: of one child, a name for each format, dtype and preprocessing, so that downloads do not replace each other. @param have id of the child that a delta leads from */
export function bundleName(space: string, id: string, { format, dtype, preprocess, container }: BundleOptions, have?: string): string {
  const parts = ['bignas', space, id, ...(have === undefined ? [] : ['from', have])];
  if (format !== defaultBundle.format) parts.push(format);
  if (dtype !== defaultBundle.dtype) parts.push(dtype);
  if (preprocess) parts.push('preprocess');
  return `${parts.join('-')}.${container}`;
}

function oneOf<T extends string>(name: string, got: string, legal: readonly T[], code: 'FORMAT_UNKNOWN' | 'PARAMETER_INVALID'): T {
  const found = legal.find((value) => value === got);
  if (found !== undefined) return found;
  throw illegal(name, legal.join(', '), got, legal, code);
}

function illegal(parameter: string, expected: string, got: string, legal: readonly string[], code: 'FORMAT_UNKNOWN' | 'PARAMETER_INVALID'): BignasError {
  return new BignasError(code, `Expected \`${parameter}\` to be ${expected}, got ${shown(got)}.`, { parameter, legal });
}
