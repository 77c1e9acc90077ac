import type { Width } from '../builder.js';
import type { Graph } from '../graph.js';

export interface NetworkOptions {
  readonly classes: number;
  /** Input height and width in pixels. */
  readonly resolution: number;
  /** Width multiplier in use, and of the weights that it is cut from: of a network that is made for several widths. */
  readonly width?: Width;
}

/** What a network's own paper says of it. */
export interface Published {
  /** Multiply-adds of one image at `resolution`, and trainable parameters, as rounded there. */
  readonly flops: number;
  readonly params: number;
  readonly resolution: number;
  /** ImageNet top-1 accuracy, a fraction. */
  readonly accuracy: number;
  readonly source: string;
  /** Multiply-adds as BigNAS cites them, where those differ. */
  readonly bignas?: number;
}

/** A network of the literature: compared with, counted, trained and exported as our own. */
export interface Network {
  readonly title: string;
  readonly published: Published;
  /** Widths that it is made for: switched without retraining. Just 1 where absent. */
  readonly widths?: readonly number[];
  readonly build: (options: NetworkOptions) => Graph;
}
