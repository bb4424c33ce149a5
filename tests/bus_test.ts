import {
  assert,
  assertEquals,
  assertFalse,
  assertInstanceOf,
  assertNotStrictEquals,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  Bus,
  type BusEvent,
  type BusOptions,
  type EventContext,
  type HandleOptions,
  type SubscribeOptions,
  SubscriberError,
  Subscription,
} from "../bus.ts";
import { type Overflow, QueueClosedError, QueueFullError } from "../queue.ts";
import {
  catchReports,
  flush,
  follow,
  Journal,
  probedController,
  range,
  replaceGlobals,
} from "./_helpers.ts";

// ── Helpers ─────────────────────────────────────────────────────────────────

interface Events {
  n: number;
  s: string;
  quit: undefined;
}

const BOOM = new Error("boom");

/** A bus, and what its `onError` was told. */
function open(options: BusOptions = {}) {
  const errors: SubscriberError[] = [];
  const onError = (error: SubscriberError) => void errors.push(error);
  return { bus: new Bus<Events>({ onError, ...options }), errors };
}

/** What is done with the data of an event. */
type Sink = (data: unknown) => unknown;

/** Reads a subscription to its end, by hand; resolves with "end", or what was thrown. */
async function read(events: AsyncIterable<BusEvent>, sink: Sink) {
  try {
    for await (const { data } of events) await sink(data);
    return "end";
  } catch (error) {
    return error;
  }
}

/** The ways to get events of type "n". */
const READING: Record<
  string,
  (bus: Bus<Events>, sink: Sink, options?: SubscribeOptions) => Subscription
> = {
  "subscribe()": (bus, sink, options) => {
    const subscription = bus.subscribe("n", options);
    read(subscription, sink);
    return subscription;
  },
  "on()": (bus, sink, options) =>
    bus.on("n", ({ data }) => sink(data), options),
};

/** Registers one test for each way to get events. */
function reading(
  name: string,
  fn: (on: (typeof READING)[string]) => Promise<void>,
): void {
  for (const [way, on] of Object.entries(READING)) {
    Deno.test(`Bus.${way} ${name}`, () => fn(on));
  }
}

/** The ways to end a subscription. */
const ENDING: Record<
  string,
  (subscription: Subscription, controller: AbortController) => unknown
> = {
  "unsubscribe()": (subscription) => subscription.unsubscribe(),
  "dispose": (subscription) => subscription[Symbol.dispose](),
  "return()": (subscription) => subscription[Symbol.asyncIterator]().return!(),
  "a signal": (_, controller) => controller.abort(BOOM),
};

/** Registers one test for each way to end a subscription. */
function ending(
  name: string,
  fn: (
    end: (subscription: Subscription) => unknown,
    signal: AbortSignal,
  ) => Promise<void>,
): void {
  for (const [way, end] of Object.entries(ENDING)) {
    Deno.test(`Subscription, ended by ${way}, ${name}`, () => {
      const controller = new AbortController();
      return fn((one) => end(one, controller), controller.signal);
    });
  }
}

/** A promise, and what resolves it. */
function gate() {
  let open = () => {};
  const passed = new Promise<void>((resolve) => open = resolve);
  return { passed, open: () => open() };
}

/** Waits for a promise to settle, either way. */
async function settled<T>(promise: Promise<T>) {
  const task = follow(promise);
  await promise.catch(() => {});
  return task;
}

/** Publishes numbers without waiting; notes in the journal when each is done. */
function publishAll(bus: Bus<Events>, numbers: number[], journal?: Journal) {
  for (const n of numbers) {
    const publishing = bus.publish("n", n).then(() => {});
    (journal ?? new Journal()).follow(`published ${n}`, publishing);
  }
}

// As a user's module does; at global scope workerd refuses timers and more.
const GLOBAL = new Bus<Events>({ name: "global" });
const GLOBAL_SEEN: unknown[] = [];
const GLOBAL_HANDLER = GLOBAL.on("n", ({ data }) => GLOBAL_SEEN.push(data));

/** Whether the runtime can tell who calls after an `await`. */
const { process } = globalThis as {
  process?: { getBuiltinModule?(name: string): unknown };
};
const TELLS_CALLERS = !!process?.getBuiltinModule?.("node:async_hooks");

// ── new Bus() ───────────────────────────────────────────────────────────────

Deno.test("new Bus() touches nothing that a global scope may not touch", async () => {
  assertEquals(GLOBAL.inspect().subscriptions.length, 1);
  await GLOBAL.publish("n", 1);
  await flush();
  assertEquals(GLOBAL_SEEN, [1]);
  GLOBAL_HANDLER.unsubscribe();

  const refuse = () => {
    throw new Error("refused");
  };
  using _ = replaceGlobals({
    setTimeout: refuse,
    setInterval: refuse,
    queueMicrotask: refuse,
    AbortController: class {
      constructor() {
        refuse();
      }
    },
    crypto: { randomUUID: refuse, getRandomValues: refuse },
  });
  const bus = new Bus<Events>();
  bus.subscribe("n");
  bus.on("n", () => {});
});

Deno.test("new Bus(), subscribe() and on() name the option that is wrong", async () => {
  const { bus } = open();
  // deno-lint-ignore no-explicit-any
  const sub = (options: any) => () => bus.subscribe("n", options);
  // deno-lint-ignore no-explicit-any
  const on = (options: any) => () => bus.on("n", () => {}, options);
  // deno-lint-ignore no-explicit-any
  const any = bus as any;
  const wrong: [string, () => unknown, new () => Error][] = [
    ["name", () => new Bus({ name: 1 } as never), TypeError],
    ["onError", () => new Bus({ onError: "log" } as never), TypeError],
    ["type", () => any.subscribe(1), TypeError],
    ["type", () => any.subscribe(["n", undefined]), TypeError],
    ["name", sub({ name: 1 }), TypeError],
    ["capacity", sub({ capacity: 0 }), RangeError],
    ["capacity", sub({ capacity: 1.5 }), RangeError],
    ["capacity", sub({ capacity: NaN }), RangeError],
    ["capacity", sub({ capacity: "1" }), TypeError],
    ["overflow", sub({ overflow: "drop" }), RangeError],
    ["overflow", sub({ overflow: 1 }), TypeError],
    ["filter", sub({ filter: true }), TypeError],
    ["signal", sub({ signal: {} }), TypeError],
    ["signal", sub({ signal: null }), TypeError],
    ["handler", () => any.on("n"), TypeError],
    ["capacity", on({ capacity: 0 }), RangeError],
    ["concurrency", on({ concurrency: 0 }), RangeError],
    ["concurrency", on({ concurrency: 1.5 }), RangeError],
    ["source", () => any.as(1), TypeError],
  ];
  for (const [option, make, kind] of wrong) {
    assertStringIncludes(assertThrows(make, kind).message, `${option} must be`);
  }
  const refused: [string, Promise<unknown>][] = [
    ["type must be", any.publish(1)],
    ["source must be", any.publish("n", 1, { source: 1 })],
    ["signal must be", any.publish("n", 1, { signal: {} })],
    ["filter must be", any.once("n", { filter: 1 })],
    ["signal must be", any.once("n", { signal: {} })],
  ];
  for (const [message, promise] of refused) {
    const { message: found } = await assertRejects(() => promise, TypeError);
    assertStringIncludes(found, message);
  }
  assertEquals(bus.inspect().subscriptions, []);
  assertEquals(bus.inspect().published, 0);
});

