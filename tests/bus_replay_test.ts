import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import { Bus, type BusEvent, SubscriberError } from "../bus.ts";
import { type Overflow, QueueFullError } from "../queue.ts";
import { BOOM, type Events, open, publishAll, read, READING } from "./_bus.ts";
import { catchReports, flush, follow, range } from "./_helpers.ts";

// ── Events for newcomers ────────────────────────────────────────────────────

for (const [way, on] of Object.entries(READING)) {
  Deno.test(`Bus.${way} gets the last events of a replayed type first`, async () => {
    const { bus, seen, see } = open({ replay: { n: 2 } });
    publishAll(bus, range(5));
    on(bus, see);
    publishAll(bus, [5]);
    assertEquals(seen, []);
    await flush();
    assertEquals(seen, [3, 4, 5]);
  });
}

Deno.test("Bus replays several types in the order in which they were published", async () => {
  const { bus } = open({ replay: { n: 2, s: 3 } });
  for (const n of range(4)) {
    await bus.publish("n", n);
    await bus.publish("s", `s${n}`);
    await bus.publish("quit");
  }
  const types = { all: "*", both: ["s", "n"], one: "s" } as const;
  const seen: Record<string, unknown[]> = { all: [], both: [], one: [] };
  for (const [name, type] of Object.entries(types)) {
    read(bus.subscribe(type), (data) => seen[name].push(data));
  }
  await flush();
  const both = ["s1", 2, "s2", 3, "s3"];
  assertEquals(seen, { all: both, both, one: ["s1", "s2", "s3"] });
});

Deno.test("Bus replays as many events as it is told, be it none, one, or all", async () => {
  for (const [most, kept] of [[0, []], [1, [9]], [Infinity, range(10)]]) {
    const { bus, seen, see } = open({ replay: { n: most as number } });
    publishAll(bus, range(10));
    read(bus.subscribe("n"), see);
    await flush();
    assertEquals(seen, kept as number[]);
  }
});

Deno.test("Bus replays what passes the filter, and says which filter failed", async () => {
  const { bus, errors, seen, see } = open({ replay: { n: 4 } });
  publishAll(bus, range(4));
  const filter = ({ data }: BusEvent<"n", number>) => {
    if (data === 2) throw BOOM;
    return data > 0;
  };
  read(bus.subscribe("n", { filter, name: "picky" }), see);
  await flush();
  assertEquals(seen, [1, 3]);
  assertEquals(errors.length, 1);
  assertInstanceOf(errors[0], SubscriberError);
  assertEquals([errors[0].event.data, errors[0].cause], [2, BOOM]);
});

const POLICIES: [Overflow, number[], number, number][] = [
  ["wait", range(5), 0, 0],
  ["reject", range(5), 0, 0],
  ["drop-oldest", [3, 4], 3, 3],
  ["drop-newest", [0, 1], 3, 0],
];
for (const [overflow, kept, dropped, missed] of POLICIES) {
  Deno.test(`Bus replays more than fits into a queue by its policy ("${overflow}")`, async () => {
    const { bus } = open({ replay: { n: 5 } });
    publishAll(bus, range(5));
    const subscription = bus.subscribe("n", { overflow, capacity: 2 });
    assertEquals([subscription.size, subscription.dropped], [
      kept.length,
      dropped,
    ]);
    const lossy = dropped > 0;
    assertEquals(bus.tryPublish("n", 9) === undefined, !lossy);
    const late = follow(bus.publish("n", 10));
    await flush();
    const states = { wait: "pending", reject: "rejected" } as const;
    assertEquals(late.state, lossy ? "resolved" : states[overflow as "wait"]);
    if (overflow === "reject") assertInstanceOf(late.error, QueueFullError);

    const again = bus.subscribe("n", { overflow, capacity: 2 });
    const seen: unknown[] = [];
    read(again, (n) => seen.push([n, again.missed]));
    await flush();
    if (overflow === "drop-oldest") assertEquals(seen[0], [9, 3]);
    const iterator = subscription[Symbol.asyncIterator]();
    if (!lossy) {
      for (const n of kept) {
        assertEquals((await iterator.next()).value.data, n);
      }
      await flush();
      assertEquals(late.state, overflow === "wait" ? "resolved" : "rejected");
    } else {
      await iterator.next();
      assertEquals(
        subscription.missed,
        overflow === "drop-oldest" ? 5 : missed,
      );
    }
  });
}

