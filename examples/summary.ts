/** What the restaurant prints while it is open, and when it has closed. */
import process from "node:process";
import type { BusSnapshot, Queue } from "../mod.ts";
import type { Totals } from "./ledger.ts";

const { isTTY } = process.stderr;

// Whoever reads along may leave; the restaurant goes on.
process.stdout.on("error", () => {});
process.stderr.on("error", () => {});

/** Shows a line, for a while: in place on a terminal, one below the other elsewhere. */
export function show(line: string): Promise<void> {
  const text = line.replace(/\p{Cc}/gu, "?"); // data must not move the cursor
  process.stderr.write(isTTY ? `\r\x1b[K${text}` : `${text}\n`);
  return new Promise((seen) => setTimeout(seen, isTTY ? 50 : 200));
}

/** Prints what came of the day. Returns what is wrong: the ledger must have what was ordered. */
export function summary(
  { orders, portions, served, skipped, slips }: Record<string, number>,
  written: Totals,
  seconds: number,
  snapshot: BusSnapshot,
  queue: Queue<unknown>,
): Error[] {
  if (isTTY) process.stderr.write("\r\x1b[K");
  console.log("Queue: most at a time / capacity, dropped");
  for (const { name, peak, capacity, dropped } of snapshot.subscriptions) {
    console.log(`  ${name}: ${peak} / ${capacity}, ${dropped}`);
  }
  console.log(`  slips: ${slips} / ${queue.capacity}, ${queue.dropped}`);
  console.log(`Ordered: ${orders} (${portions} portions), ${skipped} skipped`);
  console.log(`Served: ${served}, ${Math.round(served / seconds)} per second`);
  console.log(`Ledger: ${written.orders} (${written.portions} portions)`);
  return written.orders === orders && written.portions === portions
    ? []
    : [new Error("the ledger does not have what was ordered")];
}