Deno.test("Bus.on() refuses a concurrency that is no number as a TypeError", () => {
  const { bus } = open();
  const options = { concurrency: "2" } as never;
  assertThrows(() => bus.on("n", () => {}, options), TypeError, "concurrency");
});

// ── Events ──────────────────────────────────────────────────────────────────

Deno.test("Bus.publish() resolves with the event that subscribers get", async () => {
  const { bus } = open();
  const got: BusEvent[] = [];
  bus.on("*", (event) => got.push(event));
  const data = { dish: "soup" };
  const before = Date.now();
  const first = await bus.publish("n", data as never);
  const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const second = bus.tryPublish("s", "b", {
    source: "table 1",
    cause: first,
    trace,
  });
  assert(second);
  await flush();
  assertStrictEquals(got[0], first);
  assertStrictEquals(got[1], second);
  assertEquals([first.type, first.source], ["n", "unknown"]);
  assertStrictEquals(first.data, data as never);
  assertFalse("cause" in first || "trace" in first);
  assert(before <= first.time && first.time <= Date.now());
  assertEquals(
    [second.type, second.source, second.data, second.cause, second.trace],
    ["s", "table 1", "b", first.id, trace],
  );
});

Deno.test("An event is frozen, its data is not", async () => {
  const event = await new Bus().publish("n", { dish: "soup" });
  for (const key of ["id", "type", "source", "time", "data", "cause", "new"]) {
    assertThrows(() => Object.assign(event, { [key]: 1 }), TypeError);
  }
  assert(Object.isFrozen(event));
  assertFalse(Object.isFrozen(event.data));
});

Deno.test("An event's id is its own, and stays", async () => {
  const buses = [new Bus(), new Bus()];
  const events = range(20).map((i) => buses[i % 2].tryPublish("n", i)!);
  const ids = [...events].reverse().map(({ id }) => id).reverse();
  assertEquals(new Set(ids).size, 20);
  assertEquals(events.map(({ id }) => id), ids);
  for (const id of ids) assert(typeof id === "string" && id.length > 20);
  assertNotStrictEquals((await buses[0].publish("n")).id, ids[19]);
});

Deno.test("An event becomes JSON with its id, and can be a cause afterwards", async () => {
  const bus = new Bus();
  const first = await bus.publish("order", [1]);
  const copy = JSON.parse(JSON.stringify(first));
  const { id, time } = first;
  const plain = { id, type: "order", source: "unknown", time, data: [1] };
  assertEquals(copy, plain);
  const { cause } = await bus.publish("order", 2, { cause: copy });
  assertEquals(cause, id);
});

for (
  const [name, copy] of Object.entries({
    "{ ...event }": (event: BusEvent) => ({ ...event }),
    "structuredClone(event)": (event: BusEvent) => structuredClone(event),
  })
) {
  Deno.test(`An event's copy by ${name} has its id`, async () => {
    const event = await new Bus().publish("n", 1);
    assertEquals(copy(event).id, event.id);
  });
}

Deno.test("Any type is a type, but the one that stands for all", async () => {
  const bus = new Bus<Record<string, number>>();
  const names = ["", "__proto__", "constructor", "toString", "error", "close"];
  for (const name of [...names, "a.*"]) {
    const seen: string[] = [];
    const subscription = bus.on(name, ({ type }) => seen.push(type));
    assertEquals(subscription.types, [name]);
    for (const type of [...names, "a.*", "a.b"]) await bus.publish(type, 1);
    await flush();
    assertEquals(seen, [name]);
    subscription.unsubscribe();
  }
  await assertRejects(() => bus.publish("*", 1), RangeError, '"*"');
  assertThrows(() => bus.tryPublish("*", 1), RangeError, '"*"');
});

Deno.test("Any data travels as it is", async () => {
  const bus = new Bus();
  const promise = Promise.reject(BOOM);
  promise.catch(() => {});
  const values = [undefined, null, 0, false, NaN, "", promise, () => {}];
  const seen: unknown[] = [];
  bus.on("n", ({ data }) => void seen.push(data));
  for (const value of values) await bus.publish("n", value);
  await flush();
  assertEquals(seen.length, values.length);
  seen.forEach((value, i) => assertStrictEquals(value, values[i]));
});

Deno.test("Bus.as() publishes in the name of a source", async () => {
  const { bus } = open();
  const table = bus.as("table 1");
  assertEquals(table.source, "table 1");
  const seen: string[] = [];
  bus.on("*", ({ type, source, data, cause }) => {
    seen.push(`${type} ${data} ${source} ${cause === undefined ? "" : "!"}`);
  });
  const { publish, tryPublish } = table;
  const cause = await publish("quit");
  await publish("n", 1, { cause });
  tryPublish("s", "a", { cause, ...{ source: "somebody else" } });
  tryPublish("quit");
  await flush();
  const from = "table 1";
  assertEquals(seen, [
    `quit undefined ${from} `,
    `n 1 ${from} !`,
    `s a ${from} !`,
    `quit undefined ${from} `,
  ]);
  const signal = AbortSignal.abort(BOOM);
  const late = follow(publish("n", 2, { signal }));
  await flush();
  assertStrictEquals(late.error, BOOM);
});

// ── Subscribing ─────────────────────────────────────────────────────────────

