import { InvalidArgumentError } from 'commander';

function number(text: string, expected: string, legal: (n: number) => boolean): number {
  const n = text.trim() === '' ? NaN : Number(text);
  if (!legal(n)) throw new InvalidArgumentError(`Expected ${expected}.`);
  return n;
}

export function positiveInteger(text: string): number {
  return number(text, 'a whole number from 1', (n) => Number.isSafeInteger(n) && n >= 1);
}

export function naturalNumber(text: string): number {
  return number(text, 'a whole number from 0 to 4294967295', (n) => Number.isSafeInteger(n) && n >= 0 && n <= 0xffffffff);
}

export function positiveNumber(text: string): number {
  return number(text, 'a positive number', (n) => Number.isFinite(n) && n > 0);
}

export function nonNegativeNumber(text: string): number {
  return number(text, 'a number from 0', (n) => Number.isFinite(n) && n >= 0);
}

/** From 0, below 1. */
export function fraction(text: string): number {
  return number(text, 'a number from 0, below 1', (n) => n >= 0 && n < 1);
}

/** `5%` or `5` as 0.05. */
export function percentage(text: string): number {
  return number(text.replace(/\s*%$/, ''), 'a percentage from 0 to 100, such as 5%', (n) => n >= 0 && n <= 100) / 100;
}
