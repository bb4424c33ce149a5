import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import { Bus, type BusEvent, type BusStep, LinkError } from "../bus.ts";
import {
  broadcastLink,
  decodeEvent,
  encodeEvent,
  LinkClosedError,
  type LinkEvent,
  type LinkState,
  portLink,
} from "../link.ts";
import { receiveFrom, sendTo } from "../port.ts";
import { Queue, QueueClosedError, QueueFullError } from "../queue.ts";
import { logTo, Recorder, toCloudEvent } from "../trace.ts";
import {
  catchReports,
  deferred,
  flush,
  follow,
  range,
  replaceGlobals,
} from "./_helpers.ts";
import {
  came,
  collect,
  type Events,
  FakeLink,
  openBus,
  stopTimers,
} from "./_links.ts";
import { MemoryMedium } from "./_memory_link.ts";
import {
  fakePorts,
  isWorkerd,
  nodePorts,
  realPorts,
  tellsOfEnd,
  WORKERS,
} from "./_ports.ts";
import { Workers } from "./_workers.ts";
import type { Events as WorkerEvents } from "./workers/bus.ts";

const BOOM = new Error("boom");

const { setTimeout } = globalThis; // not that of a test

/** Waits until something holds that takes more than promises. */
async function until(holds: () => boolean) {
  for (let turn = 0; !holds(); turn++) {
    if (turn > 5000) throw new Error(`It never happened: ${holds}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

// ------------------------------------------------------------------ what crosses

Deno.test("Bus.connect() carries events to another bus, with all that says who and why", async () => {
  const medium = new MemoryMedium();
  const [here, there] = [openBus().bus, openBus().bus];
  await using _ = await here.connect(medium.link());
  await using __ = await there.connect(medium.link());
  const arrived: unknown[] = [];
  there.on("*", (event) => void arrived.push(event));

  const cause = await here.publish("s", "why", { source: "table 7" });
  const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const event = await here.publish("n", 1, { source: "front", cause, trace });
  await until(() => arrived.length === 2);

  const [first, second] = arrived as (typeof event)[];
  assertEquals(first.origin, second.origin);
  assert(first.origin !== undefined && event.origin === undefined);
  assertEquals({ ...second }, { ...event, origin: first.origin });
  assert(Object.isFrozen(second));
});

Deno.test("Bus.connect() sends nothing back, and nothing on", async () => {
  // a ── left ── b ── right ── c, and all three are on "ring"
  const [left, right, ring] = range(3).map(() => new MemoryMedium());
  const [a, b, c] = range(3).map(() => openBus());
  const open = (bus: Bus<Events>, medium: MemoryMedium) =>
    bus.connect(medium.link());
  const connections = [
    await open(a.bus, left),
    await open(b.bus, left),
    await open(b.bus, right),
    await open(c.bus, right),
  ];
  const seen = [a, b, c].map(({ bus }) => collect(bus));
  await a.bus.publish("n", 1);
  await until(() => seen[1].length === 1);
  await flush();
  assertEquals(seen, [[1], [1], []]);

  for (const { bus } of [a, b, c]) connections.push(await open(bus, ring));
  await a.bus.publish("n", 2);
  await until(() => seen[2].length === 1);
  await flush();
  assertEquals(seen, [[1, 2], [1, 2], [2]]); // b has it from both, once
  for (const one of connections) await one[Symbol.asyncDispose]();
  for (const { errors } of [a, b, c]) assertEquals(errors, []);
});

Deno.test("Bus.connect() of one bus to one medium, twice, loses nothing and repeats nothing", async () => {
  const medium = new MemoryMedium();
  const [here, there] = [openBus(), openBus()];
  const seen = [collect(here.bus), collect(there.bus)];
  await here.bus.connect(medium.link(), { types: "s" });
  await here.bus.connect(medium.link(), { types: "n" });
  await there.bus.connect(medium.link());
  for (const n of range(5)) await here.bus.publish("n", n);
  await until(() => seen[1].length === 5);
  await here.bus.close();
  await there.bus.close();
  assertEquals(seen, [range(5), range(5)]);
  assertEquals([...here.errors, ...there.errors], []);
});

Deno.test("Bus.connect() lets only `types` cross, in both directions; a topic is for those who share it", async () => {
  const link = new FakeLink();
  const { bus, errors } = openBus();
  const seen: unknown[] = [];
  bus.on("*", ({ type, data }) => void seen.push([type, data]));
  const connection = await bus.connect(link, { types: ["n"], topic: "orders" });
  await bus.publish("s", "own");
  await bus.publish("n", 1);
  link.come({ type: "s", data: "theirs", seq: 1 });
  link.come({ type: "n", data: 2, seq: 2 }); // and that is no gap
  await flush();
  await connection[Symbol.asyncDispose]();
  assertEquals(seen, [["s", "own"], ["n", 1], ["n", 2]]);
  assertEquals(link.sent, [1]);
  assertEquals(link.calls, ["receive orders", "send orders", "stop orders"]);
  assertEquals(errors, []);
});

Deno.test("Bus.connect() begins when it resolves: what is kept for newcomers stays here", async () => {
  const { bus } = openBus({ replay: { n: 10 } });
  const link = new FakeLink();
  await bus.publish("n", 1);
  await using _ = await bus.connect(link);
  await bus.publish("n", 2);
  link.come({ data: 3 });
  await flush();
  assertEquals(link.sent, [2]);
  const late = collect(bus); // what came is kept like all others
  await flush();
  assertEquals(late, [1, 2, 3]);
});

Deno.test("Bus.connect() takes events of others that are no bus of ours, and knows them by source and id", async () => {
  const { bus } = openBus();
  const link = new FakeLink();
  await using _ = await bus.connect(link);
  const seen: unknown[] = [];
  bus.on("n", ({ source, id, origin }) => void seen.push([source, id, origin]));
  const foreign = { origin: undefined, seq: undefined };
  link.come({ ...foreign, source: "a", id: "1" });
  link.come({ ...foreign, source: "b", id: "1" });
  link.come({ ...foreign, source: "a", id: "1" });
  await flush();
  assertEquals(seen, [["a", "1", "unknown"], ["b", "1", "unknown"]]);
  assertEquals(link.batches, []); // and does not send them on
});

// ----------------------------------------------------------------------- states

Deno.test("Bus.connect() rejects once the bus is closed or aborted, and touches no link", async () => {
  for (const end of ["close", "abort"] as const) {
    const { bus } = openBus();
    await bus[end](BOOM as never);
    const link = new FakeLink();
    const error = await bus.connect(link).catch((error) => error);
    if (end === "close") assertInstanceOf(error, QueueClosedError);
    else assertStrictEquals(error, BOOM);
    assertEquals(link.calls, []);
  }
});

Deno.test("Bus.connect() rejects if the bus ends before the link receives, which is stopped then", async () => {
  for (const end of ["close", "abort"] as const) {
    const { bus } = openBus();
    const link = new FakeLink();
    const { promise, resolve } = deferred();
    link.receiving = () => promise;
    const connecting = follow(bus.connect(link));
    await until(() => link.calls.length === 1);
    await bus[end](BOOM as never);
    await flush();
    assertEquals(connecting.state, "rejected");
    if (end === "close") assertInstanceOf(connecting.error, QueueClosedError);
    else assertStrictEquals(connecting.error, BOOM);
    resolve();
    await flush();
    assertEquals(link.calls, ["receive bus", "stop bus"]);
    assertEquals(bus.inspect().links, undefined);
  }
});

Deno.test("Bus.connect() rejects as the link does, and leaves nothing behind", async () => {
  const { bus, errors } = openBus();
  for (
    const receive of [() => Promise.reject(BOOM), () => {
      throw BOOM;
    }]
  ) {
    const link = new FakeLink();
    Object.assign(link, { receive });
    assertStrictEquals(await bus.connect(link).catch((e) => e), BOOM);
  }
  assertEquals(bus.inspect(), {
    name: "bus",
    closed: false,
    published: 0,
    subscriptions: [],
  });
  assertEquals(errors, []);
});

Deno.test("Bus.connect() refuses what is no link, and options out of range", async () => {
  const { bus } = openBus();
  for (const link of [undefined, null, 1, {}, { caps: {} }]) {
    await assertRejects(() => bus.connect(link as never), TypeError, "a Link");
  }
  const link = new FakeLink();
  for (
    const [options, Kind] of [
      [{ capacity: 0 }, RangeError],
      [{ overflow: "never" }, RangeError],
      [{ grace: -1 }, RangeError],
      [{ grace: NaN }, RangeError],
      [{ topic: 1 }, TypeError],
      [{ name: 1 }, TypeError],
      [{ types: [] }, RangeError],
    ] as const
  ) await assertRejects(() => bus.connect(link, options as never), Kind);
  assertEquals(link.calls, []);
});

Deno.test("Bus.connect(): disposal sends what was published, stops, and is done once", async () => {
  const { bus } = openBus();
  const link = new FakeLink();
  const connection = await bus.connect(link);
  for (const n of range(1000)) bus.publish("n", n);
  await Promise.all([
    connection[Symbol.asyncDispose](),
    connection[Symbol.asyncDispose](),
  ]);
  assertEquals(link.sent, range(1000));
  assertEquals(link.seqs, range(1001).slice(1));
  assertEquals(link.calls.filter((call) => call === "stop bus").length, 1);
  assert(!link.calls.includes("close")); // it is the caller's
  await bus.publish("n", 1000);
  link.come({ data: "late" });
  assertEquals(link.sent.length, 1000);
  assertEquals(bus.inspect().subscriptions, []);
  assertEquals(bus.inspect().links, undefined);
});

Deno.test("Bus.close() waits for links; Bus.abort() sends nothing more", async () => {
  for (const end of ["close", "abort"] as const) {
    const opened = openBus();
    const { bus } = opened;
    const link = new FakeLink();
    const { promise, resolve } = deferred();
    link.sending = () => promise;
    await bus.connect(link);
    await bus.publish("n", 1);
    await flush(); // it is being sent
    await bus.publish("n", 2);
    const ending = follow(bus[end]());
    await flush();
    if (end === "close") {
      assertEquals(ending.state, "pending");
      link.sending = () => Promise.resolve();
    }
    resolve();
    await flush();
    assertEquals(ending.state, "resolved");
    assertEquals(link.sent, end === "close" ? [1, 2] : [1]);
    assertEquals(link.calls.at(-1), end === "close" ? "send bus" : "stop bus");
    assertEquals(opened.lost, end === "close" ? 0 : 1); // it may have arrived
  }
});

Deno.test("Bus.connect(): disposal takes `grace` at most, whatever hangs, and says what was not sent", async () => {
  for (const hangs of ["sending", "stopping"] as const) {
    using timers = stopTimers();
    const opened = openBus();
    const { bus } = opened;
    const link = new FakeLink();
    link[hangs] = () => new Promise(() => {});
    const connection = await bus.connect(link, { grace: 50 });
    await bus.publish("n", 1);
    await flush();
    await bus.publish("n", 2);
    const dropped: [data: unknown, how: unknown][] = [];
    bus.observe({
      dropped: ({ event, reason }) => dropped.push([event.data, reason]),
      failed: ({ event }) => dropped.push([event.data, "failed"]),
    });
    const disposing = follow(connection[Symbol.asyncDispose]());
    await flush();
    assertEquals(disposing.state, "pending");
    timers.fire(50);
    await flush();
    assertEquals(disposing.state, "resolved");
    if (hangs === "sending") {
      assertEquals(dropped.slice(0, 1), [[1, "failed"]]);
      assertEquals(dropped.filter(([_, how]) => how === "ended"), [[
        2,
        "ended",
      ]]);
      assertEquals(opened.troubles, [
        'Link "link bus" has lost 1 event: could not be sent: ' +
        "Error: the link was left before it took them",
        'Link "link bus" has lost 1 event: could not be sent: ' +
        "the link was left before it took them",
      ]);
      assertEquals(bus.inspect().links, undefined);
    }
    assertEquals(timers.waiting, []);
  }
});

Deno.test("Bus.connect(): a `grace` that is longer than a timer can wait is not over at once", async () => {
  const { setTimeout } = globalThis;
  let longest = 0;
  using _ = replaceGlobals({
    setTimeout: (then: () => void, ms = 0) => {
      longest = Math.max(longest, ms);
      return setTimeout(then, ms);
    },
  });
  const { bus } = openBus();
  const link = new FakeLink();
  let stopped = () => {};
  link.stopping = () => new Promise((resolve) => stopped = resolve);
  const connection = await bus.connect(link, { grace: 2 ** 31 });
  const disposing = follow(connection[Symbol.asyncDispose]());
  await flush();
  assert(longest < 2 ** 31); // such a timer would fire now
  stopped();
  await flush();
  assertEquals(disposing.state, "resolved");
});

// ------------------------------------------------------------------- going down

Deno.test("Bus.connect(): nobody waits for a link that is down; what is too much is dropped, and the other side knows", async () => {
  const { bus } = openBus();
  const link = new FakeLink();
  const connection = await bus.connect(link, { capacity: 2 });
  await bus.publish("n", 0);
  await flush();
  link.onState({ state: "down", reason: "no network" });
  const published = range(10).map((n) => follow(bus.publish("n", n + 1)));
  await flush();
  assertEquals(
    published.map(({ state }) => state),
    range(10).map(() => "resolved"),
  );
  const [outbox] = bus.inspect().subscriptions;
  assertEquals(bus.inspect().links![0].state, "down");
  link.onState({ state: "up" });
  await bus.publish("n", 11);
  await connection[Symbol.asyncDispose]();
  // one batch was in hand, two events were in the queue
  assertEquals(link.sent[0], 0);
  assertEquals(link.sent.slice(-3), [9, 10, 11]);
  assertEquals(outbox.dropped, 12 - link.sent.length);
  assertEquals(link.seqs.slice(-3), [10, 11, 12]); // the numbers tell of it
});

Deno.test("Bus.connect(): who waits for a link when it goes down goes on", async () => {
  const { bus, errors } = openBus();
  const link = new FakeLink();
  link.sending = () => new Promise(() => {});
  await bus.connect(link, { capacity: 1, grace: 0 });
  await bus.publish("n", 0);
  await flush();
  await bus.publish("n", 1);
  const waiting = range(3).map((n) => follow(bus.publish("n", n + 2)));
  await flush();
  assertEquals(
    waiting.map(({ state }) => state),
    range(3).map(() => "pending"),
  );
  link.onState({ state: "down" });
  await flush();
  assertEquals(
    waiting.map(({ state }) => state),
    range(3).map(() => "resolved"),
  );
  assertEquals(bus.inspect().subscriptions[0].dropped, 3);
  assertEquals(errors.length, 1); // that it is down
  await bus.close();
});

Deno.test("Bus.connect(): with `overflow` a link refuses, or drops, up or down", async () => {
  for (const overflow of ["reject", "drop-oldest", "drop-newest"] as const) {
    const { bus } = openBus();
    const link = new FakeLink();
    await bus.connect(link, { capacity: 2, overflow, grace: 0 });
    link.onState({ state: "down" });
    const outcomes = [];
    for (const n of range(6)) {
      outcomes.push(
        await bus.publish("n", n).then(() => "ok", (error) => {
          assertInstanceOf(error, QueueFullError);
          return "refused";
        }),
      );
      await flush();
    }
    const refuses = overflow === "reject";
    // the pump has one in hand
    assertEquals(outcomes, [
      ..."ok ok ok".split(" "),
      ...range(3).map(() => refuses ? "refused" : "ok"),
    ]);
    assertEquals(bus.inspect().subscriptions[0].dropped, refuses ? 0 : 3);
    link.onState({ state: "up" });
    await flush();
    assertEquals(
      link.sent,
      {
        "reject": [0, 1, 2],
        "drop-oldest": [0, 4, 5],
        "drop-newest": [0, 1, 2],
      }[overflow],
    );
    await bus.publish("n", 6);
    await bus.close();
    assertEquals(link.seqs.at(-1), refuses ? 4 : 7);
  }
});

Deno.test("Bus.connect(): a link that takes too long to answer counts as down until it does", async () => {
  using timers = stopTimers();
  const opened = openBus();
  const { bus } = opened;
  const link = new FakeLink({ confirms: true });
  const { promise, resolve } = deferred();
  link.sending = () => promise;
  await bus.connect(link, { capacity: 1 });
  await bus.publish("n", 0);
  await flush();
  await bus.publish("n", 1);
  const waiting = follow(bus.publish("n", 2));
  await flush();
  assertEquals(waiting.state, "pending");
  timers.fire(5000);
  await flush();
  assertEquals(waiting.state, "resolved");
  assertEquals(opened.troubles, [
    'Link "link bus" is down: it has not answered for 5000 ms',
  ]);
  resolve();
  await flush();
  assertEquals(bus.inspect().links![0].state, "up");
  assertEquals(link.sent, [0, 2]);
  await bus.close();
});

Deno.test("Bus.connect() sends again what a link that confirms has rejected, under the same numbers", async () => {
  using timers = stopTimers();
  const opened = openBus();
  const { bus } = opened;
  const link = new FakeLink({ confirms: true });
  let failures = 3;
  link.sending = () =>
    failures-- > 0 ? Promise.reject(BOOM) : Promise.resolve();
  await bus.connect(link);
  await bus.publish("n", 1);
  for (const _ of range(3)) {
    await flush();
    timers.fire();
  }
  await flush();
  assertEquals(link.seqs, [1, 1, 1, 1]);
  await bus.publish("n", 2);
  await bus.close();
  assertEquals(link.seqs, [1, 1, 1, 1, 2]);
  assertEquals(opened.errors, []);
  assertEquals(bus.inspect().links![0].sent, 2);
});

Deno.test("Bus.connect() gives up the one event that a link never takes, tells who and why, and sends the others", async () => {
  using timers = stopTimers();
  const opened = openBus();
  const { bus } = opened;
  const link = new FakeLink({ confirms: true });
  link.sending = () => {
    const poisoned = link.batches.at(-1)!.some(({ data }) => data === 13);
    return poisoned ? Promise.reject(BOOM) : Promise.resolve();
  };
  await bus.connect(link, { name: "to the kitchen" });
  const failed: BusStep[] = [];
  bus.observe({ failed: (step) => failed.push(step) });
  for (const n of [12, 13, 14]) bus.publish("n", n);
  for (const _ of range(20)) {
    await flush();
    timers.fire();
  }
  await bus.close();
  assertEquals(link.batches.slice(-3).map(([{ data }]) => data), [12, 13, 14]);
  assertEquals(opened.troubles, [
    'Link "to the kitchen" has lost 1 event: could not be sent: Error: boom',
  ]);
  const [first, second] = failed;
  assertEquals(first.event.data, 13);
  assertStrictEquals(first.error, BOOM);
  assertEquals(first.subscription, "to the kitchen");
  assertInstanceOf(second.error, LinkError);
  assertEquals(second.event.type, "link.gap");
  assertStrictEquals(opened.errors[0].cause, BOOM);
  assertEquals(bus.inspect().links![0].unsent, 1);
});

Deno.test("Bus.connect() gives up at once what a link that does not confirm rejects", async () => {
  const opened = openBus();
  const { bus } = opened;
  const link = new FakeLink();
  link.sending = () => Promise.reject(BOOM);
  await bus.connect(link);
  for (const n of range(3)) bus.publish("n", n);
  await flush();
  link.sending = () => Promise.resolve();
  await bus.publish("n", 3);
  await bus.close();
  assertEquals(opened.troubles, [
    'Link "link bus" has lost 3 events: could not be sent: Error: boom',
  ]);
  assertEquals(link.seqs, [1, 2, 3, 4]);
});

// ------------------------------------------------------------- the queues inside

Deno.test("Bus.connect() holds back a link that can be, while a subscription is full", async () => {
  const { bus } = openBus();
  const link = new FakeLink({ backpressure: true });
  await bus.connect(link, { capacity: 7 });
  assertEquals(link.options, { from: "new", maxInFlight: 7 });
  const slow = bus.subscribe("n", { capacity: 1 });
  const quick = collect(bus);
  assertEquals(link.come({ seq: 1 }), undefined);
  const held = follow(link.come({ seq: 2 })!);
  await flush();
  assertEquals(held.state, "pending");
  assertEquals(quick, [1, 2]);
  assertEquals(bus.inspect().links![0].waiting, 1);
  for await (const { data } of slow) {
    if (data === 1) await flush();
    else break;
  }
  assertEquals(held.state, "resolved");
  await bus.close();
});

Deno.test("Bus.connect() to a link that can't be held back: so many wait for a full subscription, which misses the next ones", async () => {
  const opened = openBus();
  const { bus } = opened;
  const link = new FakeLink();
  await bus.connect(link, { capacity: 3 });
  const slow = bus.subscribe("n", { capacity: 2 });
  const picky = bus.subscribe("n", { capacity: 2, overflow: "reject" });
  const quick = collect(bus);
  const dropped: unknown[] = [];
  bus.observe({
    dropped: ({ event, subscriptionId, reason }) =>
      dropped.push([event.data, subscriptionId, reason]),
  });
  for (const seq of range(10)) {
    assertEquals(link.come({ seq: seq + 1 }), undefined);
  }
  await flush();
  assertEquals(quick, range(11).slice(1));
  assertEquals([slow.dropped, picky.dropped], [5, 8]);
  assertEquals(dropped.length, 13);
  const read: number[] = [];
  for await (const { data } of slow) {
    read.push(data);
    if (data === 5) break;
  }
  assertEquals(read, [1, 2, 3, 4, 5]);
  assertEquals(opened.lost, 0); // no event is: `dropped` counts them
  await bus.close();
});

Deno.test("Bus.connect() asks a link with acks for an event again that a subscription refuses", async () => {
  const { bus } = openBus();
  const link = new FakeLink({ acks: true, backpressure: true });
  await bus.connect(link);
  const picky = bus.subscribe("n", { capacity: 1, overflow: "reject" });
  const seen: unknown[] = [];
  const first = came({ seq: 1 });
  const second = came({ seq: 2 });
  link.come(first);
  const refused = await Promise.resolve(link.come(second)).catch((e) => e);
  assertInstanceOf(refused, QueueFullError);
  assertEquals(link.come(first), undefined); // has been here
  const reading = (async () => {
    for await (const { data } of picky) seen.push(data);
  })();
  await flush();
  assertEquals(link.come(second), undefined); // again
  await flush();
  assertEquals(seen, [1, 2]);
  await bus.close();
  await reading;
  const late = await Promise.resolve(link.come({ seq: 3 })).catch((e) => e);
  assertInstanceOf(late, Error); // for somebody else
});

// ------------------------------------------------------------- losses, and peers

Deno.test("Bus.connect() tells observers and onError what is lost, once, and what the link says of itself", async () => {
  using timers = stopTimers();
  const opened = openBus();
  const { bus } = opened;
  const link = new FakeLink();
  const heard: LinkState[] = [];
  link.onState = (state) => void heard.push(state);
  const failed: unknown[] = [];
  bus.observe({
    failed: ({ event, error, handler }) =>
      failed.push([event.type, (error as LinkError).state, handler]),
  });
  const connection = await bus.connect(link);
  link.come({ seq: 1 });
  link.come({ seq: 5 });
  link.come({ seq: 4 }); // late, not lost
  assertEquals(bus.inspect().links![0].missing, 2);
  link.come({ seq: 5 + 1024 });
  assertEquals(opened.troubles, [
    'Link "link bus" has lost 2 events: of those from far.1',
  ]);
  const gap: LinkState = { state: "gap", reason: "trimmed" };
  link.onState(gap);
  link.onState({ state: "gap", lost: 3, reason: "trimmed" });
  assertEquals(opened.troubles.length, 1);
  timers.fire();
  assertEquals(opened.troubles.slice(1), [
    'Link "link bus" has lost 3 events: trimmed (and 1 more like it)',
  ]);
  link.onState({ state: "bad", reason: "what is that?" });
  link.onState({ state: "up" });
  assertEquals(heard.map(({ state }) => state), ["gap", "gap", "bad", "up"]);
  assertEquals(failed[0], ["link.gap", {
    state: "gap",
    lost: 2,
    reason: "of those from far.1",
  }, false]);
  assertInstanceOf(opened.errors[0], LinkError);
  assertEquals(opened.errors[0].event.type, "link.gap");
  assertEquals(opened.errors[0].subscription, "link bus");
  const { lost, missing } = bus.inspect().links![0];
  assertEquals({ lost, missing }, { lost: 2, missing: 1023 });
  await connection[Symbol.asyncDispose]();
  assertEquals(
    opened.troubles.at(-1),
    'Link "link bus" has lost 1023 events: until the link was left',
  );
  assertEquals(timers.waiting, []);
});

Deno.test("Bus.connect() warns on the console if nobody asked: a peer must not end the process", async () => {
  const warnings: unknown[] = [];
  using _ = replaceGlobals({
    console: { ...console, warn: (text: unknown) => warnings.push(text) },
  });
  const bus = new Bus<Events>();
  const link = new FakeLink();
  await bus.connect(link);
  link.come({ type: 7 as never });
  assertEquals(warnings, [
    'Link "link bus" has refused something: an event has no type',
  ]);
  await bus.close();
});

Deno.test("Bus.connect() refuses events that are none, whatever the driver lets pass", async () => {
  const opened = openBus();
  const { bus } = opened;
  const link = new FakeLink();
  const seen = collect(bus);
  await bus.connect(link);
  const long = "x".repeat(2000);
  const faults: Record<string, unknown>[] = [
    { id: 1 },
    { id: long },
    { type: undefined },
    { type: "*" },
    { source: null },
    { time: "now" },
    { time: NaN },
    { cause: {} },
    { trace: 1 },
    { origin: 5 },
    { origin: long },
    { seq: 0 },
    { seq: 1.5 },
    { seq: 2 ** 53 },
    { seq: "1" },
  ];
  for (const fault of faults) link.come(fault);
  for (const nothing of [undefined, null, 1, "event"]) {
    link.sink!(nothing as never, { ref: "", attempt: 1 });
  }
  link.come({ seq: 1 });
  await flush();
  assertEquals(seen, [1]);
  assertEquals(bus.inspect().links![0].refused, faults.length + 4);
  await bus.close();
  assertEquals(opened.errors.length, 2); // and not one for each
  assert(
    opened.troubles[1].endsWith(`(and ${faults.length + 2} more like it)`),
  );
});

Deno.test("Bus.connect(): a peer with a new origin each time gets no more memory than others", async () => {
  const { bus } = openBus();
  const link = new FakeLink();
  await bus.connect(link);
  collect(bus);
  for (const n of range(5000)) {
    link.come({ origin: `made up ${n}`, seq: n + 1 });
    assert(bus.inspect().links![0].origins <= 1024);
    if (n % 100 === 0) await flush();
  }
  assertEquals(bus.inspect().links![0].received, 5000);
  await bus.close();
});

Deno.test("Bus.connect(): several buses on one link object each hear its states, and so does who was there before", async () => {
  const link = new FakeLink();
  const heard: string[] = [];
  link.onState = ({ state }) => void heard.push(state);
  const [a, b] = [openBus(), openBus()];
  const first = await a.bus.connect(link);
  await b.bus.connect(link);
  link.onState({ state: "down" });
  assertEquals([heard, a.errors.length, b.errors.length], [["down"], 1, 1]);
  link.onState({ state: "up" });
  await first[Symbol.asyncDispose]();
  link.onState({ state: "down" });
  assertEquals([heard.length, a.errors.length], [3, 1]);
  const before = link.onState;
  link.onState = (state) => (heard.push("wrapped"), before(state));
  await a.bus.connect(link);
  link.onState({ state: "up" });
  assertEquals(heard, ["down", "up", "down", "wrapped", "up"]);
  await a.bus.close();
  await b.bus.close();
});

Deno.test("Bus.connect() shows a link as a destination, to observers and by inspect()", async () => {
  const { bus } = openBus();
  const link = new FakeLink();
  await bus.connect(link, { name: "to the kitchen", capacity: 5 });
  const steps: string[] = [];
  const note = (kind: string) => ({ event, subscription }: BusStep) =>
    void steps.push(`${kind} ${event.data} ${subscription ?? ""}`.trim());
  bus.observe({
    published: note("published"),
    queued: note("queued"),
    delivered: note("delivered"),
    unheard: note("unheard"),
  });
  await bus.publish("n", 1);
  link.come({ data: 2 });
  await flush();
  assertEquals(steps, [
    "published 1",
    "queued 1 to the kitchen",
    "published 2",
    "unheard 2",
    "delivered 1 to the kitchen",
  ]);
  const { subscriptions: [{ name, capacity, delivered }], links } = JSON.parse(
    JSON.stringify(bus.inspect()),
  );
  assertEquals([name, capacity, delivered], ["to the kitchen", 5, 1]);
  assertEquals(links, [{
    name: "to the kitchen",
    topic: "bus",
    state: "up",
    sent: 1,
    unsent: 0,
    received: 1,
    repeated: 0,
    refused: 0,
    lost: 0,
    missing: 0,
    waiting: 0,
    origins: 1,
  }]);
  await bus.close();
});

Deno.test("Bus.connect() counts what a link leaves out as unsent, once, and tells observers which it is", async () => {
  for (const confirms of [false, true]) {
    const { bus, errors } = openBus();
    const link = new FakeLink({ confirms });
    const told: unknown[] = [];
    let tries = 0;
    link.sending = () => { // leaves out the even ones; the first try fails
      for (const event of link.batches.at(-1)!) {
        if ((event.data as number) % 2 > 0) continue;
        link.onState({ state: "bad", reason: "even", event });
      }
      return confirms && tries++ === 0
        ? Promise.reject(BOOM)
        : Promise.resolve();
    };
    await bus.connect(link);
    bus.observe({
      failed: ({ event, error, handler }) =>
        error instanceof LinkError ||
        told.push([
          event.data,
          error instanceof Error && error.message,
          handler,
        ]),
    });
    for (const n of [1, 2, 3, 4]) await bus.publish("n", n);
    await until(() => bus.inspect().links![0].sent > 0);
    const [{ sent, unsent, refused }] = bus.inspect().links!;
    assertEquals([sent, unsent, refused], [2, 2, 2]);
    assertEquals(told, [[2, "even", false], [4, "even", false]]);
    assertEquals(link.sent, confirms ? [1, 2, 3, 4, 1, 3] : [1, 2, 3, 4]);
    JSON.stringify(errors.map(({ event }) => event)); // has only what JSON has a form for
    await bus.close();
  }
});

Deno.test("Bus.connect() of two buses to one link: what it leaves out counts for the one that has sent it", async () => {
  const link = new FakeLink();
  const [a, b] = [openBus(), openBus()];
  await a.bus.connect(link);
  await b.bus.connect(link);
  link.sending = () => {
    const [event] = link.batches.at(-1)!;
    link.onState({ state: "bad", event });
    return Promise.resolve();
  };
  await a.bus.publish("n", 1);
  await flush();
  const counts = [a, b].map(({ bus }) => bus.inspect().links![0]);
  assertEquals(counts.map(({ sent, unsent }) => [sent, unsent]), [[0, 1], [
    0,
    0,
  ]]);
  await a.bus.close();
  await b.bus.close();
});

Deno.test("Bus.connect(): what an onState throws that was there before is reported, and stops neither link nor bus", async () => {
  using reports = catchReports();
  const link = new FakeLink();
  link.onState = () => {
    throw BOOM;
  };
  const [a, b] = [openBus(), openBus()];
  await a.bus.connect(link);
  await b.bus.connect(link);
  link.onState({ state: "down" });
  assertEquals([a.errors.length, b.errors.length], [1, 1]);
  assertEquals(reports.errors, [BOOM]);
  await a.bus.close();
  await b.bus.close();
});

Deno.test("Bus.connect(): errors and lineage name the way across processes", async () => {
  const medium = new MemoryMedium();
  const [here, there] = [openBus(), openBus()];
  await here.bus.connect(medium.link());
  await there.bus.connect(medium.link());
  using recorder = new Recorder(there.bus);
  there.bus.on("n", async (order) => {
    await there.bus.publish("s", "served", { source: "cook", cause: order });
  }, { name: "kitchen" });
  there.bus.on("s", () => {
    throw BOOM;
  }, { name: "bookkeeper" });
  const order = await here.bus.publish("n", 1, { source: "table 7" });
  await until(() => there.errors.length === 1);
  const [{ message, event }] = there.errors;
  const { causes: [{ source, origin }] } = recorder.lineage(event)!;
  assertEquals([source, /^[0-9a-f]{16}\.1$/.test(origin!)], ["table 7", true]);
  assertEquals(recorder.lineage(event)!.event.origin, undefined);
  assertEquals(
    message.replace(/ of [0-9a-f]{16}\.1/, " of ORIGIN"),
    `Subscription "bookkeeper" failed on event "s" (${event.id}) from "cook", ` +
      `caused by "n" (${order.id}) from "table 7" of ORIGIN: boom`,
  );
  await here.bus.close();
  await there.bus.close();
});

Deno.test("logTo() and Recorder say of what came over a link on which bus it was published", async () => {
  const { bus } = openBus({ name: "kitchen" });
  const link = new FakeLink();
  await bus.connect(link);
  const lines: string[] = [];
  using _ = logTo(bus, (line) => lines.push(line));
  using recorder = new Recorder(bus);
  bus.on("n", async (order) => {
    await bus.publish("s", "served", { source: "cook", cause: order });
  }, { name: "cook" });
  bus.on("s", () => {
    throw BOOM;
  }, { name: "bookkeeper" });
  await bus.publish("n", 1, { source: "table 7" });
  link.come({ id: "e-1", source: "table 7", origin: "far.1" });
  await flush();

  const theirs = lines.filter((line) => line.includes("far.1"))
    .map((line) => line.replace(/ id=\S+-\S+| took=\S+/g, ""));
  assertEquals(theirs, [
    'in type=n source="table 7" origin=far.1',
    'failed type=s source=cook subscription=bookkeeper error="Error: boom"' +
    ' <- type=n source="table 7" origin=far.1',
  ]);
  // Two with one name on two buses are two in pictures, too.
  const participants = recorder.toMermaid().split("\n")
    .filter((line) => line.includes("table 7"));
  assertEquals(participants.map((line) => line.trim()), [
    "participant p0 as table 7",
    "participant p1 as table 7 of far.1",
  ]);
  const { traceEvents } = recorder.toChromeTrace();
  const threads = traceEvents.filter(({ name }) => name === "thread_name")
    .map(({ args }) => args!.name);
  assertEquals(threads.slice(0, 2), [
    "publisher table 7",
    "publisher table 7 of far.1",
  ]);
  const origins = traceEvents.filter(({ args }) => args?.origin === "far.1");
  assertEquals(origins.map(({ name }) => name), ["n", "n"]);
  const { effects, event } = recorder.lineage("e-1")!;
  assertEquals([event.origin, effects.map(({ type }) => type)], ["far.1", [
    "s",
  ]]);
  await bus.close();
});

// ----------------------------------------------------------- who means no good

Deno.test("Bus.connect(): what comes twice over one link, since its sender has two, is taken in once", async () => {
  const medium = new MemoryMedium("keeps repeats");
  const [here, there] = [openBus(), openBus()];
  const seen = collect(there.bus);
  const link = medium.link();
  await here.bus.connect(link);
  await here.bus.connect(link); // the same one
  await here.bus.connect(medium.link());
  await there.bus.connect(medium.link());
  for (const n of range(5)) await here.bus.publish("n", n);
  await here.bus.close();
  await until(() => there.bus.inspect().links![0].repeated === 10);
  await flush();
  assertEquals(seen, range(5));
  await there.bus.close();
  assertEquals([...here.errors, ...there.errors], []);
});

Deno.test("Bus.connect() sends what a handler publishes in answer to an event that came, and not that event", async () => {
  const medium = new MemoryMedium();
  const [here, there, third] = range(3).map(() => openBus());
  const links = [medium.link(), medium.link(), medium.link()];
  for (const [i, { bus }] of [here, there, third].entries()) {
    await bus.connect(links[i]);
  }
  const heard: unknown[] = [];
  for (const [name, { bus }] of Object.entries({ here, third })) {
    bus.on("s", ({ data }) => void heard.push(`${name}: ${data}`));
  }
  const ordered = collect(third.bus);
  there.bus.on("n", async (order) => {
    await there.bus.publish("s", `served ${order.data}`, { cause: order });
  });
  await here.bus.publish("n", 7);
  await until(() => heard.length === 2);
  await flush();
  assertEquals(heard.sort(), ["here: served 7", "third: served 7"]);
  assertEquals(ordered, [7]); // by `here` alone
  assertEquals(there.bus.inspect().links![0].sent, 1);
  for (const { bus, errors } of [here, there, third]) {
    await bus.close();
    assertEquals(errors, []);
  }
});

Deno.test("Bus.connect(): what a link with acks brings again while it waits for a place is done when the first is", async () => {
  const { bus } = openBus();
  const link = new FakeLink({ acks: true, backpressure: true });
  await bus.connect(link);
  using orders = bus.subscribe("n", { capacity: 1 });
  link.come({ seq: 1 });
  const waits = came({ seq: 2 });
  const strange = came({ origin: undefined });
  const deliveries = [waits, strange, waits, strange].map((event) =>
    follow(Promise.resolve(link.come(event)))
  );
  await flush();
  assertEquals(deliveries.map(({ state }) => state), Array(4).fill("pending"));
  await orders[Symbol.asyncIterator]().next();
  await flush();
  assertEquals(
    deliveries.map(({ state }) => state),
    ["resolved", "pending", "resolved", "pending"],
  );
  assertEquals(link.come(waits), undefined);
  bus.abort(BOOM);
  await flush();
  assertEquals(deliveries.map(({ error }) => error), [
    undefined,
    BOOM,
    undefined,
    BOOM,
  ]);
  const { received, repeated } = bus.inspect().links![0];
  assertEquals([received, repeated], [3, 3]);
});

Deno.test("Bus.connect(): a peer with a forged number cannot silence the one whose name it uses", async () => {
  const { bus, errors } = openBus();
  const link = new FakeLink();
  await bus.connect(link);
  const seen = collect(bus);
  link.come({ origin: "honest.1", seq: 1, data: 1 });
  link.come({ origin: "honest.1", seq: Number.MAX_SAFE_INTEGER, data: -1 });
  const second = came({ origin: "honest.1", seq: 2, data: 2 });
  link.come(second);
  link.come(second); // known by its id
  link.come({ origin: "honest.1", seq: 3, data: 3 });
  await flush();
  assertEquals(seen, [1, -1, 2, 3]);
  assertEquals(bus.inspect().links![0].repeated, 1);
  assertEquals(errors.length, 1); // of the gap that is claimed
  await bus.close();
});

Deno.test("Bus.connect(): what a link with acks brings again after thousands of others is not taken for a repeat", async () => {
  const { bus } = openBus();
  const link = new FakeLink({ acks: true });
  await bus.connect(link);
  const picky = bus.subscribe("n", { capacity: 1, overflow: "reject" });
  const [first, second] = [came({ seq: 1 }), came({ seq: 2 })];
  link.come(first);
  await Promise.resolve(link.come(second)).catch(() => {});
  for (const n of range(2000)) link.come({ seq: 3 + n, type: "s" });
  const seen: unknown[] = [];
  for await (const { data } of picky) {
    if (seen.push(data) === 2) break;
    assertEquals(link.come(second), undefined);
  }
  assertEquals(seen, [1, 2]);
  await bus.close();
});

Deno.test("Bus.connect() refuses names and times that are out of all bounds, whatever the driver lets pass", async () => {
  const { bus } = openBus();
  const link = new FakeLink();
  const seen = collect(bus);
  await bus.connect(link);
  const long = "x".repeat(1025);
  const faults: Record<string, unknown>[] = [
    { id: "" },
    { type: long },
    { source: long, origin: undefined },
    { cause: long },
    { trace: long },
    { time: 8.65e15 }, // no Date is so late
    { seq: -1 },
    { seq: NaN },
    { seq: Infinity },
  ];
  for (const fault of faults) link.come(fault);
  await flush();
  assertEquals(seen, []);
  assertEquals(bus.inspect().links![0].refused, faults.length);
  await bus.close();
});

Deno.test("Bus.connect(): what a peer says of itself makes no second line in a log, nor a long one", async () => {
  using timers = stopTimers();
  const opened = openBus();
  const { bus } = opened;
  const link = new FakeLink();
  await bus.connect(link);
  const origin = "a\n[error] all is lost\u001b[2J\u009b\u2028";
  link.come({ origin, seq: 1 });
  link.come({ origin, seq: 5000 });
  link.onState({ state: "bad", reason: "x".repeat(1e6) });
  timers.fire();
  await bus.close();
  const [gap, bad] = opened.troubles;
  // deno-lint-ignore no-control-regex
  assert(/^[^\u0000-\u001f\u007f-\u009f\u2028]+$/.test(gap), gap);
  assert(gap.includes("\\u000a[error] all is lost\\u001b[2J"));
  assert(bad.length < 1000 && bad.endsWith("…"));
});

Deno.test("Bus.connect() refuses a link without caps, and a grace of another type", async () => {
  const { bus } = openBus();
  const link = Object.assign(new FakeLink(), { caps: null });
  await assertRejects(() => bus.connect(link as never), TypeError, "a Link");
  await assertRejects(
    () => bus.connect(new FakeLink(), { grace: "1" as never }),
    TypeError,
    "grace",
  );
});

Deno.test("Bus.connect(): a trouble after the end is told, and leaves no timer", async () => {
  using timers = stopTimers();
  const opened = openBus();
  const link = new FakeLink();
  let fail = (_: unknown) => {};
  link.stopping = () => new Promise((_, reject) => fail = reject);
  const connection = await opened.bus.connect(link, { grace: 5 });
  const disposing = follow(connection[Symbol.asyncDispose]());
  await flush();
  timers.fire(5);
  await flush();
  assertEquals(disposing.state, "resolved");
  fail(BOOM);
  await flush();
  assertEquals(opened.troubles, [
    'Link "link bus" has refused something: it could not be stopped',
  ]);
  assertStrictEquals(opened.errors[0].cause, BOOM);
  assertEquals(timers.waiting, []);
});

Deno.test("Bus on Cloudflare's workers: a link whose request is lost holds up nobody, and tells", async () => {
  using workers = new Workers();
  const opened = openBus();
  const { bus } = opened;
  const link = new FakeLink();
  link.sending = () => new Promise(() => {}); // lost, too
  let connecting: Promise<AsyncDisposable> | undefined;
  await workers.request("a", () => {
    connecting = bus.connect(link, { capacity: 1, grace: 0 });
  });
  await connecting;
  const published = range(3).map((n) => `n${n}`);
  const tasks: { state: string }[] = [];
  for (const name of published) {
    await workers.request(name, () => {
      tasks.push(follow(bus.publish("n", 1)));
    });
  }
  assertEquals(tasks.map(({ state }) => state), [
    "resolved",
    "resolved",
    "pending",
  ]);
  workers.end("a");
  await workers.passAll(800);
  await until(() => bus.inspect().links === undefined);
  assertEquals(tasks.map(({ state }) => state), range(3).map(() => "resolved"));
  assertEquals(opened.troubles, [
    'Link "link bus" is down: the request that connected it has ended',
    'Link "link bus" has lost 1 event: could not be sent: ' +
    "Error: the link was left before it took them",
    'Link "link bus" has lost 2 events: could not be sent: ' +
    "the link was left before it took them",
  ]);
  assertEquals(bus.inspect().subscriptions, []);
  await bus.publish("n", 2);
});

// --------------------------------------------------------------------- the form

Deno.test("encodeEvent() writes what toCloudEvent() makes, and decodeEvent() reads it", () => {
  const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const events: Partial<LinkEvent>[] = [
    {},
    { data: undefined },
    { data: null },
    { data: [0, false, "", { a: { b: [] } }] },
    { data: Uint8Array.of(0, 200, 255) },
    { source: "front of house/100%/ü" },
    { source: "https://example.com/a?b=c#d" },
    { source: "mailto:cook@example.com" },
    { source: "/" },
    { source: "//a//" },
    { cause: "b-2", trace },
    { origin: undefined, seq: undefined },
    { seq: Number.MAX_SAFE_INTEGER },
    { time: 0 },
    { type: 'quo"ted' },
  ];
  for (const fields of events) {
    const event = came(fields);
    const { origin, seq, ...plain } = event;
    const written = JSON.parse(encodeEvent(event));
    assertEquals(written, {
      ...toCloudEvent(plain),
      ...origin === undefined
        ? {}
        : { origin, sequence: String(seq).padStart(16, "0") },
    });
    const defined = Object.entries(event).filter(([, value]) =>
      value !== undefined
    );
    const read = decodeEvent(encodeEvent(event));
    assertEquals(
      Object.fromEntries(
        Object.entries(read).filter(([, value]) => value !== undefined),
      ),
      Object.fromEntries(defined),
    );
  }
});

Deno.test("encodeEvent() refuses what has no form, or too much of it", () => {
  for (
    const fields of [
      { type: "" },
      { source: "" },
      { id: "a\nb" },
      { type: "x".repeat(1025) },
      { origin: "x".repeat(129) },
      { time: NaN },
      { data: "x".repeat(2 ** 20) },
    ]
  ) assertThrows(() => encodeEvent(came(fields)), RangeError);
  for (const data of [1n, () => {}, Symbol()]) {
    assertThrows(() => encodeEvent(came({ data })), TypeError);
  }
  assertThrows(() => encodeEvent(came(), { maxSize: 50 }), RangeError, "50");
});

Deno.test("decodeEvent() reads CloudEvents of others", () => {
  const read = decodeEvent(JSON.stringify({
    specversion: "1.0",
    id: "A234-1234-1234",
    source: "/sensors/tn-1234567/alerts",
    type: "com.example.alert",
    subject: "123",
    time: "2018-04-05T17:31:00+02:00",
    comexampleextension1: "value",
    sequence: "not one of ours",
    datacontenttype: "text/xml",
    data: "<much/>",
  }));
  assertEquals(read, {
    id: "A234-1234-1234",
    source: "/sensors/tn-1234567/alerts",
    type: "com.example.alert",
    time: Date.UTC(2018, 3, 5, 15, 31),
    data: "<much/>",
  });
});

Deno.test("decodeEvent() refuses all else, and says why in a few words", () => {
  const good = JSON.parse(encodeEvent(came()));
  const change = (fields: object) => JSON.stringify({ ...good, ...fields });
  const bad: [text: unknown, why: string][] = [
    [undefined, "text"],
    [{}, "text"],
    ["", "JSON"],
    ["{", "JSON"],
    ["[".repeat(100_000), "JSON"],
    ["null", "object"],
    ["[]", "object"],
    ["1", "object"],
    ["{}", "specversion"],
    [change({ specversion: "0.3" }), "specversion"],
    [change({ id: 1 }), "id"],
    [change({ id: "" }), "id"],
    [change({ id: "x".repeat(1025) }), "id"],
    [change({ source: null }), "source"],
    [change({ type: {} }), "type"],
    [change({ time: 0 }), "time"],
    [change({ time: "today" }), "time"],
    [change({ time: "2026-99-99T00:00:00Z" }), "time"],
    [change({ causationid: [] }), "causationid"],
    [change({ traceparent: 1 }), "traceparent"],
    [change({ origin: "" }), "origin"],
    [change({ origin: "x".repeat(129) }), "origin"],
    [change({ sequence: 1 }), "sequence"],
    [change({ sequence: "0" }), "sequence"],
    [change({ sequence: "9".repeat(16) }), "sequence"],
    [change({ sequence: "-1" }), "sequence"],
    [change({ data_base64: "?" }), "data_base64"],
    [change({ data_base64: 1 }), "data_base64"],
    [change({ data: { __proto__: 1 } }).replace("{}", '{"__proto__":1}'), ""],
    [
      change({ data: 0 }).replace('"data":0', '"__proto__":{"a":1}'),
      "prototype",
    ],
    [
      change({ data: 0 }).replace('"data":0', '"data":[{"__proto__":{}}]'),
      "prototype",
    ],
    [
      change({ data: 0 }).replace(
        '"data":0',
        '"data":{"\\u005f\\u005Fproto__":{}}',
      ),
      "prototype",
    ],
    [change({ data: { constructor: { prototype: { a: 1 } } } }), "prototype"],
  ];
  for (const [text, why] of bad) {
    if (why === "") continue;
    const { message } = assertThrows(
      () => decodeEvent(text as string),
      TypeError,
      why,
    );
    assert(message.length < 200, message);
  }
  assertThrows(() => decodeEvent(" ".repeat(2 ** 20 + 1)), RangeError);
  assertThrows(() => decodeEvent("{}", { maxSize: 1 }), RangeError);
  assertEquals(({} as { a?: number }).a, undefined);
  const harmless = change({ data: { constructor: "Ferrari", s: "__proto__" } });
  assertEquals(Object.keys(decodeEvent(harmless).data as object).length, 2);
});

Deno.test("decodeEvent() reads any source that encodeEvent() writes, however long it is as a URI", () => {
  for (const sign of ["x", " ", "ü", "早", "\u{1f35c}"]) {
    const source = sign.repeat(1024 / sign.length);
    assertEquals(decodeEvent(encodeEvent(came({ source }))).source, source);
    const longer = `${source}x`;
    assertThrows(() => encodeEvent(came({ source: longer })), RangeError);
    const text = encodeEvent(came({ source })).replace(/"source":"/, "$&x");
    assertThrows(() => decodeEvent(text), TypeError, "source");
  }
});

Deno.test("encodeEvent() says which event it is that cannot be sent", () => {
  const event = came({ id: "e-1", type: "order", source: "table 7" });
  const which = 'Cannot send event "order" (e-1) from "table 7": ';
  const boom = {
    toJSON: () => {
      throw BOOM;
    },
  };
  const circle: unknown[] = [];
  circle.push(circle);
  for (const data of [1n, () => {}, circle, boom]) {
    const error = assertThrows(
      () => encodeEvent({ ...event, data }),
      TypeError,
    );
    assert(error.message.startsWith(which), error.message);
  }
  const { message } = assertThrows(
    () => encodeEvent(event, { maxSize: 9 }),
    RangeError,
  );
  assert(message.startsWith(which), message);
  const long = assertThrows(
    () => encodeEvent({ ...event, type: "x".repeat(1e6) }),
    RangeError,
  );
  assert(long.message.length < 300);
});

Deno.test("decodeEvent() bears any depth", () => {
  const [depth, good] = [100_000, JSON.parse(encodeEvent(came({ data: 0 })))];
  const deep = "[".repeat(depth) + "]".repeat(depth);
  const suspicious = `{"s":"__proto__","d":${deep}}`;
  for (const data of [deep, suspicious, `{"d":${deep},"__proto__":{}}`]) {
    const text = JSON.stringify(good).replace('"data":0', `"data":${data}`);
    try {
      assertEquals(typeof decodeEvent(text).data, "object");
      assert(!data.includes('"__proto__":'));
    } catch (error) { // some runtimes refuse so much by themselves
      assertInstanceOf(error, TypeError);
    }
  }
});

// ------------------------------------------------------------------ the drivers

/** Both ends of what a link goes over, by the way they are told of. */
const PORTS: Record<string, () => Parameters<typeof portLink>[0][]> = {
  "a real port": realPorts,
  "a port": fakePorts,
  "a port of Node": nodePorts,
};

for (const [kind, ports] of Object.entries(PORTS)) {
  Deno.test(`portLink() over ${kind} connects two buses, in both directions`, async () => {
    const [near, far] = ports();
    const [here, there] = [openBus(), openBus()];
    const seen = [collect(here.bus), collect(there.bus)];
    await here.bus.connect(portLink(near));
    await there.bus.connect(portLink(far));
    for (const n of range(300)) {
      here.bus.publish("n", n);
      there.bus.publish("n", 1000 + n);
    }
    await until(() => seen[0].length + seen[1].length === 1200);
    for (const [i, { bus }] of [here, there].entries()) {
      const theirs = seen[i].filter((n) => (n as number) >= 1000 !== (i === 1));
      assertEquals(theirs.length, 300);
      assertEquals(theirs, [...theirs].sort((a, b) => +a! - +b!));
      await bus.close();
    }
    (near as MessagePort).close?.();
    assertEquals([...here.errors, ...there.errors], []);
  });
}

Deno.test("portLink() shares its port with queues", async () => {
  const [near, far] = realPorts();
  const told: unknown[] = [];
  const onError = (error: unknown) => void told.push(error);
  const queue = new Queue<number>();
  const sent = sendTo(queue, near, { onError });
  const received = receiveFrom<number>(far, { onError });
  const [here, there] = [openBus(), openBus()];
  const seen = collect(there.bus);
  await here.bus.connect(portLink(near));
  await there.bus.connect(portLink(far));
  await here.bus.publish("n", 1);
  await queue.send(2);
  assertEquals(await received.receive(), 2);
  await until(() => seen.length === 1);
  queue.close();
  await sent;
  await here.bus.close();
  await there.bus.close();
  near.close();
  assertEquals([...told, ...here.errors, ...there.errors], []);
});

Deno.test("portLink() is down once the other end is gone", async () => {
  const [near] = fakePorts();
  const states: LinkState[] = [];
  const link = portLink(near);
  link.onState = (state) => void states.push(state);
  await link.receive("t", () => {});
  near.hear("close");
  assertEquals(states, [{ state: "down", reason: "the port was closed" }]);
  await assertRejects(() => link.send("t", [came()]), LinkClosedError);
  await assertRejects(() => link.receive("t", () => {}), LinkClosedError);
  await link.close();
  assertEquals(near.listening, 0);
});

Deno.test("portLink() listens while somebody receives, and never in its constructor", async () => {
  const [near] = fakePorts();
  const link = portLink(near);
  assertEquals(near.listening, 0);
  const stop = await link.receive("t", () => {});
  const stopOther = await link.receive("u", () => {});
  await stop();
  assert(near.listening > 0);
  await stopOther();
  assertEquals(near.listening, 0);
  const again = await link.receive("t", () => {});
  assert(near.listening > 0);
  await link.close();
  assertEquals(near.listening, 0);
  await again();
});

Deno.test("portLink() tells of messages that are none of its own, and of those of another version", async () => {
  const [near, far] = fakePorts();
  const states: LinkState[] = [];
  const link = portLink(far, { maxSize: 100 });
  link.onState = (state) => void states.push(state);
  const seen: unknown[] = [];
  await link.receive("t", ({ data }) => void seen.push(data));
  const ours = { protocol: "@sauce/queues/link", version: 1, topic: "t" };
  const messages: unknown[] = [
    null,
    "hello",
    { hello: 1 },
    { ...ours, version: 2, events: "[]" },
    { ...ours },
    { ...ours, events: 7 },
    { ...ours, events: "{}" },
    { ...ours, events: " ".repeat(101) },
    { ...ours, events: "[1]" },
    { ...ours, topic: "other", events: "{oops" }, // for somebody else
    { ...ours, topic: { t: 1 }, events: "{oops" },
  ];
  for (const message of messages) near.postMessage(message);
  far.hear("messageerror");
  await flush();
  assertEquals(states.map(({ state }) => state), range(10).map(() => "bad"));
  assertEquals(seen, []);
  await link.close();
});

Deno.test("portLink() splits what would be too large a message, and refuses what is too large by itself", async () => {
  const [near, far] = fakePorts();
  const states: LinkState[] = [];
  const sizes: number[] = [];
  far.addEventListener("message", ({ data }: MessageEvent) => {
    sizes.push(data.events.length);
  });
  const link = portLink(near, { maxSize: 1000 });
  link.onState = (state) => void states.push(state);
  const other = portLink(far, { maxSize: 1000 });
  const seen: unknown[] = [];
  await other.receive("t", ({ data }) => void seen.push(data));
  const data = [...range(20), "x".repeat(1000), 20];
  await link.send("t", data.map((data) => came({ data })));
  await flush();
  assertEquals(seen, range(21));
  assert(sizes.length > 1 && sizes.every((size) => size <= 1000));
  assertEquals(states.length, 1);
  assertThrows(() => portLink(near, { maxSize: 0 }), RangeError);
  assertThrows(() => portLink({} as never), TypeError, "postMessage");
  await assertRejects(
    () => link.receive("t", () => {}, { group: "g" }),
    TypeError,
    "group",
  );
  await assertRejects(
    () => link.receive("t", () => {}, { from: "all" }),
    RangeError,
    "from",
  );
});

Deno.test("portLink() calls no sink after close(), not even in the midst of a message", async () => {
  const [near, far] = fakePorts();
  const [sender, receiver] = [portLink(near), portLink(far)];
  const seen: unknown[] = [];
  for (const name of "ab") {
    await receiver.receive("t", ({ data }) => {
      seen.push(`${name}${data}`);
      if (data === 1) receiver.close();
    });
  }
  await sender.send("t", range(3).map((data) => came({ data })));
  await flush();
  assertEquals(seen, ["a0", "b0", "a1"]);
  assertEquals(far.listening, 0);
});

Deno.test("portLink() goes on, whatever onState throws: in a batch that goes out, one that comes, and after a sink that fails", async () => {
  using reports = catchReports();
  const [near, far] = fakePorts();
  const [sender, receiver] = [portLink(near), portLink(far)];
  for (const link of [sender, receiver]) {
    link.onState = ({ state }) => {
      throw state;
    };
  }
  const seen: unknown[] = [];
  await receiver.receive("t", ({ data }) => {
    seen.push(data);
    if (data === 0) throw BOOM;
    if (data === 1) return Promise.reject(BOOM);
  });
  await sender.send("t", [came({ data: 2n }), came({ data: 0 })]);
  const { events } = near.posted[0] as { events: string };
  const more = encodeEvent(came({ data: 1 }));
  near.postMessage({ ...near.posted[0], events: `[7,${more}]` });
  near.postMessage({ ...near.posted[0], version: 2 });
  near.postMessage({ ...near.posted[0], events });
  await flush();
  assertEquals(seen, [0, 1, 0]);
  far.hear("close");
  await assertRejects(() => receiver.send("t", []), LinkClosedError);
  assertEquals(reports.errors, [
    ...["bad", "bad", "bad", "bad", "bad", "bad"],
    "down",
  ]);
});

Deno.test("portLink() posts nothing any more once onState has closed it in the midst of a batch", async () => {
  const [near] = fakePorts();
  const link = portLink(near);
  link.onState = () => void link.close();
  await assertRejects(
    () => link.send("t", [came(), came({ data: 1n }), came()]),
    LinkClosedError,
  );
  assertEquals(near.posted, []);
});

Deno.test("portLink() says which event it has left out", async () => {
  const [near] = fakePorts();
  const link = portLink(near);
  const left: unknown[] = [];
  link.onState = ({ state, event }) => void left.push([state, event]);
  const [good, bad] = [came(), came({ data: 1n })];
  await link.send("t", [good, bad]);
  assertEquals(left.length, 1);
  assertStrictEquals((left[0] as unknown[])[1], bad);
});

Deno.test("portLink() refuses a message as a whole that has more in it than can be events", async () => {
  const [near, far] = fakePorts();
  const link = portLink(far);
  const reasons: unknown[] = [];
  link.onState = ({ reason }) => void reasons.push(reason);
  const seen: unknown[] = [];
  await link.receive("t", ({ id }) => void seen.push(id));
  const post = (events: string) =>
    near.postMessage({
      protocol: "@sauce/queues/link",
      version: 1,
      topic: "t",
      events,
    });
  post(`[${"0,".repeat(1000)}0]`);
  await flush();
  assertEquals(reasons, ["a message holds no list of events"]);
  const small = (id: number) =>
    `{"specversion":"1.0","id":"${id}","source":"s","type":"t"}`;
  post(`[${range(10).map(small)}]`); // no event is smaller
  await flush();
  assertEquals(seen, range(10).map(String));
  assertEquals(reasons.length, 1);
});

Deno.test("portLink() says what a strange message looks like in a few words on one line", async () => {
  const [near, far] = fakePorts();
  const reasons: string[] = [];
  const link = portLink(far);
  link.onState = ({ reason }) => void reasons.push(reason!);
  await link.receive("t", () => {});
  near.postMessage("x".repeat(1e6));
  near.postMessage({ ["y".repeat(1e6)]: 1 });
  near.postMessage({ "a\nb": 1, c: 2 });
  await flush();
  assertEquals(reasons.length, 3);
  for (const reason of reasons) {
    assert(reason.length < 200 && !/\n/.test(reason));
  }
  await link.close();
});

const needsChannels = typeof BroadcastChannel !== "function";

// --------------------------------------------------------------------- threads

for (const [name, make] of Object.entries(WORKERS)) {
  const ignore = isWorkerd || make === undefined;

  /** A bus that is joined to the one in such a worker, once that is there. */
  const join = async () => {
    const worker = make!("bus");
    const errors: Error[] = [];
    const bus = new Bus<WorkerEvents>({
      onError: (error) => errors.push(error),
    });
    const link = portLink(worker);
    const connection = await bus.connect(link);
    await bus.once("ready");
    return { worker, bus, errors, link, connection };
  };

  Deno.test({
    name: `portLink() joins a bus with one in ${name}, in both directions`,
    ignore,
    fn: async () => {
      const { worker, bus, errors, link, connection } = await join();
      const dishes: BusEvent<string, WorkerEvents["dish"]>[] = [];
      const served = new Promise<void>((resolve) => {
        bus.on("dish", (event) => {
          if (dishes.push(event) === 1000) resolve();
        });
      });
      const orders: BusEvent[] = [];
      for (const n of range(1000)) {
        orders.push(await bus.publish("order", n, { source: `table ${n}` }));
      }
      await served;
      assertEquals(
        dishes.map(({ data }) => data),
        range(1000).map((of) => ({ of, source: `table ${of}`, origin: true })),
      );
      assertEquals(
        dishes.map(({ cause }) => cause),
        orders.map(({ id }) => id),
      );
      const [{ source, origin }] = dishes;
      assertEquals([source, typeof origin], ["kitchen", "string"]);
      const { sent, received, lost, missing, origins } = bus.inspect()
        .links![0];
      assertEquals(
        [sent, received, lost, missing, origins],
        [1000, 1001, 0, 0, 1], // with "ready"
      );
      assertEquals(errors, []);
      await connection[Symbol.asyncDispose]();
      await link.close();
      await worker.terminate();
    },
  });

  Deno.test({
    name: `portLink() is down once ${name} has failed, and holds up nobody`,
    ignore,
    fn: async () => {
      const { worker, bus, errors, link } = await join();
      await bus.publish("order", 1);
      await bus.once("dish");
      await bus.publish("fail");
      await until(() => errors.length > 0);
      const [{ message }] = errors;
      assert(message.includes("is down"), message);
      assert(message.includes("the kitchen is done for"), message);
      await assertRejects(() => link.send("bus", []), LinkClosedError);
      await bus.publish("order", 2);
      await bus.close();
      await link.close();
      await worker.terminate();
    },
  });

  Deno.test({
    name: `portLink() is down once ${name} was terminated`,
    ignore: ignore || !tellsOfEnd[name],
    fn: async () => {
      const { worker, bus, errors, link } = await join();
      worker.terminate();
      await until(() => errors.length > 0);
      assert(errors[0].message.includes("is down"), errors[0].message);
      await bus.close();
      await link.close();
    },
  });
}

Deno.test({
  name:
    "broadcastLink() connects all buses of a channel, by name or by channel",
  ignore: needsChannels,
  fn: async () => {
    const channel = new BroadcastChannel("kitchens");
    const links = [
      broadcastLink("kitchens"),
      broadcastLink("kitchens"),
      broadcastLink(channel),
    ];
    const opened = links.map(() => openBus());
    const seen = opened.map(({ bus }) => collect(bus));
    for (const [i, { bus }] of opened.entries()) await bus.connect(links[i]);
    await opened[0].bus.publish("n", 1);
    await opened[2].bus.publish("n", 2);
    await until(() => seen.every((seen) => seen.length === 2));
    for (const { bus, errors } of opened) {
      await bus.close();
      assertEquals(errors, []);
    }
    for (const link of links) await link.close();
    channel.postMessage("it is open still");
    channel.close();
  },
});

Deno.test({
  name: "broadcastLink() whose channel was closed is down",
  ignore: needsChannels,
  fn: async () => {
    const channel = new BroadcastChannel("closed");
    const link = broadcastLink(channel);
    const states: LinkState[] = [];
    link.onState = (state) => void states.push(state);
    channel.close();
    await assertRejects(() => link.send("t", [came()]), LinkClosedError);
    assertEquals(states.map(({ state }) => state), ["down"]);
  },
});

Deno.test("broadcastLink() says so when it is used where there is no BroadcastChannel", async () => {
  using _ = replaceGlobals({ BroadcastChannel: undefined });
  const link = broadcastLink("kitchens"); // and not before
  const { bus } = openBus();
  await assertRejects(
    () => bus.connect(link),
    TypeError,
    "no BroadcastChannel",
  );
  await assertRejects(() => link.send("t", []), TypeError, "BroadcastChannel");
  await link.close();
});