Deno.test("Bus.subscribe() gets each event of its types once", async () => {
  const { bus } = open();
  const seen: string[] = [];
  const types = {
    one: "n",
    same: ["n", "n"],
    two: ["s", "n"],
    all: "*",
    most: ["n", "*"],
    none: [],
  } as const;
  for (const [name, type] of Object.entries(types)) {
    read(
      bus.subscribe(type, { name }),
      (data) => seen.push(`${name} ${data}`),
    );
  }
  const names = Object.fromEntries(
    bus.inspect().subscriptions.map(({ name, types }) => [name, types]),
  );
  assertEquals(names.same, ["n"]);
  assertEquals(names.most, ["*"]);
  await bus.publish("n", 1);
  await flush();
  await bus.publish("s", "b");
  await flush();
  assertEquals(seen.slice(0, 5).sort(), [
    "all 1",
    "most 1",
    "one 1",
    "same 1",
    "two 1",
  ]);
  assertEquals(seen.slice(5).sort(), ["all b", "most b", "two b"]);
});

Deno.test("A subscription is called by its types, or by its name", () => {
  const { bus } = open();
  const subscription = bus.subscribe(["n", "s"]);
  assertInstanceOf(subscription, Subscription);
  assertEquals(subscription.name, "n, s");
  assertEquals(bus.subscribe("*").name, "*");
  assertEquals(bus.subscribe("*", { name: "log" }).name, "log");
});

reading("gets what is published from then on", async (on) => {
  const { bus } = open();
  const seen: unknown[] = [];
  await bus.publish("n", 1);
  on(bus, (data) => seen.push(data));
  publishAll(bus, [2, 3]);
  await flush();
  assertEquals(seen, [2, 3]);
});

reading("gets only what its filter lets pass", async (on) => {
  const { bus } = open();
  const seen: unknown[] = [];
  const odd = ({ data }: BusEvent) => (data as number) % 2 === 1;
  const subscription = on(bus, (n) => seen.push(n), {
    filter: odd,
    capacity: 1,
  });
  publishAll(bus, range(6));
  await flush();
  assertEquals(seen, [1, 3, 5]);
  assertEquals(subscription.missed, 0);
});

Deno.test("Several loops over one subscription share its events", async () => {
  const { bus } = open();
  const subscription = bus.subscribe("n");
  const seen: string[] = [];
  const loops = ["a", "b"].map((name) =>
    follow(read(subscription, (n) => seen.push(`${name}${n}`)))
  );
  publishAll(bus, range(4));
  await flush();
  assertEquals(seen.map((line) => line.slice(1)), ["0", "1", "2", "3"]);
  const iterator = subscription[Symbol.asyncIterator]();
  assertStrictEquals(iterator[Symbol.asyncIterator](), iterator);
  await iterator.return!();
  await flush();
  assertEquals(loops.map(({ value }) => value), ["end", "end"]);
});

// ── Order ───────────────────────────────────────────────────────────────────

Deno.test("Every subscriber gets its events in one order, also when handlers publish", async () => {
  const { bus } = open();
  const seen: Record<string, unknown[]> = { a: [], b: [], c: [] };
  const note = (name: string) => (data: unknown) => void seen[name].push(data);
  bus.on("n", async ({ data }) => {
    note("a")(data);
    if (data < 10) await bus.publish("n", data + 10);
  });
  bus.on("n", ({ data }) => note("b")(data), { concurrency: 2 });
  read(bus.subscribe("*"), note("c"));
  publishAll(bus, [1, 2, 3]);
  await flush();
  for (const name of "abc") assertEquals(seen[name], [1, 2, 3, 11, 12, 13]);
});

reading("keeps the order of several publishers who wait", async (on) => {
  const { bus } = open();
  const log: Record<string, unknown[]> = { slow: [], fast: [], late: [] };
  const { passed, open: go } = gate();
  const slow = async (data: unknown) => {
    await passed;
    log.slow.push(data);
  };
  on(bus, slow, { capacity: 1 });
  on(bus, (data) => log.fast.push(data), { capacity: 1 });
  const journal = new Journal();
  publishAll(bus, [1, 2, 3, 4], journal);
  on(bus, (data) => log.late.push(data), { capacity: 1 });
  await flush();
  publishAll(bus, [5], journal);
  await flush();
  // the others are not held up, and nobody gets anything twice
  assertEquals(log, { slow: [], fast: [1, 2, 3, 4, 5], late: [5] });
  assertEquals(journal.lines, ["published 1", "published 2"]);
  go();
  await flush();
  assertEquals(log, {
    slow: [1, 2, 3, 4, 5],
    fast: [1, 2, 3, 4, 5],
    late: [5],
  });
  assertEquals(journal.lines, range(5).map((i) => `published ${i + 1}`));
});

Deno.test("Handlers may subscribe and unsubscribe others in between", async () => {
  const { bus } = open();
  const seen: string[] = [];
  const note = (name: string) => ({ data }: BusEvent) =>
    seen.push(`${name}${data}`);
  const first = bus.on("n", ({ data }) => {
    seen.push(`a${data}`);
    if (data === 1) {
      second.unsubscribe(); // has 1, but has not begun with it
      bus.on("n", note("c"));
    }
    if (data === 3) first.unsubscribe();
  });
  const second = bus.on("n", note("b"));
  publishAll(bus, [1, 2]);
  await flush();
  publishAll(bus, [3, 4]);
  await flush();
  assertEquals(seen, ["a1", "a2", "a3", "c3", "c4"]);
});

Deno.test("Bus.on() handles one event after another, or as many as it may", async () => {
  for (const concurrency of [1, 2, 3]) {
    const { bus } = open();
    const gates = range(5).map(gate);
    const log: string[] = [];
    bus.on("n", async ({ data }) => {
      log.push(`begin ${data}`);
      await gates[data].passed;
      log.push(`end ${data}`);
    }, { concurrency });
    publishAll(bus, range(5));
    await flush();
    assertEquals(log, range(concurrency).map((i) => `begin ${i}`));
    for (const { open } of gates) {
      open();
      await flush();
    }
    const begun = log.filter((line) => line.startsWith("begin"));
    assertEquals(begun, range(5).map((i) => `begin ${i}`));
    assertEquals(log.length, 10);
    const ends = range(6 - concurrency).map((i) => log.indexOf(`end ${i}`));
    ends.slice(0, -1).forEach((end, i) =>
      assertEquals(log[end + 1], `begin ${i + concurrency}`)
    );
  }
});

Deno.test("Bus.on() takes any number of events at a time if told so", async () => {
  const { bus } = open();
  const log: unknown[] = [];
  const { passed, open: go } = gate();
  bus.on("n", ({ data }) => {
    log.push(data);
    return passed;
  }, { concurrency: Infinity });
  publishAll(bus, range(40));
  await flush();
  assertEquals(log, range(40));
  go();
  await bus.close();
});

// ── Back-pressure and overflow ──────────────────────────────────────────────

