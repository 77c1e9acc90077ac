/** A strict reader of the Prometheus text format 0.0.4: what it takes, Prometheus takes. */

export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Family {
  readonly type: 'counter' | 'gauge' | 'histogram' | 'summary' | 'untyped';
  readonly help: string;
  /** By the name of the sample, such as `x_bucket`. */
  readonly samples: ReadonlyMap<string, readonly Sample[]>;
}

const suffixes: Readonly<Record<string, readonly string[]>> = { histogram: ['_bucket', '_sum', '_count'], summary: ['', '_sum', '_count'] };
const nameForm = '[a-zA-Z_:][a-zA-Z0-9_:]*';
const sampleForm = new RegExp(`^(${nameForm})(?:\\{(.*)\\})? (\\S+)(?: (-?\\d+))?$`);
const labelForm = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,|$)/y;

/** The metric families by name. @throws Error with the line that is not legal. */
export function parsePrometheus(text: string): Map<string, Family> {
  if (!text.endsWith('\n')) throw new Error('The last line must end.');
  const families = new Map<string, { type: Family['type']; help: string; samples: Map<string, Sample[]> }>();
  let helpOf: string | undefined;
  let help = '';
  let current: string | undefined;
  for (const line of text.slice(0, -1).split('\n')) {
    const bad = (why: string): Error => new Error(`${why}: ${line}`);
    if (line === '') continue;
    if (line.startsWith('# HELP ')) {
      const match = new RegExp(`^# HELP (${nameForm}) (.*)$`).exec(line);
      if (!match) throw bad('not a HELP line');
      [, helpOf, help] = match as unknown as [string, string, string];
    } else if (line.startsWith('# TYPE ')) {
      const match = new RegExp(`^# TYPE (${nameForm}) (counter|gauge|histogram|summary|untyped)$`).exec(line);
      if (!match) throw bad('not a TYPE line');
      if (families.has(match[1]!)) throw bad('a second TYPE');
      if (helpOf !== match[1]) throw bad('no HELP before it');
      current = match[1]!;
      families.set(current, { type: match[2] as Family['type'], help, samples: new Map() });
    } else if (!line.startsWith('#')) {
      const match = sampleForm.exec(line);
      if (!match) throw bad('not a sample');
      const [, name, labelText = '', valueText] = match as unknown as [string, string, string | undefined, string];
      const family = current === undefined ? undefined : families.get(current);
      if (!family || !(suffixes[family.type] ?? ['']).some((suffix) => name === current! + suffix)) throw bad(`a sample outside its family (${current ?? 'none'})`);
      const value = valueText === '+Inf' ? Infinity : valueText === '-Inf' ? -Infinity : Number(valueText);
      if (Number.isNaN(value) && valueText !== 'NaN') throw bad('not a number');
      const samples = family.samples.get(name) ?? [];
      const labels = parseLabels(labelText, bad);
      if (samples.some((other) => JSON.stringify(other.labels) === JSON.stringify(labels))) throw bad('the same sample twice');
      family.samples.set(name, [...samples, { labels, value }]);
    }
  }
  for (const [name, family] of families) if (family.type === 'histogram') checkBuckets(name, family.samples);
  return families;
}

function parseLabels(text: string, bad: (why: string) => Error): Record<string, string> {
  const labels: Record<string, string> = {};
  labelForm.lastIndex = 0;
  for (let at = 0; at < text.length; at = labelForm.lastIndex) {
    const match = labelForm.exec(text);
    if (!match) throw bad('not labels');
    labels[match[1]!] = match[2]!;
  }
  return labels;
}

/** Buckets ascend, do not fall, and end with +Inf, which equals the count. */
function checkBuckets(name: string, samples: ReadonlyMap<string, readonly Sample[]>): void {
  const series = new Map<string, Sample[]>();
  for (const { labels, value } of samples.get(`${name}_bucket`) ?? []) {
    const { le, ...rest } = labels;
    const keyOf = JSON.stringify(rest);
    series.set(keyOf, [...(series.get(keyOf) ?? []), { labels: { le: le! }, value }]);
  }
  for (const [rest, buckets] of series) {
    const bounds = buckets.map(({ labels }) => (labels['le'] === '+Inf' ? Infinity : Number(labels['le'])));
    const count = samples.get(`${name}_count`)?.find(({ labels }) => JSON.stringify(labels) === rest)?.value;
    const ascend = buckets.every((bucket, i) => i === 0 || (bounds[i]! > bounds[i - 1]! && bucket.value >= buckets[i - 1]!.value));
    if (!ascend || bounds.at(-1) !== Infinity || buckets.at(-1)!.value !== count) throw new Error(`${name}${rest}: buckets that do not add up`);
  }
}

/** The value of one sample, 0 where it is not there. */
export function valueOf(families: ReadonlyMap<string, Family>, name: string, labels: Readonly<Record<string, string>> = {}): number {
  const family = [...families].find(([family]) => name === family || (name.startsWith(family) && /^_(bucket|sum|count)$/.test(name.slice(family.length))));
  if (!family) throw new Error(`There is no metric ${name}.`);
  return family[1].samples.get(name)?.find((sample) => Object.entries(labels).every(([label, value]) => sample.labels[label] === value))?.value ?? 0;
}