Deno.test("What is replayed counts and is told as everything else", async () => {
  const { bus } = open({ replay: { n: 3 } });
  publishAll(bus, range(3));
  const lines: string[] = [];
  const note = (what: string) =>
  ({ event, reason, waited }: {
    event: BusEvent;
    reason?: string;
    waited?: number;
  }) => {
    assert(waited === undefined || waited >= 0);
    lines.push(`${what} ${event.data} ${reason ?? ""}`.trim());
  };
  bus.observe({
    published: note("published"),
    queued: note("queued"),
    dropped: note("dropped"),
    delivered: note("delivered"),
  });
  const options = { capacity: 2, overflow: "drop-oldest" } as const;
  const subscription = bus.subscribe("n", options);
  assertEquals(lines, [
    "queued 0",
    "queued 1",
    "dropped 0 overflow",
    "queued 2",
  ]);
  read(subscription, () => {});
  await flush();
  assertEquals(lines.slice(4), ["delivered 1", "delivered 2"]);
  const { published, subscriptions: [{ delivered, dropped, peak }] } = bus
    .inspect();
  assertEquals([published, delivered, dropped, peak], [3, 2, 1, 2]);
});

Deno.test("Bus.once() gets what a subscription would get first", async () => {
  const { bus } = open({ replay: { n: 2 } });
  publishAll(bus, range(4));
  const first = follow(bus.once("n"));
  const odd = follow(bus.once("n", { filter: ({ data }) => data % 2 === 1 }));
  const big = follow(bus.once("n", { filter: ({ data }) => data > 3 }));
  await flush();
  assertEquals([first.value?.data, odd.value?.data], [2, 3]);
  assertEquals(big.state, "pending");
  publishAll(bus, [4]);
  await flush();
  assertEquals(big.value?.data, 4);
  assertEquals(bus.inspect().subscriptions, []);
});

Deno.test("Bus.once() is done with its first event: it drops none and hears none", async () => {
  const { bus } = open();
  const task = follow(bus.once("n"));
  const unheard: unknown[] = [];
  bus.observe({
    dropped: ({ event }) => void unheard.push(event),
    unheard: ({ event }) => void unheard.push(event.data),
  });
  publishAll(bus, [1, 2, 3]);
  await flush();
  assertEquals([task.value?.data, unheard], [1, [2, 3]]);
});

Deno.test("A closed bus replays nothing", async () => {
  for (const how of ["close", "abort"] as const) {
    const { bus, seen, see } = open({ replay: { n: 2 } });
    publishAll(bus, [1]);
    await bus[how]();
    assertEquals(await read(bus.subscribe("n"), see), "end");
    const filter = ({ data }: BusEvent) => (see(data), true);
    assertEquals(await read(bus.subscribe("n", { filter }), see), "end");
    assertEquals(seen, []);
  }
});

Deno.test("A subscription whose signal has aborted asks no filter about the past", () => {
  const { bus, seen, see } = open({ replay: { n: 2 } });
  publishAll(bus, [1]);
  const filter = ({ data }: BusEvent) => (see(data), true);
  bus.subscribe("n", { signal: AbortSignal.abort(), filter });
  assertEquals(seen, []);
});

Deno.test("A newcomer misses nothing between the past and the present", async () => {
  // Filters and observers may publish and subscribe in the middle of it all.
  const { bus } = open({ replay: { n: Infinity } });
  const seen: unknown[][] = [];
  const join = () => {
    const mine: unknown[] = [];
    seen.push(mine);
    let first = true;
    read(
      bus.subscribe("n", {
        filter({ data }) {
          if (first && data === 0) bus.tryPublish("n", 10);
          first = false;
          return true;
        },
      }),
      (data) => mine.push(data),
    );
  };
  bus.observe({
    published({ event }) {
      if (event.data === 2) join();
    },
    queued({ event }) {
      if (event.data === 3 && seen.length < 3) join();
    },
  });
  publishAll(bus, [0, 1]);
  join();
  publishAll(bus, [2, 3, 4]);
  await flush();
  const all: unknown[] = [];
  read(bus.subscribe("n"), (data) => all.push(data));
  await flush();
  assertEquals(seen.length, 3);
  for (const mine of seen) assertEquals(mine, all);
});

Deno.test("A filter may close the bus while events are replayed", async () => {
  for (const how of ["close", "abort"] as const) {
    const { bus, seen, see } = open({ replay: { n: 2 } });
    publishAll(bus, [1, 2]);
    const filter = () => (follow(bus[how]()), true);
    assertEquals(await read(bus.subscribe("n", { filter }), see), "end");
    assertEquals([seen, bus.inspect().subscriptions], [[], []]);
  }
});

Deno.test("new Bus() names what is wrong with replay", () => {
  const wrong: [unknown, new () => Error, string][] = [
    [{ n: -1 }, RangeError, 'replay["n"] must be'],
    [{ n: 1.5 }, RangeError, 'replay["n"] must be'],
    [{ n: "1" }, TypeError, 'replay["n"] must be'],
    [{ n: undefined }, TypeError, 'replay["n"] must be'],
    [{ "*": 1 }, RangeError, '"*"'],
    [null, TypeError, "replay must be"],
    [1, TypeError, "replay must be"],
  ];
  for (const [replay, kind, message] of wrong) {
    assertThrows(() => new Bus({ replay } as never), kind, message);
  }
});

