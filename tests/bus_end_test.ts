import {
  assert,
  assertEquals,
  assertFalse,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
} from "@std/assert";
import {
  Bus,
  type EventContext,
  type HandleOptions,
  type Subscription,
} from "../bus.ts";
import { QueueClosedError } from "../queue.ts";
import {
  BOOM,
  type Events,
  gate,
  open,
  publishAll,
  read,
  READING,
  reading,
  settled,
} from "./_bus.ts";
import { flush, follow, probedController, range } from "./_helpers.ts";

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

/** Whether the runtime can tell who calls after an `await`. */
const { process } = globalThis as {
  process?: { getBuiltinModule?(name: string): unknown };
};
const TELLS_CALLERS = !!process?.getBuiltinModule?.("node:async_hooks");

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
    assertEquals(bus.inspect().subscriptions.length, closed ? 0 : 1);
  }
});

Deno.test("Bus.close() ends a subscription that is read out, or once it is, without a reader", async () => {
  for (const left of [0, 1, 2]) {
    const { bus } = open();
    const controller = probedController();
    const subscription = bus.subscribe("n", { signal: controller.signal });
    publishAll(bus, range(left));
    await bus.close();
    const events = subscription[Symbol.asyncIterator]();
    for (let size = left; size > 0; size--) {
      assertEquals(bus.inspect().subscriptions.length, 1);
      assertEquals(controller.listening, 1);
      await events.next();
    }
    assertEquals(bus.inspect().subscriptions, []);
    assertEquals(controller.listening, 0);
    assertEquals((await events.next()).done, true);
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
  const { bus, seen } = open();
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
  const { bus, journal } = open();
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
    const { bus, errors, seen } = open();
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
  const { bus, journal } = open();
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

// ── Several ends at a time ──────────────────────────────────────────────────

for (const told of ["a handler's signal", "an observer"]) {
  Deno.test(`Bus.abort() delivers nothing to who is called by it, through ${told}`, async () => {
    const { bus, journal, passed } = open();
    const iterators: AsyncIterator<unknown>[] = [];
    const look = () => {
      iterators.forEach((iterator, i) =>
        journal.follow(`${i}`, iterator.next())
      );
    };
    const byHand = () =>
      iterators.push(bus.subscribe("n")[Symbol.asyncIterator]());
    byHand();
    bus.on("n", (_, { signal }) => {
      if (told !== "an observer") signal.addEventListener("abort", look);
      return passed;
    });
    byHand();
    await bus.publish("n", 1);
    await flush();
    let drops = 0;
    using _ = bus.observe({
      dropped() {
        if (told === "an observer" && ++drops === 1) look();
      },
    });
    follow(bus.abort(BOOM));
    await flush();
    assertEquals(journal.lines, ["0 failed: Error", "1 failed: Error"]);
  });
}

Deno.test("A publisher's own signal wins over an abort of the bus by another of its listeners", async () => {
  const { bus } = open();
  bus.subscribe("n", { capacity: 1 });
  bus.tryPublish("n", 1);
  const controller = new AbortController();
  const { signal } = controller;
  signal.addEventListener("abort", () => void bus.abort("bus"));
  const drops: unknown[] = [];
  bus.observe({ dropped: ({ reason }) => void drops.push(reason) });
  const task = follow(bus.publish("n", 2, { signal }));
  controller.abort(BOOM);
  await flush();
  assertStrictEquals(task.error, BOOM);
  assertEquals(drops, ["ended", "withdrawn"]);
});

for (const by of ["aborts the bus", "closes the bus", "reads"]) {
  Deno.test(`A subscriber's own signal wins over a listener that ${by} before the bus hears of it`, async () => {
    const { bus, seen } = open();
    const controller = new AbortController();
    const { signal } = controller;
    let read = () => {};
    signal.addEventListener("abort", () => {
      if (by === "reads") read();
      else if (by === "closes the bus") bus.close();
      else follow(bus.abort("bus"));
    });
    const waits = follow(bus.once("s", { signal }));
    const iterator = bus.subscribe("n", { signal })[Symbol.asyncIterator]();
    read = () => void iterator.next().then(({ done }) => seen.push(done));
    bus.tryPublish("n", 1);
    bus.on(
      "quit",
      (_, context) =>
        new Promise<void>((resolve) =>
          context.signal.addEventListener("abort", () => {
            seen.push(context.signal.reason);
            resolve();
          })
        ),
      { signal },
    );
    bus.tryPublish("quit");
    await flush();
    controller.abort(BOOM);
    await flush();
    read();
    await flush();
    assertStrictEquals(waits.error, BOOM);
    const expected = by === "reads" ? [BOOM, true, true] : [BOOM, true];
    assertEquals(seen.length, expected.length);
    assertEquals(new Set(seen), new Set(expected));
  });
}

reading(
  "gets nothing any more once its signal has aborted, though it has not told so yet",
  async (on) => {
    for (const asleep of [true, false]) {
      const { bus, seen, see } = open();
      const { signal } = new AbortController();
      on(bus, see, { signal });
      if (asleep) await flush();
      await bus.publish("n", 1);
      // In pages, promises have their turn between two listeners of a signal.
      Object.defineProperty(signal, "aborted", { value: true });
      await flush();
      assertEquals([seen, bus.inspect().subscriptions], [[], []]);
    }
  },
);

Deno.test("A handler that is awake gets nothing any more once its signal has aborted, though it has not told so yet", async () => {
  const { bus, seen } = open();
  const { signal } = new AbortController();
  bus.on("n", ({ data }) => {
    seen.push(data);
    bus.tryPublish("n", data + 1);
    Object.defineProperty(signal, "aborted", { value: true });
  }, { signal });
  await bus.publish("n", 1);
  await flush();
  assertEquals([seen, bus.inspect().subscriptions], [[1], []]);
});

// ── close() ─────────────────────────────────────────────────────────────────

reading(
  "gets what is queued at close(), also of publishers who wait",
  async (on) => {
    const { bus, seen, passed, go, journal } = open();
    const subscription = on(bus, async (n) => {
      await passed;
      seen.push(n);
    }, { capacity: 1 });
    on(bus, () => {}, { capacity: 1 });
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
  const { bus, seen, passed, go, journal } = open();
  const byHand = bus.subscribe("n");
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

Deno.test("Bus.close() takes nothing from loops that share a subscription", async () => {
  const { bus, seen, see } = open();
  const subscription = bus.subscribe("n");
  const loops = range(3).map(() => follow(read(subscription, see)));
  await flush();
  publishAll(bus, [1, 2]); // handed to two of them, the third one waits
  await bus.close();
  await flush();
  assertEquals(seen, [1, 2]);
  assertEquals(loops.map(({ value }) => value), ["end", "end", "end"]);
});

Deno.test("A closed bus asks no filter about events that it refuses", async () => {
  const { bus, seen, see } = open();
  bus.subscribe("n", { filter: ({ data }) => (see(data), true) });
  await bus.publish("n", 1);
  await bus.close(); // 1 can still be read
  bus.tryPublish("n", 2);
  await settled(bus.publish("n", 3));
  assertEquals(seen, [1]);
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
    const { bus, errors, seen, passed, go } = open({ name: "restaurant" });
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
  const { bus, seen } = open();
  bus.on("n", ({ data }) => seen.push(data));
  await flush();
  publishAll(bus, [1]); // handed over, but not begun
  await bus.abort(BOOM);
  assertEquals(seen, []);
});

Deno.test("Bus.abort() throws its reason to each of several loops", async () => {
  const { bus, passed, go } = open();
  const subscription = bus.subscribe("n");
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
  const { bus, seen, passed, go } = open();
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

for (const how of ["abort", "unsubscribe"] as const) {
  for (const concurrency of [1, 2]) {
    Deno.test(`${how}() after close() reaches the handler that runs (concurrency ${concurrency})`, async () => {
      const { bus, seen } = open();
      const subscription = bus.on("n", async (_, { signal }) => {
        await new Promise((go) => signal.addEventListener("abort", go));
        seen.push("called off");
      }, { concurrency });
      publishAll(bus, [1]);
      await flush();
      const closed = follow(bus.close());
      await flush();
      if (how === "abort") bus.abort(BOOM);
      else subscription.unsubscribe();
      await flush();
      assertEquals([seen, closed.state], [["called off"], "resolved"]);
    });
  }
}

Deno.test("Bus.abort() is what a publisher hears of who is called off after it", async () => {
  const { bus } = open();
  const controller = new AbortController();
  const { signal } = controller;
  bus.subscribe("n", { capacity: 1 });
  publishAll(bus, [1]);
  const waiting = follow(bus.publish("n", 2, { signal }));
  bus.abort(BOOM);
  controller.abort(new Error("too late"));
  await flush();
  assertStrictEquals(waiting.error, BOOM);
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

Deno.test("Bus keeps one order while the signal of a subscription aborts in the middle of a fan-out", async () => {
  const bus = new Bus<{ x: string }>();
  const controller = new AbortController();
  const { signal } = controller;
  // It hears of the abort before the bus does, so the subscription is still there.
  signal.addEventListener("abort", () => void bus.publish("x", "outer"));
  const a = bus.subscribe("x");
  bus.on("x", (_, { signal }) => {
    signal.addEventListener("abort", () => void bus.publish("x", "inner"));
  }, { signal, capacity: 1 });
  const b = bus.subscribe("x");
  await bus.publish("x", "first");
  await flush();
  controller.abort();
  await flush();
  await bus.close();
  const got: string[][] = [];
  for (const subscription of [a, b]) {
    const all: string[] = [];
    for await (const { data } of subscription) all.push(data);
    got.push(all);
  }
  assertEquals(got, [["first", "outer", "inner"], ["first", "outer", "inner"]]);
});
