import type { NetworkName } from '../../space/networkNames.js';
import type { NetworkSpace } from '../../space/space.js';
import { cellNetworks } from './cells.js';
import { efficientNets } from './efficientnet.js';
import { mobileNets } from './mobilenets.js';
import type { Network } from './network.js';
import { resNets } from './resnet.js';

/** Networks of the literature by name. */
export const networks: Readonly<Record<NetworkName, Network>> = { ...mobileNets, ...efficientNets, ...resNets, ...cellNetworks };

/** A network as a space: for images of the given size, in all widths that it is made for. */
export function networkSpace(network: NetworkName, { classes, resolution }: { readonly classes: number; readonly resolution: number }): NetworkSpace {
  const [first, ...rest] = networks[network].widths ?? [1];
  return { name: network, network, classes, resolutions: [resolution], trainResolutions: [resolution], widths: [first!, ...rest] };
}
