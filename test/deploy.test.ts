/** The files in deploy/ are written for this server: its metrics, routes, options and ports. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { spawnSync } from 'node:child_process';
import { parseAllDocuments } from 'yaml';
import { Metrics } from '../serve/metrics.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const deploy = join(root, 'deploy');
const files = readdirSync(deploy, { recursive: true, withFileTypes: true }).flatMap((entry) => (entry.isFile() ? [join(entry.parentPath, entry.name)] : []));
const text = (path: string): string => readFileSync(path, 'utf8');

interface Rule {
  readonly alert: string;
  readonly expr: string;
}

const alerts = parseAllDocuments(text(join(deploy, 'alerts.yml'))).flatMap((document) => (document.toJS() as { groups: { rules: Rule[] }[] }).groups.flatMap(({ rules }) => rules));
const dashboard = JSON.parse(text(join(deploy, 'grafana', 'bignas.json'))) as { panels: { title: string; targets: { expr: string }[] }[] };
const dockerfile = text(join(root, 'Dockerfile'));

test('every file can be read', () => {
  for (const file of files) {
    if (file.endsWith('.json')) JSON.parse(text(file));
    else for (const document of parseAllDocuments(text(file))) assert.deepEqual(document.errors, [], file);
  }
});

test('alerts, dashboard and autoscaler ask for metrics that the server has', async () => {
  const known = new Set<string>();
  for (const { name, type } of await new Metrics().registry.getMetricsAsJSON()) {
    known.add(name);
    if (String(type) === 'histogram') for (const suffix of ['_bucket', '_sum', '_count']) known.add(name + suffix);
  }
  const adapter = text(join(deploy, 'prometheus-adapter.yaml'));
  const asked = [...alerts.map(({ expr }) => expr), ...dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)), adapter.replace('name: { as: bignas_queue_seconds_mean }', '')];
  const names = asked.flatMap((expression) => expression.match(/\bbignas_\w+/g) ?? []);
  assert.ok(names.length > 40);
  assert.deepEqual([...new Set(names)].filter((name) => !known.has(name)), []);
  assert.match(text(join(deploy, 'kubernetes.yaml')), /name: bignas_queue_seconds_mean/);
});

test('every alert is explained in the runbook', () => {
  const runbook = text(join(root, 'docs', 'deploy.md'));
  assert.deepEqual(alerts.filter(({ alert }) => !runbook.includes(`### ${alert}`)), []);
});

test('variables are those of the server, ports and probes its own, images pinned', () => {
  const help = spawnSync(process.execPath, [fileURLToPath(new URL('../cli/bignas-serve.js', import.meta.url)), '--help'], { encoding: 'utf8' }).stdout.replaceAll(/\s+/g, ' ');
  const variables = new Set(help.match(/BIGNAS_[A-Z_]+/g));
  assert.ok(variables.size > 12);
  variables.add('BIGNAS_CACHE'); // of the whole of bignas
  for (const path of [...files, join(root, 'Dockerfile')]) for (const name of text(path).match(/BIGNAS_[A-Z_]+/g) ?? []) assert.ok(variables.has(name), `${path}: ${name}`);
  for (const path of files) {
    for (const [, probe] of text(path).matchAll(/path: (\/v2\/\S+?)[,\s]/g)) assert.ok(['/v2/health/live', '/v2/health/ready'].includes(probe!), `${path}: ${probe}`);
    for (const [, image] of text(path).matchAll(/image: (\S+)/g)) assert.match(image!, /:v?\d+\.\d+\.\d+$/, path);
    for (const [, port] of text(path).matchAll(/containerPort: (\d+)/g)) assert.ok(dockerfile.includes(`EXPOSE ${port}`), path);
    for (const [, target] of text(path).matchAll(/target: (server\S*)/g)) assert.match(dockerfile, new RegExp(`AS ${target}$`, 'm'));
  }
  assert.match(dockerfile, /AS server\n(?:COPY.*\n)+$/, 'the image without TensorFlow is the one that is built where no target is named');
  const { version } = JSON.parse(text(join(root, 'package.json'))) as { version: string };
  for (const name of ['compose.yaml', 'kubernetes.yaml', 'kserve.yaml']) assert.ok(text(join(deploy, name)).includes(`image: bignas:${version}`), name);
});