Deno.test("Any type can be replayed", async () => {
  for (const type of ["", "__proto__", "constructor", "error"]) {
    const bus = new Bus<Record<string, number>>({ replay: { [type]: 1 } });
    await bus.publish(type, 1);
    await bus.publish("toString", 1);
    assertEquals((await bus.once(type)).type, type);
  }
});

// ── Events that nobody gets ─────────────────────────────────────────────────

Deno.test("Bus tells onUnheard of an event that nobody wants", async () => {
  const unheard: BusEvent[] = [];
  const { bus } = open({
    onUnheard: (event) => void unheard.push(event),
    replay: { n: 1 },
  });
  const first = await bus.publish("n", 1);
  assertStrictEquals(unheard[0], first);
  const filter = ({ data }: BusEvent) => {
    if (data === 2) throw BOOM;
    return data === 3;
  };
  const capacity = 1;
  const options = { filter, capacity, overflow: "drop-newest" } as const;
  const subscription = bus.subscribe("n", options);
  bus.tryPublish("n", 2);
  bus.tryPublish("n", 3);
  bus.tryPublish("n", 3); // dropped, but somebody listens
  bus.tryPublish("n", 4);
  subscription.unsubscribe();
  bus.tryPublish("n", 5);
  await bus.close();
  bus.tryPublish("n", 6);
  assertEquals(unheard.map(({ data }) => data), [1, 2, 4, 5]);
});

Deno.test("Bus tells onUnheard of an event whose only taker has gone meanwhile", async () => {
  const unheard: unknown[] = [];
  const { bus } = open({ onUnheard: ({ data }) => void unheard.push(data) });
  const steps: unknown[] = [];
  bus.observe({ unheard: ({ event }) => void steps.push(event.data) });
  const taker = bus.subscribe("n");
  bus.subscribe("n", { filter: () => (taker.unsubscribe(), false) });
  await bus.publish("n", 1);
  assertEquals([unheard, steps], [[1], [1]]);
});

Deno.test("Bus does not tell onUnheard of an event that was refused", async () => {
  const unheard: BusEvent[] = [];
  const { bus } = open({ onUnheard: (event) => void unheard.push(event) });
  bus.subscribe("n", { capacity: 1, overflow: "reject" });
  publishAll(bus, [1, 2]);
  bus.tryPublish("n", 3);
  await flush();
  assertEquals(unheard, []);
});

Deno.test("What onUnheard publishes is no matter for onUnheard", async () => {
  const unheard: unknown[] = [];
  const { bus } = open({
    onUnheard(event) {
      unheard.push(event.data);
      bus.publish("s", "nobody got it", { cause: event });
    },
  });
  const told: unknown[] = [];
  bus.observe({ unheard: ({ event }) => void told.push(event.data) });
  publishAll(bus, [1, 2]);
  await flush();
  assertEquals(unheard, [1, 2]);
  assertEquals(told, [1, "nobody got it", 2, "nobody got it"]);
});

Deno.test("onUnheard is told in the order of publishing, also if an observer publishes", async () => {
  const unheard: unknown[] = [];
  const { bus } = open({ onUnheard: ({ data }) => void unheard.push(data) });
  bus.observe({
    published({ event: { data } }) {
      if (data === 1) publishAll(bus, [2, 3]);
      if (data === 3) publishAll(bus, [4]);
    },
  });
  await bus.publish("n", 1);
  await bus.publish("n", 5);
  assertEquals(unheard, [1, 2, 3, 4, 5]);
});

Deno.test("What onUnheard throws is reported, and the event is published", async () => {
  using reports = catchReports();
  const bus = new Bus<Events>({
    onUnheard() {
      throw BOOM;
    },
  });
  assertEquals((await bus.publish("n", 1)).data, 1);
  assert(bus.tryPublish("n", 2));
  assertEquals(reports.errors, [BOOM, BOOM]);
  assertThrows(
    () => new Bus({ onUnheard: 1 } as never),
    TypeError,
    "onUnheard",
  );
});

Deno.test("Bus.once() takes one of several replayed events, and observers hear of no other", async () => {
  const { bus } = open({ replay: { n: 3 } });
  publishAll(bus, range(3));
  const steps: string[] = [];
  using _ = bus.observe({
    queued: ({ event }) => steps.push(`queued ${event.data}`),
    delivered: ({ event }) => steps.push(`delivered ${event.data}`),
    dropped: ({ event }) => steps.push(`dropped ${event.data}`),
  });
  assertEquals((await bus.once("n")).data, 0);
  assertEquals(steps, ["queued 0", "delivered 0"]);
});

Deno.test("Bus.once() that a filter has served meanwhile does not hold up the publisher", async () => {
  const { bus } = open();
  const once = bus.once("n");
  bus.subscribe("n", {
    filter: ({ data }) => {
      if (data === 1) bus.publish("n", 2); // which is what `once` gets
      return true;
    },
  });
  const outer = follow(bus.publish("n", 1));
  await flush();
  assertEquals([(await once).data, outer.state], [2, "resolved"]);
});
