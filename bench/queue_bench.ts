// What a queue costs, beside a floor: what the language charges for the same
// loops and promises without a queue.

import { Queue, select } from "../queue.ts";
import {
  Bare,
  bareCrowd,
  BareSlot,
  Crowd,
  once,
  SENT,
  VALUES,
} from "./floor.ts";
import { check, group } from "./group.ts";

const SUM = VALUES * (VALUES - 1) / 2;

/** The floor of batches: arrays of 250 numbers. */
class BareBatches implements AsyncIterableIterator<number[]> {
  #next = 0;

  next(): Promise<IteratorResult<number[]>> {
    if (this.#next === VALUES) {
      return Promise.resolve({ value: undefined, done: true });
    }
    const value = [];
    for (let i = 0; i < 250; i++) value.push(this.#next++);
    return Promise.resolve({ value, done: false });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

group({
  name: "create",
  round: "makes 1,000 queues and keeps them until the next round. The floor: " +
    "1,000 objects with an array",
  operations: 1000,
  benches: {
    floor() {
      const all = [];
      for (let i = 0; i < 1000; i++) all.push({ capacity: 16, values: [] });
      check(all.length, 1000);
    },
    "new Queue()"() {
      const all = [];
      for (let i = 0; i < 1000; i++) all.push(new Queue());
      check(all.length, 1000);
    },
    "new Queue({ capacity })"() {
      const all = [];
      for (let i = 0; i < 1000; i++) all.push(new Queue({ capacity: 16 }));
      check(all.length, 1000);
    },
  },
});

// One sender, one receiver.

async function awaitAll(): Promise<void> {
  for (let i = 0; i < VALUES; i++) await SENT;
}

async function sumBare(bare: Bare): Promise<number> {
  let sum = 0;
  for await (const value of bare) sum += value;
  return sum;
}

async function floor(): Promise<void> {
  const [sum] = await Promise.all([sumBare(new Bare()), awaitAll()]);
  check(sum, SUM);
}

async function sendToSlot(slot: BareSlot): Promise<void> {
  for (let i = 0; i < VALUES; i++) await slot.send(i);
  slot.close();
}

async function sumSlot(slot: BareSlot): Promise<number> {
  let sum = 0;
  for await (const value of slot) sum += value;
  return sum;
}

async function floorParked(): Promise<void> {
  const slot = new BareSlot();
  const [sum] = await Promise.all([sumSlot(slot), sendToSlot(slot)]);
  check(sum, SUM);
}

async function sendAll(queue: Queue<number>): Promise<void> {
  for (let i = 0; i < VALUES; i++) await queue.send(i);
  queue.close();
}

async function sumAll(queue: Queue<number>): Promise<number> {
  let sum = 0;
  for await (const value of queue) sum += value;
  return sum;
}

async function senderFirst(capacity: number): Promise<void> {
  const queue = new Queue<number>({ capacity });
  const [_, sum] = await Promise.all([sendAll(queue), sumAll(queue)]);
  check(sum, SUM);
}

async function receiverFirst(capacity: number): Promise<void> {
  const queue = new Queue<number>({ capacity });
  const [sum] = await Promise.all([sumAll(queue), sendAll(queue)]);
  check(sum, SUM);
}

group({
  name: "spsc",
  round:
    "10,000 numbers through a queue of capacity 1024: one task awaits `send` " +
    "for each, one reads by `for await`. The floor: the same two loops over a " +
    "resolved promise and a bare iterator. If the receiver starts first it is " +
    "always one step ahead and waits for each number, in a promise of its own; " +
    "the parked floor is that and no more",
  operations: VALUES,
  aims: [
    { bench: "sender first", of: "floor", atMost: 1.25 },
    { bench: "receiver first", of: "floor", atMost: 1.25 },
    { bench: "receiver first", of: "parked floor", atMost: 1.25 },
  ],
  benches: {
    floor,
    "parked floor": floorParked,
    "sender first": () => senderFirst(1024),
    "receiver first": () => receiverFirst(1024),
  },
});

group({
  name: "rendezvous",
  round: "as spsc, with capacity 0: whoever comes first waits for the other",
  operations: VALUES,
  aims: [
    { bench: "sender first", of: "floor", atMost: 2 },
    { bench: "receiver first", of: "floor", atMost: 2 },
  ],
  benches: {
    floor,
    "parked floor": floorParked,
    "sender first": () => senderFirst(0),
    "receiver first": () => receiverFirst(0),
  },
});

group({
  name: "full queue",
  round:
    "10,000 numbers through a queue of capacity 16 that is full from the " +
    "start: each `send` waits for a place. One sender, one `for await`",
  operations: VALUES,
  benches: {
    floor,
    async "always full"() {
      const queue = new Queue<number>({ capacity: 16 });
      for (let i = 0; i < 16; i++) queue.trySend(0);
      const [_, sum] = await Promise.all([sendAll(queue), sumAll(queue)]);
      check(sum, SUM);
    },
  },
});

// Signals.

const lone = once(() => new AbortController().signal);
const shared10 = once(() => sharedBy(10));
const shared10k = once(() => sharedBy(10_000));

/** A signal under which so many receivers of another queue wait, for ever. */
function sharedBy(others: number): AbortSignal {
  const { signal } = new AbortController();
  const queue = new Queue<never>();
  for (let i = 0; i < others; i++) queue.receive({ signal });
  return signal;
}

/** Receives what is at hand. */
async function receiveAtHand(signal?: AbortSignal): Promise<void> {
  const queue = new Queue<number>({ capacity: VALUES });
  for (let i = 0; i < VALUES; i++) queue.trySend(i);
  let sum = 0;
  if (signal === undefined) {
    for (let i = 0; i < VALUES; i++) sum += await queue.receive();
  } else {
    for (let i = 0; i < VALUES; i++) sum += await queue.receive({ signal });
  }
  check(sum, SUM);
}

async function receiveAll(
  queue: Queue<number>,
  signal?: AbortSignal,
): Promise<number> {
  let sum = 0;
  if (signal === undefined) {
    for (let i = 0; i < VALUES; i++) sum += await queue.receive();
  } else {
    for (let i = 0; i < VALUES; i++) sum += await queue.receive({ signal });
  }
  return sum;
}

/** Waits for each value. */
async function receiveParked(signal?: AbortSignal): Promise<void> {
  const queue = new Queue<number>({ capacity: 1024 });
  const [sum] = await Promise.all([receiveAll(queue, signal), sendAll(queue)]);
  check(sum, SUM);
}

async function receiveBare(bare: Bare): Promise<number> {
  let sum = 0;
  for (let i = 0; i < VALUES; i++) sum += await bare.receive();
  return sum;
}

group({
  name: "receive at hand",
  round: "10,000 numbers by `trySend`, then each by `await receive()`, " +
    "without a signal or with one that others wait on too. The floor: resolved promises",
  operations: VALUES,
  aims: [
    { bench: "shared signal", of: "no signal", atMost: 1.3 },
    { bench: "shared signal, 10,000 others", of: "no signal", atMost: 1.3 },
  ],
  benches: {
    async floor() {
      check(await receiveBare(new Bare()), SUM);
    },
    "no signal": () => receiveAtHand(),
    "shared signal": () => receiveAtHand(shared10()),
    "shared signal, 10,000 others": () => receiveAtHand(shared10k()),
  },
});

group({
  name: "receive parked",
  round:
    "10,000 numbers; the receiver has started first and waits for each by " +
    "`await receive()`, the sender awaits `send`. A shared signal has 10 or " +
    "10,000 other waiters; a lone one has none, so that its listener is added " +
    "and removed for each number",
  operations: VALUES,
  aims: [
    { bench: "shared signal", of: "no signal", atMost: 1.3 },
    { bench: "shared signal, 10,000 others", of: "no signal", atMost: 1.3 },
  ],
  benches: {
    async floor() {
      const [sum] = await Promise.all([receiveBare(new Bare()), awaitAll()]);
      check(sum, SUM);
    },
    "no signal": () => receiveParked(),
    "shared signal": () => receiveParked(shared10()),
    "shared signal, 10,000 others": () => receiveParked(shared10k()),
    "lone signal": () => receiveParked(lone()),
  },
});

async function receiveNewSignals(queue: Queue<number>): Promise<number> {
  let sum = 0;
  for (let i = 0; i < VALUES; i++) {
    const { signal } = new AbortController();
    sum += await queue.receive({ signal });
  }
  return sum;
}

async function sumSlotNewSignals(slot: BareSlot): Promise<number> {
  let sum = 0;
  const listener = () => {};
  for (let i = 0; i < VALUES; i++) {
    const { signal } = new AbortController();
    signal.addEventListener("abort", listener);
    sum += (await slot.next()).value;
    signal.removeEventListener("abort", listener);
  }
  return sum;
}

group({
  name: "receive with new signals",
  round: "10,000 numbers; the receiver has started first and waits for each " +
    "with a new signal, as a server does for each request. The floor: a bare " +
    "promise, and a signal that gets a listener and loses it again",
  operations: VALUES,
  benches: {
    async floor() {
      const slot = new BareSlot();
      const all = [sumSlotNewSignals(slot), sendToSlot(slot)] as const;
      check((await Promise.all(all))[0], SUM);
    },
    async "a new signal each"() {
      const queue = new Queue<number>({ capacity: 1024 });
      const all = [receiveNewSignals(queue), sendAll(queue)] as const;
      check((await Promise.all(all))[0], SUM);
    },
  },
});

// Batches.

async function sendWithoutWaiting(queue: Queue<number>): Promise<void> {
  for (let i = 0; i < VALUES; i++) {
    if (!queue.trySend(i)) await queue.send(i);
  }
  queue.close();
}

async function sumBatches(queue: Queue<number>): Promise<number> {
  let sum = 0;
  for await (const batch of queue.batches(256)) {
    for (const value of batch) sum += value;
  }
  return sum;
}

group({
  name: "batches",
  round: "10,000 numbers through a queue of capacity 1024; the sender waits " +
    "only when it is full: `if (!queue.trySend(i)) await queue.send(i)`. The " +
    "floors: a bare iterator of numbers, or of arrays that are filled on demand",
  operations: VALUES,
  aims: [{ bench: "batches(256)", of: "one by one", atMost: 1 / 8 }],
  benches: {
    async floor() {
      check(await sumBare(new Bare()), SUM);
    },
    async "floor in batches"() {
      let sum = 0;
      for await (const batch of new BareBatches()) {
        for (const value of batch) sum += value;
      }
      check(sum, SUM);
    },
    async "one by one"() {
      const queue = new Queue<number>({ capacity: 1024 });
      const all = [sendWithoutWaiting(queue), sumAll(queue)] as const;
      check((await Promise.all(all))[1], SUM);
    },
    async "batches(256)"() {
      const queue = new Queue<number>({ capacity: 1024 });
      const all = [sendWithoutWaiting(queue), sumBatches(queue)] as const;
      check((await Promise.all(all))[1], SUM);
    },
  },
});

group({
  name: "burst and drain",
  round:
    "1024 numbers by `trySend`, then all of them by `drain()`. The floor: " +
    "an array",
  operations: 1024,
  benches: {
    floor() {
      const values: number[] = [];
      for (let i = 0; i < 1024; i++) values.push(i);
      check(values.splice(0).length, 1024);
    },
    drain() {
      const queue = new Queue<number>({ capacity: 1024 });
      for (let i = 0; i < 1024; i++) queue.trySend(i);
      check(queue.drain().length, 1024);
    },
  },
});

group({
  name: "tryReceive",
  round: "1024 numbers by `trySend`, then each by `tryReceive()`. The floor: " +
    "an array, and an object for each number",
  operations: 1024,
  benches: {
    floor() {
      const values: number[] = [];
      for (let i = 0; i < 1024; i++) values.push(i);
      const results = [];
      for (const value of values) results.push({ state: "ok", value });
      check(results.length, 1024);
    },
    tryReceive() {
      const queue = new Queue<number>({ capacity: 1024 });
      for (let i = 0; i < 1024; i++) queue.trySend(i);
      const results = [];
      for (let result; (result = queue.tryReceive()).state === "ok";) {
        results.push(result);
      }
      check(results.length, 1024);
    },
  },
});

// Many tasks.

group({
  name: "mpmc",
  round: "10,000 numbers from 4 senders to 4 loops of `for await` through a " +
    "queue of capacity 2, where both sides wait at times. The floor: the same " +
    "8 loops over resolved promises and bare iterators",
  operations: VALUES,
  benches: {
    async floor() {
      const receivers = [0, 1, 2, 3].map(() => sumBare(new Bare(VALUES / 4)));
      await Promise.all([0, 1, 2, 3].map(async () => {
        for (let i = 0; i < VALUES / 4; i++) await SENT;
      }));
      const sums = await Promise.all(receivers);
      check(sums.reduce((a, b) => a + b), 4 * 2500 * 2499 / 2);
    },
    async "4 × 4"() {
      const queue = new Queue<number>({ capacity: 2 });
      const receivers = [0, 1, 2, 3].map(() => sumAll(queue));
      await Promise.all([0, 1, 2, 3].map(async () => {
        for (let i = 0; i < VALUES / 4; i++) await queue.send(i);
      }));
      queue.close();
      const sums = await Promise.all(receivers);
      check(sums.reduce((a, b) => a + b), 4 * 2500 * 2499 / 2);
    },
  },
});

/** A crowd of receivers. */
function crowd(size: number, after: number): Crowd {
  const queue = new Queue<never>();
  return new Crowd(size, after, (signal) => queue.receive({ signal }));
}

const few = once(() => crowd(100, 50));
const many = once(() => crowd(100_000, 50));
const old = once(() => crowd(100_000, 50_000));
const bareFew = once(() => bareCrowd(100, 50));
const bareOld = once(() => bareCrowd(100_000, 50_000));

group({
  name: "cancel storm",
  round: "1,000 times: aborts one of 100 or 100,000 waiting receivers, waits " +
    "until it is told, and lets a new one join, with a signal of its own. The " +
    "one aborted has 50 others behind it, so that it is equally young in both. " +
    "The floor: the same without a queue, a promise and a listener for each",
  operations: 1000,
  aims: [{ bench: "one of 100,000", of: "one of 100", atMost: 1.25 }],
  benches: {
    floor: () => bareFew().storm(),
    "one of 100": () => few().storm(),
    "one of 100,000": () => many().storm(),
  },
});

group({
  name: "cancel storm of the old",
  round:
    "as the cancel storm, but the one aborted is in the middle of 100,000. " +
    "It has seen 50,000 others go, and most of the cost is the runtime's, " +
    "which has moved and collects 100,000 promises and signals",
  operations: 1000,
  benches: {
    "floor of 100,000": () => bareOld().storm(),
    "one of 100,000": () => old().storm(),
  },
});

group({
  name: "select",
  round:
    "10,000 numbers from two queues in turn, each by `await select({ a, b })`; " +
    "at hand, or sent while the receiver waits. The floor: resolved promises " +
    "of `{ key, value }`",
  operations: VALUES,
  benches: {
    async floor() {
      let sum = 0;
      for (let i = 0; i < VALUES; i++) {
        const key = i % 2 === 0 ? "a" : "b";
        sum += (await Promise.resolve({ key, value: i })).value;
      }
      check(sum, SUM);
    },
    async "at hand"() {
      const a = new Queue<number>({ capacity: VALUES });
      const b = new Queue<number>({ capacity: VALUES });
      for (let i = 0; i < VALUES; i++) (i % 2 === 0 ? a : b).trySend(i);
      check(await sumSelected({ a, b }), SUM);
    },
    async parked() {
      const a = new Queue<number>();
      const b = new Queue<number>();
      const summed = sumSelected({ a, b });
      for (let i = 0; i < VALUES; i++) await (i % 2 === 0 ? a : b).send(i);
      check(await summed, SUM);
    },
  },
});

async function sumSelected(
  queues: { a: Queue<number>; b: Queue<number> },
): Promise<number> {
  let sum = 0;
  for (let i = 0; i < VALUES; i++) sum += (await select(queues)).value;
  return sum;
}
