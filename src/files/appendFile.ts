import { open, type FileHandle } from 'node:fs/promises';

/**
 * A file that only grows, by whole records: what is added waits in memory until a flush, and a flush that fails (a full disk) takes its
 * part of a record back, keeps the records waiting, and may be tried again. One call at a time.
 */
export class AppendFile {
  #waiting: Uint8Array[] = [];

  private constructor(
    readonly path: string,
    private readonly file: FileHandle,
    private length: number,
  ) {}

  /** Opens a file to go on with it, or makes it. */
  static async open(path: string): Promise<AppendFile> {
    const file = await open(path, 'a');
    return new AppendFile(path, file, (await file.stat()).size);
  }

  /** Adds a record. Costs no system call. */
  add(record: Uint8Array): void {
    this.#waiting.push(record);
  }

  /** Writes what waits. @param sync and has it reach the disk @throws what the file system throws; the file then is as it was */
  async flush({ sync = false } = {}): Promise<void> {
    if (this.#waiting.length > 0) {
      const bytes = Buffer.concat(this.#waiting);
      try {
        await this.file.writeFile(bytes);
      } catch (error) {
        await this.file.truncate(this.length);
        throw error;
      }
      this.length += bytes.length;
      this.#waiting = [];
    }
    if (sync) await this.file.datasync();
  }

  /** Drops what lies beyond the first `length` bytes, and nothing else, wherever a kill comes; needs no room on the disk. */
  async truncate(length: number): Promise<void> {
    await this.file.truncate(length);
    this.length = length;
    await this.file.datasync();
  }

  /** Flushes and closes. */
  async close(): Promise<void> {
    try {
      await this.flush({ sync: true });
    } finally {
      await this.file.close();
    }
  }
}
