import { readFile } from 'node:fs/promises';
import { parseLatencyTable, type LatencyTable } from '../src/cost/latency.js';
import { BignasError } from '../src/errors.js';

/** A table from its file. @throws BignasError LATENCY_TABLE_INVALID */
export async function readLatencyTable(path: string): Promise<LatencyTable> {
  let data: unknown;
  try {
    data = JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    throw new BignasError('LATENCY_TABLE_INVALID', `The latency table ${path} cannot be read: ${(error as Error).message}.`);
  }
  return parseLatencyTable(data);
}
