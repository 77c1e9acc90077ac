import { createReadStream } from 'node:fs';

/**
 * The lines of a file that grows line by line, parsed, each with the offset behind it. None where there is no file. A last line without its end
 * is no line yet: its writer was killed.
 * @param parse what a line's text means; `line` counts from 1
 */
export async function* jsonLines<T>(path: string, parse: (text: string, line: number) => T): AsyncGenerator<{ readonly value: T; readonly end: number }> {
  let rest: Buffer = Buffer.alloc(0);
  let end = 0;
  let line = 0;
  try {
    for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
      rest = Buffer.concat([rest, chunk]);
      let from = 0;
      for (let to = rest.indexOf('\n'); to >= 0; to = rest.indexOf('\n', from)) {
        const value = parse(rest.toString('utf8', from, to), ++line);
        end += to + 1 - from;
        from = to + 1;
        yield { value, end };
      }
      rest = rest.subarray(from);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
