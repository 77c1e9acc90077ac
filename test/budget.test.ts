import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseBytes, parseCount } from '../src/search/budget.js';

test('counts', () => {
  const legal: [string, number][] = [['600M', 600e6], ['1.2G', 1.2e9], ['5.4e6', 5.4e6], ['1', 1], ['3k', 3000], ['3K', 3000], ['2T', 2e12], ['1E3', 1000], ['1.5e2M', 1.5e8], ['12.', 12], ['600 M', 600e6]];
  for (const [text, value] of legal) assert.equal(parseCount('flops', text), value, text);
  for (const text of ['', 'abc', '-1', '+1', '0', '0.0', '1e999', 'Infinity', 'NaN', '0x10', '1,000', '1 000', '600m', '600MiB', '1e', '.', 'M', ' 1', '1'.repeat(40)])
    assert.throws(() => parseCount('flops', text), { name: 'BignasError', code: 'BUDGET_MALFORMED' }, text);
  assert.throws(() => parseCount('flops', 'abc'), { message: 'Expected `flops` to be a positive number such as 600M, got `abc`.' });
});

test('bytes', () => {
  const legal: [string, number][] = [['64MiB', 64 * 2 ** 20], ['20MB', 20e6], ['1000', 1000], ['1.5KiB', 1536], ['2GiB', 2 ** 31], ['7B', 7]];
  for (const [text, value] of legal) assert.equal(parseBytes('--max-body', text), value, text);
  for (const text of ['64M', '64mib', '-1MB', '0MiB']) assert.throws(() => parseBytes('--max-body', text), { code: 'BUDGET_MALFORMED' }, text);
});
