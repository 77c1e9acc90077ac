import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Logger } from 'pino';
import { openCheckpoint } from '../src/checkpoint/checkpoint.js';
import { BignasError } from '../src/errors.js';
import { createApp, MOST_REQUESTS } from './app.js';
import { clientErrors } from './clientError.js';
import type { ServerOptions } from './options.js';
import { startServices, type Services } from './services.js';

/** Milliseconds that a client may take to send a whole request, and its headers. */
const REQUEST_MS = 60_000;
const HEADERS_MS = 15_000;
/** Milliseconds between two looks at requests that take too long. */
const SLOW_LOOK_MS = 5_000;
/** Milliseconds between two looks at connections that became idle while the server stops. */
const IDLE_LOOK_MS = 50;

export interface RunningServer {
  /** Such as http://127.0.0.1:8080. */
  readonly url: string;
  readonly services: Services;
  /**
   * Stops: no new connection, every accepted request answered, then the workers ended.
   * @param milliseconds after which requests that are still under way are given up
   * @returns whether all were answered
   */
  stop(milliseconds: number): Promise<boolean>;
}

/**
 * Opens the checkpoint, starts the workers and listens.
 * @throws BignasError CHECKPOINT_INVALID, CHECKPOINT_NEWER, or OPTION_INVALID where the address cannot be had
 */
export async function serve(options: ServerOptions, logger: Logger): Promise<RunningServer> {
  const checkpoint = await openCheckpoint(options.checkpoint);
  const services = await startServices(checkpoint, options.checkpoint, options, logger);
  const times = { requestTimeout: REQUEST_MS, headersTimeout: HEADERS_MS, connectionsCheckingInterval: SLOW_LOOK_MS };
  const server = createServer(times, createApp(services)).on('clientError', clientErrors(logger));
  server.maxRequestsPerSocket = MOST_REQUESTS;
  try {
    await listen(server, options);
  } catch (error) {
    await services.close();
    throw error;
  }
  return { url: urlOf(server), services, stop: (milliseconds) => stop(server, services, milliseconds) };
}

function listen(server: Server, { host, port }: ServerOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error): void => {
      const mend = (error as NodeJS.ErrnoException).code === 'EADDRINUSE' ? ' Stop what listens there, or choose another with --port.' : '';
      reject(new BignasError('OPTION_INVALID', `The server cannot listen on ${host}:${port} (${error.message}).${mend}`));
    };
    server.once('error', failed);
    server.listen(port, host, () => {
      server.off('error', failed);
      resolve();
    });
  });
}

function urlOf(server: Server): string {
  const { address, family, port } = server.address() as AddressInfo;
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
}

async function stop(server: Server, services: Services, milliseconds: number): Promise<boolean> {
  services.draining = true;
  const closed = new Promise<true>((resolve) => {
    server.close(() => {
      resolve(true);
    });
  });
  // A connection whose last answer began before the server stopped was told to stay; it is closed once it is idle.
  const looks = setInterval(() => {
    server.closeIdleConnections();
  }, IDLE_LOOK_MS);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(resolve, milliseconds, false);
  });
  const all = await Promise.race([closed, late]);
  clearInterval(looks);
  clearTimeout(timer);
  await services.close(); // what is still under way is answered with SHUTTING_DOWN
  if (!all) server.closeAllConnections();
  return all;
}
