/** A client in a thread of its own, so that what the main thread does is the server's work alone. */
import { parentPort, workerData } from 'node:worker_threads';

export interface ClientData {
  readonly url: string;
  readonly architectures: readonly string[];
  readonly photo: Uint8Array<ArrayBuffer>;
  /** Predictions of each architecture, while its bundle downloads. */
  readonly predictions: number;
}

export interface ClientReport {
  /** Milliseconds of each architecture's first answer, and of the later ones. */
  readonly cold: number[];
  readonly warm: number[];
  readonly bundleBytes: number[];
  /** Answers other than 200. */
  readonly failures: string[];
}

const { url, architectures, photo, predictions } = workerData as ClientData;
const report: ClientReport = { cold: [], warm: [], bundleBytes: [], failures: [] };

for (const architecture of architectures) {
  const slice = fetch(`${url}/slice?arch=${architecture}`).then((response) => response.arrayBuffer());
  for (let i = 0; i < predictions; i++) {
    const sent = performance.now();
    const response = await fetch(`${url}/predict?arch=${architecture}`, { method: 'POST', headers: { 'content-type': 'image/jpeg' }, body: photo });
    const text = await response.text();
    if (response.status !== 200) report.failures.push(text);
    (i === 0 ? report.cold : report.warm).push(performance.now() - sent);
  }
  report.bundleBytes.push((await slice).byteLength);
}
parentPort!.postMessage(report);
