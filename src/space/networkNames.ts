/** Names of the networks of the literature, which `src/graph/networks` builds. */
export const networkNames = [
  'mobilenet-v1-0.5', 'mobilenet-v1-1.0', 'slimmable-mobilenet-v1', 'mobilenet-v2-0.75', 'mobilenet-v2-1.3', 'autoslim-mobilenet-v2',
  'mobilenet-v3-large-1.0', 'mobilenet-v3-large-1.25', 'once-for-all-595', 'mnasnet-a1', 'efficientnet-b0', 'efficientnet-b1', 'efficientnet-b2', 'resnet-50',
  'nasnet-a-mobile', 'darts',
] as const;

export type NetworkName = (typeof networkNames)[number];
