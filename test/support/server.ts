import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { serve, type RunningServer } from '../../serve/server.js';
import type { ServerOptions } from '../../serve/options.js';

/** A folder that is gone after the test. */
export async function temporaryFolder(): Promise<{ path: string; remove: () => Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), 'bignas-test-'));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

/** A server on a free port with real workers, as `bignas-serve` runs it; silent, and small unless told otherwise. */
export function testServer(checkpoint: string, options: Partial<ServerOptions> = {}): Promise<RunningServer> {
  return serve(
    {
      checkpoint,
      host: '127.0.0.1',
      port: 0,
      threads: 1,
      workers: 1,
      cacheBytes: 128 * 2 ** 20,
      maxBody: 2 ** 20,
      queue: 64,
      logLevel: 'silent',
      ...options,
    },
    pino({ level: options.logLevel ?? 'silent' }),
  );
}
