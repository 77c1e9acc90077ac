// Child processes, failures and signals of the set-up. Plain JavaScript without dependencies, as everything in this folder:
// it runs in a fresh clone, before any package is there.
import { spawn } from 'node:child_process';
import { constants } from 'node:os';

const KEPT_OUTPUT = 64 * 1024;
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'];
const AGAIN = 'then run the same command again';

/** What went wrong, and what mends it: a command, or a few words. */
export class SetupFailure extends Error {
  constructor(message, mend) {
    super(message);
    this.name = 'SetupFailure';
    this.mend = `${mend}, ${AGAIN}`;
  }
}

/** One line on stderr: stdout belongs to the program that is being set up. */
export function say(line) {
  process.stderr.write(`[set-up] ${line}\n`);
}

/** The last lines of a command's output, indented, for a failure's message. */
export function lastLines(output, count = 12) {
  const lines = output.trimEnd().split(/\r?\n/).slice(-count);
  return lines.map((line) => `    ${line}`).join('\n');
}

export function isDiskFull(output) {
  return /ENOSPC|EDQUOT|No space left|Disk quota exceeded/.test(output);
}

export function diskFull(where) {
  return new SetupFailure(`the disk is full at ${where}.`, 'free some space there');
}

const children = new Set();
let interrupted;

/** Ends a step that was told to stop, at a point where nothing is half done. */
export function throwIfInterrupted() {
  if (interrupted) throw new Error(`stopped by ${interrupted}`);
}

/**
 * Runs a command to its end.
 * @returns {Promise<{ code: number | null, output: string, missing: boolean }>} `output`: stdout and stderr, the last 64 KiB;
 *   `missing`: there is no such command
 */
export async function run(command, args, options = {}) {
  throwIfInterrupted();
  const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  children.add(child);
  let output = '';
  const keep = (chunk) => {
    output = (output + chunk).slice(-KEPT_OUTPUT);
  };
  child.stdout.setEncoding('utf8').on('data', keep);
  child.stderr.setEncoding('utf8').on('data', keep);
  try {
    return await new Promise((resolve, reject) => {
      child.once('close', (code) => resolve({ code, output, missing: false }));
      child.once('error', (error) => {
        if (error.code === 'ENOENT') resolve({ code: null, output, missing: true });
        else reject(error);
      });
    });
  } finally {
    children.delete(child);
    throwIfInterrupted();
  }
}

/** A file operation's failure as the user can mend it; `undefined` where the error is a defect of ours. */
function fileFailure(error) {
  const where = error.dest ?? error.path ?? 'the folder that is written to';
  if (error.code === 'ENOSPC' || error.code === 'EDQUOT') return diskFull(where);
  if (['EACCES', 'EPERM', 'EROFS', 'ENOTDIR'].includes(error.code)) {
    return new SetupFailure(`${where} cannot be written (${error.code}).`, 'make it writable for you (engines go where BIGNAS_CACHE says)');
  }
  return undefined;
}

/**
 * Runs the steps in order. A failure is printed with its mend and ends the process with 1. A signal stops the running child
 * process, lets the step clean up, and ends the process with 128 + signal. Afterwards signals are nobody's: the program that
 * follows installs its own handlers.
 */
export async function setUp(...steps) {
  const stop = (signal) => {
    interrupted ??= signal;
    for (const child of children) child.kill(signal);
  };
  for (const signal of SIGNALS) process.on(signal, stop);
  try {
    for (const step of steps) {
      await step();
      throwIfInterrupted();
    }
  } catch (error) {
    if (interrupted) process.exit(128 + constants.signals[interrupted]);
    const failure = error instanceof SetupFailure ? error : fileFailure(error);
    if (!failure) throw error;
    process.stderr.write(`\nSet-up failed: ${failure.message}\nTo mend it: ${failure.mend}.\n`);
    process.exit(1);
  } finally {
    for (const signal of SIGNALS) process.off(signal, stop);
  }
}

/**
 * Runs a Node program in this one's place: its input and output, signals passed on, its exit code ours.
 * @param {string[]} args program and arguments
 * @param {Record<string, string>} defaults environment variables, where the caller's environment has none of that name
 */
export function become(args, defaults) {
  const child = spawn(process.execPath, args, { stdio: 'inherit', env: { ...defaults, ...process.env } });
  for (const signal of SIGNALS) process.on(signal, () => passOn(child, signal));
  child.once('exit', (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
}

/** Ctrl-C in a terminal reaches the child without us, and a program may take a second one for "at once". */
function passOn(child, signal) {
  if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
}

/** glibc keeps its memory instead of returning it after every step: a tenth faster. TensorFlow logs warnings and errors alone. */
export const TENSORFLOW_ENVIRONMENT = {
  MALLOC_MMAP_MAX_: '0',
  MALLOC_TRIM_THRESHOLD_: '16000000000',
  MALLOC_TOP_PAD_: '268435456',
  TF_CPP_MIN_LOG_LEVEL: '2',
};
