import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
} from "@std/assert";
import type { Bus, BusEvent, EventContext } from "../bus.ts";
import { type Overflow, QueueFullError } from "../queue.ts";
import {
  BOOM,
  type Events,
  gate,
  open,
  publishAll,
  read,
  READING,
  stopClocks,
} from "./_bus.ts";
import { flush, follow, probedController, range } from "./_helpers.ts";

// What handlers, filters and readers may do in the middle of things.

/** The async storage of the runtime, if there is one. */
const { process } = globalThis as {
  process?: {
    getBuiltinModule?(name: string): {
      AsyncLocalStorage: new () => {
        run<T>(store: string, fn: () => T): T;
        enterWith(store: string): void;
        getStore(): string | undefined;
      };
    } | undefined;
  };
};
const hooks = process?.getBuiltinModule?.("node:async_hooks");

// ── Context ─────────────────────────────────────────────────────────────────

Deno.test({
  name:
    "Bus.on() calls its handler in its own async context, not a publisher's",
  ignore: hooks === undefined,
  async fn() {
    const storage = new hooks!.AsyncLocalStorage();
    const { bus, seen, see } = open();
    const handler = ({ data }: BusEvent) =>
      see([data, storage.getStore() ?? "nobody's"]);
    const later = async (event: BusEvent) => {
      handler(event);
      await flush();
      handler(event);
    };
    bus.on("n", handler);
    storage.run("subscriber's", () => bus.on("s", handler));
    storage.run("slow subscriber's", () => bus.on("s", later));
    for (const turn of ["first", "second"]) {
      storage.run("publisher's", () => {
        bus.tryPublish("n", 1);
        bus.tryPublish("s", turn);
      });
      for (const _ of range(3)) await flush();
      seen.sort();
      assertEquals(seen.splice(0), [
        [1, "nobody's"],
        [turn, "slow subscriber's"],
        [turn, "slow subscriber's"],
        [turn, "subscriber's"],
      ]);
    }
  },
});

for (
  const [kind, result, options] of [
    ["a handler", undefined, {}],
    ["a handler that takes its time", Promise.resolve(), {}],
    ["one of two handlers", Promise.resolve(), { concurrency: 2 }],
  ] as const
) {
  Deno.test({
    name: `What ${kind} of Bus.on() enters does not reach those after it`,
    ignore: hooks === undefined,
    async fn() {
      const storage = new hooks!.AsyncLocalStorage();
      const { bus, seen, see } = open();
      const handler = ({ data }: BusEvent) => {
        see([data, storage.getStore() ?? "nobody's"]);
        storage.enterWith(`${data}'s`);
        return result;
      };
      storage.run("subscriber's", () => bus.on("n", handler, options));
      for (const n of [1, 2, 3]) {
        bus.tryPublish("n", n);
        for (const _ of range(3)) await flush();
      }
      assertEquals(seen, [1, 2, 3].map((n) => [n, "subscriber's"]));
      bus.on("n", () => {});
      await bus.close();
    },
  });
}

// ── A handler's own queue ───────────────────────────────────────────────────

for (const returns of ["at once", "a promise"]) {
  Deno.test(`A handler that returns ${returns} may publish to its own type`, async () => {
    const { bus, errors } = open();
    const seen: number[] = [];
    bus.on("n", ({ data }) => {
      seen.push(data);
      const publishing = data < 5 ? bus.publish("n", data + 1) : undefined;
      return returns === "at once" ? undefined : publishing;
    });
    await bus.publish("n", 1);
    await flush();
    assertEquals([seen, errors], [[1, 2, 3, 4, 5], []]);
  });
}

