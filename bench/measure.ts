// Measures the benches of one group, in a process of its own: what a runtime
// learns about one shape of work must not colour the next.
//
//   measure.ts FILE GROUP    FILE without its _bench.ts; prints JSON
//   measure.ts FILE          prints the groups of the file

import process from "node:process";
import { type Group, groups } from "./group.ts";

const WARM_UP = 300; // ms a bench
const SAMPLE = 15; // ms of the baseline
const SAMPLES = 9;

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
  let times = 0; // rounds a sample: as many for each bench
  for (const [name, round] of Object.entries(benches)) {
    results[name] = null;
    if (round === undefined) continue;
    results[name] = [];
    const since = performance.now();
    try {
      let rounds = 0;
      for (; performance.now() < since + WARM_UP; rounds++) await round();
      times ||= Math.ceil(rounds * SAMPLE / WARM_UP);
    } catch (error) {
      results[name] = String(error);
    }
  }
  for (let i = 0; i <= SAMPLES; i++) { // in turns; the first is warm-up, too
    for (const [name, round] of Object.entries(benches)) {
      const samples = results[name];
      if (round === undefined || !Array.isArray(samples)) continue;
      const since = performance.now();
      for (let n = 0; n < times; n++) await round();
      const ms = performance.now() - since;
      if (i > 0) samples.push(ms * 1e6 / (times * operations));
    }
  }
  return results;
}
