import type { ProfileTable } from './side.js';

/** Seconds of a turn, by side, a round each. */
export type Rounds = readonly Readonly<Record<string, number>>[];

export interface Spread {
  readonly median: number;
  readonly lower: number;
  readonly upper: number;
}

/** Median and quartiles, linear between values. */
export function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part: number): number => {
    const place = part * (sorted.length - 1);
    const below = Math.floor(place);
    const above = Math.min(below + 1, sorted.length - 1);
    return sorted[below]! + (place - below) * (sorted[above]! - sorted[below]!);
  };
  return { median: at(0.5), lower: at(0.25), upper: at(0.75) };
}

export interface Summary {
  readonly side: string;
  /** Images that the biggest, the random and the smallest child have all learnt from, a second. */
  readonly imagesPerSecond: Spread;
  /** In its fastest turn: what another program took from this side least. */
  readonly fastest: number;
  /** This side's time over ours in the same round: above 1 we are faster. */
  readonly ratio: Spread;
  readonly peakBytes: number;
}

/** @param imagesPerTurn batch times steps */
export function summarise(rounds: Rounds, ours: string, imagesPerTurn: number, peakBytes: Readonly<Record<string, number>>): Summary[] {
  return Object.keys(rounds[0]!).map((side) => ({
    side,
    imagesPerSecond: spread(rounds.map((round) => imagesPerTurn / round[side]!)),
    fastest: imagesPerTurn / Math.min(...rounds.map((round) => round[side]!)),
    ratio: spread(rounds.map((round) => round[side]! / round[ours]!)),
    peakBytes: peakBytes[side]!,
  }));
}

export function summaryTable(summaries: readonly Summary[], ours: string): string {
  const rows = summaries.map(({ side, imagesPerSecond, fastest, ratio, peakBytes }) => [
    side,
    withQuartiles(imagesPerSecond, 0),
    fastest.toFixed(0),
    side === ours ? '1' : withQuartiles(ratio, 2),
    `${(peakBytes / 2 ** 20).toFixed(0)} MiB`,
  ]);
  return table(['side', 'images/s', 'fastest turn', `speed of ${ours} against it`, 'peak memory'], rows);
}

export function profileTable({ title, rows }: ProfileTable, total: number, steps: number, most = 12): string {
  const shown = rows.slice(0, most);
  const rest = rows.slice(most).reduce((sum, { seconds }) => sum + seconds, 0);
  const lines = [...shown, ...(rest > 0 ? [{ name: `${rows.length - most} more`, seconds: rest }] : [])].map((row) => [
    row.name,
    ((row.seconds / steps) * 1000).toFixed(1),
    `${((100 * row.seconds) / total).toFixed(1)} %`,
    'calls' in row ? (row.calls / steps).toFixed(0) : '',
  ]);
  return table([title, 'ms a step', 'share', 'calls a step'], lines);
}

function withQuartiles({ median, lower, upper }: Spread, digits: number): string {
  return `${median.toFixed(digits)} (${lower.toFixed(digits)}–${upper.toFixed(digits)})`;
}

/** Columns of equal width; the first to the left, numbers to the right. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]): string =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ');
  return [line(head), widths.map((width) => '─'.repeat(width)).join('──'), ...rows.map(line)].join('\n');
}
