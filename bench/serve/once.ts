import { once } from 'node:events';
import { request, type Agent, type IncomingMessage } from 'node:http';
import type { LoadRequest } from './load.js';

/** One request over a kept connection. @returns milliseconds until its answer was there; undefined: it is no 200 */
export async function timed(agent: Agent, url: string, { path, headers }: Omit<LoadRequest, 'body'>, bytes: Uint8Array): Promise<number | undefined> {
  const began = performance.now();
  const asked = request(new URL(path, url), { agent, method: 'POST', headers: { ...headers, 'Content-Length': bytes.length } });
  asked.end(bytes);
  const [answer] = (await once(asked, 'response')) as [IncomingMessage];
  answer.resume();
  await once(answer, 'end');
  return answer.statusCode === 200 ? performance.now() - began : undefined;
}