Deno.test({
  name: "Bus.publish() refuses a handler that would wait for itself",
  ignore: hooks === undefined, // for want of them, only before its first await
  async fn() {
    const { bus, errors, seen, see } = open();
    const other = bus.subscribe("n");
    bus.on("n", async ({ data }) => {
      see(data);
      await flush();
      if (data > 1) return;
      assertEquals(bus.tryPublish("n", 10), undefined);
      await bus.publish("n", 11);
    }, { name: "loop", capacity: 1 });
    publishAll(bus, [1]);
    await undefined;
    publishAll(bus, [2, 3]); // one in the queue, one in line
    for (const _ of range(4)) await flush();
    assertEquals([seen, other.size], [[1, 2, 3], 3]);
    const [{ cause, event }] = errors;
    assertEquals([errors.length, event.data], [1, 1]);
    assertInstanceOf(cause, QueueFullError);
    assertStringIncludes(cause.message, '"loop" is full');
    assertStringIncludes(cause.message, "its own handler");
    assertEquals(cause.value, 11);
  },
});

Deno.test("Bus.publish() refuses a handler that would wait for itself, as it is called", async () => {
  const { bus } = open();
  const refused: unknown[] = [];
  bus.on("n", ({ data }) => {
    if (data > 1) return;
    for (const n of [10, 11]) bus.publish("n", n).catch((e) => refused.push(e));
  }, { name: "loop", capacity: 1 });
  await bus.publish("n", 1);
  await flush();
  assertEquals(refused.length, 1);
  assertInstanceOf(refused[0], QueueFullError);
  assertEquals(refused[0].value, 11);
});

for (const concurrency of [2, 3, Infinity]) {
  Deno.test(`Bus.publish() lets a handler wait for one that may still start (concurrency ${concurrency})`, async () => {
    const { bus, errors, seen, see } = open();
    bus.on("n", async ({ data }) => {
      see(data);
      if (data === 0) { for (const n of [1, 2, 3]) await bus.publish("n", n); }
    }, { capacity: 1, concurrency });
    await bus.publish("n", 0);
    await flush();
    assertEquals([seen, errors], [[0, 1, 2, 3], []]);
  });
}

for (const concurrency of [1, 2, 3]) {
  Deno.test({
    name:
      `Bus.publish() refuses a handler if all would wait, and no other (concurrency ${concurrency})`,
    ignore: hooks === undefined,
    async fn() {
      const { bus, errors, passed, go } = open();
      const ended: number[] = [];
      bus.on("n", async ({ data }) => {
        if (data < concurrency) {
          await passed;
          await bus.publish("n", data + 10); // for which there is no place
        }
        ended.push(data);
      }, { capacity: 1, concurrency });
      publishAll(bus, range(concurrency + 1));
      await flush();
      assertEquals(bus.inspect().subscriptions[0].size, 1);
      go(); // all at once
      for (const _ of range(3)) await flush();
      assertEquals(errors.map(({ event }) => event.data), [concurrency - 1]);
      const [{ cause }] = errors;
      assertInstanceOf(cause, QueueFullError);
      assertStringIncludes(cause.message, "its own handler");
      assertEquals(cause.value, concurrency + 9);
      const others = range(concurrency - 1);
      assertEquals(ended.toSorted((a, b) => a - b), [
        ...others,
        concurrency,
        ...others.map((n) => n + 10),
      ]);
    },
  });
}

Deno.test("Bus.publish() refuses a handler if all would wait, also as it is called", async () => {
  const { bus, errors, seen, see } = open();
  bus.on("n", async ({ data }) => {
    see(data);
    if (data < 2) {
      await Promise.all([10, 20, 30].map((n) => bus.publish("n", n + data)));
    }
  }, { capacity: 1, concurrency: 2 });
  publishAll(bus, range(2));
  await flush();
  // 0 waits for places, several at a time; then 1 may not
  assertEquals(errors.map(({ event }) => event.data), [1]);
  assertInstanceOf(errors[0].cause, QueueFullError);
  assertEquals(seen, [0, 1, 10, 20, 30]);
});

Deno.test("A handler that has ended waits for nothing, whatever it has left in line", async () => {
  const { bus, errors, seen, see } = open();
  bus.on("n", async ({ data }) => {
    see(data);
    if (data === 0) { for (const n of range(4)) bus.publish("n", n + 10); }
    if (data === 10) await bus.publish("n", 20);
  }, { capacity: 1, concurrency: 2 });
  await bus.publish("n", 0);
  await flush();
  assertEquals([seen, errors], [[0, 10, 11, 12, 13, 20], []]);
});

