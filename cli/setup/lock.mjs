// One set-up at a time.
import { randomUUID } from 'node:crypto';
import { closeSync, linkSync, mkdirSync, openSync, readFileSync, renameSync, statSync, utimesSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { remove, temporaryBeside } from './files.mjs';
import { say, throwIfInterrupted } from './process.mjs';

const BEAT_MS = 500;
/** An owner that is not to be seen may run in another container that shares the folder: its beat tells. */
const SILENT_MS = 6 * BEAT_MS;
/** The owner's process number may be another's by now: without a beat for so long it is. */
const DEAD_MS = 120 * BEAT_MS;

/**
 * Holds the lock file `path` while `work` runs; waits while another process holds it.
 * @param {string} what what the other process is doing, for the line that says why this one waits
 */
export async function withLock(path, what, work) {
  const token = await acquire(path, what);
  const timer = setInterval(() => beat(path), BEAT_MS);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    if (read(path)?.token === token) remove(path);
  }
}

async function acquire(path, what) {
  mkdirSync(dirname(path), { recursive: true });
  const began = Date.now();
  for (let told = false; ; await sleep(100)) {
    throwIfInterrupted();
    const token = tryAcquire(path);
    if (token) return token;
    const owner = read(path);
    if (!owner) continue;
    if (isAbandoned(owner)) breakLock(path, owner);
    else if (!told && (isRunning(owner.pid) || Date.now() - began > SILENT_MS)) {
      say(`another process (${owner.pid ?? 'unknown'}) is ${what}; waiting for it`);
      told = true;
    }
  }
}

function tryAcquire(path) {
  let file;
  try {
    file = openSync(path, 'wx');
  } catch (error) {
    if (error.code === 'EEXIST') return undefined;
    throw error;
  }
  const token = randomUUID();
  writeSync(file, JSON.stringify({ pid: process.pid, token }));
  closeSync(file);
  return token;
}

function read(path) {
  try {
    const age = Date.now() - statSync(path).mtimeMs;
    return { ...parse(readFileSync(path, 'utf8')), age };
  } catch (error) {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** A lock that was just created, or whose writer found the disk full, is empty. */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

function isAbandoned({ pid, age }) {
  return age > DEAD_MS || (age > SILENT_MS && !isRunning(pid));
}

/** Renamed before it is removed: of several who saw the same abandoned lock, the later ones must not take the first one's new lock. */
function breakLock(path, { token }) {
  const taken = temporaryBeside(path);
  try {
    renameSync(path, taken);
    if (read(taken).token !== token) linkSync(taken, path);
  } catch (error) {
    if (error.code !== 'ENOENT' && error.code !== 'EEXIST') throw error;
  } finally {
    remove(taken);
  }
}

function isRunning(pid) {
  if (!Number.isInteger(pid)) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

function beat(path) {
  const now = new Date();
  try {
    utimesSync(path, now, now);
  } catch {
    // Taken away by another process, which then works beside this one.
  }
}
