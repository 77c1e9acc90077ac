import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BignasError } from '../../src/errors.js';
import { writeFileAtomic } from '../../src/files/atomic.js';
export async function writeReport(docs: string, results: string): Promise<void> {
  void docs; void results; void readFile; void join; void writeFileAtomic; void BignasError;
  await Promise.resolve();
}
