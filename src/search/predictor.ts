import { costOf } from '../cost/cost.js';
import { buildGraph } from '../graph/buildGraph.js';
import { key, permutation } from '../random.js';
import type { Architecture } from '../space/architecture.js';
import type { SearchSpace } from '../space/space.js';
import { fitGaussianProcess, type Prediction } from './gaussianProcess.js';

/** An architecture and its measured top-1 accuracy. */
export interface Sample {
  readonly architecture: Architecture;
  readonly accuracy: number;
}

/** Accuracy of a child from its architecture, learned from children that were measured. */
export interface AccuracyPredictor {
  predict(architecture: Architecture): Prediction;
}

/** Children that are fitted, at most: the time grows with their cube. Of more, so many at equal distances in the order given. */
const mostSamples = 400;

/** Of fewer than two samples the predictor says what it has. */
export function fitPredictor(space: SearchSpace, samples: readonly Sample[]): AccuracyPredictor {
  if (samples.length < 2) return { predict: () => ({ mean: samples[0]?.accuracy ?? 0, deviation: Infinity }) };
  const fitted = samples.length <= mostSamples ? samples : Array.from({ length: mostSamples }, (_, i) => samples[Math.floor((i * samples.length) / mostSamples)]!);
  const regression = fitGaussianProcess(
    fitted.map(({ architecture }) => features(space, architecture)),
    fitted.map(({ accuracy }) => accuracy),
  );
  return { predict: (architecture) => regression.predict(features(space, architecture)) };
}

/**
 * What is known of an architecture without running it: resolution; per stage its depth, mean width and mean kernel; the head's width; the
 * logarithms of multiply-adds and parameters. A dimension that a space does not vary is constant, and says nothing.
 */
function features(space: SearchSpace, architecture: Architecture): number[] {
  const { flops, params } = costOf(buildGraph(space, architecture));
  const { resolution } = architecture;
  const common = [Math.log(flops), Math.log(params), Math.log(resolution)];
  if ('width' in architecture) return [...common, architecture.width];
  const { stem, stages, head } = architecture;
  const mean = (values: readonly number[]): number => values.reduce((sum, v) => sum + v, 0) / values.length;
  return [
    ...common,
    stem,
    head,
    ...stages.flatMap((layers) => [layers.length, mean(layers.map(({ channels }) => channels)), mean(layers.map(({ kernel }) => kernel))]),
  ];
}

/** How well a predictor ranks and how far it is off. */
export interface PredictorError {
  /** Children that were predicted without having been fitted. */
  readonly children: number;
  /** Kendall's τ-b between predicted and measured accuracy: 1 for the same order. */
  readonly kendall: number;
  /** Mean absolute error, a fraction as accuracies are. */
  readonly meanAbsolute: number;
}

/** The error on samples that the predictor has not seen. */
export function predictorError(predictor: AccuracyPredictor, samples: readonly Sample[]): PredictorError {
  return errorOf(samples.map(({ architecture, accuracy }) => ({ predicted: predictor.predict(architecture).mean, measured: accuracy })));
}

/** The error by cross-validation: every sample is predicted from the other folds. Where there is only one, none is predicted. */
export function crossValidatedError(space: SearchSpace, samples: readonly Sample[], folds = 5): PredictorError {
  const order = permutation(samples.length, key('folds'));
  const foldOf = new Map([...order].map((sample, place) => [samples[sample]!, place % folds]));
  return errorOf(
    Array.from({ length: folds }, (_, fold) => {
      const others = samples.filter((sample) => foldOf.get(sample) !== fold);
      if (others.length === 0) return [];
      const predictor = fitPredictor(space, others);
      return samples.filter((sample) => foldOf.get(sample) === fold).map(({ architecture, accuracy }) => ({ predicted: predictor.predict(architecture).mean, measured: accuracy }));
    }).flat(),
  );
}

interface Pair {
  readonly predicted: number;
  readonly measured: number;
}

function errorOf(pairs: readonly Pair[]): PredictorError {
  const meanAbsolute = pairs.reduce((sum, { predicted, measured }) => sum + Math.abs(predicted - measured), 0) / pairs.length;
  return { children: pairs.length, kendall: kendall(pairs), meanAbsolute };
}

/** Kendall's τ-b, which ties do not flatter. NaN where one side is constant. */
export function kendall(pairs: readonly Pair[]): number {
  let [concordance, predictedPairs, measuredPairs] = [0, 0, 0];
  pairs.forEach((a, i) => {
    for (const b of pairs.slice(i + 1)) {
      const [p, m] = [Math.sign(a.predicted - b.predicted), Math.sign(a.measured - b.measured)];
      concordance += p * m;
      predictedPairs += p * p;
      measuredPairs += m * m;
    }
  });
  return concordance / Math.sqrt(predictedPairs * measuredPairs);
}
