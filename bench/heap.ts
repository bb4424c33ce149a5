// What a queue costs in memory, and whether it gives it back. Needs the
// runtime's garbage collector at hand:
//
//   deno run --v8-flags=--expose-gc bench/heap.ts
//   node --expose-gc, bun: likewise
//
// Prints a line for each figure: what, a tab, bytes, and the most that it may be.

import process from "node:process";
import { Queue } from "../queue.ts";
import { check } from "./group.ts";

interface Host {
  gc?(): void;
  Bun?: { gc(now: true): void };
}
const host = globalThis as Host;

/** Bytes in use, once the garbage is gone. */
async function used(): Promise<number> {
  for (let i = 0; i < 4; i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (host.Bun) host.Bun.gc(true);
    else host.gc!();
  }
  if (!host.Bun) return process.memoryUsage().heapUsed;
  const name = "bun:jsc";
  return (await import(name)).heapStats().heapSize;
}

function print(what: string, bytes: number, atMost?: number): void {
  console.log([what, Math.round(bytes), atMost].join("\t"));
}

/** Prints the growth of the heap for each of `count` things that `make` makes. */
async function each<T>(
  what: string,
  count: number,
  make: (i: number) => T,
): Promise<void> {
  const all = new Array<T>(count).fill(undefined as T);
  const before = await used();
  for (let i = 0; i < count; i++) all[i] = make(i);
  print(what, (await used() - before) / count);
  check(all.length, count); // they live until here
}

const MILLION = 1_000_000;
const SLACK = 100_000; // bytes; what the runtime itself does

/** Sends and receives values, each an object of its own. */
async function stream(
  queue: Queue<{ i: number }>,
  count: number,
): Promise<void> {
  const send = async () => {
    for (let i = 0; i < count; i++) await queue.send({ i });
  };
  const receive = async () => {
    let sum = 0;
    for (let i = 0; i < count; i++) sum += (await queue.receive()).i;
    return sum;
  };
  await Promise.all([send(), receive()]);
}

const never = new Queue<{ i: number }>({ capacity: 1024 });
for (let i = 0; i < 10; i++) never.trySend({ i });
await stream(never, MILLION); // warm-up
const before = await used();
await stream(never, MILLION);
print(
  "1,000,000 values through a queue never empty: heap before",
  before,
);
const after = await used();
print("…and after", after, before + SLACK);
check(never.size, 10);

const burst = new Queue<{ i: number }>({ capacity: Infinity });
const fill = () => {
  for (let i = 0; i < MILLION; i++) burst.trySend({ i });
};
fill();
burst.drain();
const idle = await used();
print("a burst of 1,000,000 objects: heap before", idle);
fill();
print("…all queued", await used());
for (let i = 0; i < MILLION; i++) burst.tryReceive();
print("…received one by one", await used(), idle + SLACK);
fill();
check(burst.drain().length, MILLION);
print("…queued again and drained", await used(), idle + SLACK);

const numbers = new Queue<number>({ capacity: Infinity });
await each("a queued number", MILLION, (i) => {
  numbers.trySend(i % 100);
});
const waiting = new Queue<number>({ capacity: 0 });
await each("a waiting receive()", 100_000, () => waiting.receive());
const { signal } = new AbortController();
await each(
  "a waiting receive({ signal }), one signal for all",
  100_000,
  () => waiting.receive({ signal }),
);
const sending = new Queue<number>();
await each("a waiting send()", 100_000, () => sending.send(1));
await each("a bare waiting promise", 100_000, () => {
  let resolve, reject;
  const promise = new Promise((...both) => [resolve, reject] = both);
  return { promise, resolve, reject };
});
await each("an idle queue", 100_000, () => new Queue({ capacity: 16 }));
await each("an idle queue, used once", 100_000, () => {
  const queue = new Queue({ capacity: 16 });
  queue.trySend(1);
  queue.drain();
  return queue;
});
check([numbers.size, waiting.size, sending.size].join(), `${MILLION},0,0`);
