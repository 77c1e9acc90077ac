import { lossByChild, type Accuracies, type SessionReporter, type StepEvent } from './watch/events.js';

/** What a progress is written to: a process's stdout or stderr. */
export interface Output {
  readonly isTTY?: boolean;
  /** Width of the terminal. */
  readonly columns?: number;
  write(text: string): unknown;
}

export interface ProgressOptions {
  /** Seconds between lines where the output is no terminal. Default 15. */
  readonly every?: number;
  /** A clock, in milliseconds. */
  readonly now?: () => number;
}

/** Seconds between two drawings on a terminal. */
const redrawSeconds = 0.2;
/** Cells of a bar, at most and at least: a narrower one says nothing. */
const bar = { most: 40, least: 10 };

/**
 * A run's progress: on a terminal two lines that are drawn anew in place (a bar; what the run is like), below the lines that stay;
 * elsewhere, and on a terminal that cannot move its cursor, one line every few seconds. Never any colour.
 */
export function progressLine(out: Output, { every = 15, now = () => performance.now() }: ProgressOptions = {}): SessionReporter {
  const live = out.isTTY === true && process.env['TERM'] !== 'dumb';
  let drawn: readonly string[] = []; // the lines on the screen that the next drawing replaces; the cursor stands below them
  let shown = -Infinity;
  let pace: number | undefined; // seconds a step, smoothed
  let accuracies: Accuracies | undefined;
  let saved: number | undefined;

  const columns = (): number => Math.max(1, out.columns || 80);

  /** Puts the cursor on the first of the drawn lines. */
  const up = (): string => {
    // A terminal that was made narrower has wrapped them.
    const rows = drawn.reduce((sum, text) => sum + Math.max(1, Math.ceil(text.length / columns())), 0);
    return rows > 0 ? `\r\x1b[${rows}A` : '';
  };
  const line = (text: string): void => {
    out.write(drawn.length > 0 ? `${up()}\x1b[J${text}\n` : `${text}\n`);
    drawn = [];
    shown = -Infinity; // the next step draws again
  };
  const draw = (lines: readonly string[]): void => {
    // Each line is overwritten and only then cleared to its end, in one write: nothing flickers.
    out.write(`${up()}${lines.map((text) => `${text}\x1b[K\n`).join('')}\x1b[J`);
    drawn = lines;
  };

  return {
    line,
    resumed: (step) => line(`Resuming after step ${step}.`),
    step(event) {
      const { step, totalSteps, seconds } = event;
      // The first steps also load and allocate.
      pace = pace === undefined || step < 3 ? seconds : 0.95 * pace + 0.05 * seconds;
      const time = now() / 1000;
      const last = step === totalSteps;
      if (time - shown < (live ? redrawSeconds : every) && !last) return;
      shown = time;
      const left = `${duration((totalSteps - step) * pace)} left`;
      const state = describe(event, pace);
      if (!live) {
        out.write(`${[`step ${step}/${totalSteps}`, ...state, left].join('  ')}\n`);
        return;
      }
      // The last column stays free: some terminals wrap when it is written.
      const width = columns() - 1;
      const accuracy = accuracies ? [`accuracy ${percent(accuracies.biggest)}, ${percent(accuracies.smallest)}`] : [];
      const [epoch, loss, ...rest] = state;
      const head = [`${Math.floor((100 * step) / totalSteps)} %`, left, `step ${step}/${totalSteps}`, ...(saved === undefined ? [] : [`saved ${saved}`])];
      draw([barred(step / totalSteps, head, width), fitted([epoch!, loss!, ...accuracy, ...rest], width)]);
      if (last) drawn = []; // stays
    },
    evaluation(step, measured) {
      accuracies = measured;
      line(`step ${step}  accuracy on the validation images: biggest ${percent(measured.biggest)}, smallest ${percent(measured.smallest)}`);
    },
    saved(step) {
      saved = step;
      if (!live) line(`step ${step}  saved`);
    },
    recipeChanged: (step, changes) =>
      line(`step ${step}  from here on with another recipe: ${changes.map(({ option, from, to }) => `${option} ${String(to)} (was ${String(from)})`).join(', ')}`),
    rollback: ({ from, to, salt, reason }) => line(`step ${from}  failed: ${reason} Going on from step ${to} with other random draws (salt ${salt}).`),
  };
}

/** What a run is like, in parts, the most telling ones first. */
function describe(event: StepEvent, pace: number): string[] {
  const { epoch, rate, images } = event;
  const all = [...lossByChild(event)];
  // Random children are others each time: their loss says little.
  const losses = all.length === 1 ? [all[0]![1].toFixed(3)] : all.filter(([child]) => child !== 'random').map(([child, loss]) => `${loss.toFixed(3)} ${child}`);
  return [`epoch ${epoch.toFixed(2)}`, `loss ${losses.join(', ')}`, `${(images / pace).toFixed(0)} images/s`, `rate ${rate.toPrecision(3)}`];
}

/** A bar and its parts: the bar takes what they leave, and gives way to them where that is not enough. */
function barred(fraction: number, parts: readonly string[], width: number): string {
  const text = fitted(parts, width);
  const cells = Math.min(bar.most, width - text.length - '[]  '.length);
  if (cells < bar.least) return text;
  const done = Math.floor(fraction * cells);
  const filled = done === cells ? '='.repeat(cells) : `${'='.repeat(done)}>`.padEnd(cells);
  return `[${filled}]  ${text}`;
}

/** As many of the parts, from the first on, as have room in a line. */
function fitted(parts: readonly string[], width: number): string {
  let text = '';
  for (const part of parts) {
    const longer = text === '' ? part : `${text}  ${part}`;
    if (longer.length > width) break;
    text = longer;
  }
  return text;
}

function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(1)} %`;
}

/** Seconds as 1 h 02 min, 12 min or 40 s. */
export function duration(seconds: number): string {
  const minutes = Math.round(seconds / 60);
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (minutes < 90) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`;
}
