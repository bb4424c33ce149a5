// Measures the benches of one group, in a process of its own: what a runtime
// learns about one shape of work must not colour the next.
//
//   measure.ts FILE GROUP    FILE without its _bench.ts; prints JSON
//   measure.ts FILE          prints the groups of the file

import process from "node:process";
import { type Group, groups } from "./group.ts";

const WARM_UP = 120; // ms a bench
const SAMPLE = 8; // ms; one round at least
const SAMPLES = 7;
const LIMIT = 10_000; // ms for the first round

const [file, name] = process.argv.slice(2);
await import(`./${file}_bench.ts`);
const group = groups.find((group) => group.name === name);
console.log(JSON.stringify(
  group ? await measure(group) : groups.map((group) => ({
    ...group,
    benches: Object.keys(group.benches),
  })),
));
process.exit(); // workers may be left

/** The samples of each bench, in ns an operation; or why it failed; null where it cannot run. */
async function measure(
  { benches, operations }: Group,
): Promise<Record<string, number[] | string | null>> {
  const results: Record<string, number[] | string | null> = {};
  const runners: Runner[] = [];
  for (const [name, round] of Object.entries(benches)) {
    results[name] = null;
    if (round === undefined) continue;
    try {
      await inTime(round());
      runners.push({ name, round, times: await warmUp(round) });
      results[name] = [];
    } catch (error) {
      results[name] = String(error);
    }
  }
  for (let i = 0; i <= SAMPLES; i++) { // in turns; the first is warm-up, too
    for (const { name, round, times } of runners) {
      const samples = results[name];
      if (round === undefined || !Array.isArray(samples)) continue;
      const since = performance.now();
      try {
        for (let n = 0; n < times; n++) await round();
      } catch (error) {
        results[name] = String(error);
        continue;
      }
      const ms = performance.now() - since;
      if (i > 0) samples.push(ms * 1e6 / (times * operations));
    }
  }
  return results;
}

interface Runner {
  name: string;
  round: () => void | Promise<void>;
  /** How many rounds make a sample. */
  times: number;
}

async function warmUp(round: Runner["round"]): Promise<number> {
  const since = performance.now();
  let rounds = 0;
  for (; performance.now() < since + WARM_UP; rounds++) await round();
  return Math.ceil(rounds * SAMPLE / WARM_UP);
}

/** Rejects if `done` takes longer than it may, be it for ever. */
function inTime(done: void | Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`Not done after ${LIMIT / 1000} seconds`)),
      LIMIT,
    );
    Promise.resolve(done).finally(() => clearTimeout(timer))
      .then(resolve, reject);
  });
}
