/**
 * A query that blocks its thread for a second, or as many milliseconds as one
 * says, ten times, while this thread has something to do every 10 ms: first with
 * the database here, then in a worker.
 *
 *     deno run --allow-read examples/executor.ts [ms]
 *     node examples/executor.ts [ms]
 *     bun examples/executor.ts [ms]
 */
import process from "node:process";
import { WorkerSerializer } from "../worker.ts";
import { count, type Counter, open } from "./executor_worker.ts";

const BEAT = 10; // ms
const QUERY = Number(process.argv[2] ?? 1000); // ms

/** Runs `work` beside a timer; returns by how many ms the timer was late at worst. */
async function worstDelay(work: () => Promise<unknown>): Promise<number> {
  let worst = 0;
  let last = performance.now();
  const look = () => {
    const now = performance.now();
    worst = Math.max(worst, now - last - BEAT);
    last = now;
  };
  const timer = setInterval(look, BEAT);
  await work();
  clearInterval(timer);
  look();
  return Math.round(worst);
}

/** How far SQLite counts in that time. */
async function calibrate(): Promise<number> {
  const database = await open();
  const sample = 1_000_000;
  const since = performance.now();
  count(database, sample);
  const ms = performance.now() - since;
  database.close();
  return Math.round(sample * QUERY / ms);
}

const n = await calibrate();

const database = await open();
const here = await worstDelay(async () => {
  for (let query = 0; query < 10; query++) {
    count(database, n);
    await new Promise((resolve) => setTimeout(resolve)); // others have a turn
  }
});
database.close();
console.log(`without an executor: the timer was up to ${here} ms late`);

await using executor = new WorkerSerializer<Counter>(
  new URL("./executor_worker.ts", import.meta.url),
  { name: "database" },
);
await executor.request(1); // the worker has started
const there = await worstDelay(async () => {
  const answers = Array.from({ length: 10 }, () => executor.request(n));
  if ((await Promise.all(answers)).some((count) => count !== n)) {
    throw new Error("SQLite has miscounted");
  }
});
console.log(`with an executor: the timer was up to ${there} ms late`);