Deno.test("A handler may wait for other subscriptions, and for its own once it has ended", async () => {
  const { bus, errors, passed, go } = open();
  const seen: unknown[] = [];
  const slow = bus.subscribe("s", { capacity: 1 });
  const own = bus.on("n", ({ data }) => {
    seen.push(data);
    if (data === 1) {
      // a task that outlives the handler, and may wait
      passed.then(() =>
        Promise.all(range(4).map((n) => bus.publish("n", 10 + n)))
      )
        .then(() => seen.push("all"));
    }
    if (data === 2) {
      return bus.publish("s", "b").then(() => seen.push("waited"));
    }
  }, { capacity: 2 });
  bus.tryPublish("s", "a");
  publishAll(bus, [1, 2]);
  await flush();
  assertEquals(seen, [1, 2]);
  await slow[Symbol.asyncIterator]().next();
  await flush();
  assertEquals(seen, [1, 2, "waited"]);
  go();
  await flush();
  assertEquals(seen.slice(3), [10, 11, 12, 13, "all"]);
  assertEquals([errors, own.dropped], [[], 0]);
});

// ── Turns ───────────────────────────────────────────────────────────────────

Deno.test("A handler that publishes to itself for ever leaves others their turns", async () => {
  const { bus } = open();
  const seen: number[] = [];
  const endless = bus.on("n", ({ data }) => {
    bus.tryPublish("n", data + 1);
  });
  bus.on("n", ({ data }) => {
    seen.push(data);
    if (data === 100) endless.unsubscribe();
  });
  await bus.publish("n", 0);
  for (const _ of range(20)) await flush();
  assertEquals(seen.slice(0, 101), range(101));
  assert(seen.length < 200);
});

Deno.test("An idle handler loses nothing to a publisher who awaits each publish", async () => {
  for (const overflow of ["drop-oldest", "drop-newest", "reject"] as const) {
    const { bus, seen, see } = open();
    bus.on("n", ({ data }) => see(data), { capacity: 1, overflow });
    for (const n of range(20)) await bus.publish("n", n);
    await flush();
    assertEquals(seen, range(20), overflow);
  }
});

Deno.test("Bus.on() calls a handler neither in on() nor in publish()", async () => {
  const { bus, seen, see } = open({ replay: { n: 1 } });
  bus.tryPublish("n", 0);
  bus.on("n", ({ data }) => see(data));
  assertEquals(seen, []);
  await flush();
  bus.tryPublish("n", 1);
  assertEquals(seen, [0]);
  await flush();
  assertEquals(seen, [0, 1]);
});

Deno.test("Bus.on() waits for whatever has a then(), and for nothing else", async () => {
  const { bus, errors } = open();
  const { passed, open: go } = gate();
  const results: unknown[] = [
    { then: (resolve: () => void) => void passed.then(resolve) },
    Object.assign(() => {}, { then: 1 }),
    { then: undefined },
    null,
    "then",
    {
      get then() {
        throw BOOM;
      },
    },
    { then: (_: unknown, reject: (e: Error) => void) => reject(BOOM) },
  ];
  const seen: number[] = [];
  bus.on("n", ({ data }) => {
    seen.push(data);
    return results[data];
  });
  publishAll(bus, range(results.length));
  await flush();
  assertEquals(seen, [0]);
  go();
  await flush();
  assertEquals(seen, range(results.length));
  assertEquals(errors.map(({ event }) => event.data), [5, 6]);
});

