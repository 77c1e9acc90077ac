import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from '../../src/files/atomic.js';
import { flops } from '../../src/cost/cost.js';
import { buildGraph } from '../../src/graph/buildGraph.js';
import { drawPlot } from '../../src/plot/plot.js';
import { learningRate } from '../../src/train/schedule.js';
import { plotSpec, type PlottedRun } from '../../src/train/watch/plot.js';
import { childNames, children, rows, space, students, type ChildName } from './plan.js';
import { readResult, type Result } from './result.js';

/** Seeds that a report looks for. */
const mostSeeds = 10;

/** The results of a run, one a seed. */
type Results = ReadonlyMap<string, readonly Result[]>;

/**
 * Rewrites the tables and plots between the markers of evidence.md, each from its row's results alone; what has none says so.
 * @param docs the folder with evidence.md, where plots go into evidence/
 */
export async function writeReport(docs: string, resultsFolder: string): Promise<void> {
  const results: Results = new Map(
    await Promise.all([...new Set(rows.flatMap((row) => row.runs))].map(async (run): Promise<[string, readonly Result[]]> => [run, await resultsOf(resultsFolder, run)])),
  );
  const path = join(docs, 'evidence.md');
  let text = await readFile(path, 'utf8');
  for (const [section, table] of Object.entries(tables(results))) text = replaced(text, section, table);
  await mkdir(join(docs, 'evidence'), { recursive: true });
  for (const [row, names] of Object.entries(plots)) {
    const runs = Object.entries(names).flatMap(([run, name]) => plotted(name, results.get(run)!));
    if (runs.length > 0) await writeFileAtomic(join(docs, 'evidence', `${row}.svg`), (await drawPlot(plotSpec(runs))).svg);
  }
  await writeFileAtomic(path, text);
}

async function resultsOf(folder: string, run: string): Promise<Result[]> {
  const results = await Promise.all(Array.from({ length: mostSeeds }, (_, seed) => readResult(folder, run, seed)));
  return results.filter((result) => result !== undefined);
}

/** What the plot of a row calls its runs. */
const plots: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  initialisation: { supernet: 'zero γ', he: 'He' },
  schedule: { 'constant-0': 'exponential', 'constant-3': 'constant ending, 3 %', supernet: '5 %', 'constant-8': '8 %', 'constant-10': '10 %', cosine: 'cosine', linear: 'linear' },
  regularisation: { supernet: 'biggest only', 'regularise-all': 'all' },
  distillation: { supernet: 'in-place', labels: 'labels' },
};

function tables(results: Results): Record<string, string> {
  const cell = (run: string, child: ChildName): string => shown((results.get(run) ?? []).flatMap(({ final }) => final.test[child] ?? []));
  const megaflops = (child: ChildName): string => (flops(buildGraph(space, children[child])) / 1e6).toFixed(2);
  const byRun = (row: string): string => {
    const names = Object.entries(plots[row]!);
    return table(['', ...childNames], names.map(([run, name]) => [name, ...childNames.map((child) => cell(run, child))]));
  };
  return {
    'table-3': table(
      ['child', 'MFLOPs', 'sliced', 'alone', 'alone, not regularised', 'alone, trained teacher', 'alone, teacher trained alongside'],
      childNames.map((child) => [child, megaflops(child), cell('supernet', child), ...['alone', 'unregularised', 'frozen', 'joint'].map((side) => cell(`${side}-${child}`, child))]),
    ),
    'table-2': table(
      ['child', 'sliced', ...['25 %', '5 %', '1 %'].map((rate) => `+1 epoch at ${rate}`)],
      students.map((child) => [child, cell('supernet', child), ...[25, 5, 1].map((rate) => cell(`fine-tuning-${child}-${rate}`, child))]),
    ),
    initialisation: byRun('initialisation'),
    schedule: byRun('schedule'),
    regularisation: byRun('regularisation'),
    distillation: byRun('distillation'),
    runs: summary(results),
  };
}

/** Mean and range in percent; the number of seeds where it is not two. */
function shown(accuracies: readonly number[]): string {
  if (accuracies.length === 0) return '–';
  const percent = (x: number): string => (100 * x).toFixed(1);
  const mean = accuracies.reduce((sum, x) => sum + x, 0) / accuracies.length;
  const range = accuracies.length > 1 ? ` (${percent(Math.min(...accuracies))}–${percent(Math.max(...accuracies))})` : ' (one seed)';
  return percent(mean) + range;
}

/** How long the runs took, and where. */
function summary(results: Results): string {
  const all = [...results.values()].flat();
  if (all.length === 0) return 'No run has a result yet.';
  const minutes = (list: readonly Result[]): string => (Math.max(...list.map(({ seconds }) => seconds)) / 60).toFixed(1);
  const list = (values: readonly (string | null)[]): string => [...new Set(values)].join(', ');
  const total = all.reduce((sum, { seconds }) => sum + seconds, 0) / 3600;
  return [
    `${all.length} runs, ${total.toFixed(1)} hours of training steps; the longest run of the supernet took ${minutes(results.get('supernet') ?? all)} minutes.`,
    `On ${list(all.map(({ hardware }) => hardware))}; commit ${list(all.map(({ commit }) => commit?.slice(0, 12) ?? 'unknown'))}.`,
  ].join('\n');
}

function table(head: readonly string[], body: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...body.map(line)].join('\n');
}

/** The text with what stands between a section's markers replaced. @throws Error where it has no such markers */
function replaced(text: string, section: string, content: string): string {
  const [begin, end] = [`<!-- ${section} -->`, `<!-- end of ${section} -->`];
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`evidence.md has no markers of ${section}.`);
  return `${text.slice(0, from + begin.length)}\n${content}\n${text.slice(to)}`;
}

/** The mean of the seeds as one curve, up to the run's end. */
function plotted(name: string, results: readonly Result[]): PlottedRun[] {
  const [first] = results;
  if (!first) return [];
  const { steps, stepsPerEpoch } = first.recipe;
  const curves = results.map(({ validation, final }) => [...validation.filter(({ step }) => step < steps), { step: steps, accuracy: final.validation }]);
  const mean = (values: readonly number[]): number => values.reduce((sum, v) => sum + v, 0) / values.length;
  return [
    {
      name,
      accuracies: curves[0]!.flatMap(({ step }, i) =>
        (['biggest', 'smallest'] as const).map((child) => ({ epoch: step / stepsPerEpoch, child, accuracy: mean(curves.map((curve) => curve[i]!.accuracy[child]!)) })),
      ),
      rates: Array.from({ length: steps }, (_, step) => ({ epoch: (step + 1) / stepsPerEpoch, rate: learningRate(first.recipe, step) })),
    },
  ];
}
