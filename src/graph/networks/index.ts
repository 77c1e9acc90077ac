import { cellNetworks } from './cells.js';
import { efficientNets } from './efficientnet.js';
import { mobileNets } from './mobilenets.js';
import type { Network } from './network.js';
import { resNets } from './resnet.js';

/** Networks of the literature by name. */
export const networks: Readonly<Record<string, Network>> = { ...mobileNets, ...efficientNets, ...resNets, ...cellNetworks };
