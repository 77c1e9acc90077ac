export type Numbers = Float32Array | Float64Array | Int8Array | Uint8Array | Uint16Array | Int32Array | BigInt64Array;

const machineIsLittle = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/** Floats that little-endian bytes are; without a copy where the machine and the bytes' place allow it: not to be written into. */
export function float32From(bytes: Uint8Array): Float32Array {
  if (machineIsLittle && bytes.byteOffset % 4 === 0) return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  if (machineIsLittle) return new Float32Array(Uint8Array.from(bytes).buffer);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float32Array.from({ length: bytes.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

/** The bytes of an array, little-endian as files have them; without a copy where the machine is. */
export function littleEndian(values: Numbers): Uint8Array {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  if (machineIsLittle || values.BYTES_PER_ELEMENT === 1) return bytes;
  const swapped = Uint8Array.from(bytes);
  for (let i = 0; i < swapped.length; i += values.BYTES_PER_ELEMENT) swapped.subarray(i, i + values.BYTES_PER_ELEMENT).reverse();
  return swapped;
}
