import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { duration, progressLine } from '../src/train/progress.js';
import { stepEvent } from './support/run.js';

/** A terminal, as far as a progress moves its cursor: lines of `columns` cells, which wrap. */
class Screen {
  readonly isTTY = true;
  readonly writes: string[] = [];
  readonly #rows: string[] = [''];
  #row = 0;
  #column = 0;

  constructor(readonly columns: number) {}

  write(text: string): void {
    this.writes.push(text);
    for (const [token, up] of text.matchAll(/\x1b\[(\d+)A|\x1b\[[JK]|[^]/g)) {
      if (up !== undefined) this.#row -= Number(up);
      else if (token === '\x1b[J') this.#rows.splice(this.#row, Infinity, this.#line().slice(0, this.#column));
      else if (token === '\x1b[K') this.#rows[this.#row] = this.#line().slice(0, this.#column);
      else if (token === '\r') this.#column = 0;
      else if (token === '\n') [this.#row, this.#column] = [this.#row + 1, 0];
      else {
        assert.ok(token >= ' ' && token <= '~', `${JSON.stringify(token)} is no character of a line`);
        if (this.#column === this.columns) [this.#row, this.#column] = [this.#row + 1, 0];
        const line = this.#line();
        this.#rows[this.#row] = line.slice(0, this.#column).padEnd(this.#column) + token + line.slice(this.#column + 1);
        this.#column++;
      }
      assert.ok(this.#row >= 0, 'the cursor stays below the top');
    }
  }

  get lines(): string[] {
    const lines = [...this.#rows];
    while (lines.at(-1) === '') lines.pop();
    return lines;
  }

  #line(): string {
    return (this.#rows[this.#row] ??= '');
  }
}

let term: string | undefined;
beforeEach(() => {
  term = process.env['TERM'];
  process.env['TERM'] = 'xterm';
});
afterEach(() => {
  if (term === undefined) delete process.env['TERM'];
  else process.env['TERM'] = term;
});

/** A clock that goes on by a second with each look. */
function seconds(): () => number {
  let time = 0;
  return () => (time += 1000);
}

test('a terminal shows a bar and what the run is like, below the lines that stay', () => {
  const screen = new Screen(120);
  const progress = progressLine(screen, { now: seconds() });
  void progress.resumed(49);
  void progress.step(stepEvent(50));
  assert.deepEqual(screen.lines, [
    'Resuming after step 49.',
    `[${'='.repeat(20)}>${' '.repeat(19)}]  50 %  25 s left  step 50/100`,
    'epoch 5.00  loss 0.022 biggest, 0.082 smallest  128 images/s  rate 0.00200',
  ]);
  void progress.evaluation(50, { biggest: 0.5, smallest: 0.251 });
  void progress.saved(50);
  void progress.step(stepEvent(51));
  void progress.step(stepEvent(52));
  assert.deepEqual(screen.lines, [
    'Resuming after step 49.',
    'step 50  accuracy on the validation images: biggest 50.0 %, smallest 25.1 %',
    `[${'='.repeat(20)}>${' '.repeat(19)}]  52 %  24 s left  step 52/100  saved 50`,
    'epoch 5.20  loss 0.021 biggest, 0.079 smallest  accuracy 50.0 %, 25.1 %  128 images/s  rate 0.00192',
  ]);
});

test('the last step stays on the screen, and lines follow it', () => {
  const screen = new Screen(80);
  const progress = progressLine(screen, { now: () => 0 });
  void progress.step(stepEvent(99));
  void progress.step(stepEvent(100));
  progress.line('Done.');
  assert.deepEqual(screen.lines.map((line) => line.slice(0, 12)), ['[===========', 'epoch 10.00 ', 'Done.']);
  assert.match(screen.lines[0]!, /^\[=+\] {2}100 % {2}0 s left/);
});

test('no line is longer than the terminal is wide; the bar and the lesser parts give way', () => {
  for (let columns = 1; columns <= 130; columns++) {
    const screen = new Screen(columns);
    const progress = progressLine(screen, { now: seconds() });
    void progress.saved(1);
    for (const step of [1, 2, 99]) void progress.step(stepEvent(step));
    assert.ok(screen.lines.every((line) => line.length < columns), `${columns} columns: ${screen.lines.join(' | ')}`);
    assert.ok(screen.lines.length <= 2, `${columns} columns: ${screen.lines.join(' | ')}`);
    if (columns > 80) assert.match(screen.lines.join('\n'), /^\[=+> *\] {2}99 %.* saved 1\nepoch 9.90 {2}loss .* smallest {2}128 images\/s {2}rate 0.00101$/);
  }
});

test('on a terminal that was made narrower, the wrapped lines are overwritten, too', () => {
  const screen = new Screen(60);
  const width = { columns: 120 };
  const out = { isTTY: true, get columns() { return width.columns; }, write: (text: string) => screen.write(text) };
  const progress = progressLine(out, { now: seconds() });
  void progress.step(stepEvent(50)); // 80 cells: two rows on a screen of 60
  width.columns = 60;
  void progress.step(stepEvent(51));
  assert.equal(screen.lines.length, 2, screen.lines.join('\n'));
});

test('a drawing is one write, that clears nothing before it is overwritten, and comes five times a second at most', () => {
  const screen = new Screen(100);
  let time = 0;
  const progress = progressLine(screen, { now: () => time });
  for (let step = 1; step < 100; step++, time += 10) void progress.step(stepEvent(step));
  assert.equal(screen.writes.length, 5);
  for (const text of screen.writes.slice(1)) assert.match(text, /^\r\x1b\[2A[^\x1b]+\x1b\[K\n[^\x1b]+\x1b\[K\n\x1b\[J$/);
});

test('elsewhere it is a line every few seconds, and the last step', () => {
  for (const isTTY of [false, true]) {
    if (isTTY) process.env['TERM'] = 'dumb';
    let text = '';
    let time = 0;
    const progress = progressLine({ isTTY, write: (more) => (text += more) }, { now: () => time });
    for (let step = 1; step <= 100; step++, time += 500) void progress.step(stepEvent(step));
    void progress.saved(100);
    const lines = text.trimEnd().split('\n');
    assert.deepEqual(lines.map((line) => line.split('  ')[0]), ['step 1/100', 'step 31/100', 'step 61/100', 'step 91/100', 'step 100/100', 'step 100']);
    assert.equal(lines[1], 'step 31/100  epoch 3.10  loss 0.035 biggest, 0.132 smallest  128 images/s  rate 0.00323  35 s left');
    assert.doesNotMatch(text, /[\x00-\x09\x0b-\x1f]/);
  }
});

test('a run of one child, or of other ones, says which its losses are of', () => {
  const losses = (children: readonly string[]): string => {
    let text = '';
    const event = stepEvent(50);
    void progressLine({ write: (more) => (text += more) }).step({ ...event, children, losses: event.losses.slice(0, children.length) });
    return /  (loss .*?)  /.exec(text)![1]!;
  };
  assert.equal(losses(['r32_c16']), 'loss 0.022');
  assert.equal(losses(['random']), 'loss 0.022');
  assert.equal(losses(['biggest', 'random']), 'loss 0.022 biggest');
  assert.equal(losses(['biggest', 'smallest', 'random', 'random']), 'loss 0.022 biggest, 0.042 smallest');
});

test('a rollback says from where, to where and why', () => {
  let text = '';
  void progressLine({ write: (more) => (text += more) }).rollback({ from: 9, to: 5, salt: 1, reason: 'The loss of step 9 is NaN.' });
  assert.equal(text, 'step 9  failed: The loss of step 9 is NaN. Going on from step 5 with other random draws (salt 1).\n');
});

test('a changed recipe says what was and what is', () => {
  let text = '';
  void progressLine({ write: (more) => (text += more) }).recipeChanged(6, [{ option: 'steps', from: 6, to: 10 }, { option: 'learningRate.initial', from: 0.02, to: 0.01 }]);
  assert.equal(text, 'step 6  from here on with another recipe: steps 10 (was 6), learningRate.initial 0.01 (was 0.02)\n');
});

test('durations are short', () => {
  assert.deepEqual([0, 40.4, 89, 90, 5300, 5400, 7320].map(duration), ['0 s', '40 s', '89 s', '2 min', '88 min', '1 h 30 min', '2 h 02 min']);
});
