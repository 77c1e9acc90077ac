import { constants } from 'node:os';
import { pino } from 'pino';
import type { ServerOptions } from './options.js';
import { serve, type RunningServer } from './server.js';

/** Milliseconds that accepted requests have when the server is told to stop. */
const DRAIN_MS = 30_000;

/**
 * Serves until SIGTERM or SIGINT; then every accepted request is answered and the process ends with 0 (1 where some were not answered
 * in time). A second signal ends it at once. Logs go to stderr as JSON lines, the address to stdout.
 * @throws what keeps the server from starting
 */
export async function main(options: ServerOptions): Promise<void> {
  const logger = pino({ level: options.logLevel, base: null }, pino.destination({ fd: 2, sync: true }));
  const state: { server?: RunningServer; stopping: boolean } = { stopping: false };
  const stop = (signal: 'SIGTERM' | 'SIGINT'): void => {
    if (state.stopping) process.exit(128 + constants.signals[signal]);
    state.stopping = true;
    if (state.server) void drain(state.server, signal);
  };
  const drain = async (server: RunningServer, signal: string): Promise<void> => {
    logger.info({ signal }, 'stopping: answering what was accepted');
    process.exit((await server.stop(DRAIN_MS)) ? 0 : 1);
  };
  process.on('SIGTERM', stop).on('SIGINT', stop);
  process.on('SIGHUP', () => {
    // It logs what came of it. While the server starts, it reads the checkpoint anyway.
    state.server?.services.reloader.reload().catch(() => undefined);
  });
  const server = await serve(options, logger);
  state.server = server;
  // Workers are not ended before they have started: their native code would abort the process.
  if (state.stopping) return drain(server, 'before the first request');
  const { manifest } = server.services.inService.current.checkpoint;
  console.log(`bignas serves ${manifest.name} (${manifest.space.name}) on ${server.url}`);
}