Deno.test("A handler that hangs holds nobody but those who wait for it", async () => {
  const { bus, seen, see, journal } = open();
  const never = gate();
  const hangs = bus.on("n", () => never.passed, { capacity: 1, name: "hangs" });
  bus.on("n", () => never.passed, { capacity: 1, overflow: "drop-oldest" });
  bus.on("n", ({ data }) => see(data));
  for (const n of range(4)) {
    publishAll(bus, [n], journal);
    await flush();
  }
  assertEquals(seen, range(4)); // each has its place elsewhere at once
  assertEquals(journal.lines, ["published 0", "published 1"]);
  const [{ name, waiting, heldSince }, ...others] = bus.inspect().subscriptions;
  assertEquals([name, waiting, typeof heldSince], ["hangs", 2, "number"]);
  assertEquals(others.map(({ waiting, heldSince }) => [waiting, heldSince]), [
    [0, null],
    [0, null],
  ]);
  hangs.unsubscribe();
  await flush();
  assertEquals(journal.lines.length, 4);
});

Deno.test("Bus.inspect() shows since when a subscription holds the first who waits", async () => {
  using clocks = stopClocks();
  const { bus } = open();
  const slow = bus.subscribe("n", { capacity: 1 });
  const held = () => bus.inspect().subscriptions[0].heldSince;
  const events: BusEvent[] = [];
  bus.on("n", (event) => events.push(event));
  for (const n of [1, 2, 3]) {
    publishAll(bus, [n]);
    if (n === 1) assertEquals(held(), null);
    clocks.pass(10);
  }
  await flush();
  assertEquals(held(), events[1].time);
  const iterator = slow[Symbol.asyncIterator]();
  await iterator.next();
  assertEquals(held(), events[2].time);
  await iterator.next();
  assertEquals(held(), null);
});

// ── Ends from inside ────────────────────────────────────────────────────────

const ENDS: Record<
  string,
  (bus: Bus<Events>, unsubscribe: () => void) => void
> = {
  "unsubscribes itself": (_, unsubscribe) => unsubscribe(),
  "closes the bus": (bus) => void bus.close(),
  "aborts the bus": (bus) => void bus.abort(BOOM),
};
for (const [what, end] of Object.entries(ENDS)) {
  for (const way of ["returns", "throws", "waits"]) {
    Deno.test(`A handler that ${what}, and ${way}, is the last or goes on`, async () => {
      const { bus, errors, passed, go } = open();
      const seen: unknown[] = [];
      const others: unknown[] = [];
      const subscription = bus.on("n", ({ data }, { signal }) => {
        seen.push(data);
        if (data !== 1) return;
        end(bus, () => subscription.unsubscribe());
        seen.push(signal.aborted);
        if (way === "throws") throw BOOM;
        if (way === "waits") return passed;
      });
      const reader = follow(read(bus.subscribe("n"), (n) => others.push(n)));
      publishAll(bus, [1, 2, 3]);
      await flush();
      go();
      await flush();
      const closes = what === "closes the bus";
      assertEquals(seen, closes ? [1, false, 2, 3] : [1, true]);
      assertEquals(errors.length, way === "throws" ? 1 : 0);
      if (what !== "aborts the bus") assertEquals(others, [1, 2, 3]);
      assertEquals(
        reader.value,
        { "u": undefined, "c": "end", "a": BOOM }[what[0]],
      );
      await bus.close();
    });
  }
}

Deno.test("What a handler left behind waits for the handlers at close()", async () => {
  const { bus, passed, go } = open();
  const slow = gate();
  let closed: ReturnType<typeof follow> | undefined;
  bus.on("s", () => { // has ended when it closes the bus
    passed.then(() => closed = follow(bus.close()));
  });
  bus.on("n", () => slow.passed);
  bus.tryPublish("s", "");
  bus.tryPublish("n", 1);
  await flush();
  go();
  await flush();
  assertEquals(closed?.state, "pending");
  slow.open();
  await flush();
  assertEquals(closed?.state, "resolved");
});

