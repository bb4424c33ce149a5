/**
 * How much of the heap is in use. Needs the runtime's garbage collector at hand.
 *
 * @module
 */

import process from "node:process";

interface Host {
  gc?(): void;
  Bun?: { gc(now: true): void };
}
const host = globalThis as Host;

/** Bytes in use, once the garbage is gone. */
export async function used(): Promise<number> {
  for (let i = 0; i < 4; i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (host.Bun) host.Bun.gc(true);
    else host.gc!();
  }
  if (!host.Bun) return process.memoryUsage().heapUsed;
  const name = "bun:jsc";
  return (await import(name)).heapStats().heapSize;
}

/** Prints a line for a figure: what, a tab, bytes, and the most that it may be. */
export function print(what: string, bytes: number, atMost?: number): void {
  console.log([what, Math.round(bytes), atMost].join("\t"));
}
