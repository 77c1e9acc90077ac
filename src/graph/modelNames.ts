/** What a child's inputs and outputs are called in every format: prepared images or, where the model prepares them itself, images; logits and their softmax. */
export const INPUT = 'input';
export const IMAGE = 'image';
export const LOGITS = 'logits';
export const PROBABILITIES = 'probabilities';