for (const way of ["unsubscribe()", "its signal"]) {
  Deno.test(`A handler's signal says why, if ended by ${way}`, async () => {
    const { bus, go, passed } = open();
    const controller = new AbortController();
    const contexts: EventContext[] = [];
    const early: AbortSignal[] = [];
    for (const looks of [true, false]) {
      const subscription = bus.on("n", (_, context) => {
        contexts.push(context);
        if (looks) early.push(context.signal);
        return passed;
      }, { signal: controller.signal });
      bus.tryPublish("n", 1);
      await flush();
      if (way === "unsubscribe()") subscription.unsubscribe();
    }
    controller.abort(BOOM);
    for (const signal of [...early, ...contexts.map(({ signal }) => signal)]) {
      assert(signal.aborted);
      if (way === "its signal") assertStrictEquals(signal.reason, BOOM);
      else assertEquals(signal.reason.name, "AbortError");
    }
    go();
    await bus.close();
  });
}

// ── In the middle of a fan-out ──────────────────────────────────────────────

Deno.test("A filter may subscribe others: they get what comes after the event", async () => {
  const { bus } = open();
  const seen: Record<string, unknown[]> = {};
  const join = (name: string) => {
    if (name in seen) return true;
    const mine: unknown[] = seen[name] = [];
    bus.on(["n", "s"], ({ data }) => mine.push(data));
    return true;
  };
  bus.subscribe("n", { filter: () => join("by a type") });
  bus.subscribe("*", { filter: () => join("by all") });
  for (const n of [1, 2]) await bus.publish("n", n);
  await bus.publish("s", "c");
  await flush();
  const rest = [2, "c"];
  assertEquals(seen, { "by a type": rest, "by all": rest });
});

Deno.test("A filter may unsubscribe others: they don't get the event", async () => {
  const { bus, seen, see } = open();
  const late = ["a", "b"].map((name) =>
    bus.on("n", ({ data }) => see(data), { name })
  );
  bus.subscribe("n", {
    filter() {
      late.forEach((one) => one.unsubscribe());
      return false;
    },
  });
  bus.on("n", ({ data }) => see(data));
  await bus.publish("n", 1);
  await flush();
  assertEquals(seen, [1]);
});

Deno.test("A filter may publish: that comes first, for all", async () => {
  const { bus } = open();
  const seen: Record<string, unknown[]> = { a: [], b: [], c: [] };
  let told = false;
  bus.on("n", ({ data }) => seen.a.push(data));
  bus.on("n", ({ data }) => seen.b.push(data), {
    filter() {
      if (!told) {
        told = true;
        bus.tryPublish("n", 0);
      }
      return true;
    },
  });
  read(bus.subscribe("*"), (data) => seen.c.push(data));
  for (const n of [1, 2]) await bus.publish("n", n);
  await flush();
  for (const name of "abc") assertEquals(seen[name], [0, 1, 2]);
});

Deno.test("A filter may abort the publish that it is asked about", async () => {
  const { bus } = open();
  const controller = new AbortController();
  const { signal } = controller;
  bus.subscribe("n", { filter: () => (controller.abort(BOOM), true) });
  const task = follow(bus.publish("n", 1, { signal }));
  await flush();
  assertStrictEquals(task.error, BOOM);
  assertEquals(bus.inspect().published, 0);
  assertEquals(bus.tryPublish("n", 1, { signal }), undefined);
});

for (const ends of ["a reader", "a subscriber", "the bus"]) {
  Deno.test(`A publisher whose signal has aborted leaves nothing behind, if a listener is ${ends}`, async () => {
    const { bus } = open();
    const controller = probedController();
    const narrow = bus.subscribe("n", { capacity: 1, name: "narrow" });
    const wide = bus.subscribe("n", { capacity: 1, name: "wide" });
    const iterator = narrow[Symbol.asyncIterator]();
    const drops: string[] = [];
    bus.observe({
      dropped: ({ event, subscription, reason }) =>
        void drops.push(`${event.data} ${subscription} ${reason}`),
    });
    const got: unknown[] = [];
    controller.signal.addEventListener("abort", () => { // before the bus hears of it
      if (ends === "a reader") {
        iterator.next().then((one) => got.push(one.value.data));
      } else if (ends === "a subscriber") narrow.unsubscribe();
      else bus.close();
    });
    publishAll(bus, [1]);
    const second = follow(bus.publish("n", 2, { signal: controller.signal }));
    const third = follow(bus.publish("n", 3));
    controller.abort(BOOM);
    await flush();
    assertStrictEquals(second.error, BOOM);
    assertEquals(third.state, ends === "the bus" ? "resolved" : "pending");
    assertEquals(drops.filter((line) => line.startsWith("2")).sort(), [
      "2 narrow withdrawn",
      "2 wide withdrawn",
    ]);
    if (ends === "a reader") assertEquals(got, [1]);
    wide.unsubscribe();
    await bus.abort();
    assert(third.state !== "pending");
    // but for our own
    assertEquals(controller.listening, 1);
  });
}

