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
import { Bus, type BusEvent, Subscription } from "../bus.ts";
import { type Overflow, QueueFullError } from "../queue.ts";
import {
  BOOM,
  type Events,
  gate,
  open,
  publishAll,
  read,
  reading,
} from "./_bus.ts";
import { flush, follow, range, replaceGlobals } from "./_helpers.ts";

// As a user's module does; at global scope workerd refuses timers and more.
const GLOBAL = new Bus<Events>({ name: "global" });
const GLOBAL_SEEN: unknown[] = [];
const GLOBAL_HANDLER = GLOBAL.on("n", ({ data }) => GLOBAL_SEEN.push(data));

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
  const { bus, seen } = open();
  await bus.publish("n", 1);
  on(bus, (data) => seen.push(data));
  publishAll(bus, [2, 3]);
  await flush();
  assertEquals(seen, [2, 3]);
});

reading("gets only what its filter lets pass", async (on) => {
  const { bus, seen } = open();
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
  const { bus, passed, go, journal } = open();
  const log: Record<string, unknown[]> = { slow: [], fast: [], late: [] };
  const slow = async (data: unknown) => {
    await passed;
    log.slow.push(data);
  };
  on(bus, slow, { capacity: 1 });
  on(bus, (data) => log.fast.push(data), { capacity: 1 });
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
  const { bus, passed, go } = open();
  const log: unknown[] = [];
  bus.on("n", ({ data }) => {
    log.push(data);
    return passed;
  }, { concurrency: Infinity });
  publishAll(bus, range(10));
  await flush();
  assertEquals(log, range(10));
  go();
  await bus.close();
});

// ── Back-pressure and overflow ──────────────────────────────────────────────

Deno.test("Bus.publish() waits until every subscription has room", async () => {
  const { bus, journal } = open();
  const [a, b] = [2, 1].map((capacity) => bus.subscribe("n", { capacity }));
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
  const nothing = {
    waiting: 0,
    heldSince: null,
    delivered: 0,
    dropped: 0,
    failed: 0,
  };
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
        heldSince: null,
        delivered: 4,
        dropped: 0,
        failed: 0,
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
  const { subscriptions } = bus.inspect();
  const ids = subscriptions.map(({ id }) => id);
  assertEquals(new Set(ids).size, 3);
  snapshot.subscriptions.forEach((one, i) =>
    Object.assign(one, { id: ids[i] })
  );
  assertEquals(bus.inspect() as unknown, snapshot);
  assertEquals(JSON.parse(JSON.stringify(bus.inspect())), snapshot);
});

Deno.test("Bus.inspect() shows the peak, also after the queue has shrunk", async () => {
  const { bus } = open();
  const events = bus.subscribe("n")[Symbol.asyncIterator]();
  publishAll(bus, [1, 2, 3]);
  await events.next();
  await events.next();
  publishAll(bus, [4]);
  const [{ size, peak }] = bus.inspect().subscriptions;
  assertEquals([size, peak], [2, 3]);
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

Deno.test("Subscription: who has asked first gets the first event, whoever asks before it is woken", async () => {
  for (const readers of [1, 2]) {
    const { bus } = open();
    const subscription = bus.subscribe("n");
    const all = range(readers).map(() => subscription[Symbol.asyncIterator]());
    const asked: Promise<IteratorResult<{ data: number }>>[] = [];
    const ask = (i: number) => asked.push(all[i % readers].next());
    ask(0);
    await flush();
    bus.publish("n", 1);
    ask(1); // the first one still sleeps
    bus.publish("n", 2);
    await flush();
    ask(2);
    ask(3);
    for (const n of [3, 4, 5]) {
      await bus.publish("n", n);
      ask(n + 1);
    }
    publishAll(bus, [6, 7]);
    const results = await Promise.all(asked);
    assertEquals(results.map(({ value }) => value.data), [1, 2, 3, 4, 5, 6, 7]);
  }
});

Deno.test("Subscription: readers who sleep are woken one for each event", async () => {
  const { bus } = open();
  const subscription = bus.subscribe("n");
  const tasks = range(1000).map(() =>
    follow(subscription[Symbol.asyncIterator]().next())
  );
  publishAll(bus, range(3));
  await flush();
  const settled = tasks.map(({ state }) => state === "resolved");
  assertEquals(settled.indexOf(false), 3);
  assertEquals(settled.lastIndexOf(true), 2);
  await bus.close();
  await flush();
  assert(tasks.every(({ value }, i) => value!.done === i > 2));
});

Deno.test("Bus keeps its order when an observer publishes about a publisher that has just given up", async () => {
  const { bus } = open();
  const subscription = bus.subscribe("n", { capacity: 1 });
  const events = subscription[Symbol.asyncIterator]();
  const controller = new AbortController();
  const { signal } = controller;
  const seen: number[] = [];
  const take = () => events.next().then(({ value }) => seen.push(value.data));
  publishAll(bus, [0]);
  signal.addEventListener("abort", take); // before the bus hears of it
  follow(bus.publish("n", 1, { signal }));
  bus.publish("n", 2);
  const order: number[] = [];
  bus.observe({
    published: ({ event }) => order.push(event.data as number),
    dropped: () => void bus.publish("n", 99),
  });
  controller.abort();
  while (seen.length < 3) await take();
  assertEquals([seen, order], [[0, 2, 99], [99]]);
});

Deno.test("Bus.inspect() shows nothing that can be changed from outside", () => {
  const { bus } = open();
  const subscription = bus.subscribe(["n", "s"]);
  const [{ types }] = bus.inspect().subscriptions;
  assertThrows(() => (types as string[]).pop(), TypeError);
  subscription.unsubscribe();
  assertEquals(bus.inspect().subscriptions, []);
});
