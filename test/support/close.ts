import assert from 'node:assert/strict';

/** Asserts that values agree to `tolerance` of the largest expected one. */
export function close(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number, what: string): void {
  assert.equal(actual.length, expected.length, what);
  let largest = 0;
  let difference = 0;
  for (let i = 0; i < expected.length; i++) {
    assert.ok(Number.isFinite(actual[i]), `${what}: element ${i} is ${actual[i]}`);
    largest = Math.max(largest, Math.abs(expected[i]!));
    difference = Math.max(difference, Math.abs(actual[i]! - expected[i]!));
  }
  assert.ok(difference <= tolerance * largest, `${what}: differs by ${difference} where the largest value is ${largest}`);
}
