import type { LoadRequest } from './load.js';

/** A request of the Open Inference Protocol with a binary tensor, [1, 3, resolution, resolution], of noise. */
export function tensorRequest(arch: string, resolution: number, body: number): { readonly request: LoadRequest; readonly bytes: Uint8Array } {
  const tensor = noise(resolution);
  const json = Buffer.from(
    JSON.stringify({
      inputs: [{ name: 'input', shape: [1, 3, resolution, resolution], datatype: 'FP32', parameters: { binary_data_size: tensor.byteLength } }],
      outputs: [{ name: 'probabilities', parameters: { binary_data: true } }],
    }),
  );
  return {
    request: { path: `/v2/models/${arch}/infer`, headers: { 'Content-Type': 'application/octet-stream', 'Inference-Header-Content-Length': String(json.length) }, body },
    bytes: Buffer.concat([json, new Uint8Array(tensor.buffer)]),
  };
}

export function imageRequest(arch: string, body: number): LoadRequest {
  return { path: `/predict?arch=${arch}&top=1`, headers: { 'Content-Type': 'image/png' }, body };
}

export function noise(resolution: number): Float32Array<ArrayBuffer> {
  let state = resolution;
  return Float32Array.from({ length: 3 * resolution ** 2 }, () => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 31 - 1) * 1.5);
}
