import { key, stream } from '../random.js';
import { elements, type Parameter, type SharedTensor } from './graph.js';

/**
 * The shared weights: every tensor in one flat array, one after the other. Gradients, moments and averages have the same layout, so
 * an optimiser is a loop over flat arrays. A child's parameters are slices of it (`gather`), and its gradients flow back into it
 * (`scatterAdd`).
 */
export class SharedWeights {
  readonly #places: ReadonlyMap<string, { readonly tensor: SharedTensor; readonly offset: number }>;
  readonly data: Float32Array;

  /** @param data in the order of `tensors`; zeros where not given. May lie on shared memory. */
  constructor(
    readonly tensors: readonly SharedTensor[],
    data?: Float32Array,
  ) {
    const places = new Map<string, { tensor: SharedTensor; offset: number }>();
    let offset = 0;
    for (const tensor of tensors) {
      places.set(tensor.name, { tensor, offset });
      offset += elements(tensor.shape);
    }
    if (places.size !== tensors.length) throw new Error('Two shared tensors have one name.');
    if (data && data.length !== offset) throw new Error(`Expected ${offset} weights, got ${data.length}.`);
    this.#places = places;
    this.data = data ?? new Float32Array(offset);
  }

  /** Zeros, or the given values, in the layout of these weights. */
  like(data?: Float32Array): SharedWeights {
    return new SharedWeights(this.tensors, data);
  }

  /** A whole tensor, as a view. */
  tensor(name: string): Float32Array {
    const { tensor, offset } = this.#place(name);
    return this.data.subarray(offset, offset + elements(tensor.shape));
  }

  /** The slice that a parameter names, contiguous, of shape `parameter.size`. A copy. */
  gather(parameter: Parameter): Float32Array {
    const slice = new Float32Array(elements(parameter.size));
    this.#rows(parameter, (from, to, length) => slice.set(this.data.subarray(from, from + length), to));
    return slice;
  }

  /** Adds `scale` times values of shape `parameter.size` into the slice that the parameter names. */
  scatterAdd(parameter: Parameter, values: Float32Array, scale = 1): void {
    if (values.length !== elements(parameter.size))
      throw new Error(`${parameter.tensor.name}: expected ${elements(parameter.size)} values, got ${values.length}.`);
    const { data } = this;
    this.#rows(parameter, (into, from, length) => {
      for (let i = 0; i < length; i++) data[into + i]! += scale * values[from + i]!;
    });
  }

  #rows(parameter: Parameter, visit: (shared: number, slice: number, length: number) => void): void {
    const { tensor, offset } = this.#place(parameter.tensor.name);
    sliceRows(tensor.shape, parameter, (from, to, length) => {
      visit(offset + from, to, length);
    });
  }

  #place(name: string): { readonly tensor: SharedTensor; readonly offset: number } {
    const place = this.#places.get(name);
    if (!place) throw new Error(`No shared tensor is called ${name}.`);
    return place;
  }
}

/**
 * Visits the runs of a slice that are contiguous in its tensor: (offset in the tensor, offset in the slice, length), in elements.
 * @param shape of the tensor
 */
export function sliceRows(shape: readonly number[], { tensor, begin, size }: Parameter, visit: (shared: number, slice: number, length: number) => void): void {
  if (shape.length !== size.length || size.some((n, d) => begin[d]! < 0 || begin[d]! + n > shape[d]!))
    throw new Error(`${tensor.name}: slice [${begin}] + [${size}] does not lie in [${shape}].`);
  // Trailing dimensions that are taken whole join the run.
  let inner = size.length - 1;
  while (inner > 0 && size[inner] === shape[inner]) inner--;
  const tail = elements(shape.slice(inner + 1));
  const length = size[inner]! * tail;
  const strides = shape.map((_, d) => elements(shape.slice(d + 1)));
  const outer = elements(size.slice(0, inner));
  for (let row = 0; row < outer; row++) {
    let rest = row;
    let offset = begin[inner]! * tail;
    for (let d = inner - 1; d >= 0; d--) {
      offset += ((rest % size[d]!) + begin[d]!) * strides[d]!;
      rest = Math.floor(rest / size[d]!);
    }
    visit(offset, row * length, length);
  }
}

/**
 * How residual branches start: at γ = 0, so that a block is its skip (the paper's section 3.1), or at γ = 1, as every other batch
 * norm (plain He initialisation).
 */
export type Initialisation = 'zero-gamma' | 'he';

/** Fresh weights: a function of the seed and each tensor's name. */
export function initialWeights(tensors: readonly SharedTensor[], seed: number, initialisation: Initialisation = 'zero-gamma'): SharedWeights {
  const weights = new SharedWeights(tensors);
  for (const { name, initial } of tensors) {
    const data = weights.tensor(name);
    const draws = stream(key('weights'), seed, key(name));
    switch (initial.kind) {
      case 'constant':
        data.fill(initial.value);
        break;
      case 'residualScale':
        data.fill(initialisation === 'he' ? 1 : 0);
        break;
      case 'normal':
        for (let i = 0; i < data.length; i++) data[i] = draws.normal() * initial.deviation;
        break;
      case 'uniform':
        for (let i = 0; i < data.length; i++) data[i] = (2 * draws.uniform() - 1) * initial.limit;
        break;
    }
  }
  return weights;
}
