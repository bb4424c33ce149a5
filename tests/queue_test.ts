import {
  assert,
  assertEquals,
  assertFalse,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  merge,
  Queue,
  QueueClosedError,
  QueueFullError,
  type QueueOptions,
  select,
  type WaitOptions,
} from "../queue.ts";
import {
  catchReports,
  flush,
  follow,
  Journal,
  probedController,
  range,
  replaceGlobals,
  type Task,
} from "./_helpers.ts";

// ── Helpers ─────────────────────────────────────────────────────────────────

const CAPACITIES = [0, 1, 2, Infinity];

/** Registers one test for every capacity. */
function test(
  name: string,
  fn: (capacity: number) => void | Promise<void>,
): void {
  for (const capacity of CAPACITIES) {
    Deno.test(`${name} (capacity ${capacity})`, () => fn(capacity));
  }
}

type Verb = (queue: Queue<number>, signal?: AbortSignal) => Promise<unknown>;

/** Everything that waits for a value and takes a signal. */
const RECEIVING: Record<string, Verb> = {
  "Queue.receive()": (queue, signal) => queue.receive({ signal }),
  "Queue.receiveMany()": (queue, signal) => queue.receiveMany(2, { signal }),
  "Queue.values()": (queue, signal) => queue.values({ signal }).next(),
  "Queue.batches()": (queue, signal) => queue.batches(2, { signal }).next(),
  "select()": (queue, signal) => select({ queue }, { signal }),
  "merge()": (queue, signal) => merge({ queue }, { signal }).next(),
};

/** Everything that waits and takes a signal. */
const WAITING: Record<string, Verb> = {
  ...RECEIVING,
  "Queue.send()": (queue, signal) => queue.send(9, { signal }),
};

/** Every way to iterate; each step is brought down to one value. */
const ITERATING: Record<
  string,
  (queue: Queue<number>, options?: WaitOptions) => AsyncIterableIterator<number>
> = {
  "Queue.values()": (queue, options) => queue.values(options),
  "Queue.batches()": (queue, options) =>
    mapped(queue.batches(1, options), ([value]) => value),
  "merge()": (queue, options) =>
    mapped(merge({ queue }, options), ({ value }) => value),
};

