import {
  assert,
  assertEquals,
  assertFalse,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import type { Bus, BusObserver, BusStep } from "../bus.ts";
import {
  BOOM,
  type Events,
  open,
  publishAll,
  read,
  READING,
  stopClocks,
} from "./_bus.ts";
import { catchReports, flush, follow } from "./_helpers.ts";

const STEPS = [
  ...["published", "queued", "dropped", "delivered"] as const,
  ...["handled", "failed", "unheard"] as const,
];

/** An observer with all methods, each of which calls `tell`. */
function observer(
  tell: (what: keyof BusObserver, step: BusStep) => void,
): BusObserver {
  return Object.fromEntries(
    STEPS.map((what) => [what, (step: BusStep) => tell(what, step)]),
  );
}

/** What an observer is told, a line each, until it is disposed of. */
function watch(bus: Bus<Events>) {
  const lines: string[] = [];
  const observing = bus.observe(observer((what, step) => {
    const { event, subscription, depth, reason, error } = step;
    const line = [what, event.data, subscription, depth, reason, error];
    lines.push(line.filter((part) => part !== undefined).join(" "));
  }));
  return Object.assign(observing, { lines });
}

Deno.test("Bus.observe() tells each step of an event", async () => {
  const { bus } = open();
  const { lines } = watch(bus);
  bus.on("n", () => {}, { name: "on" });
  bus.on("n", () => Promise.reject(BOOM), { name: "fails" });
  read(bus.subscribe("n", { name: "loop" }), () => {});
  bus.subscribe("n", { name: "filtered", filter: () => false });
  await bus.publish("n", 1);
  assertEquals(lines.splice(0), [
    "published 1",
    "queued 1 on 1",
    "queued 1 fails 1",
    "queued 1 loop 1",
  ]);
  await flush();
  assertEquals(lines.splice(0).sort(), [
    "delivered 1 fails 0",
    "delivered 1 loop 0",
    "delivered 1 on 0",
    "failed 1 fails Error: boom",
    "handled 1 on",
  ]);
  bus.tryPublish("s", "nobody");
  assertEquals(lines, ["published nobody", "unheard nobody"]);
});

Deno.test("Bus.observe() tells why an event is dropped", async () => {
  const { bus } = open();
  const { lines } = watch(bus);
  const controller = new AbortController();
  const { signal } = controller;
  const subscribe = (name: string, overflow: "drop-oldest" | "drop-newest") =>
    bus.subscribe("n", { name, overflow, capacity: 1 });
  subscribe("oldest", "drop-oldest");
  subscribe("newest", "drop-newest");
  const wait = bus.subscribe("n", { name: "wait", capacity: 1 });
  publishAll(bus, [1]);
  lines.length = 0;
  const task = follow(bus.publish("n", 2, { signal }));
  assertEquals(lines.splice(0), [
    "published 2",
    "dropped 1 oldest 0 overflow",
    "queued 2 oldest 1",
    "dropped 2 newest 1 overflow",
    "queued 2 wait 1",
  ]);
  controller.abort(BOOM);
  assertEquals(lines.splice(0), ["dropped 2 wait 1 withdrawn"]);
  await flush();
  assertStrictEquals(task.error, BOOM);
  publishAll(bus, [3]);
  lines.length = 0;
  wait.unsubscribe();
  assertEquals(lines.splice(0), [
    "dropped 1 wait 0 ended",
    "dropped 3 wait 0 ended",
  ]);
  bus.abort();
  assertEquals(lines, ["dropped 3 oldest 0 ended", "dropped 1 newest 0 ended"]);
});

Deno.test("Bus.abort() drops what a publisher waits for in several queues, as ended", () => {
  const { bus } = open();
  for (const name of ["a", "b"]) bus.subscribe("n", { name, capacity: 1 });
  publishAll(bus, [1, 2]);
  const { lines } = watch(bus);
  bus.abort(BOOM);
  assertEquals(
    lines.sort(),
    [
      "dropped 1 a 0 ended",
      "dropped 1 b 0 ended",
      "dropped 2 a 0 ended",
      "dropped 2 b 1 ended", // its publisher left before "b" was reached
    ].sort(),
  );
});

Deno.test("A step says how long it took, and nothing that does not belong to it", async () => {
  const { bus } = open();
  const steps: Record<string, BusStep[]> = {};
  bus.observe(observer((what, step) => (steps[what] ??= []).push(step)));
  bus.on("n", ({ data }) => {
    if (data === 2) throw BOOM;
  }, { name: "on" });
  bus.on("n", async ({ data }) => {
    await undefined;
    if (data === 2) throw BOOM;
  }, { name: "later" });
  bus.subscribe("n", {
    filter() {
      throw BOOM;
    },
  });
  const event = await bus.publish("n", 1);
  publishAll(bus, [2]);
  bus.tryPublish("s", "");
  await flush();
  const keys = (what: string) =>
    [...new Set(steps[what].map((step) => Object.keys(step).sort().join()))]
      .sort();
  assertEquals(keys("published"), ["at,event"]);
  assertEquals(keys("unheard"), ["at,event"]);
  assertEquals(keys("queued"), [
    "at,depth,event,subscription,subscriptionId",
  ]);
  assertEquals(keys("delivered"), [
    "at,depth,event,handler,subscription,subscriptionId,waited",
  ]);
  assertEquals(keys("handled"), [
    "at,event,handler,subscription,subscriptionId,waited",
  ]);
  assertEquals(keys("failed"), [
    "at,error,event,handler,subscription,subscriptionId", // that of the filter
    "at,error,event,handler,subscription,subscriptionId,waited",
  ]);
  assert(steps.published.some((step) => step.event === event));
  for (const what of ["delivered", "handled", "failed"]) {
    for (const { waited } of steps[what]) assert((waited ?? 0) >= 0);
  }
});

Deno.test("A step says how long an event waited, whatever is done to the clock", async () => {
  using clocks = stopClocks();
  const { bus } = open({ replay: { s: 1 } });
  const at = new Map<unknown, number>();
  const waits: unknown[] = [];
  bus.observe({
    published: (step) => void at.set(step.event.data, step.at),
    delivered({ event: { data }, at: now, waited }) {
      waits.push([data, waited, now - at.get(data)!]);
    },
  });
  const iterator = bus.subscribe("n")[Symbol.asyncIterator]();
  bus.tryPublish("n", 1);
  clocks.pass(0.5);
  bus.tryPublish("n", 2);
  clocks.set(3_600_000);
  clocks.pass(0.25);
  await iterator.next();
  clocks.set(-7_200_000);
  bus.tryPublish("n", 3);
  await iterator.next();
  clocks.pass(2);
  await iterator.next();
  bus.tryPublish("s", "kept");
  clocks.pass(8.5);
  await bus.subscribe("s")[Symbol.asyncIterator]().next();
  const expected = [[1, 0.75], [2, 0.25], [3, 2], ["kept", 8.5]];
  assertEquals(waits, expected.map(([data, waited]) => [data, waited, waited]));
});

Deno.test("A step says how long an event waited that nobody observed at first, to the millisecond", async () => {
  using clocks = stopClocks();
  const { bus } = open();
  const iterator = bus.subscribe("n")[Symbol.asyncIterator]();
  publishAll(bus, [1, 2, 3]);
  clocks.pass(5);
  const waits: unknown[] = [];
  bus.observe({ delivered: ({ waited }) => void waits.push(waited) });
  await iterator.next();
  clocks.pass(20);
  await bus.publish("n", 4);
  await iterator.next();
  clocks.set(-1000); // what others do to the clock later does not matter
  await bus.publish("n", 5);
  await iterator.next();
  assertEquals(waits, [5, 25, 25]);
});

Deno.test("What one publish() does happens at one time, in the order of publishing", async () => {
  using clocks = stopClocks(0.25);
  const { bus } = open();
  const steps: string[] = [];
  bus.observe(observer((what, { event: { data }, at }) => {
    steps.push(`${what} ${data} at ${at - 1000}`);
  }));
  for (const overflow of ["drop-oldest", "drop-newest"] as const) {
    bus.subscribe("n", { capacity: 1, overflow });
  }
  bus.subscribe("n", {
    filter({ data }) {
      clocks.pass(1);
      if (data === 2) bus.tryPublish("s", "from a filter");
      clocks.pass(1);
      return true;
    },
  });
  publishAll(bus, [1, 2]);
  await flush();
  assertEquals(steps, [
    "published 1 at 3.5",
    ...["queued 1 at 3.5", "queued 1 at 3.5", "queued 1 at 3.5"],
    "published from a filter at 4.75",
    "unheard from a filter at 4.75",
    "published 2 at 6",
    "dropped 1 at 6",
    "queued 2 at 6",
    "dropped 2 at 6",
    "queued 2 at 6",
  ]);
});

Deno.test("A step says how long a handler took, and when it happened", async () => {
  using clocks = stopClocks();
  const { bus } = open();
  const steps: string[] = [];
  bus.observe(observer((what, { at, waited, event: { data } }) => {
    if (what !== "queued") steps.push(`${what} ${data} ${at - 1000} ${waited}`);
  }));
  bus.on("n", async ({ data }) => {
    clocks.pass(1);
    await undefined;
    clocks.pass(data);
    if (data === 3) throw BOOM;
  });
  publishAll(bus, [2, 3]);
  await flush();
  assertEquals(steps, [
    "published 2 0.25 undefined",
    "published 3 0.25 undefined",
    "delivered 2 0.25 0",
    "handled 2 3.25 3",
    "delivered 3 3.25 3",
    "failed 3 7.25 4",
  ]);
});

Deno.test("Bus.observe() has several observers, told in turn until they are disposed of", async () => {
  const { bus } = open();
  const [first, second] = [watch(bus), watch(bus)];
  const own = {
    count: 0,
    published() {
      this.count++;
    },
  };
  const twice = [bus.observe(own), bus.observe(own)];
  await bus.publish("n", 1);
  assertEquals(own.count, 2);
  twice[0][Symbol.dispose]();
  twice[0][Symbol.dispose]();
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  await bus.publish("n", 2);
  assertEquals(own.count, 3);
  assertEquals(first.lines, ["published 1", "unheard 1"]);
  assertEquals(second.lines, [
    ...first.lines,
    "published 2",
    "unheard 2",
  ]);
});

Deno.test("Bus.observe() in the middle of an event tells what comes after it", async () => {
  const { bus } = open();
  bus.on("n", () => {}, { name: "a" });
  bus.on("n", () => {}, { name: "b" });
  let late: ReturnType<typeof watch> | undefined;
  const early: string[] = [];
  const observing = bus.observe({
    queued({ subscription }) {
      early.push(subscription!);
      late ??= watch(bus); // while "b" has the event, and nobody was told
      observing[Symbol.dispose]();
    },
  });
  await bus.publish("n", 1);
  assertEquals([early, late?.lines], [["a"], []]);
  await flush();
  assertEquals(late?.lines.sort(), [
    "delivered 1 a 0",
    "delivered 1 b 0",
    "handled 1 a",
    "handled 1 b",
  ]);
});

Deno.test("Bus.observe() refuses what is no observer", () => {
  const { bus } = open();
  for (const wrong of [undefined, null, () => {}, { queued: 1 }]) {
    assertThrows(() => bus.observe(wrong as never), TypeError, "must be");
  }
  bus.observe({});
  bus.observe({ queued: undefined });
});

Deno.test("What an observer throws is reported and changes nothing", async () => {
  using reports = catchReports();
  const { bus, errors, seen, see } = open();
  bus.observe(observer(() => {
    throw BOOM;
  }));
  const { lines } = watch(bus);
  bus.on("n", ({ data }) => see(data), { name: "on" });
  await bus.publish("n", 1);
  await flush();
  const expected = [
    "published 1",
    "queued 1 on 1",
    "delivered 1 on 0",
    "handled 1 on",
  ];
  assertEquals([seen, errors, lines], [[1], [], expected]);
  assertEquals(reports.errors, expected.map(() => BOOM));
});

for (const step of ["published", "queued", "delivered", "handled"] as const) {
  Deno.test(`An observer may publish when told of "${step}": in order for all`, async () => {
    const { bus } = open();
    const seen: Record<string, unknown[]> = { a: [], b: [], c: [] };
    bus.on("*", ({ data }) => seen.a.push(data), { name: "a" });
    read(bus.subscribe("*", { name: "b" }), (data) => seen.b.push(data));
    bus.on("*", async ({ data }) => {
      await undefined;
      seen.c.push(data);
    }, { name: "c" });
    let told = 0;
    const observing = bus.observe({
      [step](_: BusStep) {
        if (++told <= 2) bus.tryPublish("s", `told ${told}`);
      },
    });
    const steps: [what: string, data: unknown, name: unknown][] = [];
    bus.observe(observer((what, { event, subscription }) => {
      steps.push([what, event.data, subscription]);
    }));
    await bus.publish("n", 1);
    await bus.publish("n", 2);
    await flush();
    observing[Symbol.dispose]();
    assertEquals(seen.a.length, 4);
    assertEquals([seen.b, seen.c], [seen.a, seen.a]);
    const order = steps.filter(([what]) => what === "published");
    assertEquals(order.map(([_, data]) => data), seen.a);
    assertEquals(new Set(steps.map(String)).size, steps.length); // none twice
    for (const data of seen.a) {
      const [first] = steps.filter((step) => step[1] === data);
      assertEquals(first[0], "published");
    }
  });
}

Deno.test("An observer may end what it is told of", async () => {
  for (const step of ["published", "queued", "delivered"] as const) {
    for (const how of ["unsubscribe", "close", "abort"] as const) {
      const { bus, errors, seen, see } = open();
      const own = bus.on("n", ({ data }) => see(data));
      const { lines } = watch(bus);
      bus.observe({
        [step]() {
          if (how === "unsubscribe") own.unsubscribe();
          else follow(bus[how](BOOM));
        },
      });
      const task = follow(bus.publish("n", 1));
      await flush();
      assertEquals([task.state, errors], ["resolved", []]); // it has its place
      const kept = step === "delivered" || how === "close";
      assertEquals(seen, kept ? [1] : []);
      const fates = lines.filter((line) => /^(delivered|dropped)/.test(line));
      assertEquals(fates, [kept ? "delivered 1 n 0" : "dropped 1 n 0 ended"]);
      await bus.close();
    }
  }
});

Deno.test("An observer who comes while a handler runs hears of its end", async () => {
  const { bus, passed, go } = open();
  bus.on("n", () => passed, { name: "slow" });
  await bus.publish("n", 1);
  await flush();
  const steps: BusStep[] = [];
  bus.observe({ handled: (step) => void steps.push(step) });
  go();
  await flush();
  const [{ subscription, waited }] = steps;
  assertEquals([subscription, waited, steps.length], ["slow", undefined, 1]);
  assertFalse("waited" in steps[0]);
});

Deno.test("BusObserver.trace(): nothing leaves the trace as it is", async () => {
  const { bus } = open();
  bus.observe({ trace: () => undefined });
  const { trace } = await bus.publish("n", 1, { trace: "kept" });
  bus.observe({ trace: () => "new" });
  bus.observe({ trace: () => undefined });
  const second = await bus.publish("n", 1, { trace: "replaced" });
  const third = await bus.publish("n", 1);
  assertEquals([trace, second.trace, third.trace], ["kept", "new", "new"]);
});

Deno.test("BusObserver.trace(): what is no string is reported, and changes nothing", async () => {
  using reports = catchReports();
  const { bus } = open();
  using _ = bus.observe({ trace: () => 1 as unknown as string });
  const { trace } = await bus.publish("n", 1, { trace: "kept" });
  assertEquals(trace, "kept");
  assertEquals((reports.errors[0] as Error).name, "TypeError");
});

Deno.test("An event is queued before it is delivered, also to a reader who waits for it", async () => {
  for (const capacity of [1, 2]) {
    for (const [way, on] of Object.entries(READING)) {
      const { bus } = open();
      const steps: string[] = [];
      bus.observe(
        observer((what, { event }) => steps.push(`${what} ${event.data}`)),
      );
      on(bus, () => {}, { capacity });
      await flush(); // it waits
      await bus.publish("n", 1);
      await flush();
      assertEquals(steps.slice(0, 3), [
        "published 1",
        "queued 1",
        "delivered 1",
      ], `${way}, ${capacity}`);
    }
  }
});

Deno.test("Readers are served in the order in which they ask, whatever an observer does meanwhile", async () => {
  const { bus } = open();
  const subscription = bus.subscribe("n", { capacity: 2 });
  const log: string[] = [];
  for (const name of ["one", "two", "three"]) {
    read(subscription, (n) => log.push(`${name} ${n}`));
  }
  bus.observe({
    delivered({ event }) {
      if (event.data === 1) publishAll(bus, [2, 3]); // this fills its queue
    },
  });
  await bus.publish("n", 1);
  await flush();
  assertEquals(log, ["one 1", "two 2", "three 3"]);
});

Deno.test("An event is told as delivered before what an observer does about a publisher in line", async () => {
  const { bus } = open();
  const controller = new AbortController();
  const { signal } = controller;
  const iterator = bus.subscribe("n", { capacity: 2 })[Symbol.asyncIterator]();
  signal.addEventListener("abort", () => void iterator.next());
  publishAll(bus, [1, 2]);
  const third = follow(bus.publish("n", 3, { signal }));
  const { lines } = watch(bus);
  bus.observe({ dropped: () => void bus.tryPublish("n", 4) });
  controller.abort(BOOM);
  await flush();
  assertStrictEquals(third.error, BOOM);
  assertEquals(lines, [
    "dropped 3 n 1 withdrawn",
    "delivered 1 n 1",
    "published 4",
    "queued 4 n 2",
  ]);
});

Deno.test("A reader has its event before an observer who is told of it ends the others", async () => {
  const { bus, journal } = open();
  const iterator = bus.subscribe("n")[Symbol.asyncIterator]();
  for (const name of ["first", "second"]) {
    const next = iterator.next();
    journal.follow(name, next.then(({ done }) => done ? "end" : "event"));
  }
  bus.observe({ delivered: () => void bus.close() });
  await bus.publish("n", 1);
  await flush();
  assertEquals(journal.lines, ["first: event", "second: end"]);
});
