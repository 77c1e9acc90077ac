import type { Tensor2D } from '@tensorflow/tfjs-node-gpu';
import { normalisedBatch } from '../../src/data/preprocess.js';
import { sharedTensors } from '../../src/graph/buildGraph.js';
import type { Runnable } from '../../src/graph/engine.js';
import { SharedWeights } from '../../src/graph/weights.js';
import { biggest, parseArchitecture, type Architecture } from '../../src/space/architecture.js';
import { tf } from '../../src/tensorflow/tf.js';
import { trainingBatch, type Part, type PartResult, type TrainingContext } from '../../src/train/part.js';
import type { Replicas } from '../../src/train/replicas.js';
import { applyGradients, type TrainingState } from '../../src/train/rmsprop.js';
import { childGradients, type TrainingBatch } from '../../src/train/sandwich.js';
import { learningRate } from '../../src/train/schedule.js';

/** A step's gradients of one student from soft labels: as a child of the sandwich that is not regularised. */
function studentSteps(context: TrainingContext, softLabels: (part: Part, batch: TrainingBatch, step: number) => Promise<Tensor2D>, afterStep: (step: number) => void): Replicas {
  const { space, preprocessing, classes, recipe } = context;
  const tensors = sharedTensors(space);
  const student = parseArchitecture(space, recipe.sandwich[0]!);
  return {
    async run({ step, weights, parts }) {
      const shared = new SharedWeights(tensors, weights);
      const results: PartResult[] = [];
      for (const part of parts) {
        const gradients = shared.like();
        const batch = trainingBatch(part, preprocessing, classes);
        const targets = await softLabels(part, batch, step);
        const { loss, logits } = childGradients(space, shared, gradients, batch, { architecture: student, place: 1, regularised: false, targets }, recipe, step);
        tf.dispose([...batch.views, batch.labels, targets, logits]);
        results.push({ gradients: gradients.data, losses: [{ architecture: student, loss }] });
      }
      afterStep(step);
      return results;
    },
    close: () => Promise.resolve(),
  };
}

/** Distillation from a teacher that was trained before: calibrated, as it would be served, on the student's crops at its own resolution. */
export function frozenTeacher(context: TrainingContext, teacher: { readonly architecture: Architecture; readonly child: Runnable }): Replicas {
  const { preprocessing, classes } = context;
  return studentSteps(
    context,
    async ({ views, labels: { length } }) => {
      const data = normalisedBatch(views[0]!, preprocessing, teacher.architecture.resolution, 'NCHW');
      const logits = await teacher.child.run({ data, count: length });
      return tf.tidy(() => tf.softmax(tf.tensor2d(logits, [length, classes])));
    },
    () => undefined,
  );
}

/** Distillation from the biggest child with weights of its own, which takes a step of the same recipe with each of the student's. */
export function jointTeacher(context: TrainingContext, state: TrainingState): Replicas {
  const { space, recipe } = context;
  const architecture = biggest(space);
  const gradients = state.weights.like();
  return studentSteps(
    context,
    (_part, batch, step) => {
      const { logits } = childGradients(space, state.weights, gradients, batch, { architecture, place: 0, regularised: true }, recipe, step);
      const softLabels = tf.softmax(logits);
      logits.dispose();
      return Promise.resolve(softLabels);
    },
    (step) => {
      applyGradients(state, gradients, learningRate(recipe, step), recipe);
      state.step++;
      gradients.data.fill(0);
    },
  );
}