Deno.test("Bus.publish() waits until every subscription has room", async () => {
  const { bus } = open();
  const [a, b] = [2, 1].map((capacity) => bus.subscribe("n", { capacity }));
  const journal = new Journal();
  publishAll(bus, [1, 2, 3], journal);
  await flush();
  assertEquals(journal.lines, ["published 1"]);
  assertEquals([a.size, b.size], [2, 1]);
  const [first, second] = [a, b].map((one) => one[Symbol.asyncIterator]());
  await second.next();
  await flush();
  assertEquals(journal.lines, ["published 1", "published 2"]);
  await first.next();
  await flush();
  assertEquals(journal.lines.length, 2);
  await second.next();
  await flush();
  assertEquals(journal.lines.length, 3);
  assertEquals([a.dropped, a.missed, b.dropped, b.missed], [0, 0, 0, 0]);
});

Deno.test("A subscription holds 256 events unless told otherwise", () => {
  const { bus } = open();
  const subscription = bus.subscribe("n");
  for (const n of range(256)) assert(bus.tryPublish("n", n));
  assertEquals(bus.tryPublish("n", 256), undefined);
  assertEquals(subscription.size, 256);
  subscription.unsubscribe();
  const unbounded = bus.subscribe("n", { capacity: Infinity });
  for (const n of range(1000)) assert(bus.tryPublish("n", n));
  assertEquals(unbounded.size, 1000);
});

for (const capacity of [1, 2, 3]) {
  const policies: [Overflow, number[], number[]][] = [
    // what is read of 0…5, and the missed before each; then of 6 and 7
    ["drop-oldest", range(6).slice(-capacity), [6 - capacity]],
    ["drop-newest", range(capacity), [0]],
  ];
  for (const [overflow, kept, [missed]] of policies) {
    Deno.test(`Subscription says what "${overflow}" made it miss (capacity ${capacity})`, async () => {
      const { bus } = open();
      const lossless = bus.subscribe("n");
      const lossy = bus.subscribe("n", { capacity, overflow });
      const seen: [unknown, number][] = [];
      for (const n of range(6)) await bus.publish("n", n); // nobody waits
      assertEquals([lossy.size, lossy.dropped], [capacity, 6 - capacity]);
      assertEquals(lossy.missed, 0);
      read(lossy, (n) => seen.push([n, lossy.missed]));
      await flush();
      assert(bus.tryPublish("n", 6));
      await flush();
      assert(bus.tryPublish("n", 7));
      await flush();
      const after = overflow === "drop-newest" ? 6 - capacity : 0;
      assertEquals(seen, [
        ...kept.map((n, i): [number, number] => [n, i === 0 ? missed : 0]),
        [6, after],
        [7, 0],
      ]);
      assertEquals(lossy.dropped, 6 - capacity);
      assertEquals([lossless.size, lossless.dropped], [8, 0]);
    });
  }

  Deno.test(`Bus.publish() leaves nothing behind if one subscription refuses (capacity ${capacity})`, async () => {
    const { bus } = open();
    const wide = bus.subscribe("n");
    const narrow = bus.subscribe("n", {
      name: "narrow",
      capacity,
      overflow: "reject",
    });
    for (const n of range(capacity)) await bus.publish("n", n);
    const error = await assertRejects(
      () => bus.publish("n", 9),
      QueueFullError,
      `"narrow" is full (capacity ${capacity})`,
    );
    assertEquals(error.value, 9);
    assertEquals(bus.tryPublish("n", 9), undefined);
    assertEquals([wide.size, narrow.size], [capacity, capacity]);
    assertEquals(bus.inspect().published, capacity);
    await narrow[Symbol.asyncIterator]().next();
    await bus.publish("n", 9);
    assertEquals([wide.size, narrow.missed], [capacity + 1, 0]);
  });
}

Deno.test("Bus.tryPublish() takes no event for which somebody would have to wait", async () => {
  const { bus } = open();
  const wide = bus.subscribe("n");
  const narrow = bus.subscribe("n", {
    capacity: 1,
    filter: ({ data }) => data > 0,
  });
  assert(bus.tryPublish("n", 1));
  assertEquals(bus.tryPublish("n", 2), undefined);
  assert(bus.tryPublish("n", 0), "the filter lets it pass by");
  assertEquals([wide.size, narrow.size], [2, 1]);
  assertEquals(bus.inspect().published, 2);
  await bus.close();
  assertEquals(bus.tryPublish("n", 0), undefined);
});

Deno.test("Bus.tryPublish() publishes nothing for an aborted signal", () => {
  const { bus } = open();
  const subscription = bus.subscribe("n");
  try {
    bus.tryPublish("n", 1, { signal: AbortSignal.abort(BOOM) });
  } catch { /* as well */ }
  assertEquals(subscription.size, 0);
});

// ── Cancellation ────────────────────────────────────────────────────────────

Deno.test("Bus.publish(), aborted, leaves the event with those who have it", async () => {
  const { bus } = open();
  const seen: Record<string, unknown[]> = { wide: [], narrow: [] };
  const wide = bus.subscribe("n");
  const narrow = bus.subscribe("n", { capacity: 1 });
  const controller = probedController();
  const { signal } = controller;
  publishAll(bus, [1]);
  const second = follow(bus.publish("n", 2, { signal }));
  const third = follow(bus.publish("n", 3, { signal }));
  publishAll(bus, [4]);
  await flush();
  assertEquals([second.state, third.state], ["pending", "pending"]);
  assertEquals([controller.listening, controller.added], [1, 1]);
  assertEquals(bus.inspect().subscriptions.map((one) => one.waiting), [0, 3]);
  controller.abort(BOOM);
  await flush();
  assertStrictEquals(second.error, BOOM);
  assertStrictEquals(third.error, BOOM);
  assertEquals(controller.listening, 0);
  assertEquals(bus.inspect().subscriptions.map((one) => one.waiting), [0, 1]);
  read(wide, (n) => seen.wide.push(n));
  read(narrow, (n) => seen.narrow.push([n, narrow.missed]));
  await flush();
  assertEquals(seen, { wide: [1, 2, 3, 4], narrow: [[1, 0], [4, 0]] });
});

Deno.test("An aborted signal wins, whatever the bus", async () => {
  const signal = AbortSignal.abort(BOOM);
  for (const closed of [false, true]) {
    const { bus } = open();
    const subscription = bus.subscribe("n");
    if (closed) bus.close();
    for (
      const verb of [
        () => bus.publish("n", 1, { signal }),
        () => bus.once("n", { signal }),
      ]
    ) {
      const task = follow(verb());
      await flush();
      assertStrictEquals(task.error, BOOM);
    }
    assertEquals([subscription.size, bus.inspect().published], [0, 0]);
    for (const subscribe of Object.values(READING)) {
      const late = subscribe(bus, () => {}, { signal });
      assertEquals(await read(late, () => {}), "end");
    }
    assertEquals(bus.inspect().subscriptions.length, closed ? 1 : 1);
  }
});