Deno.test("One order for all, whatever their policies and whoever waits", async () => {
  const { bus } = open();
  const seen: Record<string, number[]> = {};
  const policies: Overflow[] = ["wait", "drop-oldest", "drop-newest"];
  for (const overflow of policies) {
    for (const capacity of [1, 2, 3]) {
      for (const [way, on] of Object.entries(READING)) {
        const mine: number[] = seen[`${way} ${overflow} ${capacity}`] = [];
        let turn = 0;
        on(bus, async (n) => {
          mine.push(n as number);
          for (const _ of range(turn++ % 7)) await undefined;
        }, { overflow, capacity });
      }
    }
  }
  const all: number[] = [];
  const options = { capacity: Infinity };
  const reading = read(
    bus.subscribe("n", options),
    (n) => all.push(n as number),
  );
  const publishers = range(5).map(async (k) => {
    for (const n of range(20)) {
      await bus.publish("n", 100 * k + n);
      for (const _ of range((k + n) % 5)) await undefined;
    }
  });
  await Promise.all(publishers);
  await bus.close();
  await reading;
  await flush();
  assertEquals(all.length, 100);
  for (const [name, mine] of Object.entries(seen)) {
    assertEquals(mine, all.filter((n) => mine.includes(n)), name);
    if (name.includes("wait")) assertEquals(mine.length, 100, name);
  }
});

// ── Iterators ───────────────────────────────────────────────────────────────

Deno.test("Subscription's iterator can be taken apart, and disposed of", async () => {
  const { bus } = open();
  const { next } = bus.subscribe("n")[Symbol.asyncIterator]();
  const parked = next();
  await bus.publish("n", 1);
  assertEquals((await parked).value.data, 1);
  const subscription = bus.subscribe("n");
  {
    await using iterator = subscription[Symbol.asyncIterator]();
    await bus.publish("n", 2);
    assertEquals((await iterator.next()).value.data, 2);
  }
  assertEquals(bus.inspect().subscriptions.length, 1);
  assertEquals(await read(subscription, () => {}), "end");
});

Deno.test("Subscription's iterators share its events, in the order in which they ask", async () => {
  const { bus } = open();
  const subscription = bus.subscribe("n");
  const [a, b] = [0, 1].map(() => subscription[Symbol.asyncIterator]());
  const asked = [a.next(), b.next(), a.next()];
  publishAll(bus, range(4));
  const got = await Promise.all(asked);
  assertEquals(got.map(({ value }) => value.data), [0, 1, 2]);
  assertEquals((await b.next()).value.data, 3);
  const waits = b.next();
  await a.return!();
  assertEquals(await waits, { value: undefined, done: true });
});

Deno.test("Subscription's iterator throws the reason of an abort once", async () => {
  const { bus } = open();
  const iterator = bus.subscribe("n")[Symbol.asyncIterator]();
  const parked = follow(iterator.next());
  bus.abort(BOOM);
  await flush();
  assertStrictEquals(parked.error, BOOM);
  assertEquals(await iterator.next(), { value: undefined, done: true });
});

Deno.test("Bus.once() refuses what is no type", async () => {
  const { bus } = open();
  await assertRejects(() => bus.once("*" as "n"), RangeError, '"*"');
  await assertRejects(() => bus.once(1 as never), TypeError, "type must be");
  assertEquals(bus.inspect().subscriptions, []);
});
