/** An open loop, in a process of its own: every request is sent at its time, whatever became of those before it, as independent users do. */
import { Agent, request } from 'node:http';

export interface OpenLoad {
  readonly url: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Requests a second, evenly spaced. */
  readonly rate: number;
  readonly bodies: readonly Uint8Array[];
}

export interface OpenAnswer {
  readonly status: number;
  /** Milliseconds from the time that it was due to be sent to the end of its answer. */
  readonly milliseconds: number;
  /** The most probable class, and the child that said so; of an answer that is no error. */
  readonly label?: string;
  readonly child?: string;
}

export interface OpenResult {
  /** In the order of the bodies. */
  readonly answers: readonly OpenAnswer[];
  /** Processor seconds of the generator, a second of the run. */
  readonly generator: number;
}

/** Seconds of the same load before what counts: connections are made then, and the generator's own code is compiled, on the processors that the server has. */
const WARMING_SECONDS = 1;

process.once('message', (load: OpenLoad) => {
  void run(load).then((result) => process.send!(result, () => process.disconnect()));
});

async function run({ url, path, headers, rate, bodies }: OpenLoad): Promise<OpenResult> {
  const agent = new Agent({ keepAlive: true, maxSockets: Infinity, maxFreeSockets: 4096 });
  const before = process.cpuUsage();
  const began = performance.now();
  const warming = Math.ceil(rate * WARMING_SECONDS);
  const all = [...Array.from({ length: warming }, (_, i) => bodies[i % bodies.length]!), ...bodies];
  const answers = await Promise.all(
    all.map(async (body, i) => {
      const due = began + (1000 * i) / rate;
      await new Promise((resolve) => setTimeout(resolve, due - performance.now()));
      return ask(body, due);
    }),
  );
  const { user, system } = process.cpuUsage(before);
  const generator = (user + system) / 1000 / (performance.now() - began);
  agent.destroy();
  return { answers: answers.slice(warming), generator };

  function ask(body: Uint8Array, due: number): Promise<OpenAnswer> {
    return new Promise((resolve) => {
      const failed = (): void => resolve({ status: 0, milliseconds: performance.now() - due });
      const asked = request(new URL(path, url), { agent, method: 'POST', headers: { ...headers, 'Content-Length': body.length } }, (answer) => {
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk)).on('error', failed);
        answer.on('end', () => {
          const milliseconds = performance.now() - due;
          const status = answer.statusCode!;
          if (status !== 200) resolve({ status, milliseconds });
          else {
            const document = JSON.parse(Buffer.concat(chunks).toString()) as { id: string; predictions: { classes: { label: string }[] }[] };
            resolve({ status, milliseconds, label: document.predictions[0]!.classes[0]!.label, child: document.id });
          }
        });
      });
      asked.on('error', failed);
      asked.end(body);
    });
  }
}