Deno.test("A signal gets one listener, however many wait under it, and none in the end", async () => {
  const { bus } = open();
  const controller = probedController();
  const { signal } = controller;
  for (const abort of [true, false]) {
    const subscriptions = range(50).flatMap(() => [
      bus.subscribe("n", { signal, capacity: 1 }),
      bus.on("s", () => {}, { signal }),
    ]);
    const tasks = range(50).flatMap((n) => [
      follow(bus.publish("n", n, { signal })),
      follow(bus.once("s", { signal })),
    ]);
    await flush();
    assertEquals(controller.listening, 1);
    if (abort) {
      bus.publish("s", "served");
      subscriptions.forEach((one) => one.unsubscribe());
    } else controller.abort(BOOM);
    await flush();
    assertEquals(controller.listening, 0);
    assertFalse(tasks.some(({ state }) => state === "pending"));
    assertEquals(bus.inspect().subscriptions, []);
  }
  assertEquals(controller.added, 2);
});

for (const how of ["close", "abort"] as const) {
  Deno.test(`Bus.${how}() leaves no listener on a signal`, async () => {
    const { bus } = open();
    const controller = probedController();
    const { signal } = controller;
    bus.on("n", () => {}, { signal });
    read(bus.subscribe("n", { signal }), () => {});
    follow(bus.once("n", { signal }));
    await bus[how]();
    await flush();
    assertEquals([controller.added, controller.listening], [1, 0]);
    assertEquals(bus.inspect().subscriptions, []);
  });
}

// ── Unsubscribing ───────────────────────────────────────────────────────────

ending("ends its loops without a throw", async (end, signal) => {
  const { bus } = open();
  const seen: unknown[] = [];
  const subscription = bus.subscribe("n", { signal });
  const busy = gate();
  const loops = [
    follow(read(subscription, (n) => (seen.push(n), busy.passed))),
    follow(read(subscription, (n) => seen.push(n))),
  ];
  await bus.publish("n", 1);
  await flush();
  bus.publish("n", 2);
  end(subscription); // 2 has been handed over, but is not looked at
  end(subscription);
  await flush();
  assertEquals(loops.map(({ state }) => state), ["pending", "resolved"]);
  busy.open();
  await flush();
  assertEquals(loops.map(({ value }) => value), ["end", "end"]);
  assertEquals(seen, [1]);
  await bus.publish("n", 3);
  assertEquals(subscription.size, 0);
  assertEquals(await read(subscription, () => {}), "end");
  assertEquals(bus.inspect().subscriptions, []);
});

ending("lets publishers go on", async (end, signal) => {
  const { bus } = open();
  const journal = new Journal();
  const subscription = bus.subscribe("n", { signal, capacity: 1 });
  const other = bus.subscribe("n", { capacity: 2 });
  publishAll(bus, [1, 2, 3], journal);
  await flush();
  assertEquals(journal.lines, ["published 1"]);
  end(subscription);
  assertEquals(subscription.size, 0);
  await flush();
  assertEquals(journal.lines, ["published 1", "published 2"]);
  other.unsubscribe();
  await flush();
  assertEquals(journal.lines.length, 3);
});

ending(
  "starts no handler any more, and tells the one that runs",
  async (end, signal) => {
    const { bus, errors } = open();
    const seen: unknown[] = [];
    const subscription: Subscription = bus.on(
      "n",
      async ({ data }, context) => {
        seen.push(data, context.signal.aborted);
        await new Promise<void>((resolve) => {
          context.signal.addEventListener("abort", () => resolve());
        });
        seen.push(context.signal.aborted);
      },
      { signal },
    );
    publishAll(bus, [1, 2]);
    await flush();
    end(subscription);
    await flush();
    assertEquals(seen, [1, false, true]);

    const parked: Subscription = bus.on("s", ({ data }) => seen.push(data));
    await flush();
    bus.publish("s", "handed over");
    parked.unsubscribe();
    await bus.close();
    assertEquals(seen, [1, false, true]);
    assertEquals(errors, []);
  },
);

Deno.test("Leaving a loop, or its block, unsubscribes", async () => {
  const { bus } = open();
  const loops = [
    async () => {
      for await (const _ of bus.subscribe("n", { capacity: 1 })) break;
    },
    async () => {
      for await (const _ of bus.subscribe("n", { capacity: 1 })) throw BOOM;
    },
    async () => {
      using subscription = bus.subscribe("n", { capacity: 1 });
      await subscription[Symbol.asyncIterator]().next();
    },
  ].map((loop) => follow(loop()));
  assertEquals(bus.inspect().subscriptions.length, 3);
  const journal = new Journal();
  publishAll(bus, [1, 2, 3], journal);
  await flush();
  assertEquals(loops.map(({ error }) => error), [undefined, BOOM, undefined]);
  assertFalse(loops.some(({ state }) => state === "pending"));
  assertEquals(journal.lines.length, 3);
  assertEquals(bus.inspect().subscriptions, []);
});

Deno.test("Subscription's return() passes its value on", async () => {
  const iterator = open().bus.subscribe("n")[Symbol.asyncIterator]();
  const parked = range(3).map(() => iterator.next());
  assertEquals(await iterator.return!(7), { value: 7, done: true });
  const done = { value: undefined, done: true } as const;
  assertEquals(await Promise.all(parked), [done, done, done]);
  assertEquals(await iterator.next(), done);
});

// ── once() ──────────────────────────────────────────────────────────────────

Deno.test("Bus.once() resolves with the next event that passes its filter", async () => {
  const { bus } = open();
  const any = follow(bus.once("n"));
  const big = follow(bus.once("n", { filter: ({ data }) => data > 1 }));
  publishAll(bus, [1, 2, 3]);
  bus.close(); // too late for both
  await flush();
  assertEquals([any.value?.data, big.value?.data], [1, 2]);
  assertEquals(bus.inspect().subscriptions, []);
});

