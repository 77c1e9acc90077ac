import { BignasError, type ErrorCode } from '../src/errors.js';

/** A body's text as JSON. @throws BignasError of the code */
export function parseJson(body: Uint8Array, expected: string, code: ErrorCode = 'BODY_MALFORMED'): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch (error) {
    throw new BignasError(code, `Expected ${expected}: ${(error as Error).message}.`);
  }
}

/** Whether the value is an object of JSON that is no list. */
export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
