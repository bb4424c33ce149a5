/** What the command line of the restaurant says. */
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const USAGE =
  "Usage: restaurant.ts [FILE | -] [--ledger FILE] [--hours N] [--trace FOLDER] [--inspect]";
const MOST = 500; // timers count up to 596 hours

export interface Options {
  /** The file with the orders; `-` for standard input. */
  menu: string;
  /** The file of the ledger. */
  ledger: string;
  /** Until closing time, in milliseconds. */
  opening: number;
  /** The folder for pictures of the day, if there are to be any. */
  trace?: string;
  /** Whether the restaurant is shown on a web page. */
  inspect: boolean;
}

/** Reads the command line; if it is wrong, says why and exits with code 1. */
export function readOptions(): Options {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        ledger: { type: "string", default: "restaurant.db" },
        hours: { type: "string", default: "8" },
        trace: { type: "string" },
        inspect: { type: "boolean", default: false },
      },
    });
    const [menu = flights(), ...more] = positionals;
    if (more.length > 0) throw new RangeError(`one FILE, not also ${more}`);
    const hours = Number(values.hours);
    if (!(hours > 0 && hours <= MOST)) {
      throw new RangeError(
        `--hours must be above 0, up to ${MOST}, got ${values.hours}`,
      );
    }
    const { ledger, trace, inspect } = values;
    return { menu, ledger, opening: hours * 3_600_000, trace, inspect };
  } catch (error) {
    console.error(`Error: ${(error as Error).message}\n${USAGE}`);
    process.exit(1);
  }
}

/** A real table: how many flights went from one airport to another. */
function flights(): string {
  const entry = import.meta.resolve("vega-datasets");
  return fileURLToPath(new URL("../data/flights-airport.csv", entry));
}
