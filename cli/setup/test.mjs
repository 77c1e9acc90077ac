// npm test [-- part of a file's name ...] [--test-name-pattern=...]     npm run acceptance [-- part of a file's name ...]
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkNode } from './nodeVersion.mjs';

checkNode();
const { SetupFailure, TENSORFLOW_ENVIRONMENT, become, build, engine, npmPackages, setUp } = await import('./steps.mjs');
const { filesUnder } = await import('./files.mjs');

const TESTS = fileURLToPath(new URL('../../dist/test/', import.meta.url));
const args = process.argv.slice(2);
const [folder, ending] = args.includes('--acceptance') ? ['acceptance', '.acceptance.js'] : ['.', '.test.js'];
const forNode = args.filter((arg) => arg.startsWith('--test-'));
const parts = args.filter((arg) => !arg.startsWith('-'));

function checkArguments() {
  const unknown = args.find((arg) => arg.startsWith('-') && arg !== '--acceptance' && !forNode.includes(arg));
  if (unknown) throw new SetupFailure(`${unknown} is no option of the tests.`, "leave it out (node's own begin with --test-)");
}

let files = [];
function findFiles() {
  files = filesUnder(join(TESTS, folder))
    .filter((file) => file.endsWith(ending))
    .filter((file) => parts.length === 0 || parts.some((part) => relative(TESTS, file).includes(part)))
    .sort();
  if (files.length > 0) return;
  const named = parts.length > 0 ? ` whose name has ${parts.join(' or ')}` : '';
  throw new SetupFailure(`there is no test file (test/${folder}/**/*${ending.replace('.js', '.ts')})${named}.`, 'name another, or write it');
}

await setUp(checkArguments, npmPackages, build, engine, findFiles);
become(['--test', '--test-reporter=spec', '--test-concurrency=1', ...forNode, ...files], TENSORFLOW_ENVIRONMENT);
