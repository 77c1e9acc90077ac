import { CholeskyDecomposition, Matrix } from 'ml-matrix';

/** Values at points, with what is not known about them. */
export interface Prediction {
  readonly mean: number;
  /** Standard deviation of the value itself, without the noise of a measurement. */
  readonly deviation: number;
}

export interface Regression {
  predict(point: readonly number[]): Prediction;
}

/** What the kernel may be; the likeliest is taken. Points are standardised, values too. */
const lengths = [1.5, 3, 6, 12];
const noises = [0.01, 0.03, 0.1, 0.3, 1];
/** Of the linear part of the kernel beside the smooth one. */
const linear = 1;

/**
 * Gaussian process regression (Rasmussen & Williams, 2006, algorithm 2.1): a linear trend and a smooth deviation from it (squared exponential),
 * length and noise by the largest marginal likelihood. O(n³) in the points: made for a few hundred.
 * @param points n points of one number of features @param values n values
 */
export function fitGaussianProcess(points: readonly (readonly number[])[], values: readonly number[]): Regression {
  if (points.length < 2 || points.length !== values.length) throw new Error(`Expected at least two points with a value each, got ${points.length} and ${values.length}.`);
  const scales = points[0]!.map((_, d) => scaleOf(points.map((point) => point[d]!)));
  const standard = (point: readonly number[]): number[] => point.map((v, d) => (v - scales[d]!.mean) / scales[d]!.deviation);
  const x = points.map(standard);
  const scale = scaleOf(values);
  const y = Matrix.columnVector(values.map((v) => (v - scale.mean) / scale.deviation));
  const products = x.map((a) => x.map((b) => dot(a, b)));

  let best: { likelihood: number; length: number; cholesky: CholeskyDecomposition; weights: Matrix } | undefined;
  for (const length of lengths)
    for (const noise of noises) {
      const n = x.length;
      const covariance = new Matrix(n, n);
      for (let i = 0; i < n; i++)
        for (let j = 0; j <= i; j++) {
          const k = kernel(products[i]![i]!, products[j]![j]!, products[i]![j]!, length) + (i === j ? noise : 0);
          covariance.set(i, j, k);
          covariance.set(j, i, k);
        }
      const cholesky = new CholeskyDecomposition(covariance);
      if (!cholesky.isPositiveDefinite()) continue;
      const weights = cholesky.solve(y);
      const half = cholesky.lowerTriangularMatrix.diagonal().reduce((sum, v) => sum + Math.log(v), 0);
      const likelihood = -0.5 * dot(y.to1DArray(), weights.to1DArray()) - half;
      if (!best || likelihood > best.likelihood) best = { likelihood, length, cholesky, weights };
    }
  if (!best) throw new Error('No kernel suits the points: are they finite?');

  const { length, cholesky, weights } = best;
  return {
    predict(point) {
      const at = standard(point);
      const own = dot(at, at);
      const covariances = Matrix.columnVector(x.map((other, i) => kernel(own, products[i]![i]!, dot(at, other), length)));
      const mean = dot(covariances.to1DArray(), weights.to1DArray());
      const variance = kernel(own, own, own, length) - dot(covariances.to1DArray(), cholesky.solve(covariances).to1DArray());
      return { mean: scale.mean + scale.deviation * mean, deviation: scale.deviation * Math.sqrt(Math.max(0, variance)) };
    },
  };
}

/** From the two points' squared norms and their product. The constant stands for the unknown mean. */
function kernel(aa: number, bb: number, ab: number, length: number): number {
  return 1 + linear * ab + Math.exp(-(aa + bb - 2 * ab) / (2 * length ** 2));
}

function scaleOf(values: readonly number[]): { readonly mean: number; readonly deviation: number } {
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  const variance = values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length;
  return { mean, deviation: variance > 0 ? Math.sqrt(variance) : 1 };
}

function dot(a: readonly number[], b: readonly number[]): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
