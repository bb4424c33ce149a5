/** Reads a table, each row of which is an order. */
import { parse } from "csv-parse";
import { createReadStream } from "node:fs";
import { extname } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { pipeline, type Readable } from "node:stream";

/** What a guest has ordered. */
export interface Order {
  /** The line of the file on which the order ends. */
  line: number;
  guest: string;
  dish: string;
  portions: number;
}

/** Is told of a row that could not be read. */
export type Skip = (line: number, why: string) => void;

/**
 * Streams the orders of a file, or of standard input (`-`): lines of JSON
 * (`.ndjson`, `.jsonl`), plain lines (`.txt`, `.log`), else CSV with a header.
 * The first field is the guest, the second the dish, the last, if it is a whole
 * number, the portions.
 */
export function orders(file: string, skip: Skip): AsyncIterableIterator<Order> {
  const input = file === "-" ? process.stdin : createReadStream(file);
  const orders = read(input, extname(file), skip);
  let stopped = false;
  return {
    async next() {
      try {
        return await orders.next();
      } catch (error) {
        if (stopped) return { value: undefined, done: true };
        throw error;
      }
    },
    return() { // at once, also while standard input is silent
      stopped = true;
      input.destroy();
      return orders.return(undefined);
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

function read(
  input: Readable,
  extension: string,
  skip: Skip,
): AsyncGenerator<Order> {
  switch (extension) {
    case ".ndjson":
    case ".jsonl":
      return lines(input, skip, fieldsOfJson);
    case ".txt":
    case ".log":
      return lines(input, skip, (line) => [line]);
    default:
      return csv(input, skip);
  }
}

async function* csv(input: Readable, skip: Skip): AsyncGenerator<Order> {
  const parser = parse({
    bom: true,
    info: true,
    relax_quotes: true,
    skip_empty_lines: true,
    skip_records_with_error: true,
    on_skip: (error) => {
      skip(Number(error?.lines), String(error?.message));
    },
  });
  pipeline(input, parser, () => {}); // an error reaches the loop through the parser
  let header = true;
  for await (const { record, info } of parser) {
    if (!header) yield orderOf(info.lines, record);
    header = false;
  }
}

async function* lines(
  input: Readable,
  skip: Skip,
  fieldsOf: (line: string) => string[],
): AsyncGenerator<Order> {
  let line = 0;
  for await (const read of createInterface({ input, crlfDelay: Infinity })) {
    line++;
    const text = line === 1 ? read.replace(/^\ufeff/, "") : read;
    if (text.trim() === "") continue;
    let fields;
    try {
      fields = fieldsOf(text);
    } catch (error) {
      skip(line, String(error));
      continue;
    }
    yield orderOf(line, fields);
  }
}

function fieldsOfJson(line: string): string[] {
  const row: unknown = JSON.parse(line);
  if (typeof row !== "object" || row === null) {
    throw new TypeError(`a row must be an object or an array, got ${line}`);
  }
  const fields = Object.values(row).map(String);
  if (fields.length === 0) throw new TypeError("a row must have a field");
  return fields;
}

function orderOf(line: number, fields: string[]): Order {
  const [guest, dish = guest] = fields;
  const portions = Number(fields.at(-1));
  const counted = Number.isInteger(portions) && portions > 0 && portions < 1e9;
  return { line, guest, dish, portions: counted ? portions : 1 };
}