/** The same iterator with other values. */
function mapped<A, B>(
  iterator: AsyncIterableIterator<A>,
  change: (value: A) => B,
): AsyncIterableIterator<B> {
  const step = ({ done, value }: IteratorResult<A>): IteratorResult<B> =>
    done ? { done, value } : { done: false, value: change(value) };
  return {
    next: () => iterator.next().then(step),
    return: (value) => iterator.return!(value).then(step),
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/** A queue with these values in it. */
function filled<T>(values: T[], options: QueueOptions<T> = {}): Queue<T> {
  const queue = new Queue<T>({ capacity: values.length, ...options });
  for (const value of values) assert(queue.trySend(value));
  return queue;
}

/** Receives all there is now, one by one. */
function takeAll<T>(queue: Queue<T>): T[] {
  const values: T[] = [];
  for (let result; (result = queue.tryReceive()).state === "ok";) {
    values.push(result.value);
  }
  return values;
}

function states(tasks: Task<unknown>[]): string[] {
  return tasks.map(({ state }) => state);
}

/** Iterates to the end. */
async function collect<T>(iterable: AsyncIterable<T>): Promise<T[]> {
  const values: T[] = [];
  for await (const value of iterable) values.push(value);
  return values;
}

const DONE = { value: undefined, done: true } as const;

// ── new Queue() ─────────────────────────────────────────────────────────────

Deno.test("new Queue() is a rendezvous unless told otherwise", () => {
  for (const queue of [new Queue(), new Queue({}), new Queue(undefined)]) {
    assertEquals(queue.capacity, 0);
    assertEquals(queue.size, 0);
    assertEquals(queue.dropped, 0);
    assertFalse(queue.closed);
  }
});

Deno.test("new Queue() takes any integer from 0, and Infinity, as capacity", () => {
  for (const capacity of [0, 1, 8, 2 ** 40, Infinity]) {
    assertEquals(new Queue({ capacity }).capacity, capacity);
  }
  assertEquals(new Queue({ capacity: undefined }).capacity, 0);
});

const COUNT = (least: number) => `an integer >= ${least} or Infinity`;
const OVERFLOW = `"wait", "reject", "drop-oldest" or "drop-newest"`;
const ORDER = `"fifo", "lifo" or a function`;
const SIGNAL = "an AbortSignal";

// What is wrong, and what the message says: the option, what it takes, what it got.
const BAD_OPTIONS: [
  options: unknown,
  Kind: typeof RangeError | typeof TypeError,
  option: string,
  takes: string,
  got: string,
][] = [
  [{ capacity: -1 }, RangeError, "capacity", COUNT(0), "-1"],
  [{ capacity: 1.5 }, RangeError, "capacity", COUNT(0), "1.5"],
  [{ capacity: NaN }, RangeError, "capacity", COUNT(0), "NaN"],
  [{ capacity: -Infinity }, RangeError, "capacity", COUNT(0), "-Infinity"],
  [{ capacity: "1" }, TypeError, "capacity", COUNT(0), `"1"`],
  [{ capacity: null }, TypeError, "capacity", COUNT(0), "null"],
  [{ capacity: true }, TypeError, "capacity", COUNT(0), "true"],
  [{ capacity: [1] }, TypeError, "capacity", COUNT(0), "an array"],
  [{ capacity: {} }, TypeError, "capacity", COUNT(0), "an object"],
  [{ capacity: () => 1 }, TypeError, "capacity", COUNT(0), "a function"],
  [{ capacity: Symbol("one") }, TypeError, "capacity", COUNT(0), "Symbol(one)"],
  [{ overflow: "drop" }, RangeError, "overflow", OVERFLOW, `"drop"`],
  [{ overflow: null }, TypeError, "overflow", OVERFLOW, "null"],
  [{ order: "random" }, RangeError, "order", ORDER, `"random"`],
  [{ order: 1 }, TypeError, "order", ORDER, "1"],
  [{ onDrop: "log" }, TypeError, "onDrop", "a function", `"log"`],
  [{ onDrop: null }, TypeError, "onDrop", "a function", "null"],
  [{ overflow: "drop-oldest" }, RangeError, "capacity", ">= 1", "0"],
  [{ overflow: "drop-newest" }, RangeError, "capacity", ">= 1", "0"],
  [{ capacity: 0, order: "lifo" }, RangeError, "capacity", ">= 1", "0"],
  [{ order: () => 0 }, RangeError, "capacity", ">= 1", "0"],
  [null, TypeError, "options", "an object", "null"],
  [16, TypeError, "options", "an object", "16"],
];

/** Asserts that a message names the option, what it takes and what it got. */
function assertSays(error: Error, ...parts: string[]): void {
  for (const part of parts) assertStringIncludes(error.message, part);
}

Deno.test("new Queue() refuses bad options by name", () => {
  for (const [options, Kind, option, takes, got] of BAD_OPTIONS) {
    const make = () => new Queue(options as QueueOptions<unknown>);
    const error = assertThrows(make, Kind);
    assertStrictEquals(error.constructor, Kind);
    assertSays(error, `${option} must be ${takes}`, `got ${got}`);
  }
});

Deno.test("Queue.from() refuses bad options by name, without a look at the source", () => {
  let touched = false;
  const source = {
    [Symbol.iterator]() {
      touched = true;
      return [].values();
    },
  };
  for (const [options, Kind, option, takes, got] of BAD_OPTIONS) {
    const make = () => Queue.from(source, options as QueueOptions<unknown>);
    assertSays(
      assertThrows(make, Kind),
      `${option} must be ${takes}`,
      `got ${got}`,
    );
  }
  assertFalse(touched);
});

const BAD_COUNTS: [unknown, typeof RangeError | typeof TypeError, string][] = [
  [0, RangeError, "0"],
  [-1, RangeError, "-1"],
  [1.5, RangeError, "1.5"],
  [NaN, RangeError, "NaN"],
  [undefined, TypeError, "undefined"],
  ["2", TypeError, `"2"`],
];

Deno.test("Queue.receiveMany() and batches() refuse a bad max by name, and take nothing", async () => {
  for (const [max, Kind, got] of BAD_COUNTS) {
    const queue = filled([1]);
    for (
      const error of [
        await assertRejects(() => queue.receiveMany(max as number), Kind),
        assertThrows(() => queue.batches(max as number), Kind),
      ]
    ) assertSays(error, `max must be ${COUNT(1)}`, `got ${got}`);
    assertEquals(queue.size, 1);
  }
});

const NO_SIGNALS: [unknown, string][] = [
  [null, "null"],
  [{}, "an object"],
  [new AbortController(), "an object"],
  ["signal", `"signal"`],
  [0, "0"],
];

for (const [name, verb] of Object.entries(WAITING)) {
  Deno.test(`${name} refuses a signal that is none, whether it would have to wait or not`, async () => {
    for (const [signal, got] of NO_SIGNALS) {
      for (const queue of [filled([1], { capacity: 2 }), new Queue<number>()]) {
        const { size } = queue;
        const attempt = async () => await verb(queue, signal as AbortSignal);
        const error = await assertRejects(attempt, TypeError);
        assertSays(error, `signal must be ${SIGNAL}`, `got ${got}`);
        assertEquals(queue.size, size);
      }
    }
  });
}

Deno.test("Queue.from() refuses a signal that is none", () => {
  for (const [signal, got] of NO_SIGNALS) {
    const make = () => Queue.from([], { signal: signal as AbortSignal });
    const error = assertThrows(make, TypeError);
    assertSays(error, `signal must be ${SIGNAL}`, `got ${got}`);
  }
});

Deno.test("Queue.from() refuses what is not iterable", () => {
  const sources: [unknown, string][] = [
    [null, "null"],
    [undefined, "undefined"],
    [42, "42"],
    [{}, "an object"],
    [() => [], "a function"],
    [{ [Symbol.iterator]: 1 }, "an object"],
  ];
  for (const [source, got] of sources) {
    const make = () => Queue.from(source as Iterable<number>);
    const error = assertThrows(make, TypeError);
    assertSays(error, "source must be iterable", `got ${got}`);
  }
});

Deno.test("select() and merge() refuse what is not a queue, by its key", async () => {
  const queue = filled([1]);
  for (
    const [impostor, got] of [
      [null, "null"],
      [undefined, "undefined"],
      [[1], "an array"],
      [{ receive() {} }, "an object"],
      ["queue", `"queue"`],
    ]
  ) {
    const queues = { queue, impostor } as unknown as Record<string, Queue<1>>;
    for (
      const error of [
        await assertRejects(() => select(queues), TypeError),
        assertThrows(() => merge(queues), TypeError),
      ]
    ) assertSays(error, "impostor must be a Queue", `got ${got}`);
  }
  assertEquals(queue.size, 1);
});

Deno.test("select() and merge() refuse what is no record of queues, by name", async () => {
  for (const [queues, got] of [[null, "null"], [undefined, "undefined"]]) {
    for (
      const error of [
        await assertRejects(() => select(queues as never), TypeError),
        assertThrows(() => merge(queues as never), TypeError),
      ]
    ) assertSays(error, "queues must be ", `got ${got}`);
  }
});

Deno.test("select() refuses to wait for no queue at all", async () => {
  const error = await assertRejects(() => select({}), RangeError);
  assertSays(error, "at least one queue", "got none");
});

Deno.test("Queue: methods that return promises reject, they never throw", async () => {
  const bad = new Error("no options today");
  const options = {
    get signal(): AbortSignal {
      throw bad;
    },
  };
  const { send, receive, receiveMany } = Queue.prototype;
  const attempts: [() => Promise<unknown>, (error: unknown) => boolean][] = [
    [() => new Queue().send(1, options), (error) => error === bad],
    [() => new Queue().receive(options), (error) => error === bad],
    [() => new Queue().receiveMany(1, options), (error) => error === bad],
    [() => select({ queue: new Queue() }, options), (error) => error === bad],
    [() => send.call({} as never, 1), (error) => error instanceof TypeError],
    [() => receive.call({} as never), (error) => error instanceof TypeError],
    [
      () => receiveMany.call({} as never, 1),
      (error) => error instanceof TypeError,
    ],
  ];
  assertInstanceOf(new Queue()[Symbol.asyncDispose](), Promise);
  for (const [attempt, expected] of attempts) {
    const promise = attempt(); // a throw would end the test here
    assertInstanceOf(promise, Promise);
    assert(expected(await assertRejects(() => promise)));
  }
});

// ── Values, senders and receivers ───────────────────────────────────────────

test("Queue.send() keeps the order of values and of senders", async (capacity) => {
  const queue = new Queue<number>({ capacity });
  const journal = new Journal();
  for (const i of range(5)) journal.follow(`sent ${i}`, queue.send(i));
  for (const i of range(5)) assertEquals(await queue.receive(), i);
  await flush();
  assertEquals(journal.lines, range(5).map((i) => `sent ${i}`));
});

test("Queue.receive() serves waiting receivers in the order in which they came", async (capacity) => {
  const queue = new Queue<number>({ capacity });
  const journal = new Journal();
  for (const i of range(3)) journal.follow(`receiver ${i}`, queue.receive());
  await flush();
  assertEquals(journal.lines, []);
  for (const i of range(3)) journal.follow(`sent`, queue.send(10 * i));
  assertEquals(queue.size, 0);
  await flush();
  assertEquals(journal.lines.filter((line) => line !== "sent"), [
    "receiver 0: 0",
    "receiver 1: 10",
    "receiver 2: 20",
  ]);
  assertEquals(journal.lines.length, 6);
});

test("Queue.send() waits while the queue is full; each receive lets one in", async (capacity) => {
  const queue = new Queue<number>({ capacity });
  const sends = range(4).map((i) => follow(queue.send(i)));
  for (let taken = 0;; taken++) {
    await flush();
    const accepted = (i: number) => i < capacity + taken;
    assertEquals(
      states(sends),
      range(4).map((i) => accepted(i) ? "resolved" : "pending"),
    );
    assertEquals(queue.size, Math.min(capacity, 4 - taken));
    if (taken === 4) break;
    assertEquals(queue.tryReceive(), { state: "ok", value: taken });
  }
});

test("Queue passes everything on between loops that run at the same time", async (capacity) => {
  const queue = new Queue<number>({ capacity });
  const produce = async (from: number) => {
    for (const i of range(50)) await queue.send(from + i);
  };
  const received: number[][] = [[], []];
  const consume = async (values: number[]) => {
    for await (const value of queue) values.push(value);
  };
  const consumers = received.map(consume);
  await Promise.all([produce(0), produce(50)]);
  queue.close();
  await Promise.all(consumers);
  assertEquals(received.flat().sort((a, b) => a - b), range(100));
  for (const values of received) { // each sees each sender's values in order
    for (const low of [true, false]) {
      const own = values.filter((value) => value < 50 === low);
      assertEquals(own, own.toSorted((a, b) => a - b));
    }
  }
});

Deno.test("Queue.send() with capacity 0 meets its receiver, whoever comes first", async () => {
  const queue = new Queue<string>();
  const journal = new Journal();
  journal.follow("soup sent", queue.send("soup"));
  await flush();
  assertEquals(journal.lines, []);
  journal.follow("received", queue.receive());
  await flush();
  assertEquals(journal.lines, ["soup sent", "received: soup"]);

  journal.follow("received", queue.receive());
  await flush();
  journal.follow("steak sent", queue.send("steak"));
  await flush();
  assertEquals(journal.lines.slice(2), ["received: steak", "steak sent"]);
});

Deno.test("Queue.size does not count the values of waiting senders", async () => {
  const queue = new Queue<number>({ capacity: 1 });
  const sends = range(3).map((i) => queue.send(i));
  assertEquals(queue.size, 1);
  assertEquals(queue.drain(), [0, 1, 2]);
  await Promise.all(sends);
});

test("Queue.trySend() sends if there is room or a receiver", async (capacity) => {
  const queue = new Queue<number>({ capacity });
  for (const i of range(3)) assertEquals(queue.trySend(i), i < capacity);
  assertEquals(takeAll(queue), range(Math.min(3, capacity)));
  const receivers = range(2).map(() => queue.receive());
  assert(queue.trySend(7));
  assert(queue.trySend(8));
  assertEquals(queue.size, 0);
  assertEquals(await Promise.all(receivers), [7, 8]);
});

Deno.test("Queue.trySend() does not overtake waiting senders", async () => {
  for (const capacity of [0, 1, 2]) {
    const queue = filled(range(capacity));
    const waiting = range(2).map((i) => queue.send(capacity + i));
    assertFalse(queue.trySend(99));
    for (const i of range(capacity + 1)) {
      assertEquals(queue.tryReceive(), { state: "ok", value: i });
      if (i < capacity) assertFalse(queue.trySend(99));
    }
    assertEquals(await queue.receive(), capacity + 1);
    await Promise.all(waiting);
    assertEquals(queue.trySend(99), capacity > 0);
  }
});

test("Queue.tryReceive() takes from the queue and from waiting senders", async (capacity) => {
  const queue = new Queue<number>({ capacity });
  const sends = range(3).map((i) => queue.send(i));
  assertEquals(takeAll(queue), range(3));
  await Promise.all(sends);
});

Deno.test("Queue.tryReceive() shares one frozen object for empty and one for closed", () => {
  const queues = [new Queue<number>(), new Queue<string>({ capacity: 2 })];
  const empty = queues.map((queue) => queue.tryReceive());
  queues[0].close();
  queues[1].close(new Error("no more"));
  const closed = queues.map((queue) => queue.tryReceive());
  assertEquals(empty[0], { state: "empty" });
  assertEquals(closed[0], { state: "closed" });
  for (const results of [empty, closed]) {
    assertStrictEquals(results[0], results[1]);
    assert(Object.isFrozen(results[0]));
  }
});

Deno.test("Queue.tryReceive() makes an object of its own for each value", () => {
  const queue = filled([1, 1]);
  const result = queue.tryReceive();
  assertEquals(result, { state: "ok", value: 1 });
  assert(result !== queue.tryReceive());
});

test("Queue.drain() takes the values in the queue and those of waiting senders", async (capacity) => {
  const queue = new Queue<number>({ capacity });
  assertEquals(queue.drain(), []);
  const sends = range(5).map((i) => queue.send(i));
  assertEquals(queue.drain(), range(5));
  assertEquals(queue.drain(), []);
  assertEquals(queue.size, 0);
  await Promise.all(sends);

  const more = range(2).map((i) => queue.send(i)); // it still works
  assertEquals(queue.drain(), range(2));
  await Promise.all(more);
});

Deno.test("Queue.drain() takes what a closed queue holds, and never throws its reason", () => {
  const queue = filled([1, 2]);
  queue.close(new Error("fire"));
  assertEquals(queue.drain(), [1, 2]);
  assertEquals(queue.drain(), []);
});

Deno.test("Queue.drain() leaves waiting receivers alone", async () => {
  const queue = new Queue<number>();
  const receiver = queue.receive();
  assertEquals(queue.drain(), []);
  assert(queue.trySend(1));
  assertEquals(await receiver, 1);
});

// ── Overflow ────────────────────────────────────────────────────────────────

for (const capacity of [1, 2, 3]) {
  const all = range(capacity + 2);

  Deno.test(`Queue.send() rejects with the value when full, overflow "reject" (capacity ${capacity})`, async () => {
    const queue = new Queue<number>({ capacity, overflow: "reject" });
    const sends = all.map((i) => follow(queue.send(i)));
    await flush();
    assertEquals(
      states(sends),
      all.map((i) => i < capacity ? "resolved" : "rejected"),
    );
    for (const i of all.slice(capacity)) {
      const { error } = sends[i];
      assertInstanceOf(error, QueueFullError);
      assertEquals(error.value, i);
      assertStringIncludes(error.message, `capacity ${capacity}`);
    }
    assertFalse(queue.trySend(99));
    assertEquals(queue.dropped, 0);
    assertEquals(takeAll(queue), range(capacity));
    assert(queue.trySend(99)); // there is room again
  });

  for (
    const [overflow, kept, dropped] of [
      ["drop-oldest", all.slice(2), [0, 1]],
      ["drop-newest", all.slice(0, -2), all.slice(-2)],
    ] as const
  ) {
    for (const verb of ["send", "trySend"] as const) {
      Deno.test(`Queue.${verb}() never waits and counts what it drops, overflow "${overflow}" (capacity ${capacity})`, async () => {
        const seen: number[] = [];
        const onDrop = (value: number) => seen.push(value);
        const queue = new Queue<number>({ capacity, overflow, onDrop });
        for (const i of all) {
          if (verb === "send") await queue.send(i);
          else assert(queue.trySend(i));
          assertEquals(queue.dropped, Math.max(0, i + 1 - capacity));
        }
        assertEquals(seen, [...dropped]);
        assertEquals(queue.size, capacity);
        assertEquals(takeAll(queue), [...kept]);
        assertEquals(queue.dropped, 2);

        const receiver = queue.receive(); // nothing is dropped that is wanted
        await queue.send(7);
        assertEquals(await receiver, 7);
        assertEquals(queue.dropped, 2);
      });
    }
  }
}

Deno.test('Queue.send() with capacity 0 and overflow "reject" needs a waiting receiver', async () => {
  const queue = new Queue<number>({ overflow: "reject" });
  const error = await assertRejects(() => queue.send(1), QueueFullError);
  assertEquals(error.value, 1);
  assertFalse(queue.trySend(1));
  const receiver = queue.receive();
  await queue.send(2);
  assertEquals(await receiver, 2);
});

Deno.test("Queue.send() never overflows with capacity Infinity", async () => {
  for (const overflow of ["reject", "drop-oldest", "drop-newest"] as const) {
    const queue = new Queue<number>({ capacity: Infinity, overflow });
    for (const i of range(100)) await queue.send(i);
    assertEquals(queue.dropped, 0);
    assertEquals(queue.drain(), range(100));
  }
});

Deno.test("Queue drops the value that has been in it longest, whatever the order", () => {
  for (
    const [order, dropped, kept] of [
      ["lifo", [5, 1, 4], [2, 9, 3]],
      [(a: number, b: number) => a - b, [5, 1, 4], [2, 3, 9]],
    ] as const
  ) {
    const seen: number[] = [];
    const onDrop = (value: number) => seen.push(value);
    const options = { capacity: 3, overflow: "drop-oldest", order } as const;
    const queue = new Queue<number>({ ...options, onDrop });
    for (const value of [5, 1, 4, 3, 9, 2]) assert(queue.trySend(value));
    assertEquals(seen, [...dropped]);
    assertEquals(queue.drain(), [...kept]);
  }
});

Deno.test("Queue reports what onDrop throws, and drops all the same", async () => {
  using reports = catchReports();
  const errors = [new Error("log is full"), undefined];
  const queue = new Queue<number>({
    capacity: 1,
    overflow: "drop-oldest",
    onDrop: (value) => {
      throw errors[value];
    },
  });
  for (const i of range(2)) await queue.send(i);
  assert(queue.trySend(2));
  assertEquals(reports.errors, errors);
  assertEquals(queue.dropped, 2);
  assertEquals(queue.drain(), [2]);
});

Deno.test("Queue throws what onDrop throws in a task of its own where there is no reportError", () => {
  const tasks: (() => void)[] = [];
  using _ = replaceGlobals({
    reportError: undefined,
    setTimeout: (task: () => void) => tasks.push(task),
  });
  const error = new Error("log is full");
  const queue = new Queue<number>({
    capacity: 1,
    overflow: "drop-newest",
    onDrop: () => {
      throw error;
    },
  });
  assert(queue.trySend(1) && queue.trySend(2));
  assertEquals(tasks.length, 1);
  assertStrictEquals(assertThrows(tasks[0]), error);
});

Deno.test("Queue calls onDrop once the drop is over, so that it may use the queue", () => {
  const seen: unknown[] = [];
  const queue: Queue<number> = new Queue({
    capacity: 1,
    overflow: "drop-oldest",
    onDrop: (value) => {
      seen.push(value, queue.size, queue.dropped, queue.tryReceive());
      queue.close();
    },
  });
  assert(queue.trySend(1) && queue.trySend(2));
  assertEquals(seen, [1, 1, 1, { state: "ok", value: 2 }]);
  assertFalse(queue.trySend(3));
});

// ── Order ───────────────────────────────────────────────────────────────────

interface Dish {
  name: string;
  urgency: number;
}

const byUrgency = (a: Dish, b: Dish) => a.urgency - b.urgency;

/** "ab2" is a dish with this name and the urgency 2. */
function dish(text: string): Dish {
  return { name: text, urgency: Number(text.at(-1)) };
}

Deno.test("Queue gives the newest first, order lifo", async () => {
  const queue = new Queue<number>({ capacity: 3, order: "lifo" });
  const sends = range(5).map((i) => queue.send(i));
  // a waiting sender's value is the newest from when it comes in
  assertEquals(takeAll(queue), [2, 3, 4, 1, 0]);
  await Promise.all(sends);
});

Deno.test("Queue gives the smallest first, equals in the order in which they came", async () => {
  const queue = new Queue<Dish>({ capacity: Infinity, order: byUrgency });
  for (const text of ["a2", "b1", "c2", "d1", "e3", "f1", "g2"]) {
    await queue.send(dish(text));
  }
  assertEquals(
    queue.drain().map(({ name }) => name),
    ["b1", "d1", "f1", "a2", "c2", "g2", "e3"],
  );
});

Deno.test("Queue orders what is in it; waiting senders keep the order in which they came", async () => {
  const queue = new Queue<Dish>({ capacity: 1, order: byUrgency });
  const sends = ["a3", "b2", "c1"].map((text) => queue.send(dish(text)));
  assertEquals(takeAll(queue).map(({ name }) => name), ["a3", "b2", "c1"]);
  await Promise.all(sends);
});

// What a comparison may do wrong, and what the sender is told.
const BAD_COMPARISONS: [string, () => unknown, string][] = [
  ["throws", () => {
    throw new TypeError("cannot compare");
  }, "cannot compare"],
  ["returns NaN", () => NaN, "number, got NaN"],
  ["returns undefined", () => undefined, "number, got undefined"],
  ["returns a boolean", () => true, "number, got true"],
  ["returns a bigint", () => 1n, "number, got 1"],
];

/** An order that fails where a value below 0 takes part. */
function failingBelowZero(fail: () => unknown): QueueOptions<number>["order"] {
  return (a, b) => a < 0 || b < 0 ? fail() as number : a - b;
}

for (const [what, fail, message] of BAD_COMPARISONS) {
  Deno.test(`Queue.send() refuses a value for which order ${what}`, async () => {
    for (const before of [[], [1], [2, 1], [5, 4, 3, 2, 1]]) {
      const order = failingBelowZero(fail);
      const queue = filled(before, { capacity: 10, order });
      await assertRejects(() => queue.send(-1), TypeError, message);
      assertThrows(() => queue.trySend(-1), TypeError, message);
      assertEquals(queue.size, before.length);
      await queue.send(0);
      assertEquals(queue.drain(), [0, ...before.toSorted()]);
    }
  });

  Deno.test(`Queue.send() drops nothing for a value for which order ${what}`, async () => {
    for (const before of [[1], [3, 2, 1], [1, 2, 3], [2, 1, 3]]) {
      const queue = filled(before, {
        overflow: "drop-oldest",
        order: failingBelowZero(fail),
        onDrop: () => {
          throw new Error("nothing should be dropped");
        },
      });
      await assertRejects(() => queue.send(-1), TypeError, message);
      assertEquals(queue.dropped, 0);
      assertEquals(queue.drain(), before.toSorted());
    }
  });

  Deno.test(`Queue.send() refuses a waiting sender's value for which order ${what}, and lets the next one in`, async () => {
    const queue = filled([1], { order: failingBelowZero(fail) });
    const journal = new Journal();
    for (const value of [-1, -2, 2, 3]) {
      journal.follow(`send ${value}`, queue.send(value));
    }
    assertEquals(queue.tryReceive(), { state: "ok", value: 1 });
    await flush();
    assertEquals(journal.lines, [
      "send -1 failed: TypeError",
      "send -2 failed: TypeError",
      "send 2",
    ]);
    assertEquals(queue.drain(), [2, 3]);
  });
}

Deno.test("Queue keeps its values when order fails on the way out", async () => {
  let failing = false;
  const broken = new Error("scales are broken");
  const order = (a: number, b: number) => {
    if (failing) throw broken;
    return a - b;
  };
  const queue = filled([3, 1, 2, 4], { order });
  failing = true;
  const iterator = queue.values();
  const reader = queue.toReadableStream().getReader();
  for (
    const attempt of [
      () => queue.receive(),
      () => queue.receiveMany(2),
      () => select({ queue }),
      () => iterator.next(),
      () => reader.read(),
      async () => await queue.tryReceive(),
      async () => await queue.drain(),
    ]
  ) assertStrictEquals(await assertRejects(attempt), broken);
  assertEquals(queue.size, 4);
  failing = false;
  assertEquals(queue.drain(), [1, 2, 3, 4]);
  assertEquals(await iterator.next(), DONE); // an iterator ends with its error
});

Deno.test("Queue.drain() and receiveMany() hand over what they have taken before order fails", async () => {
  let comparisons = Infinity;
  const order = (a: number, b: number) => {
    if (comparisons-- <= 0) throw new Error("scales are broken");
    return a - b;
  };
  for (
    const take of [
      (queue: Queue<number>) => queue.drain(),
      (queue: Queue<number>) => queue.receiveMany(Infinity),
    ]
  ) {
    const queue = filled(range(8), { order });
    comparisons = 8;
    const taken = await take(queue);
    assert(taken.length > 0 && taken.length < 8);
    comparisons = Infinity;
    assertEquals([...taken, ...queue.drain()], range(8));
  }
});

// ── Closing ─────────────────────────────────────────────────────────────────

/** Ways to end a queue, and with which reason, if any. */
const ENDINGS: Record<string, [(queue: Queue<number>) => unknown, unknown?]> = {
  "Queue.close()": [(queue) => queue.close()],
  "Queue.close(reason)": [(queue) => queue.close("fire"), "fire"],
  "Queue.close(undefined)": [(queue) => queue.close(undefined), undefined],
  "Queue[Symbol.dispose]()": [(queue) => queue[Symbol.dispose]()],
  "Queue[Symbol.asyncDispose]()": [(queue) => queue[Symbol.asyncDispose]()],
};

for (const [name, [end, ...reason]] of Object.entries(ENDINGS)) {
  const failed = reason.length > 0;

  /** Asserts that `error` is what a receiver is told. */
  const assertTold = (error: unknown) => {
    if (failed) return assertStrictEquals(error, reason[0]);
    assertInstanceOf(error, QueueClosedError);
    assertFalse("value" in error);
  };

  test(`${name} refuses waiting senders and hands their values back`, async (capacity) => {
    if (capacity === Infinity) capacity = 3;
    const queue = filled(range(capacity));
    const sends = [undefined, 8, 9].map((value) =>
      follow(queue.send(value as number))
    );
    end(queue);
    await flush();
    for (const [i, value] of [undefined, 8, 9].entries()) {
      const { error } = sends[i];
      assertInstanceOf(error, QueueClosedError);
      assert("value" in error);
      assertStrictEquals(error.value, value);
    }
    assertEquals(queue.size, capacity);
    assertEquals(queue.drain(), range(capacity));
  });

  test(`${name} lets the queue be read out, then refuses`, async (capacity) => {
    const queue = new Queue<number>({ capacity });
    const values = range(Math.min(capacity, 4));
    for (const value of values) assert(queue.trySend(value));
    end(queue);
    assert(queue.closed);
    for (const value of values) assertEquals(await queue.receive(), value);
    for (
      const verb of [RECEIVING["Queue.receive()"], RECEIVING["select()"]]
    ) {
      const task = follow(verb(queue));
      await flush();
      assertEquals(task.state, "rejected");
      assertTold(task.error);
    }
    assertEquals(queue.tryReceive(), { state: "closed" });
  });

  test(`${name} ends everything that waits for a value`, async (capacity) => {
    const queue = new Queue<number>({ capacity });
    const calls = [RECEIVING["Queue.receive()"], RECEIVING["select()"]];
    const callers = [...calls, ...calls].map((verb) => follow(verb(queue)));
    const many = follow(queue.receiveMany(2));
    const iterators = [
      queue.values(),
      queue[Symbol.asyncIterator](),
      queue.batches(2),
      merge({ queue }),
    ];
    const nexts = [...iterators, ...iterators].map((iterator) =>
      follow<unknown>(iterator.next())
    );
    const reader = queue.toReadableStream().getReader();
    const reads = range(2).map(() => follow(reader.read()));
    reader.closed.catch(() => {});
    end(queue);
    await flush();
    for (const { state, error } of [...callers, many]) {
      assertEquals(state, "rejected");
      assertTold(error);
    }
    for (const { state, value, error } of [...nexts, ...reads]) {
      assertEquals(state, failed ? "rejected" : "resolved");
      assertEquals(value, failed ? undefined : DONE);
      if (failed) assertTold(error);
    }
    // each iterator throws the reason once, and is over then
    for (const iterator of iterators) {
      assertEquals<unknown>(await iterator.next(), DONE);
    }
  });

  test(`${name} refuses later senders`, async (capacity) => {
    const queue = new Queue<number>({ capacity });
    end(queue);
    const error = await assertRejects(() => queue.send(1), QueueClosedError);
    assertEquals(error.value, 1);
    assertFalse(queue.trySend(1));
    assertEquals(queue.size, 0);
  });

  Deno.test(`${name} wins over a later one`, async () => {
    const queue = filled([1]);
    end(queue);
    queue.close();
    queue.close(new Error("too late"));
    queue[Symbol.dispose]();
    assertEquals(await queue.receive(), 1);
    assertTold(await queue.receive().catch((error) => error));
  });
}

Deno.test("Queue.receive() throws the same error to everyone, once closed and empty", async () => {
  const queue = new Queue<number>();
  const waiting = queue.receive().catch((error) => error);
  queue.close();
  const error = await queue.receive().catch((error) => error);
  assertStrictEquals(await waiting, error);
});

Deno.test("Queue.send() to an overflowing queue is refused as closed, once closed", async () => {
  for (const overflow of ["reject", "drop-oldest", "drop-newest"] as const) {
    const queue = new Queue<number>({ capacity: 1, overflow });
    await queue.send(1);
    queue.close();
    const error = await assertRejects(() => queue.send(2), QueueClosedError);
    assertEquals(error.value, 2);
    assertFalse(queue.trySend(3));
    assertEquals([queue.dropped, ...queue.drain()], [0, 1]);
  }
});

Deno.test("Queue closes at the end of a using block", async () => {
  const queues: Queue<number>[] = [];
  {
    using first = new Queue<number>({ capacity: 1 });
    await using second = new Queue<number>({ capacity: 1 });
    queues.push(first, second);
    for (const queue of queues) await queue.send(1);
    assertEquals(queues.map(({ closed }) => closed), [false, false]);
  }
  assertEquals(queues.map(({ closed }) => closed), [true, true]);
  for (const queue of queues) assertEquals(await collect(queue), [1]);
});

Deno.test("Queue errors carry name, message, cause and an unsent value, if there was one", () => {
  const cause = new Error("why");
  for (const QueueError of [QueueClosedError, QueueFullError]) {
    const plain = new QueueError("no");
    assertInstanceOf(plain, Error);
    assertEquals(plain.name, QueueError.name);
    assertEquals(plain.message, "no");
    assertFalse("value" in plain);
    assertFalse("cause" in plain);
    const full = new QueueError("no", { cause, value: undefined });
    assertStrictEquals(full.cause, cause);
    assert("value" in full);
    assertStrictEquals(full.value, undefined);
    assertEquals(new QueueError("no", { value: 1 }).value, 1);
  }
});

// ── Aborted signals ─────────────────────────────────────────────────────────

/** Queues in every state: whatever the verb, some let it go on at once, others make it wait or refuse it. */
const STATES: Record<string, () => Queue<number>> = {
  "empty": () => new Queue({ capacity: 2 }),
  "half full": () => filled([1], { capacity: 2 }),
  "full": () => filled([1, 2]),
  "full and refusing": () => filled([1], { overflow: "reject" }),
  "full and dropping": () => filled([1], { overflow: "drop-oldest" }),
  "a rendezvous": () => new Queue(),
  "closed": () => closed(new Queue()),
  "closed with a reason": () => closed(new Queue(), "fire"),
  "closed but not empty": () => closed(filled([1, 2]), "fire"),
};

function closed(
  queue: Queue<number>,
  ...reason: [reason?: unknown]
): Queue<number> {
  queue.close(...reason);
  return queue;
}

for (const [name, verb] of Object.entries(WAITING)) {
  Deno.test(`${name} rejects under an aborted signal, before any effect`, async () => {
    for (const reason of [new Error("too late"), "stop", null]) {
      for (const [state, make] of Object.entries(STATES)) {
        const queue = make();
        const { size, closed, dropped } = queue;
        const controller = probedController();
        controller.abort(reason);
        const task = follow(verb(queue, controller.signal));
        await flush();
        assertEquals(task.state, "rejected", state);
        assertStrictEquals(task.error, reason, state);
        assertEquals(controller.added, 0);
        assertEquals([queue.size, queue.closed, queue.dropped], [
          size,
          closed,
          dropped,
        ]);
        assertEquals(queue.drain(), range(size).map((i) => i + 1), state);
      }
    }
  });

  Deno.test(`${name} under an aborted signal moves nobody who waits`, async () => {
    const signal = AbortSignal.abort("stop");
    const sending = new Queue<number>();
    const receiving = new Queue<number>();
    const sender = follow(sending.send(1));
    const receiver = follow(receiving.receive());
    for (const queue of [sending, receiving]) {
      const task = follow(verb(queue, signal));
      await flush();
      assertEquals(task.error, "stop");
    }
    assertEquals(states([sender, receiver]), ["pending", "pending"]);
    assertEquals(sending.drain(), [1]);
    assert(receiving.trySend(1));
  });

  test(`${name} leaves the line when its signal aborts, and nobody else moves`, async (capacity) => {
    const sending = name === "Queue.send()";
    const before = range(sending ? Math.min(capacity, 3) : 0);
    const queue = sending ? filled(before) : new Queue<number>({ capacity });
    const controller = probedController();
    const journal = new Journal();
    journal.follow("first", verb(queue).then(() => undefined));
    journal.follow("aborted", verb(queue, controller.signal));
    journal.follow("last", verb(queue).then(() => undefined));
    controller.abort("stop");
    await flush();
    assertEquals(journal.lines, ["aborted failed: stop"]);
    assertEquals(controller.listening, 0);

    if (sending) assertEquals(queue.drain(), [...before, 9, 9]);
    else assert(queue.trySend(1) && queue.trySend(2));
    assertEquals(queue.size, 0);
    await flush();
    assertEquals(journal.lines.slice(1), ["first", "last"]);
  });

  Deno.test(`${name} ignores an abort that comes after it was served`, async () => {
    for (const queue of [filled([1], { capacity: 2 }), new Queue<number>()]) {
      const controller = probedController();
      const { signal } = controller;
      const task = follow(verb(queue, signal));
      const partner = name === "Queue.send()" ? queue.receive() : queue.send(2);
      controller.abort("too late");
      await flush();
      assertEquals(task.state, "resolved");
      assertEquals(controller.listening, 0);
      queue.drain();
      await partner;
    }
  });

  Deno.test(`${name} leaves no listener behind after 10,000 calls`, async () => {
    const queue = new Queue<number>();
    const controller = probedController();
    for (const i of range(10_000)) {
      const done = verb(queue, controller.signal);
      assertEquals(controller.listening, 1);
      if (name === "Queue.send()") queue.drain();
      else queue.trySend(i);
      await done;
    }
    assertEquals(controller.listening, 0);
  });
}

for (const [name, verb] of Object.entries(RECEIVING)) {
  Deno.test(`${name} gets nothing from an abort listener that came before it and sends`, async () => {
    for (const capacity of CAPACITIES) {
      const queue = new Queue<number>({ capacity });
      const controller = new AbortController();
      const { signal } = controller;
      const sent: Task<void>[] = [];
      signal.addEventListener("abort", () => {
        sent.push(follow(queue.send(1)));
      });
      const aborted = range(2).map(() => follow(verb(queue, signal)));
      controller.abort("stop");
      await flush();
      assertEquals(states(aborted), ["rejected", "rejected"]);
      for (const { error } of aborted) assertEquals(error, "stop");
      assertEquals(queue.drain(), [1]);
    }
  });

  Deno.test(`${name} rejects with the abort, also if an earlier abort listener closes the queue`, async () => {
    const queue = new Queue<number>();
    const controller = new AbortController();
    const { signal } = controller;
    signal.addEventListener("abort", () => queue.close("fire"));
    const aborted = follow(verb(queue, signal));
    controller.abort("stop");
    await flush();
    assertEquals(states([aborted]), ["rejected"]);
    assertEquals(aborted.error, "stop");
  });
}

Deno.test("Queue.send() leaves nothing for an abort listener that came before it and receives", async () => {
  for (const capacity of [0, 1, 2]) {
    const queue = filled(range(capacity));
    const controller = new AbortController();
    const { signal } = controller;
    const taken: number[] = [];
    signal.addEventListener("abort", () => {
      taken.push(...takeAll(queue));
    });
    const sends = [signal, signal, undefined, signal].map((signal, i) =>
      follow(queue.send(10 + i, { signal }))
    );
    controller.abort("stop");
    await flush();
    assertEquals(
      states(sends),
      ["rejected", "rejected", "resolved", "rejected"],
    );
    assertEquals(taken, [...range(capacity), 12]);
  }
});

Deno.test("Queue: all who wait under one signal, at whatever queue, share one listener", async () => {
  const controller = probedController();
  const { signal } = controller;
  const queues = range(3).map(() => new Queue<number>());
  const full = new Queue<number>();
  const tasks: Task<unknown>[] = [];
  for (const queue of queues) {
    for (const verb of Object.values(RECEIVING)) {
      tasks.push(follow(verb(queue, signal)));
    }
  }
  for (const i of range(3)) tasks.push(follow(full.send(i, { signal })));
  const endless = { next: () => new Promise<never>(() => {}) };
  const piped = Queue.from({ [Symbol.asyncIterator]: () => endless }, {
    signal,
  });
  assertEquals([controller.listening, controller.added], [1, 1]);

  for (const queue of [...queues, full]) {
    queue.close();
    assertEquals([controller.listening, controller.added], [1, 1]);
  }
  piped.close(); // the last to leave
  assertEquals([controller.listening, controller.added], [0, 1]);
  await flush();
  assertFalse(states(tasks).includes("pending"));
});

Deno.test("Queue: an abort reaches all who wait under the signal, and leaves no listener", async () => {
  const controller = probedController();
  const { signal } = controller;
  const tasks = range(3).flatMap(() => {
    const queue = new Queue<number>();
    return Object.values(RECEIVING).map((verb) => follow(verb(queue, signal)));
  });
  const full = new Queue<number>();
  tasks.push(...range(3).map((i) => follow(full.send(i, { signal }))));
  const piped = Queue.from(new Queue<number>(), { signal });
  controller.abort("stop");
  assertEquals(controller.listening, 0);
  await flush();
  for (const { state, error } of tasks) {
    assertEquals([state, error], ["rejected", "stop"]);
  }
  assertEquals(await piped.receive().catch((error) => error), "stop");
});

Deno.test("Queue: 10,000 waiters that left do not keep the one behind them waiting", async () => {
  const queue = new Queue<number>();
  const controller = probedController();
  const { signal } = controller;
  const first = follow(queue.receive());
  const left = range(10_000).map(() => follow(queue.receive({ signal })));
  const last = follow(queue.receive());
  controller.abort("stop");
  assert(queue.trySend(1) && queue.trySend(2));
  assertFalse(queue.trySend(3));
  await flush();
  assertEquals([first.value, last.value], [1, 2]);
  assert(left.every(({ error }) => error === "stop"));
});

Deno.test("Queue: signals of their own do not disturb each other", async () => {
  const queue = new Queue<number>();
  const controllers = range(3).map(probedController);
  const tasks = controllers.map(({ signal }) =>
    follow(queue.receive({ signal }))
  );
  controllers[1].abort("stop");
  await flush();
  assertEquals(states(tasks), ["pending", "rejected", "pending"]);
  assertEquals(controllers.map(({ listening }) => listening), [1, 0, 1]);
  assert(queue.trySend(1) && queue.trySend(2));
  await flush();
  assertEquals(tasks.map(({ value }) => value), [1, undefined, 2]);
  assertEquals(controllers.map(({ listening }) => listening), [0, 0, 0]);
});

Deno.test("Queue: signals that take turns get one listener each", async () => {
  const queue = new Queue<number>();
  const controllers = range(3).map(probedController);
  const receive = (i: number) =>
    follow(queue.receive({ signal: controllers[i].signal }));
  const listening = () => controllers.map(({ listening }) => listening);
  for (let round = 0; round < 2; round++) {
    const tasks = [0, 1, 0, 2, 1, 0, 2].map(receive);
    assertEquals(listening(), [1, 1, 1]);
    for (const i of range(7)) queue.trySend(i);
    await flush();
    assertEquals(tasks.map(({ value }) => value), range(7));
    assertEquals(listening(), [0, 0, 0]);
  }
  const left = [0, 1, 2, 1, 0].map(receive);
  assertEquals(listening(), [1, 1, 1]);
  for (const i of [1, 0, 2]) controllers[i].abort(`stop ${i}`);
  await flush();
  assertEquals(
    left.map(({ error }) => error),
    ["stop 0", "stop 1", "stop 2", "stop 1", "stop 0"],
  );
  assertEquals(listening(), [0, 0, 0]);
});

// ── Every value is a value ──────────────────────────────────────────────────

const kept = Promise.resolve("kept");
const VALUES = [undefined, null, 0, false, NaN, "", kept, Promise.reject(1)];
(VALUES.at(-1) as Promise<unknown>).catch(() => {});

/** Ways out of a queue that wait until `n` values have come. */
const WAYS_OUT: Record<
  string,
  (queue: Queue<unknown>, n: number) => Promise<unknown[]>
> = {
  "Queue.receiveMany()": async (queue, n) => {
    const values: unknown[] = [];
    while (values.length < n) values.push(...await queue.receiveMany(n));
    return values;
  },
  "Queue.values()": async (queue, n) => {
    const values: unknown[] = [];
    for await (const value of queue) {
      if (values.push(value) === n) break;
    }
    return values;
  },
  "Queue.batches()": async (queue, n) => {
    const values: unknown[] = [];
    for await (const batch of queue.batches(3)) {
      if (values.push(...batch) === n) break;
    }
    return values;
  },
  "select()": async (queue, n) => {
    const values: unknown[] = [];
    while (values.length < n) values.push((await select({ queue })).value);
    return values;
  },
  "merge()": async (queue, n) => {
    const values: unknown[] = [];
    for await (const { value } of merge({ queue })) {
      if (values.push(value) === n) break;
    }
    return values;
  },
  "Queue.toReadableStream()": async (queue, n) => {
    const values: unknown[] = [];
    const reader = queue.toReadableStream().getReader();
    while (values.length < n) values.push((await reader.read()).value);
    return values;
  },
};

/** Ways out that do not wait. */
const WAYS_OUT_NOW: typeof WAYS_OUT = {
  "Queue.tryReceive()": async (queue) => await takeAll(queue),
  "Queue.drain()": async (queue) => await queue.drain(),
};

function assertSame(found: unknown[], expected: unknown[]): void {
  assertEquals(found.length, expected.length);
  for (const [i, value] of expected.entries()) {
    assert(Object.is(found[i], value));
  }
}

for (const [name, take] of Object.entries({ ...WAYS_OUT, ...WAYS_OUT_NOW })) {
  test(`${name} gives every value as it is`, async (capacity) => {
    const queue = new Queue<unknown>({ capacity });
    const sends = VALUES.map((value) => queue.send(value));
    assertSame(await take(queue, VALUES.length), VALUES);
    await Promise.all(sends);
  });
}

for (const [name, take] of Object.entries(WAYS_OUT)) {
  Deno.test(`${name} gives every value as it is to one who waits`, async () => {
    const queue = new Queue<unknown>();
    const taken = take(queue, VALUES.length);
    for (const value of VALUES) {
      await flush();
      await queue.send(value);
    }
    assertSame(await taken, VALUES);
  });
}

Deno.test("Queue.receive() gives every value, and what a promise resolves with", async () => {
  const promises = (value: unknown) => value instanceof Promise;
  const queue = new Queue<unknown>({ capacity: Infinity });
  const waiting = VALUES.map(() => follow(queue.receive()));
  for (const value of VALUES) await queue.send(value);
  for (const value of VALUES) await queue.send(value);
  const served = VALUES.map(() => follow(queue.receive()));
  await flush();
  for (const tasks of [waiting, served]) {
    assertSame(
      tasks.map(({ state, value, error }) =>
        state === "resolved" ? value : error
      ),
      [...VALUES.filter((value) => !promises(value)), "kept", 1],
    );
  }
  assertEquals(queue.size, 0); // the values were taken, rejecting or not
});

Deno.test("Queue hands every value back as it is: dropped, full, closed", async () => {
  const dropped: unknown[] = [];
  const onDrop = (value: unknown) => dropped.push(value);
  const lossy = new Queue<unknown>({
    capacity: 1,
    overflow: "drop-oldest",
    onDrop,
  });
  for (const value of [...VALUES, "last"]) await lossy.send(value);
  assertSame(dropped, VALUES);

  const refusing = new Queue<unknown>({ overflow: "reject" });
  const closing = new Queue<unknown>();
  const sends = VALUES.flatMap((value) => [
    follow(refusing.send(value)),
    follow(closing.send(value)),
  ]);
  closing.close();
  await flush();
  assertSame(
    sends.map(({ error }) => (error as QueueFullError).value),
    VALUES.flatMap((value) => [value, value]),
  );
});

// ── Iteration ───────────────────────────────────────────────────────────────

for (const [name, iterate] of Object.entries(ITERATING)) {
  test(`${name} iterates to the end of the queue`, async (capacity) => {
    const queue = new Queue<number>({ capacity });
    const values = collect(iterate(queue));
    for (const i of range(5)) await queue.send(i);
    queue.close();
    assertEquals(await values, range(5));
  });

  test(`${name} throws the reason with which the queue was closed, after its values`, async (capacity) => {
    const queue = new Queue<number>({ capacity });
    const rest = range(Math.min(capacity, 3));
    for (const value of rest) assert(queue.trySend(value));
    queue.close("fire");
    const values: number[] = [];
    const iterator = iterate(queue);
    const loop = follow((async () => {
      for await (const value of iterator) values.push(value);
    })());
    await flush();
    assertEquals([loop.state, loop.error], ["rejected", "fire"]);
    assertEquals(values, rest);
    assertEquals(await iterator.next(), DONE);
  });

  Deno.test(`${name} listens to its signal only while a next() waits`, async () => {
    const queue = new Queue<number>();
    const controller = probedController();
    const iterator = iterate(queue, controller);
    assertEquals(controller.listening, 0);
    const next = iterator.next();
    assertEquals(controller.listening, 1);
    await queue.send(1);
    assertEquals(await next, { value: 1, done: false });
    assertEquals(controller.listening, 0);
    const parked = iterator.next();
    await iterator.return!();
    assertEquals(await parked, DONE);
    assertEquals([controller.listening, controller.added], [0, 2]);
  });

  Deno.test(`${name} takes nothing before it is asked`, async () => {
    const queue = filled([1, 2]);
    const iterator = iterate(queue);
    await flush();
    assertEquals(queue.size, 2);
    assertEquals(await iterator.next(), { value: 1, done: false });
    await flush();
    assertEquals(queue.size, 1);
  });

  Deno.test(`${name} leaves the queue open when its loop is left`, async () => {
    const leave: Record<string, (value: number) => void> = {
      "by break": () => {},
      "by throw": () => {
        throw new Error("burnt");
      },
    };
    for (const [how, body] of Object.entries(leave)) {
      const queue = filled([1, 2, 3]);
      const iterator = iterate(queue);
      const loop = follow((async () => {
        for await (const value of iterator) {
          body(value);
          break;
        }
      })());
      await flush();
      assertEquals(loop.state, how === "by throw" ? "rejected" : "resolved");
      assertFalse(queue.closed);
      assertEquals(await iterator.next(), DONE);
      assertEquals(await collect(iterator), []);
      assertEquals(queue.drain(), [2, 3]);
    }
  });

  Deno.test(`${name} is its own iterator`, () => {
    const iterator = iterate(new Queue<number>());
    assertStrictEquals(iterator[Symbol.asyncIterator](), iterator);
  });

  test(`${name} may have several next() parked, which are served in order`, async (capacity) => {
    const queue = new Queue<number>({ capacity });
    const iterator = iterate(queue);
    const journal = new Journal();
    for (const i of range(4)) {
      const next = iterator.next().then(({ value, done }) => done || value);
      journal.follow(`next ${i}`, next);
    }
    for (const i of range(2)) await queue.send(10 + i);
    queue.close();
    await flush();
    assertEquals(journal.lines.toSorted(), [
      "next 0: 10",
      "next 1: 11",
      "next 2: true",
      "next 3: true",
    ]);
  });

  Deno.test(`${name}: return() ends its own parked next() and leaves other readers alone`, async () => {
    const queue = new Queue<number>();
    const iterators = range(2).map(() => iterate(queue));
    const nexts = range(3).flatMap(() =>
      iterators.map((iterator) => follow(iterator.next()))
    );
    const receiver = follow(queue.receive());
    assertEquals(await iterators[0].return!(), DONE);
    await flush();
    assertEquals(
      states(nexts),
      range(3).flatMap(() => ["resolved", "pending"]),
    );
    assertEquals(nexts[0].value, DONE);
    assertEquals(await iterators[0].next(), DONE);
    assertFalse(queue.closed);
    for (const i of range(4)) assert(queue.trySend(i));
    assertFalse(queue.trySend(4));
    await flush();
    assertEquals(
      nexts.filter((_, i) => i % 2).map(({ value }) => value!.value),
      range(3),
    );
    assertEquals(receiver.value, 3);
  });

  Deno.test(`${name}: return() after some of its parked next() were served ends the others`, async () => {
    const queue = new Queue<number>();
    const iterator = iterate(queue);
    const nexts = range(4).map(() => follow(iterator.next()));
    for (const i of range(2)) await queue.send(i);
    await iterator.return!();
    await flush();
    assertEquals(nexts.map(({ value }) => value), [
      { value: 0, done: false },
      { value: 1, done: false },
      DONE,
      DONE,
    ]);
    assertFalse(queue.trySend(9));
  });

  Deno.test(`${name}: return() before the first next() ends it, and may come twice`, async () => {
    const queue = filled([1]);
    const iterator = iterate(queue);
    assertEquals(await iterator.return!(), DONE);
    assertEquals(await iterator.return!(), DONE);
    assertEquals(await iterator.next(), DONE);
    assertEquals(queue.size, 1);
  });

  Deno.test(`${name} throws when its signal aborts, and is over then; others go on`, async () => {
    const queue = new Queue<number>();
    const controller = probedController();
    const aborted = iterate(queue, { signal: controller.signal });
    const other = iterate(queue);
    const journal = new Journal();
    journal.follow("aborted", aborted.next());
    journal.follow("aborted", aborted.next());
    journal.follow("other", other.next().then(({ value }) => value));
    controller.abort("stop");
    await flush();
    assertEquals(journal.lines, [
      "aborted failed: stop",
      "aborted failed: stop",
    ]);
    assertEquals(await aborted.next(), DONE);
    await queue.send(1);
    await flush();
    assertEquals(journal.lines.at(-1), "other: 1");
    assertEquals(controller.listening, 0);
  });

  Deno.test(`${name} throws when its signal has aborted between two steps, and takes nothing`, async () => {
    const queue = filled([1, 2, 3]);
    const controller = new AbortController();
    const values: number[] = [];
    const loop = follow((async () => {
      for await (const value of iterate(queue, controller)) {
        values.push(value);
        controller.abort("stop");
      }
    })());
    await flush();
    assertEquals([loop.state, loop.error], ["rejected", "stop"]);
    assertEquals(values, [1]);
    assertEquals(queue.drain(), [2, 3]);
  });

  Deno.test(`${name} that is over does not look at its signal`, async () => {
    const queue = closed(new Queue());
    const controller = new AbortController();
    const iterator = iterate(queue, controller);
    assertEquals(await iterator.next(), DONE);
    controller.abort();
    assertEquals(await iterator.next(), DONE);
  });

  Deno.test(`${name} ends for good, also if it ended by a reason`, async () => {
    const iterator = iterate(closed(new Queue(), "fire"));
    const next = follow(iterator.next());
    await flush();
    assertEquals([next.state, next.error], ["rejected", "fire"]);
    assertEquals(await iterator.next(), DONE);
  });

  test(`${name} shares the values with other readers, each value goes to one`, async (capacity) => {
    const queue = new Queue<number>({ capacity });
    const readers = range(3).map(() => collect(iterate(queue)));
    await flush();
    for (const i of range(9)) {
      await queue.send(i);
      await flush();
    }
    queue.close();
    assertEquals(await Promise.all(readers), [[0, 3, 6], [1, 4, 7], [
      2,
      5,
      8,
    ]]);
  });
}

Deno.test("Queue.values(): return(value) is done with that value, awaited", async () => {
  const iterator = new Queue<number>().values();
  const parked = follow(iterator.next());
  assertEquals(await iterator.return!(Promise.resolve(7)), {
    value: 7,
    done: true,
  });
  await flush();
  assertEquals(parked.value, DONE);

  const ended = new Queue<number>({ capacity: 1 }).values();
  await assertRejects(() => ended.return!(Promise.reject(new Error("burnt"))));
  assertEquals(await ended.next(), DONE);
});

Deno.test("Queue.values() may end by the reason undefined", async () => {
  const queue = new Queue<number>();
  const iterator = queue.values();
  const next = follow(iterator.next());
  queue.close(undefined);
  await flush();
  assertEquals([next.state, next.error], ["rejected", undefined]);
});

// ── Batches ─────────────────────────────────────────────────────────────────

/** Both ways to receive batches. */
const BATCHING: Record<
  string,
  (
    queue: Queue<number>,
    max: number,
    options?: WaitOptions,
  ) => Promise<number[]>
> = {
  "Queue.receiveMany()": (queue, max, options) =>
    queue.receiveMany(max, options),
  "Queue.batches()": async (queue, max, options) =>
    (await queue.batches(max, options).next()).value,
};

for (const [name, batch] of Object.entries(BATCHING)) {
  test(`${name} takes all that can be had at once, up to max`, async (capacity) => {
    const queue = new Queue<number>({ capacity });
    const sends = range(8).map((i) => queue.send(i));
    assertEquals(await batch(queue, 1), [0]);
    assertEquals(await batch(queue, 4), [1, 2, 3, 4]);
    assertEquals(await batch(queue, Infinity), [5, 6, 7]);
    await Promise.all(sends);
  });

  test(`${name} makes one batch of what is sent in one turn while it waits`, async (capacity) => {
    const queue = new Queue<number>({ capacity });
    const waiting = batch(queue, Infinity);
    await flush();
    const sends = range(5).map((i) => queue.send(i));
    assertEquals(await waiting, range(5));
    await Promise.all(sends);
  });

  test(`${name} leaves what exceeds max`, async (capacity) => {
    const queue = new Queue<number>({ capacity });
    const waiting = batch(queue, 3);
    const sends = range(5).map((i) => queue.send(i));
    assertEquals(await waiting, [0, 1, 2]);
    assertEquals(queue.drain(), [3, 4]);
    await Promise.all(sends);
  });

  test(`${name} does not wait for more than one value`, async (capacity) => {
    const queue = new Queue<number>({ capacity });
    const waiting = batch(queue, 3);
    await queue.send(1);
    assertEquals(await waiting, [1]);
  });

  test(`${name} delivers what was handed over before an abort, and takes no more`, async (capacity) => {
    const queue = new Queue<number>({ capacity });
    const controller = probedController();
    const waiting = batch(queue, 3, controller);
    const sends = range(2).map((i) => queue.send(i));
    controller.abort("stop");
    assertEquals(await waiting, [0]);
    assertEquals(queue.drain(), [1]);
    await Promise.all(sends);
    assertEquals(controller.listening, 0);
  });

  test(`${name} delivers what was handed over before the queue closed`, async (capacity) => {
    for (const reason of [[], ["fire"]] as [unknown?][]) {
      const queue = new Queue<number>({ capacity });
      const waiting = batch(queue, 3);
      const sends = range(2).map((i) => follow(queue.send(i)));
      queue.close(...reason);
      assertEquals(await waiting, range(capacity > 0 ? 2 : 1));
      await flush();
      assertEquals(states(sends), [
        "resolved",
        capacity > 0 ? "resolved" : "rejected",
      ]);
    }
  });

  test(`${name} gives each of several who wait a value, in the order in which they came`, async (capacity) => {
    const queue = new Queue<number>({ capacity });
    const waiting = range(3).map(() => batch(queue, 2));
    const sends = range(3).map((i) => queue.send(i));
    assertEquals(await Promise.all(waiting), [[0], [1], [2]]);
    await Promise.all(sends);
  });
}

Deno.test("Queue.batches(): return() between hand-over and delivery loses nothing", async () => {
  for (const capacity of CAPACITIES) {
    const queue = new Queue<number>({ capacity });
    const iterator = queue.batches(3);
    const nexts = range(2).map(() => follow(iterator.next()));
    const sent = follow(queue.send(1));
    assertEquals(await iterator.return!(), DONE);
    await flush();
    assertEquals(nexts.map(({ value }) => value), [
      { value: [1], done: false },
      DONE,
    ]);
    assertEquals(sent.state, "resolved");
    assertEquals(await iterator.next(), DONE);
  }
});

Deno.test("Queue.batches() iterates over full batches, then the rest, then ends", async () => {
  const queue = filled(range(7));
  queue.close();
  assertEquals(await collect(queue.batches(3)), [[0, 1, 2], [3, 4, 5], [6]]);
});

Deno.test("Queue.receiveMany() gives an array of its own each time", async () => {
  const queue = filled([1, 2]);
  const first = await queue.receiveMany(1);
  first.push(99);
  assertEquals(await queue.receiveMany(1), [2]);
});

Deno.test("Queue.receiveMany() takes by order", async () => {
  const queue = filled([3, 1, 2], { order: (a, b) => a - b });
  assertEquals(await queue.receiveMany(2), [1, 2]);
  const stack = filled([1, 2, 3], { order: "lifo" });
  assertEquals(await stack.receiveMany(2), [3, 2]);
});

// ── select() ────────────────────────────────────────────────────────────────

/** Two or more rendezvous. */
function lines() {
  return { a: new Queue<number>(), b: new Queue<number>() };
}

Deno.test("select() takes one value that is there, with its key", async () => {
  const queues = { a: new Queue<string>(), b: filled([1, 2]) };
  assertEquals(await select(queues), { key: "b", value: 1 });
  assertEquals(queues.b.size, 1);
  const sent = queues.a.send("soup");
  assertEquals(await select({ a: queues.a }), { key: "a", value: "soup" });
  await sent;
});

test("select() waits for the first value and takes nothing else", async (capacity) => {
  const queues = {
    a: new Queue<number>({ capacity }),
    b: new Queue<number>({ capacity }),
  };
  const selected = follow(select(queues));
  await flush();
  assertEquals(selected.state, "pending");
  const sends = [queues.b.send(1), queues.a.send(2), queues.b.send(3)];
  await flush();
  assertEquals(selected.value, { key: "b", value: 1 });
  assertEquals([queues.a.drain(), queues.b.drain()], [[2], [3]]);
  await Promise.all(sends);
});

Deno.test("select() leaves every line when it was served, aborted or refused", async () => {
  for (
    const end of [
      (queues: ReturnType<typeof lines>) => queues.a.trySend(1),
      (_: unknown, controller: AbortController) => controller.abort(),
      (queues: ReturnType<typeof lines>) => queues.a.close("fire"),
    ]
  ) {
    const queues = lines();
    const controller = probedController();
    const selected = follow(select(queues, controller));
    end(queues, controller);
    await flush();
    assert(selected.state !== "pending");
    assertEquals(controller.listening, 0);
    assertFalse(queues.a.trySend(9));
    assertFalse(queues.b.trySend(9));
  }
});

Deno.test("select() stands in line like everybody else", async () => {
  const queues = lines();
  const journal = new Journal();
  journal.follow("receive", queues.a.receive());
  journal.follow("select", select(queues).then(({ value }) => value));
  journal.follow("select", select(queues).then(({ value }) => value));
  journal.follow("receive", queues.b.receive());
  await flush();
  for (const i of [1, 2]) await queues.a.send(i);
  for (const i of [3, 4]) await queues.b.send(i);
  await flush();
  assertEquals(journal.lines, [
    "receive: 1",
    "select: 2",
    "select: 3",
    "receive: 4",
  ]);
});

Deno.test("select() lets queues that have values take turns", async () => {
  const queues = { a: filled(range(9)), b: filled(range(9)), c: filled([0]) };
  const keys: string[] = [];
  for (const _ of range(7)) keys.push((await select(queues)).key);
  assertEquals(keys.join(""), "abcabab"); // those named first come first
  assert(queues.c.trySend(1)); // left alone longest
  for (const _ of range(3)) keys.push((await select(queues)).key);
  assertEquals(keys.slice(7).join(""), "cab");
});

Deno.test("select() counts a value that it waited for as a turn", async () => {
  const queues = { a: new Queue<number>({ capacity: 1 }), b: filled([1, 2]) };
  for (const _ of range(2)) assertEquals((await select(queues)).key, "b");
  const waiting = select(queues);
  await queues.a.send(1);
  assertEquals((await waiting).key, "a");
  assert(queues.a.trySend(2) && queues.b.trySend(3));
  assertEquals((await select(queues)).key, "b");
});

Deno.test("select() takes a queue under two keys for one queue", async () => {
  const queue = new Queue<number>();
  const queues = { a: queue, b: queue };
  const selected = range(2).map(() => follow(select(queues)));
  assert(queue.trySend(1) && queue.trySend(2));
  assertFalse(queue.trySend(3));
  const sent = queue.send(4);
  assertEquals((await select(queues)).value, 4);
  await sent;
  assertEquals(selected.map(({ value }) => value!.value), [1, 2]);

  const refused = follow(select(queues));
  queue.close();
  await flush();
  assertInstanceOf(refused.error, QueueClosedError);
});

Deno.test("select() passes over a queue that is closed and empty", async () => {
  const queues = lines();
  queues.a.close();
  const selected = follow(select(queues));
  assert(queues.b.trySend(1));
  await flush();
  assertEquals(selected.value, { key: "b", value: 1 });
});

Deno.test("select() goes on waiting when one of its queues closes, until all have", async () => {
  const queues = lines();
  const [first, second] = range(2).map(() => follow(select(queues)));
  queues.a.close();
  await flush();
  assertEquals(states([first, second]), ["pending", "pending"]);
  assert(queues.b.trySend(1));
  queues.b.close();
  await flush();
  assertEquals(first.value, { key: "b", value: 1 });
  assertInstanceOf(second.error, QueueClosedError);
  const error = await assertRejects(() => select(queues), QueueClosedError);
  assertFalse("value" in error);
});

Deno.test("select() takes what closed queues hold", async () => {
  const queues = { a: closed(filled([1])), b: closed(filled([2]), "fire") };
  assertEquals(await select(queues), { key: "a", value: 1 });
  assertEquals(await select(queues), { key: "b", value: 2 });
  const refused = follow(select(queues));
  await flush();
  assertEquals([refused.state, refused.error], ["rejected", "fire"]);
});

Deno.test("select() throws the reason of a closed and empty queue, whatever the others hold", async () => {
  const queues = { a: filled([1]), b: closed(new Queue(), "fire") };
  const refused = follow(select(queues));
  await flush();
  assertEquals([refused.state, refused.error], ["rejected", "fire"]);
  assertEquals(queues.a.size, 1);
});

Deno.test("select() throws the reason with which one of its queues closes", async () => {
  for (const reason of ["fire", undefined]) {
    const queues = lines();
    const refused = follow(select(queues));
    queues.b.close(reason);
    await flush();
    assertEquals([refused.state, refused.error], ["rejected", reason]);
  }
});

// ── merge() ─────────────────────────────────────────────────────────────────

Deno.test("merge() iterates over the values of all queues until all are closed and empty", async () => {
  const queues = {
    a: new Queue<number>({ capacity: 1 }),
    b: new Queue<string>(),
  };
  const merged = collect(merge(queues));
  await queues.a.send(1);
  await queues.b.send("x");
  await queues.a.send(2);
  queues.a.close();
  await flush();
  await queues.b.send("y");
  queues.b.close();
  assertEquals(await merged, [
    { key: "a", value: 1 },
    { key: "b", value: "x" },
    { key: "a", value: 2 },
    { key: "b", value: "y" },
  ]);
});

Deno.test("merge() lets queues that have values take turns", async () => {
  const queues = { a: filled([1, 2, 3]), b: filled([4]), c: filled([5, 6]) };
  for (const queue of Object.values(queues)) queue.close();
  const merged = await collect(merge(queues));
  assertEquals(merged.map(({ value }) => value), [1, 4, 5, 2, 6, 3]);
});

Deno.test("merge() leaves its queues open when its loop is left", async () => {
  const queues = { a: filled([1, 2]), b: filled([3]) };
  for await (const _ of merge(queues)) break;
  assertFalse(queues.a.closed || queues.b.closed);
  assertEquals([queues.a.drain(), queues.b.drain()], [[2], [3]]);
});

Deno.test("merge() throws the reason with which one of its queues was closed, and takes no more", async () => {
  const queues = { a: filled([1]), b: filled([2]), c: filled([3, 4, 5]) };
  queues.b.close("fire");
  const iterator = merge(queues);
  const taken = [await iterator.next(), await iterator.next()];
  assertEquals(taken.map(({ value }) => value.key), ["a", "b"]);
  const next = follow(iterator.next());
  await flush();
  assertEquals([next.state, next.error], ["rejected", "fire"]);
  assertEquals(await iterator.next(), DONE);
  assertEquals(queues.c.size, 3);
});

Deno.test("merge() leaves every line when it returns", async () => {
  const queues = lines();
  const iterator = merge(queues);
  const nexts = range(2).map(() => follow(iterator.next()));
  await iterator.return!();
  await flush();
  assertEquals(nexts.map(({ value }) => value), [DONE, DONE]);
  assertFalse(queues.a.trySend(1) || queues.b.trySend(1));
});

Deno.test("merge() of no queues is over at once", async () => {
  assertEquals(await collect(merge({})), []);
});

Deno.test("merge() takes a queue under two keys for one queue", async () => {
  const queue = new Queue<number>();
  const values = collect(merge({ a: queue, b: queue }));
  for (const i of range(3)) await queue.send(i);
  queue.close();
  assertEquals((await values).map(({ value }) => value), range(3));
});

// ── Queue.from() ────────────────────────────────────────────────────────────

/** A source that writes down what is asked of it. */
class Source {
  readonly calls: string[] = [];
  readonly #steps: (() => unknown)[];

  /** Takes the steps that it gives; after these, it hangs. */
  constructor(...steps: (() => unknown)[]) {
    this.#steps = steps;
  }

  [Symbol.asyncIterator](): AsyncIterator<number> {
    this.calls.push("open");
    return {
      next: async () => {
        this.calls.push("next");
        const hang = () => new Promise(() => {});
        return await (this.#steps.shift() ?? hang)() as never;
      },
      return: async () => {
        this.calls.push("return");
        return await DONE;
      },
    };
  }
}

function step<T>(value: T): { value: T; done: false } {
  return { value, done: false };
}

Deno.test("Queue.from() takes any iterable", async () => {
  const sources: Record<string, Iterable<number> | AsyncIterable<number>> = {
    "array": [0, 1, 2],
    "set": new Set([0, 1, 2]),
    "generator": (function* () {
      yield* range(3);
    })(),
    "async generator": (async function* () {
      yield* range(3);
    })(),
    "queue": closed(filled([0, 1, 2])),
    "stream": closed(filled([0, 1, 2])).toReadableStream(),
    "source": new Source(...range(3).map((i) => () => step(i)), () => DONE),
  };
  for (const [name, source] of Object.entries(sources)) {
    assertEquals(await collect(Queue.from(source)), [0, 1, 2], name);
  }
  assertEquals(await collect(Queue.from("soup")), [..."soup"]);
  assertEquals(await collect(Queue.from([])), []);
});

Deno.test("Queue.from() prefers asynchronous iteration, as for await does", async () => {
  const both = {
    [Symbol.iterator]: () => [1].values(),
    [Symbol.asyncIterator]: () => closed(filled([2])).values(),
  };
  assertEquals(await collect(Queue.from<number>(both)), [2]);
});

Deno.test("Queue.from() leaves promises in a synchronous source as they are", async () => {
  const values = VALUES.slice(-2);
  const queue = Queue.from(values, { capacity: 2 });
  assertSame(await collect(queue), values);
});

Deno.test("Queue.from() takes queue options", async () => {
  const queue = Queue.from([3, 1, 2], {
    capacity: 3,
    order: (a, b) => a - b,
  });
  await flush();
  assertEquals([queue.capacity, queue.size, queue.closed], [3, 3, true]);
  assertEquals(queue.drain(), [1, 2, 3]);
});

Deno.test("Queue.from() asks for a value once the one before it was accepted", async () => {
  for (const capacity of [0, 1, 2]) {
    const source = new Source(
      ...range(5).map((i) => () => step(i)),
      () => DONE,
    );
    const queue = Queue.from(source, { capacity });
    for (const taken of range(5)) {
      await flush();
      const asked = Math.min(capacity + taken + 1, 6);
      assertEquals(source.calls, ["open", ...Array(asked).fill("next")]);
      assertEquals(queue.tryReceive(), { state: "ok", value: taken });
    }
    await flush();
    assertEquals(queue.tryReceive(), { state: "closed" });
    assertFalse(source.calls.includes("return")); // it ended by itself
  }
});

Deno.test("Queue.from() closes the queue with the error of its source, after its values", async () => {
  const burnt = new Error("burnt");
  const fail = (): never => {
    throw burnt;
  };
  const failing = new Source(() => step(1), fail);
  const sources = {
    "generator": (function* () {
      yield 1;
      fail();
    })(),
    "async generator": (async function* () {
      yield 1;
      fail();
    })(),
    "closed queue": closed(filled([1]), burnt),
    "source": failing,
  };
  for (const [name, source] of Object.entries(sources)) {
    const queue = Queue.from<number>(source, { capacity: 1 });
    assertEquals(await queue.receive(), 1, name);
    assertStrictEquals(await assertRejects(() => queue.receive()), burnt);
  }
  assertEquals(failing.calls, ["open", "next", "next"]); // no return()
});

/** Ways to end a queue before its source has ended. */
const EARLY_ENDS: Record<
  string,
  (queue: Queue<number>, controller: AbortController) => unknown
> = {
  "closes": (queue) => queue.close("stop"),
  "is cancelled as a stream": (queue) =>
    queue.toReadableStream().cancel("stop"),
  "is aborted": (_, controller) => controller.abort("stop"),
};

for (const [how, end] of Object.entries(EARLY_ENDS)) {
  Deno.test(`Queue.from() tells a source that hangs to stop, once, when the queue ${how}`, async () => {
    const source = new Source(() => step(1));
    const controller = probedController();
    const queue = Queue.from(source, {
      capacity: 1,
      signal: controller.signal,
    });
    await flush();
    assertEquals(source.calls, ["open", "next", "next"]);
    assertEquals(controller.listening, 1);
    end(queue, controller);
    queue.close();
    await flush();
    assertEquals(source.calls.slice(3), ["return"]);
    assertEquals(controller.listening, 0);
    assertEquals(await queue.receive(), 1);
    assertStrictEquals(await queue.receive().catch((error) => error), "stop");
  });

  Deno.test(`Queue.from() tells a source whose value waits to stop, once, when the queue ${how}`, async () => {
    const source = new Source(() => step(1), () => step(2));
    const controller = probedController();
    const queue = Queue.from(source, { signal: controller.signal });
    await flush();
    end(queue, controller);
    await flush();
    assertEquals(source.calls, ["open", "next", "return"]);
    assertEquals(controller.listening, 0);
    assertEquals(queue.drain(), []);
  });
}

Deno.test("Queue.from() settles its receivers though the source hangs", async () => {
  const queue = Queue.from(new Source());
  const receivers = [follow(queue.receive()), follow(queue.receive())];
  queue.close("stop");
  await flush();
  for (const { error } of receivers) assertEquals(error, "stop");
});

Deno.test("Queue.from() under an aborted signal closes with its reason and does not touch the source", async () => {
  const source = new Source();
  const signal = AbortSignal.abort("stop");
  const queue = Queue.from(source, { capacity: 1, signal });
  assert(queue.closed);
  assertEquals(await queue.receive().catch((error) => error), "stop");
  await flush();
  assertEquals(source.calls, []);
});

Deno.test("Queue.from() closes if its signal aborts while the source is being opened", async () => {
  const controller = probedController();
  const source = new Source(...range(5).map((i) => () => step(i)));
  const opening = {
    [Symbol.asyncIterator]() {
      controller.abort("stop");
      return source[Symbol.asyncIterator]();
    },
  };
  const { signal } = controller;
  const queue = Queue.from(opening, { capacity: 9, signal });
  await flush();
  assert(queue.closed);
  assertEquals(queue.drain(), []);
  assertEquals(await queue.receive().catch((error) => error), "stop");
  assertEquals(source.calls, ["open", "return"]);
  assertEquals(controller.listening, 0);
});

Deno.test("Queue.from() listens to its signal until the source ends or fails, and no longer", async () => {
  for (const last of [() => DONE, () => Promise.reject("burnt")]) {
    const source = new Source(() => step(1), last);
    const controller = probedController();
    const { signal } = controller;
    const queue = Queue.from(source, { capacity: 1, signal });
    assertEquals(controller.listening, 1);
    await flush();
    assert(queue.closed);
    assertEquals([controller.listening, controller.added], [0, 1]);
    controller.abort();
    await flush();
    assertEquals(source.calls, ["open", "next", "next"]); // no return()
  }
});

Deno.test("Queue.from() reports what a source throws when told to stop", async () => {
  const burnt = new Error("burnt");
  const hang = () => new Promise<never>(() => {});
  const sources: Record<string, () => AsyncIterator<never>> = {
    "return() throws": () => ({
      next: hang,
      return: () => {
        throw burnt;
      },
    }),
    "return() rejects": () => ({
      next: hang,
      return: () => Promise.reject(burnt),
    }),
    "the step under way rejects": () => {
      let fail = (_: unknown) => {};
      return {
        next: () => new Promise((_, reject) => fail = reject),
        return: () => {
          fail(burnt);
          return Promise.resolve(DONE);
        },
      };
    },
  };
  for (const [name, open] of Object.entries(sources)) {
    using reports = catchReports();
    const queue = Queue.from({ [Symbol.asyncIterator]: open });
    queue.close();
    await flush();
    assertEquals(reports.errors, [burnt], name);
  }
});

Deno.test("Queue.from() needs no return() of its source", async () => {
  using reports = catchReports();
  const queue = Queue.from({
    [Symbol.iterator]: () => ({ next: () => step(1) }),
  });
  assertEquals(await queue.receive(), 1);
  queue.close();
  await flush();
  assertEquals(reports.errors, []);
});

Deno.test("Queue.from() runs the end of a generator that is told to stop", async () => {
  const journal: string[] = [];
  const sources = [
    function* () {
      try {
        for (let i = 0;; i++) yield i;
      } finally {
        journal.push("generator closed");
      }
    },
    async function* () {
      try {
        for (let i = 0;; i++) yield i;
      } finally {
        journal.push("async generator closed");
      }
    },
  ];
  for (const source of sources) {
    const queue = Queue.from(source(), { capacity: 1 });
    for await (const value of queue) if (value === 3) queue.close();
    await flush();
  }
  assertEquals(journal, ["generator closed", "async generator closed"]);
});

for (const kind of ["generator", "async generator"]) {
  Deno.test(`Queue.from() stops a ${kind} that ends the queue from inside, without an error`, async () => {
    using reports = catchReports();
    const journal: string[] = [];
    const controller = new AbortController();
    const generator = function* () {
      try {
        yield 1;
        controller.abort("enough");
        yield 2;
        journal.push("asked for more");
      } finally {
        journal.push("closed");
      }
    };
    const asyncGenerator = async function* () {
      yield* generator();
    };
    const source = kind === "generator" ? generator() : asyncGenerator();
    const { signal } = controller;
    const queue = Queue.from<number>(source, { capacity: 9, signal });
    await flush();
    assertEquals(queue.drain(), [1]);
    assertEquals(reports.errors, []);
    assertEquals(journal, ["closed"]);
  });
}

Deno.test("Queue.from() closes with the error of a value that the queue refuses", async () => {
  const source = new Source(...[1, 2, 3].map((i) => () => step(i)));
  const queue = Queue.from(source, { capacity: 1, overflow: "reject" });
  await flush();
  assertEquals(source.calls, ["open", "next", "next", "return"]);
  assertEquals(await queue.receive(), 1);
  const error = await assertRejects(() => queue.receive(), QueueFullError);
  assertEquals(error.value, 2);
});

Deno.test("Queue.from() closes with a TypeError when the source breaks the protocol", async () => {
  for (const result of [undefined, null]) {
    const queue = Queue.from({
      [Symbol.iterator]: () => ({ next: () => result as never }),
    });
    await assertRejects(() => queue.receive(), TypeError);
  }
});

Deno.test("Queue.from() takes further values from others", async () => {
  const source = new Source(() => step(1));
  const queue = Queue.from(source, { capacity: 2 });
  await flush();
  await queue.send(2);
  assertEquals(queue.drain(), [1, 2]);
  queue.close();
});

// ── Streams ─────────────────────────────────────────────────────────────────

test("Queue.toReadableStream() streams the values until the queue is closed", async (capacity) => {
  const queue = new Queue<number>({ capacity });
  const values = collect(queue.toReadableStream());
  for (const i of range(5)) await queue.send(i);
  queue.close();
  assertEquals(await values, range(5));
});

test("Queue.toReadableStream() streams what a closed queue holds", async (capacity) => {
  const rest = range(Math.min(capacity, 3));
  const queue = new Queue<number>({ capacity });
  for (const value of rest) assert(queue.trySend(value));
  queue.close();
  assertEquals(await collect(queue.toReadableStream()), rest);
});

Deno.test("Queue.toReadableStream() takes a value only when its reader asks for one", async () => {
  const queue = filled([1, 2]);
  const waiting = follow(queue.send(3));
  const reader = queue.toReadableStream().getReader();
  await flush();
  assertEquals([queue.size, waiting.state], [2, "pending"]);
  assertEquals(await reader.read(), { value: 1, done: false });
  await flush();
  assertEquals([queue.size, waiting.state], [2, "resolved"]);
  assertEquals(await reader.read(), { value: 2, done: false });
  await flush();
  assertEquals(queue.size, 1);
});

Deno.test("Queue.toReadableStream() fails with the reason of the queue, after its values", async () => {
  for (const reason of [new Error("fire"), undefined]) {
    const reader = closed(filled([1]), reason).toReadableStream().getReader();
    assertEquals(await reader.read(), { value: 1, done: false });
    const error = await reader.read().catch((error) => [error]);
    assertStrictEquals((error as unknown[])[0], reason);
    await reader.closed.catch(() => {});
  }
});

Deno.test("Queue.toReadableStream() ends or fails a read that waits", async () => {
  for (const reason of [[], ["fire"]] as [unknown?][]) {
    const queue = new Queue<number>();
    const reader = queue.toReadableStream().getReader();
    const read = reader.read();
    await flush();
    queue.close(...reason);
    if (reason.length === 0) {
      assertEquals(await read, DONE);
      await reader.closed;
    } else {
      assertEquals(await read.catch((error) => [error]), reason);
      assertEquals(await reader.closed.catch((error) => [error]), reason);
    }
  }
});

Deno.test("Queue.toReadableStream(): several reads may wait, which are served in order", async () => {
  const queue = new Queue<number>();
  const reader = queue.toReadableStream().getReader();
  const reads = range(3).map(() => reader.read());
  await queue.send(1);
  await queue.send(2);
  queue.close();
  assertEquals(await Promise.all(reads), [step(1), step(2), DONE]);
});

Deno.test("Queue.toReadableStream() shares the values with other readers", async () => {
  const queue = new Queue<number>();
  const readers = range(2).map(() => queue.toReadableStream().getReader());
  const reads = readers.map((reader) => reader.read());
  await flush();
  const received = queue.receive();
  for (const i of range(3)) assert(queue.trySend(i));
  assertEquals(await Promise.all(reads), [step(0), step(1)]);
  assertEquals(await received, 2);
});

Deno.test("Queue.toReadableStream(): cancelling closes the queue, with the reason if there is one", async () => {
  for (const reason of [[], [undefined], ["enough"]] as [unknown?][]) {
    const queue = new Queue<number>({ capacity: 1 });
    await queue.toReadableStream().cancel(...reason);
    assert(queue.closed);
    const error = await queue.receive().catch((error) => error);
    if (reason[0] === undefined) assertInstanceOf(error, QueueClosedError);
    else assertStrictEquals(error, reason[0]);
  }
});

Deno.test("Queue.toReadableStream(): cancelling while a read waits ends all who wait", async () => {
  for (const reason of [[], ["enough"]] as [unknown?][]) {
    const queue = new Queue<number>();
    const readers = range(2).map(() => queue.toReadableStream().getReader());
    const reads = readers.map((reader) => follow(reader.read()));
    readers[1].closed.catch(() => {});
    await flush();
    const receiver = follow(queue.receive());
    await readers[0].cancel(...reason);
    await flush();
    assertEquals(reads[0].value, DONE);
    if (reason.length === 0) assertEquals(reads[1].value, DONE);
    else assertEquals(reads[1].error, "enough");
    assertEquals(receiver.state, "rejected");
  }
});

Deno.test("Queue.toReadableStream(): leaving its loop cancels it", async () => {
  const queue = filled([1, 2]);
  for await (const _ of queue.toReadableStream()) break;
  assert(queue.closed);
  assertEquals(queue.drain(), [2]);
});

Deno.test("Queue.toReadableStream() keeps a value for the next reader when the first one left while waiting", async () => {
  const queue = new Queue<number>();
  const stream = queue.toReadableStream();
  const first = stream.getReader();
  const read = first.read();
  await flush();
  first.releaseLock();
  await assertRejects(() => read, TypeError);
  await queue.send(1);
  assertEquals(await stream.getReader().read(), step(1));
});

test("Queue.toWritableStream() sends what is written and holds the writer back", async (capacity) => {
  const queue = new Queue<number>({ capacity });
  const writer = queue.toWritableStream().getWriter();
  const writes = range(4).map((i) => follow(writer.write(i)));
  for (const taken of range(4)) {
    await flush();
    assertEquals(
      states(writes),
      range(4).map((i) => i < capacity + taken ? "resolved" : "pending"),
    );
    assertEquals(await queue.receive(), taken);
  }
  await writer.close();
  assert(queue.closed);
  assertEquals(queue.tryReceive(), { state: "closed" });
});

test("Queue.toWritableStream() closes the queue once all is written", async (capacity) => {
  const queue = new Queue<number>({ capacity });
  const writer = queue.toWritableStream().getWriter();
  const writes = range(3).map((i) => writer.write(i));
  const end = writer.close();
  assertEquals(await collect(queue), range(3));
  await Promise.all([...writes, end]);
});

Deno.test("Queue.toWritableStream(): aborting closes the queue with the reason", async () => {
  const queue = filled([1]);
  const writer = queue.toWritableStream().getWriter();
  writer.closed.catch(() => {});
  await writer.abort("enough");
  assertEquals(await queue.receive(), 1);
  assertEquals(await queue.receive().catch((error) => error), "enough");
});

Deno.test("Queue.toWritableStream(): aborting without a reason closes the queue with an AbortError", async () => {
  const queue = new Queue<number>();
  const writer = queue.toWritableStream().getWriter();
  writer.closed.catch(() => {});
  await writer.abort();
  const error = await queue.receive().catch((error) => error);
  assertEquals(error.name, "AbortError");
});

Deno.test("Queue.toWritableStream(): aborting calls off a write that waits", async () => {
  for (const capacity of [0, 1, 2]) {
    const queue = filled(range(capacity));
    const writer = queue.toWritableStream().getWriter();
    const writes = range(2).map((i) => follow(writer.write(10 + i)));
    writer.closed.catch(() => {});
    writer.ready.catch(() => {});
    await flush();
    await writer.abort("enough");
    await flush();
    assertEquals(states(writes), ["rejected", "rejected"]);
    for (const end of [writer.closed, writer.ready]) {
      assertEquals(await end.catch((error) => error), "enough");
    }
    assertEquals(queue.drain(), range(capacity));
    assertEquals(await queue.receive().catch((error) => error), "enough");
  }
});

Deno.test("Queue.toWritableStream() fails when somebody else closes the queue", async () => {
  for (const full of [true, false]) {
    const queue = filled([0], { capacity: full ? 1 : 2 });
    const writer = queue.toWritableStream().getWriter();
    writer.closed.catch(() => {});
    if (!full) queue.close();
    const write = writer.write(1);
    await flush();
    queue.close();
    const error = await assertRejects(() => write, QueueClosedError);
    assertEquals(error.value, 1);
    await assertRejects(() => writer.write(2));
  }
});

Deno.test('Queue.toWritableStream() fails when the queue is full, overflow "reject"', async () => {
  const queue = filled([1], { overflow: "reject" });
  const writer = queue.toWritableStream().getWriter();
  writer.closed.catch(() => {});
  const error = await assertRejects(() => writer.write(2), QueueFullError);
  assertEquals(error.value, 2);
  assertEquals(queue.drain(), [1]);
});

test("Queue: streams pipe one queue into another, through a transformation", async (capacity) => {
  const source = new Queue<number>({ capacity });
  const target = new Queue<number>({ capacity });
  const doubling = new TransformStream<number, number>({
    transform: (value, controller) => controller.enqueue(2 * value),
  });
  const piped = source.toReadableStream().pipeThrough(doubling)
    .pipeTo(target.toWritableStream());
  const values = collect(target);
  for (const i of range(5)) await source.send(i);
  source.close();
  assertEquals(await values, range(5).map((i) => 2 * i));
  await piped;
});

Deno.test("Queue: a pipe between queues passes an error on, both ways", async () => {
  const queues = lines();
  const downwards = follow(
    queues.a.toReadableStream().pipeTo(queues.b.toWritableStream()),
  );
  const receiver = queues.b.receive();
  queues.a.close("fire");
  assertEquals(await receiver.catch((error) => error), "fire");
  await flush();
  assertEquals(downwards.state, "rejected");

  const { a, b } = lines();
  const upwards = a.toReadableStream().pipeTo(b.toWritableStream());
  b.close();
  const sent = follow(a.send(1));
  await assertRejects(() => upwards, QueueClosedError);
  assert(a.closed);
  await flush();
  assert(sent.state !== "pending");
});

Deno.test({
  name:
    "Queue: an abort ends a pipe between queues that waits for a value, and closes both",
  // workerd sees the abort of a pipe only after the next value
  ignore: globalThis.navigator?.userAgent === "Cloudflare-Workers",
  fn: async () => {
    const { a, b } = lines();
    const controller = new AbortController();
    const piped = a.toReadableStream().pipeTo(b.toWritableStream(), controller);
    await flush();
    controller.abort("enough");
    assertEquals(await piped.catch((error) => error), "enough");
    assert(a.closed && b.closed);
  },
});

Deno.test("Queue: an abort ends a pipe between queues that waits for room, once its value is taken", async () => {
  const { a, b } = lines();
  const controller = new AbortController();
  const piped = a.toReadableStream().pipeTo(b.toWritableStream(), controller);
  await a.send(1);
  await flush();
  controller.abort("enough"); // pipeTo lets a write that has begun end first
  await flush();
  assertEquals(await b.receive(), 1);
  assertEquals(await piped.catch((error) => error), "enough");
  assert(a.closed && b.closed);
});

// ── Batches among others, and comparisons that go too far ───────────────────

Deno.test("Queue.receiveMany() is topped up only if nobody was served since", async () => {
  for (const capacity of [4, Infinity]) {
    const queue = new Queue<number>({ capacity });
    const batches = range(3).map(() => queue.receiveMany(2));
    for (const i of range(4)) assert(queue.trySend(i));
    assertEquals(await Promise.all(batches), [[0], [1], [2, 3]]);
  }
});

Deno.test("Queue.batches() hands several parked next() their values in order", async () => {
  const queue = new Queue<number>({ capacity: 9 });
  const reader = queue.batches(8);
  const nexts = [reader.next(), reader.next()];
  for (const i of range(3)) queue.trySend(i);
  nexts.push(reader.next()); // takes what the second would have been topped up with
  queue.trySend(3);
  const batches = (await Promise.all(nexts)).map(({ value }) => value);
  assertEquals(batches, [[0], [1], [2]]);
  assertEquals(queue.drain(), [3]);
});

Deno.test("Queue.batches() takes no more once its reader has left", async () => {
  const queue = new Queue<number>({ capacity: 9 });
  const reader = queue.batches(8);
  const next = reader.next();
  queue.trySend(1);
  reader.return!();
  queue.trySend(2);
  assertEquals(await next, { value: [1], done: false });
  assertEquals(queue.drain(), [2]);
});

Deno.test("Queue.receiveMany() takes very many at once", async () => {
  const queue = new Queue<number>({ capacity: Infinity });
  const many = queue.receiveMany(Infinity);
  for (const i of range(300_000)) queue.trySend(i);
  assertEquals((await many).length, 300_000);
});

Deno.test("Queue refuses a comparison that uses the queue, and loses nothing", async () => {
  const uses: Record<string, (queue: Queue<number>) => unknown> = {
    trySend: (queue) => queue.trySend(99),
    tryReceive: (queue) => queue.tryReceive(),
    drain: (queue) => queue.drain(),
  };
  for (const use of Object.values(uses)) {
    let meddle = false;
    const queue: Queue<number> = new Queue({
      capacity: 9,
      order(a, b) {
        if (meddle) use(queue);
        return a - b;
      },
    });
    for (const i of [3, 1, 2]) queue.trySend(i);
    meddle = true;
    const error = await assertRejects(() => queue.send(0), TypeError);
    assertSays(error, "order(a, b) must leave its queue alone");
    await assertRejects(() => queue.receive(), TypeError);
    meddle = false;
    assertEquals(queue.drain(), [1, 2, 3]);
  }
});

Deno.test("Queue: a value whose comparison closes the queue has one fate", async () => {
  let close = false;
  const queue: Queue<number> = new Queue({
    capacity: 2,
    order(a, b) {
      if (close) queue.close();
      return a - b;
    },
  });
  for (const i of [1, 3]) queue.trySend(i);
  const sent = follow(queue.send(2));
  close = true;
  assertEquals(await queue.receive(), 1);
  await flush();
  const taken = queue.drain();
  assertEquals(taken.includes(2), sent.state === "resolved");
});

Deno.test("Queue.receive() refuses to wait under something like a signal, by name", async () => {
  const signal = { aborted: false } as AbortSignal;
  const error = await assertRejects(
    () => new Queue().receive({ signal }),
    TypeError,
  );
  assertSays(error, "signal must be an AbortSignal", "got an object");
});