Deno.test("Bus.once() rejects on close, abort and its signal", async () => {
  const cases: [string, (bus: Bus<Events>, c: AbortController) => unknown][] = [
    ["QueueClosedError", (bus) => bus.close()],
    ["Error", (bus) => bus.abort(BOOM)],
    ["AbortError", (bus) => bus.abort()],
    ["Error", (_, controller) => controller.abort(BOOM)],
  ];
  for (const [name, end] of cases) {
    const { bus } = open();
    const controller = probedController();
    const task = follow(bus.once("n", { signal: controller.signal }));
    await flush();
    assertEquals(task.state, "pending");
    end(bus, controller);
    await flush();
    assertEquals((task.error as Error)?.name, name);
    assertEquals(controller.listening, 0);
    assertEquals(bus.inspect().subscriptions, []);
  }
  const { bus } = open();
  await bus.close();
  await assertRejects(() => bus.once("n"), QueueClosedError);
});

Deno.test("Bus.once() on an aborted bus throws the reason", async () => {
  const { bus } = open();
  await bus.abort(BOOM);
  const task = follow(bus.once("n"));
  await flush();
  assertStrictEquals(task.error, BOOM);
});

Deno.test("Bus.once() names the bus that is closed", async () => {
  const { bus } = open({ name: "restaurant" });
  const pending = follow(bus.once("n"));
  await bus.close();
  const late = follow(bus.once("n"));
  await flush();
  for (const { error } of [pending, late]) {
    assertStringIncludes((error as Error).message, "restaurant");
  }
});

// ── Failures ────────────────────────────────────────────────────────────────

Deno.test("A failing handler or filter stops nobody, and onError is told all", async () => {
  const { bus, errors } = open();
  const seen: unknown[] = [];
  bus.on("n", () => {
    throw BOOM;
  }, { name: "throws" });
  bus.on("n", () => Promise.reject("no error"), { name: "rejects" });
  const filtered = bus.subscribe("n", {
    name: "filters",
    filter() {
      throw BOOM;
    },
  });
  bus.on("n", ({ data }) => seen.push(data));
  const order = await bus.publish("s", "order");
  const event = await bus.publish("n", 1, { source: "table 1", cause: order });
  await bus.publish("n", 2);
  await flush();
  assertEquals(seen, [1, 2]);
  assertEquals([filtered.size, filtered.missed], [0, 0]);
  assertEquals(errors.length, 6);
  for (const [name, cause] of [["throws", BOOM], ["rejects", "no error"]]) {
    const [error, plain] = errors.filter((one) => one.subscription === name);
    assertInstanceOf(error, SubscriberError);
    assertEquals(error.name, "SubscriberError");
    assertStrictEquals(error.event, event);
    assertStrictEquals(error.cause, cause);
    const told = ["n", event.id, "table 1", order.id, name as string];
    const why = cause === BOOM ? "boom" : '"no error"';
    for (const part of [...told, why]) {
      assertStringIncludes(error.message, part);
    }
    assertFalse(plain.message.includes("caused by"), plain.message);
  }
  assertEquals(
    errors.filter((one) => one.subscription === "filters").length,
    2,
  );
});

Deno.test("A filter's failure is also told when nobody waits", () => {
  const { bus, errors } = open();
  const filter = () => {
    throw BOOM;
  };
  bus.subscribe("n", { filter, capacity: 1 });
  assert(bus.tryPublish("n", 1));
  follow(bus.once("n", { filter }));
  assert(bus.tryPublish("n", 2));
  assertEquals(errors.map(({ cause }) => cause), [BOOM, BOOM, BOOM]);
});

Deno.test("A failure is reported as uncaught where there is no onError", async () => {
  using reports = catchReports();
  const bus = new Bus<Events>();
  const seen: unknown[] = [];
  bus.on("n", ({ data }) => {
    seen.push(data);
    throw data === 1 ? BOOM : undefined;
  });
  publishAll(bus, [1, 2]);
  await flush();
  const [first, second] = reports.errors as SubscriberError[];
  assertInstanceOf(first, SubscriberError);
  assertStrictEquals(first.cause, BOOM);
  assert("cause" in second);
  assertEquals([second.cause, seen.length], [undefined, 2]);
});

for (const [way, cause] of [["handler", BOOM], ["filter", "no error"]]) {
  Deno.test(`A throwing onError, told of a ${way}, is reported and stops nobody`, async () => {
    using reports = catchReports();
    const failure = new TypeError("onError failed");
    const { bus } = open({
      onError() {
        throw failure;
      },
    });
    const fail = () => {
      throw cause;
    };
    if (way === "filter") bus.subscribe("n", { filter: fail });
    else bus.on("n", fail);
    const seen: unknown[] = [];
    bus.on("n", ({ data }) => seen.push(data));
    publishAll(bus, [1, 2]);
    await flush();
    assertEquals(seen, [1, 2]);
    assertEquals(
      reports.errors.filter((error) => error === failure).length,
      2,
    );
  });
}

Deno.test("A throwing onError does not make the failure disappear that it was told of", async () => {
  using reports = catchReports();
  const { bus } = open({
    onError() {
      throw new TypeError("onError failed");
    },
  });
  bus.on("n", () => {
    throw BOOM;
  });
  await bus.publish("n", 1);
  await flush();
  const told = new Set<unknown>();
  const add = (error: unknown) => {
    told.add(error);
    if (!(error instanceof Error)) return;
    [error.cause, (error as SuppressedError).suppressed]
      .filter((cause) => cause !== undefined).forEach(add);
    if (error instanceof AggregateError) error.errors.forEach(add);
  };
  reports.errors.forEach(add);
  assert(told.has(BOOM));
});

// A filter, or onError, may end what is just being published to.
const ENDING_FILTERS: Record<
  string,
  (sub: Subscription, bus: Bus<Events>) => unknown
> = {
  "unsubscribes its own": (sub) => sub.unsubscribe(),
  "closes the bus": (_, bus) => bus.close(),
};
for (const [what, end] of Object.entries(ENDING_FILTERS)) {
  for (const way of ["publish", "tryPublish"] as const) {
    Deno.test({
      name: `Bus.${way}() survives a filter that ${what}`,
      // elsewhere an unhandled rejection ends the process
      ignore: way === "tryPublish" && typeof addEventListener !== "function",
      async fn() {
        const strays: unknown[] = [];
        const stray = (event: PromiseRejectionEvent) => {
          event.preventDefault();
          strays.push(event.reason);
        };
        globalThis.addEventListener?.("unhandledrejection", stray);
        const { bus, errors } = open();
        const others = [0, 1].map(() => bus.subscribe("n"));
        const own: Subscription = bus.subscribe("n", {
          filter: () => (end(own, bus), true),
        });
        const publish = async () => await bus[way]("n", 1);
        const { value, error } = await settled(publish());
        const sizes = others.map(({ size }) => size);
        assertEquals(sizes, value === undefined ? [0, 0] : [1, 1]);
        if (what !== "closes the bus") assert(value);
        if (error !== undefined) {
          assertInstanceOf(error, QueueClosedError);
          assertEquals(error.value, 1);
        }
        await new Promise((resolve) => setTimeout(resolve)); // for strays
        globalThis.removeEventListener?.("unhandledrejection", stray);
        assertEquals([strays, errors], [[], []]);
      },
    });
  }
}

