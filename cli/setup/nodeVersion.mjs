// Kept to syntax and modules that old Nodes have, and imported first: a wrong Node must get this message, not a syntax error.

/** tfjs-node breaks on Node 23 and later, which no longer have `util.isNullOrUndefined`. */
const WANTED = '>=20.10 <23';

/** True where Node `version` ("20.20.2") is one that bignas runs on. */
export function isSupportedNode(version) {
  const [major, minor] = version.split('.').map(Number);
  return major < 23 && (major > 20 || (major === 20 && minor >= 10));
}

/** Ends the process with 1 where this Node is none that bignas runs on. */
export function checkNode(version = process.versions.node) {
  if (isSupportedNode(version)) return;
  process.stderr.write(
    `\nSet-up failed: bignas needs Node ${WANTED}, and this is Node ${version} (${process.execPath}).\n` +
      'To mend it: install Node 22, for example by `nvm install 22 && nvm use 22`, then run the same command again.\n',
  );
  process.exit(1);
}
