import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { unzipSync } from 'fflate';
import sharp from 'sharp';
import type { RunningServer } from '../../serve/server.js';
import { loadCifar10 } from '../../src/data/cifar10.js';
import { tensorflowPython, userPython } from '../support/python.js';
import { testServer } from '../support/server.js';

const folder = mkdtempSync(join(tmpdir(), 'bignas-bundle-'));
let server: RunningServer;
before(async () => {
  server = await testServer(fileURLToPath(new URL('../../../checkpoints/cifar10', import.meta.url)));
});
after(async () => {
  await server.stop(5000);
  rmSync(folder, { recursive: true, force: true });
});

interface Manifest {
  readonly architecture: string;
  readonly labels: readonly string[];
  readonly files: Readonly<Record<string, string>>;
}

/** Ten test images, one of each class, as PNG, and one as a large photograph. */
async function images(): Promise<Buffer[]> {
  const { classes, splits } = await loadCifar10({ log: console.log });
  const crops = await Promise.all(classes.map((_, i) => splits.test.crops([splits.test.labels.indexOf(i)])));
  const raw = { raw: { width: 32, height: 32, channels: 3 as const } };
  return Promise.all([
    ...crops.map((pixels) => sharp(pixels, raw).png().toBuffer()),
    sharp(crops[0]!, raw).resize(640, 427, { fit: 'fill' }).png().toBuffer(),
  ]);
}

test("a downloaded bundle, run by its own README's Python, gives the server's probabilities to 1e-4", async () => {
  const photos = await images();
  for (const query of ['arch=M&preprocess=true', 'arch=M&format=savedmodel', 'arch=L&format=savedmodel&preprocess=true&dtype=float16', 'arch=XL&dtype=float16', 'flops=600M', 'flops=4M', 'arch=smallest', 'arch=S', 'arch=r26_c16_3x8_3x16-3x16_5x24-3x32_3x48-5x56-3x64_5x96_c288']) {
    const response = await fetch(`${server.url}/slice?${query}`);
    assert.equal(response.status, 200);
    const files = unzipSync(new Uint8Array(await response.arrayBuffer()));
    const manifest = JSON.parse(Buffer.from(files['manifest.json']!).toString()) as Manifest;
    for (const [name, sha256] of Object.entries(manifest.files)) assert.equal(createHash('sha256').update(files[name]!).digest('hex'), sha256);

    const target = mkdtempSync(join(folder, 'child-'));
    for (const [name, bytes] of Object.entries(files)) writeFileSync(join(target, name), bytes);
    const readme = Buffer.from(files['README.md']!).toString();
    const python = query.includes('savedmodel') ? tensorflowPython() : userPython();
    // A pixel of a photo's crop that lies at a half may be rounded to the other side where the model prepares it.
    const tolerance = query.includes('float16') ? 2e-2 : query.includes('preprocess') ? 1e-3 : 1e-4;
    const code = [...readme.matchAll(/```python\n([\s\S]*?)```/g)].map(([, block]) => block).join('\n');
    for (const photo of photos) {
      mkdirSync(target, { recursive: true });
      writeFileSync(join(target, 'photo.jpg'), photo); // Pillow goes by content
      const output = execFileSync(python, ['-c', `${code}\nprint(json.dumps(probabilities.tolist()))`], { cwd: target, encoding: 'utf8' });
      const theirs = JSON.parse(output.trim().split('\n').at(-1)!) as number[];
      const answer = await fetch(`${server.url}/predict?top=10&arch=${manifest.architecture}`, {
        method: 'POST', body: photo as Uint8Array<ArrayBuffer>, headers: { 'content-type': 'image/png' },
      });
      const { predictions } = (await answer.json()) as { predictions: { classes: { index: number; probability: number }[] }[] };
      for (const { index, probability } of predictions[0]!.classes)
        assert(Math.abs(probability - theirs[index]!) <= tolerance, `${query}: ${manifest.labels[index]}: ${probability} here, ${theirs[index]} in Python`);
    }
  }
});
