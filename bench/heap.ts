// What queues, serializers and buses cost in memory, and whether a queue gives
// it back. Needs the runtime's garbage collector at hand:
//
//   deno run --v8-flags=--expose-gc bench/heap.ts
//   node --expose-gc, bun: likewise

import { Bus } from "../bus.ts";
import { Queue } from "../queue.ts";
import { Serializer } from "../serializer.ts";
import { check } from "./group.ts";
import { print, used } from "./used.ts";

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
const SLACK = 200_000; // bytes; what the runtime itself does

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

const same = (_: number, request: number) => request;
const serializer = () => new Serializer({ open: () => 0, handle: same });
await each("an idle serializer", 100_000, serializer);
await each("an idle serializer, used once", 100_000, () => {
  const used = serializer();
  used.request(1);
  return used;
});
const busy = serializer();
let end = () => {};
const ended = busy.run(() => new Promise<void>((resolve) => end = resolve));
let answers: Promise<number>[] = [];
await each("a waiting request()", 100_000, (i) => {
  answers.push(busy.request(i));
});
check(busy.waiting, 100_000);
end();
await ended;
check((await Promise.all(answers)).at(-1), 99_999);
answers = [];

const bus = new Bus<{ order: number }>();
await each("an idle bus", 100_000, () => new Bus());
await each("a subscription", 10_000, () => bus.subscribe("order"));
await each("a subscription with a handler", 10_000, (i) => {
  return bus.on("order", () => i);
});
await each("a subscription with a waiting reader", 10_000, () => {
  const events = bus.subscribe("order")[Symbol.asyncIterator]();
  return { events, next: events.next() };
});
check(bus.inspect().subscriptions.length, 30_000);
const inbox = new Bus<{ order: number }>();
inbox.subscribe("order", { capacity: 100_000 });
await each("a queued event", 100_000, (i) => {
  inbox.tryPublish("order", i);
});
check(inbox.inspect().subscriptions[0].size, 100_000);
