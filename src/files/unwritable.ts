import { BignasError } from '../errors.js';

/**
 * What the file system refused (a full disk, a folder that is none), as an error that says how to mend it; undefined where the error is of another kind.
 * @param what could not be written: "The run in runs/mine" @param other what else to do than to make room @param then what goes on when it is mended
 */
export function unwritable(error: unknown, what: string, other: string, then?: string): BignasError | undefined {
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof BignasError || code === undefined || !code.startsWith('E') || code.startsWith('ERR_')) return undefined;
  const mend = ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(code) ? 'Make room there' : `Mend that, or ${other}`;
  return new BignasError('OPTION_INVALID', `${what} cannot be written: ${message}. ${mend}${then === undefined ? '' : `; ${then}`}.`, {}, { cause: error });
}
