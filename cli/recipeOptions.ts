import { Option, type Command } from 'commander';
import { recipeSchema, type RecipeOptions } from '../src/train/recipe.js';
import { fraction, nonNegativeNumber, percentage, positiveInteger, positiveNumber } from './numbers.js';

/** The options that only change the recipe: each technique of the paper, and what turns it off. */
export type RecipeSwitches = Omit<RecipeOptions, 'seed' | 'batch' | 'steps' | 'stepsPerEpoch' | 'short' | 'augmentation'> & Partial<Pick<RecipeOptions, 'augmentation'>>;

const { shape } = recipeSchema;

export function addRecipeOptions(command: Command): Command {
  return command
    .optionsGroup('The recipe (defaults: the paper):')
    .option('--learning-rate <rate>', "initial rate (default: 0.256 per 4096 images of the batch as in the paper, 0.768 in spaces other than imagenet)", positiveNumber)
    .addOption(new Option('--schedule <name>', 'how the rate falls (default: exponential)').choices(shape.learningRate.shape.schedule.options))
    .option('--constant-ending <percent>', 'the rate falls to this part of the initial one and stays; 0: never (default: 5%, 0 for cosine and linear)', percentage)
    .addOption(new Option('--initialisation <name>', "γ of the residual branches' last batch norms: 0, or 1 as He has it (default: zero-gamma)").choices(shape.initialisation.options))
    .addOption(new Option('--regularisation <whom>', 'which children dropout, weight decay and label smoothing act on (default: biggest)').choices(shape.regularisation.options))
    .option('--weight-decay <λ>', 'L2 over kernels (default: 1e-5)', nonNegativeNumber)
    .option('--dropout <p>', 'of the features before the classifier (default: 0.2)', fraction)
    .option('--label-smoothing <ε>', '(default: 0.1 in imagenet, 0 elsewhere)', fraction)
    .addOption(new Option('--distillation <from>', "what the smaller children learn from: the biggest one's answers, or the labels (default: in-place)").choices(shape.distillation.options))
    .option('--sandwich <children>', 'the children of a step, the teacher first: biggest, smallest, random or an architecture (default: biggest,random,random,smallest)', (text) => text.split(',').map((child) => child.trim()) as [string, ...string[]])
    .addOption(new Option('--patches <which>', 'whether the children of a step see the same crops (default: same)').choices(shape.patches.options))
    .option('--averaging <decay>', 'of the moving average of the weights; 0: none (default: 0.9999 in imagenet, 0.999 elsewhere)', fraction)
    .addOption(new Option('--augmentation <kind>', 'random changes to the crops (default: what suits the data)').choices(shape.augmentation.options))
    .option('--parts <n>', 'equal parts of a batch, each with its own batch norm: what replicas share out; more take less memory (default: 2)', positiveInteger);
}