// ── close() ─────────────────────────────────────────────────────────────────

reading(
  "gets what is queued at close(), also of publishers who wait",
  async (on) => {
    const { bus } = open();
    const seen: unknown[] = [];
    const { passed, open: go } = gate();
    const subscription = on(bus, async (n) => {
      await passed;
      seen.push(n);
    }, { capacity: 1 });
    on(bus, () => {}, { capacity: 1 });
    const journal = new Journal();
    publishAll(bus, range(4), journal);
    await flush();
    assertEquals(journal.lines, range(2).map((n) => `published ${n}`));
    journal.follow("closed", bus.close());
    const { closed, subscriptions: [slow] } = bus.inspect();
    assertEquals([closed, slow.size, subscription.size], [true, 3, 3]);
    await flush();
    assertEquals(
      journal.lines.filter((line) => line !== "closed"),
      range(4).map((n) => `published ${n}`), // their events are safe
    );
    go();
    await flush();
    assertEquals(seen, range(4));
    assertEquals(journal.lines.length, 5);
    assertEquals(bus.inspect().subscriptions, []);
  },
);

Deno.test("Bus.close() waits for handlers, not for those who read by hand", async () => {
  const { bus } = open();
  const seen: unknown[] = [];
  const byHand = bus.subscribe("n");
  const { passed, open: go } = gate();
  const journal = new Journal();
  bus.on("n", ({ data }) => (seen.push(data), passed));
  const gone = bus.on("n", () => passed);
  publishAll(bus, [1, 2]);
  await flush();
  gone.unsubscribe();
  for (const i of range(3)) journal.follow(`closed ${i}`, bus.close());
  await flush();
  assertEquals([seen, journal.lines], [[1], []]);
  go();
  await flush();
  assertEquals([seen, journal.lines.length], [[1, 2], 3]);
  await bus.close();
  assertEquals(byHand.size, 2);
  assertEquals(await read(byHand, (n) => seen.push(n)), "end");
  assertEquals(seen, [1, 2, 1, 2]);
});

Deno.test("A closed bus takes no events and has no subscriptions", async () => {
  for (const how of ["close", "abort"] as const) {
    const { bus } = open({ name: "restaurant" });
    await bus[how](BOOM);
    const error = await assertRejects(
      () => bus.publish("n", 1),
      QueueClosedError,
      "restaurant is closed",
    );
    assertEquals(error.value, 1);
    assertEquals(bus.tryPublish("n", 1), undefined);
    assertEquals(await read(bus.subscribe("n"), () => {}), "end");
    const handler = bus.on("n", () => {});
    await flush();
    handler.unsubscribe();
    await bus.close();
    await bus.abort();
    const empty = { closed: true, published: 0, subscriptions: [] };
    assertEquals(bus.inspect(), { name: "restaurant", ...empty });
  }
});

Deno.test("Bus closes at the end of an await using block", async () => {
  const seen: unknown[] = [];
  const { bus } = open();
  {
    await using same = bus;
    same.on("n", async ({ data }) => {
      await flush();
      seen.push(data);
    });
    publishAll(same, [1, 2]);
  }
  assertEquals(seen, [1, 2]);
  assert(bus.inspect().closed);
});

for (const concurrency of [1, 2, 3]) {
  const options: HandleOptions = { concurrency };
  Deno.test(`Bus.close() lets an event just handed over be handled (concurrency ${concurrency})`, async () => {
    const { bus } = open();
    const seen: unknown[] = [];
    bus.on("n", ({ data }) => seen.push(data), options);
    await flush();
    publishAll(bus, [1]);
    await bus.close();
    assertEquals(seen, [1]);
  });

  Deno.test(`Bus.close() does not cut handlers short (concurrency ${concurrency})`, async () => {
    const { bus } = open();
    const seen: unknown[] = [];
    const { passed, open: go } = gate();
    bus.on("n", async (_, { signal }) => {
      assertFalse(signal.aborted);
      await passed;
      seen.push(signal.aborted);
    }, options);
    publishAll(bus, [1]);
    await flush();
    const closing = bus.close();
    await flush();
    go();
    await closing;
    assertEquals(seen, [false]);
  });
}

const WITHIN: [name: string, ignore: boolean, before: () => unknown][] = [
  ["", false, () => {}],
  [", after an await", !TELLS_CALLERS, () => Promise.resolve()],
];
for (const how of ["close", "abort"] as const) {
  for (const [when, ignore, before] of WITHIN) {
    Deno.test({
      name: `Bus.${how}() may be awaited by a handler${when}`,
      ignore,
      async fn() {
        const { bus, errors } = open();
        const seen: string[] = [];
        bus.on("n", async ({ data }) => {
          seen.push(`begin ${data}`);
          if (when !== "") await before();
          await bus[how]();
          seen.push(`end ${data}`);
        });
        bus.on("s", () => {});
        publishAll(bus, [1, 2]);
        await flush();
        const ended = follow(bus.close());
        await flush();
        const both = ["begin 1", "end 1", "begin 2", "end 2"];
        assertEquals(seen, how === "close" ? both : both.slice(0, 2));
        assertEquals([ended.state, errors], ["resolved", []]);
      },
    });
  }
}

// ── abort() ─────────────────────────────────────────────────────────────────

Deno.test("Bus.abort() throws its reason to loops and publishers, and delivers nothing", async () => {
  for (const reason of [BOOM, null, undefined]) {
    const { bus, errors } = open({ name: "restaurant" });
    const seen: unknown[] = [];
    const { passed, open: go } = gate();
    const slow = bus.subscribe("n", { capacity: 1 });
    const tasks = [
      follow(read(slow, (n) => (seen.push(n), passed))),
      follow(read(bus.subscribe("s"), () => {})),
      follow(read(bus.subscribe("n", { filter: () => false }), () => {})),
    ];
    await flush();
    const publishing = range(4).map((n) => follow(bus.publish("n", n)));
    await flush();
    const handling = bus.on("quit", () => seen.push("quit"));
    const ended = follow(bus.abort(reason));
    bus.abort(new Error("too late"));
    go();
    await flush();
    const reasons = [
      ...tasks.map(({ value }) => value),
      ...publishing.slice(2).map(({ error }) => error),
    ];
    assertEquals(reasons.length, 5);
    for (const found of reasons) {
      if (reason !== undefined) assertStrictEquals(found, reason);
      else {
        assertInstanceOf(found, DOMException);
        assertEquals(found.name, "AbortError");
        assertStringIncludes(found.message, "restaurant");
      }
    }
    assertEquals(publishing.map(({ state }) => state), [
      "resolved",
      "resolved",
      "rejected",
      "rejected",
    ]);
    assertEquals([seen, slow.size, handling.size], [[0], 0, 0]);
    assertEquals([ended.state, errors], ["resolved", []]);
  }
});

