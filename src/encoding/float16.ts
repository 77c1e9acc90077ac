/** IEEE 754 half precision of each value, rounded to the nearest, ties to even. Beyond ±65504 it is infinite. */
export function float16Bits(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.slice().buffer);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < halves.length; i++) {
    const sign = (bits[i]! >>> 16) & 0x8000;
    const magnitude = bits[i]! & 0x7fffffff;
    halves[i] = sign | half(magnitude);
  }
  return halves;
}

/** Bits of a half from those of a non-negative float. */
function half(float: number): number {
  if (float > 0x7f800000) return 0x7e00; // not a number
  if (float >= 0x47800000) return 0x7c00; // from 65536, infinite
  const exponent = float >>> 23;
  if (exponent >= 113) {
    // Normal: the exponent moves by 112, 13 bits of the mantissa are rounded away. A carry runs into the exponent, as it should.
    const shifted = float - (112 << 23);
    return (shifted + 0xfff + ((shifted >>> 13) & 1)) >>> 13;
  }
  if (exponent < 102) return 0; // less than half of the least subnormal
  const mantissa = (float & 0x7fffff) | 0x800000;
  const shift = 126 - exponent;
  const rest = mantissa & ((1 << shift) - 1);
  const middle = 1 << (shift - 1);
  const down = mantissa >>> shift;
  return rest > middle || (rest === middle && (down & 1) === 1) ? down + 1 : down;
}

/** The values that halves stand for. */
export function float16Values(halves: Uint16Array): Float32Array {
  return Float32Array.from(halves, (bits) => {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >>> 10) & 31;
    const mantissa = bits & 1023;
    if (exponent === 31) return mantissa ? NaN : sign * Infinity;
    return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1024 + mantissa) * 2 ** (exponent - 25);
  });
}
