import type { Graph } from '../graph.js';

export interface NetworkOptions {
  readonly classes: number;
  /** Input height and width in pixels. */
  readonly resolution: number;
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
  build(options: NetworkOptions): Graph;
}
