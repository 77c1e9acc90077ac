/** The load generator, a process of its own so that its share of the processor can be told: closed loops over keep-alive connections (autocannon), or one connection timed to the microsecond. */
import { Agent } from 'node:http';
import autocannon from 'autocannon';
import { timed } from './once.js';

/** One request, its body in base64. */
export interface LoadRequest {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Index into the bodies. */
  readonly body: number;
}

export interface Load {
  readonly url: string;
  readonly connections: number;
  readonly seconds: number;
  readonly requests: readonly LoadRequest[];
  readonly bodies: readonly Uint8Array[];
}

export interface LoadResult {
  readonly perSecond: number;
  /** Milliseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly failures: number;
  /** Processor seconds of the generator, a second of the run. */
  readonly generator: number;
}

process.once('message', (load: Load) => {
  void run(load).then((result) => process.send!(result, () => process.disconnect()));
});

async function run(load: Load): Promise<LoadResult> {
  const before = process.cpuUsage();
  const began = performance.now();
  const result = await (load.connections === 1 ? oneConnection(load) : manyConnections(load));
  const { user, system } = process.cpuUsage(before);
  return { ...result, generator: (user + system) / 1000 / (performance.now() - began) };
}

async function manyConnections({ url, connections, seconds, requests, bodies }: Load): Promise<Omit<LoadResult, 'generator'>> {
  const result = await autocannon({
    url,
    connections,
    duration: seconds,
    timeout: 120,
    requests: requests.map(({ path, headers, body }) => ({ method: 'POST' as const, path, headers: { ...headers }, body: Buffer.from(bodies[body]!) })),
  });
  return { perSecond: result['2xx'] / result.duration, p50: result.latency.p50, p99: result.latency.p99, failures: result.non2xx + result.errors + result.timeouts };
}

async function oneConnection({ url, seconds, requests, bodies }: Load): Promise<Omit<LoadResult, 'generator'>> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const times: number[] = [];
  let failures = 0;
  const end = performance.now() + 1000 * seconds;
  for (let i = 0; performance.now() < end || times.length < 3; i++) {
    const { path, headers, body } = requests[i % requests.length]!;
    const milliseconds = await timed(agent, url, { path, headers }, bodies[body]!);
    if (milliseconds === undefined) failures++;
    else times.push(milliseconds);
  }
  agent.destroy();
  times.sort((a, b) => a - b);
  return { perSecond: (1000 * times.length) / times.reduce((sum, time) => sum + time, 0), p50: times[Math.floor(times.length / 2)]!, p99: times[Math.floor(times.length * 0.99)]!, failures };
}