Deno.test("Bus.abort() fires the signal of handlers and waits for them", async () => {
  const { bus } = open();
  const seen: unknown[] = [];
  const { passed, open: go } = gate();
  bus.on("n", async (_, { signal, subscription }) => {
    seen.push(subscription);
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    seen.push(signal.reason);
    await passed;
  }, { name: "slow" });
  publishAll(bus, [1, 2]);
  await flush();
  const ended = follow(bus.abort(BOOM));
  await flush();
  assertEquals([seen, ended.state], [["slow", BOOM], "pending"]);
  go();
  await flush();
  assertEquals([seen.length, ended.state], [2, "resolved"]);
});

for (const how of ["abort", "unsubscribe"] as const) {
  Deno.test(`A handler that looks at its signal after ${how}() finds it aborted`, async () => {
    const { bus } = open();
    const seen: EventContext[] = [];
    const { passed, open: go } = gate();
    const subscription = bus.on("n", (_, context) => {
      seen.push(context);
      return passed;
    });
    publishAll(bus, [1]);
    await flush();
    if (how === "abort") bus.abort(BOOM);
    else subscription.unsubscribe();
    const [{ signal }] = seen;
    go();
    assert(signal.aborted);
    if (how === "abort") assertStrictEquals(signal.reason, BOOM);
  });
}

Deno.test("Bus.abort() starts no handler any more", async () => {
  const { bus } = open();
  const seen: unknown[] = [];
  bus.on("n", ({ data }) => seen.push(data));
  await flush();
  publishAll(bus, [1]); // handed over, but not begun
  await bus.abort(BOOM);
  assertEquals(seen, []);
});

Deno.test("Bus.abort() throws its reason to each of several loops", async () => {
  const { bus } = open();
  const subscription = bus.subscribe("n");
  const { passed, open: go } = gate();
  const loops = [
    follow(read(subscription, () => passed)),
    follow(read(subscription, () => {})), // waits
  ];
  publishAll(bus, [1]);
  await flush();
  bus.abort(BOOM);
  go();
  await flush();
  assertEquals(loops.map(({ value }) => value), [BOOM, BOOM]);
});

Deno.test("Bus.abort() after close() cuts it short, and loops can tell", async () => {
  const { bus } = open();
  const seen: unknown[] = [];
  const { passed, open: go } = gate();
  const sink = (n: unknown) => (seen.push(n), passed);
  bus.on("n", async ({ data }, { signal }) => {
    seen.push(data);
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
  });
  const loop = follow(read(bus.subscribe("n"), sink));
  publishAll(bus, [1, 2, 3]);
  await flush();
  const closed = follow(bus.close());
  await flush();
  assertEquals(closed.state, "pending");
  bus.abort(BOOM);
  go();
  await flush();
  assertEquals([closed.state, seen], ["resolved", [1, 1]]);
  assertStrictEquals(loop.value, BOOM, "2 and 3 were discarded");
});

// ── inspect() ───────────────────────────────────────────────────────────────

Deno.test("Bus.inspect() is plain data about every subscription", async () => {
  const bus = new Bus<Events>();
  const a = bus.subscribe(["n", "s"], { name: "a", capacity: 2 });
  bus.subscribe("*", { capacity: Infinity });
  const overflow = "drop-newest";
  bus.subscribe("n", { name: "c", capacity: 1, overflow });
  publishAll(bus, range(5));
  await bus.publish("quit");
  await flush();
  const iterator = a[Symbol.asyncIterator]();
  for (const n of range(4)) {
    assertEquals((await iterator.next()).value.data, n);
  }
  await flush();
  const nothing = { waiting: 0, delivered: 0, dropped: 0 };
  const snapshot = {
    name: "bus",
    closed: false,
    published: 6,
    subscriptions: [
      {
        name: "a",
        types: ["n", "s"],
        size: 1,
        peak: 2,
        capacity: 2,
        waiting: 0,
        delivered: 4,
        dropped: 0,
      },
      {
        name: "*",
        types: ["*"],
        size: 6,
        peak: 6,
        capacity: null,
        ...nothing,
      },
      {
        name: "c",
        types: ["n"],
        size: 1,
        peak: 1,
        capacity: 1,
        ...nothing,
        dropped: 4,
      },
    ],
  };
  assertEquals(bus.inspect() as unknown, snapshot);
  assertEquals(JSON.parse(JSON.stringify(bus.inspect())), snapshot);
});

Deno.test("Bus.inspect() shows a peak that is no less than the size", async () => {
  const { bus } = open();
  bus.subscribe("n", { capacity: 1 });
  publishAll(bus, [1, 2, 3]);
  assertEquals(bus.inspect().subscriptions[0].peak, 1);
  await bus.close();
  const [{ size, peak }] = bus.inspect().subscriptions;
  assert(peak >= size, `size ${size}, peak ${peak}`);
});

// ── Everything ──────────────────────────────────────────────────────────────

for (const how of ["close", "abort"] as const) {
  Deno.test(`Every promise settles after ${how}()`, async () => {
    const { bus } = open();
    const tasks: Record<string, { state: string }> = {};
    const never = bus.subscribe("n", { capacity: 1 });
    bus.on("n", async ({ data }) => {
      tasks[`nested ${data}`] = follow(bus.publish("n", data + 10));
      await bus.publish("n", data + 20); // waits for whom nobody reads
    }, { capacity: 1, concurrency: 2 });
    for (const n of range(4)) tasks[n] = follow(bus.publish("n", n));
    tasks.once = follow(bus.once("quit"));
    tasks.loop = follow(read(bus.subscribe(["s", "n"]), () => {}));
    tasks.next = follow(bus.subscribe("s")[Symbol.asyncIterator]().next());
    await flush();
    tasks.end = follow(bus[how]());
    await flush();
    const pending = Object.entries(tasks)
      .filter(([_, { state }]) => state === "pending").map(([name]) => name);
    assertEquals(pending, []);
    never.unsubscribe();
    assertEquals(bus.inspect().subscriptions.length, 0);
  });
}
