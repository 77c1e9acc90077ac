import type { SessionReporter } from './session.js';

/** A run's progress as lines: one that is rewritten on a terminal, one every `every` seconds elsewhere. */
export function progressLine(out: NodeJS.WriteStream, every = 15): SessionReporter {
  const terminal = out.isTTY;
  let shown = -Infinity;
  let open = false; // a rewritten line is on the screen
  let pace: number | undefined; // seconds a step, smoothed
  const line = (text: string): void => {
    out.write(`${open ? '\n' : ''}${text}\n`);
    open = false;
  };
  return {
    line,
    step({ step, totalSteps, epoch, images, losses, rate, seconds }) {
      pace = pace === undefined || step < 3 ? seconds : 0.95 * pace + 0.05 * seconds;
      const now = performance.now() / 1000;
      if (now - shown < (terminal ? 0.2 : every) && step < totalSteps) return;
      shown = now;
      const loss = (i: number): string => losses.at(i)!.loss.toFixed(3);
      const text =
        `step ${step}/${totalSteps}  epoch ${epoch.toFixed(2)}  loss biggest ${loss(0)} smallest ${loss(-1)}  rate ${rate.toPrecision(3)}  ` +
        `${(images / pace).toFixed(0)} images/s  ${duration((totalSteps - step) * pace)} left`;
      if (!terminal) { line(text); return; }
      out.write(`\r\x1b[K${text}`);
      open = true;
    },
    evaluation(step, { biggest, smallest }) {
      line(`step ${step}  accuracy on the validation images: biggest ${percent(biggest)}, smallest ${percent(smallest)}`);
    },
  };
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
