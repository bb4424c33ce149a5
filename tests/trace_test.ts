import {
  assert,
  assertEquals,
  assertFalse,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import type { Bus, BusEvent, BusStep } from "../bus.ts";
import {
  type ChromeTrace,
  type ChromeTraceEvent,
  logTo,
  Recorder,
  toCloudEvent,
  toOpenTelemetry,
} from "../trace.ts";
import { BOOM, type Events, open, stopClocks } from "./_bus.ts";
import { catchReports, flush, range } from "./_helpers.ts";
import { HOSTILE, made, Stage } from "./_trace.ts";

const ID = /[\w-]+-\d+/g;

// ------------------------------------------------------------------- logTo

/** A stage, and the lines that are written about it. */
function logged(options?: Parameters<typeof logTo>[2]) {
  const stage = new Stage();
  const lines: string[] = [];
  const log = logTo(stage, (line) => void lines.push(line), options);
  return { stage, lines, log };
}

Deno.test("logTo() writes a line for each event in and out, each drop and each failure", () => {
  const { stage, lines, log } = logged();
  const order = stage.play(made("a-1"), "kitchen");
  const served = { type: "served", source: "Ann", cause: "a-1" };
  const event = stage.play(made("a-2", served));
  stage.tell("queued", event, { subscription: "board", depth: 1 });
  const reason = "overflow";
  stage.tell("dropped", event, { subscription: "board", reason, depth: 1 });
  const failure = {
    subscription: "bookkeeper",
    error: new TypeError("no ink"),
  };
  stage.tell("failed", event, { ...failure, waited: 1.23456 });
  stage.tell("failed", order, { ...failure, error: "a string" }); // its filter
  stage.tell("unheard", order);
  log[Symbol.dispose]();
  stage.play(order, "kitchen");
  assertEquals(lines, [
    'in type=order id=a-1 source="table 7"',
    "out type=order id=a-1 subscription=kitchen waited=0.5ms depth=0",
    "in type=served id=a-2 source=Ann cause=a-1",
    "dropped type=served id=a-2 subscription=board reason=overflow depth=1",
    'failed type=served id=a-2 source=Ann subscription=bookkeeper took=1.235ms error="TypeError: no ink" <- type=order id=a-1 source="table 7"',
    'failed type=order id=a-1 source="table 7" subscription=bookkeeper error="\\"a string\\""',
    'unheard type=order id=a-1 source="table 7"',
  ]);
});

Deno.test("logTo() keeps an event on one line that can be taken apart, whatever its names", () => {
  const { stage, lines } = logged({ data: ({ type }) => type });
  for (const name of HOSTILE) {
    const event = made(name, { type: name, source: name, cause: name });
    stage.play(event, name);
    const subscription = name;
    stage.tell("failed", event, { subscription, error: new Error(name) });
    stage.tell("dropped", event, { subscription, reason: "ended" });
    stage.tell("unheard", event);
    for (const line of lines.splice(0)) {
      assertFalse(
        /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}]/u.test(line),
        line,
      );
      const pairs = line.matchAll(
        /(\w+)=([\w.,:/+-]+|"(?:[^"\\]|\\.)*")(?: |$)/g,
      );
      for (const [, key, value] of pairs) {
        if (!/type|id|source|subscription|cause|data/.test(key)) continue;
        assertEquals(value.startsWith('"') ? JSON.parse(value) : value, name);
      }
      const rest = line.replaceAll(
        /\w+=([\w.,:/+-]+|"(?:[^"\\]|\\.)*")( |$)/g,
        "",
      );
      assert(/^(in|out|failed|dropped|unheard) $/.test(rest), rest);
    }
  }
});

Deno.test("logTo() follows a failure back as far as it remembers, and never in a circle", () => {
  const { stage, lines } = logged({ size: 2 });
  const fail = (event: BusEvent) => {
    stage.tell("failed", event, { subscription: "s", error: "e" });
    return lines.at(-1)!.split("<-").slice(1).map((cause) =>
      cause.trim().replace(" type=order id=", "").replace(
        ' source="table 7"',
        "",
      )
        .replace("type=order id=", "")
    );
  };
  const chain = range(9).map((n) => {
    const cause = n > 0 ? `a-${n - 1}` : undefined;
    return stage.play(made(`a-${n}`, { cause }));
  });
  assertEquals(fail(chain[1]), ["id=a-0"]);
  assertEquals(fail(chain[8]), ["a-7", "a-6", "id=a-5"]);
  const [first, second] = [["b-1", "b-2"], ["b-2", "b-1"]].map(([id, cause]) =>
    stage.play(made(id, { cause }))
  );
  assertEquals([fail(first), fail(second)], [["b-2"], ["b-1"]]);
  assertEquals(fail(stage.play(made("c", { cause: "c" }))), []);
});

Deno.test("logTo() prints data only if told how, and survives any error", () => {
  const { stage, lines } = logged({ data: ({ data }) => JSON.stringify(data) });
  stage.play(made("a-1", { data: { secret: 1 } }));
  assertEquals(lines.pop()?.split(" ").at(-1), 'data="{\\"secret\\":1}"');
  const unreadable = new Proxy(new Error(), {
    get() {
      throw BOOM;
    },
  });
  const nameless = Object.assign(new Error("x"), { name: Symbol() });
  const errors = [unreadable, nameless, undefined, null, 1n, Symbol("x"), {}];
  const told = errors.map((error) => {
    stage.tell("failed", made("a-1"), { subscription: "s", error });
    return /error=(.+)$/.exec(lines.at(-1)!)?.[1];
  });
  assertEquals(told, [
    '"an error that cannot be shown"',
    '"Symbol(): x"',
    "undefined",
    "null",
    "1n",
    '"Symbol(x)"',
    '"an object"',
  ]);
});

Deno.test("logTo() tells a real failure with all that led to it", async () => {
  const { bus, errors } = open();
  const lines: string[] = [];
  using _ = logTo(bus, (line) => void lines.push(line));
  bus.on("n", async (event) => {
    await bus.publish("s", "served", { source: "kitchen", cause: event });
  }, { name: "kitchen" });
  bus.on("s", () => {
    throw BOOM;
  }, { name: "bookkeeper" });
  await bus.publish("n", 1, { source: "table 7" });
  await bus.publish("quit");
  await flush();
  const [order, served] = [errors[0].event.cause!, errors[0].event.id];
  const clean = lines.map((line) =>
    line.replaceAll(/[\d.]+ms/g, "_").replaceAll(order, "A")
      .replaceAll(served, "B").replaceAll(ID, "C")
  );
  assertEquals(clean.toSorted(), [
    `failed type=s id=B source=kitchen subscription=bookkeeper took=_ error="Error: boom" <- type=n id=A source="table 7"`,
    `in type=n id=A source="table 7"`,
    "in type=quit id=C source=unknown",
    "in type=s id=B source=kitchen cause=A",
    "out type=n id=A subscription=kitchen waited=_ depth=0",
    "out type=s id=B subscription=bookkeeper waited=_ depth=0",
    "unheard type=quit id=C source=unknown",
  ]);
});

Deno.test("logTo() disturbs nobody if it cannot write", async () => {
  using reports = catchReports();
  const { bus, seen, see } = open();
  using _ = logTo(bus, () => {
    throw BOOM;
  });
  bus.on("n", ({ data }) => see(data));
  await bus.publish("n", 1);
  await flush();
  assertEquals(seen, [1]);
  assertEquals(reports.errors, [BOOM, BOOM]);
});

Deno.test("logTo() and Recorder refuse options that make no sense", () => {
  const { bus } = open();
  const wrong = (value: unknown) => value as never;
  assertThrows(() => logTo(bus, wrong("console")), TypeError, "write");
  const write = () => {};
  assertThrows(() => logTo(bus, write, { data: wrong(1) }), TypeError, "data");
  for (const size of [0, -1, 1.5, NaN]) {
    assertThrows(() => logTo(bus, write, { size }), RangeError, "size");
    assertThrows(() => new Recorder(bus, { size }), RangeError, "size");
    const limit = size;
    assertThrows(
      () => new Recorder(bus).toMermaid({ limit }),
      RangeError,
      "limit",
    );
  }
  assertThrows(
    () => new Recorder(bus, { size: wrong("9") }),
    TypeError,
    "size",
  );
});

// ---------------------------------------------------------------- Recorder

Deno.test("Recorder.lineage() tells from the first cause to the last effect", () => {
  const stage = new Stage();
  using recorder = new Recorder(stage);
  const play = (id: string, cause?: string) => stage.play(made(id, { cause }));
  play("a-1");
  play("a-2"); // somebody else's
  play("a-3", "a-1");
  play("a-4", "a-1"); // a sibling
  play("a-5", "a-3");
  play("a-6", "a-4"); // and its child
  play("a-7", "a-5");
  const last = play("a-8", "a-3");
  const ids = (of: string) => {
    const { causes, event, effects } = recorder.lineage(of)!;
    return [causes, [event], effects].map((all) => all.map(({ id }) => id));
  };
  assertEquals(ids("a-3"), [["a-1"], ["a-3"], ["a-5", "a-7", "a-8"]]);
  assertEquals(ids("a-7"), [["a-1", "a-3", "a-5"], ["a-7"], []]);
  assertEquals(recorder.lineage(last), recorder.lineage("a-8"));
  assertEquals(recorder.lineage("a-9"), undefined);
});

Deno.test("Recorder.lineage() tells effects in the order of publishing, whatever is done to the clock", async () => {
  using clocks = stopClocks();
  const { bus } = open();
  using recorder = new Recorder(bus);
  const cause = await bus.publish("quit");
  let asked = false;
  bus.subscribe("n", {
    filter() {
      if (!asked) {
        asked = true;
        clocks.pass(5); // the event is older than the one that comes before it
        bus.tryPublish("s", "from a filter", { cause });
      }
      return true;
    },
  });
  for (const n of [1, 2, 3]) {
    clocks.set(-1000);
    await bus.publish("n", n, { cause });
  }
  const { effects } = recorder.lineage(cause)!;
  assertEquals(effects.map(({ type }) => type), ["s", "n", "n", "n"]);
  const times = effects.slice(1).map(({ time }) => time);
  assertEquals(times, times.toSorted().reverse());
});

Deno.test("Recorder.lineage() orders by time what was published before the recording, ahead of the rest", () => {
  const stage = new Stage();
  using recorder = new Recorder(stage);
  const event = (id: string, time: number) => made(id, { time, cause: "a" });
  const tell = (event: BusEvent) =>
    stage.tell("delivered", event, { subscription: "s", waited: 1, depth: 0 });
  tell(event("late", 30));
  stage.play(made("a", { time: 100 }));
  tell(event("early", 20));
  stage.play(event("first", 15));
  stage.play(event("second", 10));
  const { effects } = recorder.lineage("a")!;
  assertEquals(effects.map(({ id, complete }) => [id, complete]), [
    ["early", false],
    ["late", false],
    ["first", true],
    ["second", true],
  ]);
});

Deno.test("Recorder.lineage() tells what became of each delivery", () => {
  const stage = new Stage();
  using recorder = new Recorder(stage);
  const event = stage.play(made("a-1"), "kitchen");
  const tell = (
    kind: Parameters<Stage["tell"]>[0],
    subscription: string,
    step = {},
  ) => stage.tell(kind, event, { subscription, ...step });
  const twin = (i: number) => ({ subscriptionId: 100 + i }); // names are shared
  const names = ["reader", "hangs", "fails", "full", "waits", "twin", "twin"];
  names.forEach((name, i) =>
    tell("queued", name, { depth: i, ...name === "twin" ? twin(i) : {} })
  );
  tell("delivered", "reader", { waited: 1, depth: 0, handler: false });
  tell("delivered", "hangs", { waited: 2, depth: 0, handler: true });
  tell("delivered", "fails", { waited: 3, depth: 0, handler: true });
  tell("failed", "fails", { waited: 4, error: BOOM });
  tell("dropped", "full", { reason: "overflow", depth: 5 });
  tell("delivered", "twin", { waited: 6, handler: true, ...twin(5) });
  tell("delivered", "twin", { waited: 7, handler: true, ...twin(6) });
  tell("handled", "twin", { waited: 8, ...twin(6) });
  tell("failed", "filter", { error: "no" });
  tell("failed", "hangs", { error: "its twin's filter", ...twin(9) });
  tell("dropped", "full", { reason: "overflow", depth: 1, ...twin(8) });
  const { time } = event;
  const lineage = recorder.lineage(event);
  const plain = JSON.parse(JSON.stringify(lineage));
  assertEquals(plain.event, {
    id: "a-1",
    type: "order",
    source: "table 7",
    time,
    complete: true,
    deliveries: [
      {
        subscription: "kitchen",
        state: "handled",
        depth: 1,
        waited: 0.5,
        took: 2,
      },
      { subscription: "reader", state: "delivered", depth: 0, waited: 1 },
      { subscription: "hangs", state: "handling", depth: 1, waited: 2 },
      {
        subscription: "fails",
        state: "failed",
        depth: 2,
        waited: 3,
        took: 4,
        error: "Error: boom",
      },
      { subscription: "full", state: "dropped", depth: 3, reason: "overflow" },
      { subscription: "waits", state: "queued", depth: 4 },
      { subscription: "twin", state: "handling", depth: 5, waited: 6 },
      { subscription: "twin", state: "handled", depth: 6, waited: 7, took: 8 },
      { subscription: "filter", state: "failed", error: '"no"' },
      { subscription: "hangs", state: "failed", error: '"its twin\'s filter"' },
      { subscription: "full", state: "dropped", reason: "overflow" },
    ],
  });
});

Deno.test("Recorder.lineage() ends where causes run in a circle, or are long", () => {
  const stage = new Stage();
  using recorder = new Recorder(stage, { size: Infinity });
  for (const [id, cause] of [["a", "c"], ["b", "a"], ["c", "b"], ["d", "d"]]) {
    stage.play(made(id, { cause }));
  }
  const { causes, effects } = recorder.lineage("a")!;
  assertEquals(causes.map(({ id }) => id), ["b", "c"]);
  assertEquals(effects, []); // they are its causes already
  assertEquals(recorder.lineage("d")?.causes, []);
  assertEquals(recorder.lineage("d")?.effects, []);

  const count = 20_000;
  for (const n of range(count)) {
    stage.play(made(`${n}`, { cause: n > 0 ? `${n - 1}` : undefined }));
  }
  const middle = recorder.lineage("5000")!;
  assertEquals(middle.causes.map(({ id }) => +id), range(5000));
  assertEquals(middle.effects.length, count - 5001);
  assert(JSON.stringify(middle).length > count);
});

Deno.test("Recorder keeps the last steps, and counts the others", () => {
  for (const size of [1, 2, 3, 7, 4096]) {
    const stage = new Stage();
    using recorder = new Recorder(stage, { size });
    for (const n of range(10)) {
      stage.play(made(`${n}`, { cause: `${n - 1}` }), "kitchen"); // 4 steps
    }
    assertEquals([recorder.size, recorder.dropped], [
      Math.min(size, 40),
      Math.max(40 - size, 0),
    ]);
    const { event, causes } = recorder.lineage("9")!;
    assertEquals(event.complete, size >= 4);
    assertEquals(causes.length, Math.min(Math.ceil(size / 4) - 1, 9));
    assertEquals(event.deliveries.length, 1);
    assertEquals(event.deliveries[0].state, "handled");
    check(recorder.toChromeTrace());
  }
});

Deno.test("Recorder records until it is disposed of, and can still be asked", () => {
  const stage = new Stage();
  const recorder = new Recorder(stage);
  stage.play(made("a-1"));
  recorder[Symbol.dispose]();
  recorder[Symbol.dispose]();
  stage.play(made("a-2"));
  assertEquals(stage.observers.size, 0);
  assertEquals(recorder.lineage("a-1")?.event.id, "a-1");
  assertEquals(recorder.lineage("a-2"), undefined);
});

Deno.test("Recorder.toMermaid() draws publishers, the bus and subscriptions", () => {
  const stage = new Stage("restaurant");
  using recorder = new Recorder(stage);
  assertEquals(
    recorder.toMermaid(),
    "sequenceDiagram\n  participant bus as restaurant\n",
  );
  const order = stage.play(made("a-1"), "kitchen", "board");
  stage.play(made("a-2", { source: "table 8" }), "kitchen");
  const served = { type: "served", source: "kitchen", cause: "a-1" };
  const event = stage.play(made("a-3", served), "board");
  const subscription = "board";
  stage.tell("failed", event, { subscription, waited: 1, error: BOOM });
  stage.tell("dropped", event, { subscription: "guest", reason: "ended" });
  stage.tell("unheard", order);
  const [all, lineage, last] = [{}, { of: event }, { limit: 3 }].map((
    options,
  ) => recorder.toMermaid(options).split("\n").map((line) => line.trim()));
  assertEquals(all, [
    "sequenceDiagram",
    "participant p0 as table 7",
    "participant p3 as table 8",
    "participant bus as restaurant",
    "participant p1 as kitchen",
    "participant p2 as board",
    "participant p4 as guest",
    "p0->>bus: order",
    "bus-)p1: order",
    "bus-)p2: order",
    "p3->>bus: order",
    "bus-)p1: order",
    "p1->>bus: served",
    "bus-)p2: served",
    "p2--xbus: served failed, Error#58; boom",
    "bus-xp4: served dropped, ended",
    "Note over bus: order is heard by nobody",
    "",
  ]);
  assertFalse(lineage.some((line) => line.includes("table 8")));
  assertEquals(lineage.length, all.length - 3);
  assertEquals(last, [
    "sequenceDiagram",
    "participant bus as restaurant",
    "participant p0 as board",
    "participant p1 as guest",
    "Note over bus: 7 earlier arrows left out",
    ...all.slice(-4).map((line) =>
      line.replace("p2", "p0").replace("p4", "p1")
    ),
  ]);
  assertEquals(
    recorder.toMermaid({ of: "nobody's" }),
    "sequenceDiagram\n  participant bus as restaurant\n",
  );
});

Deno.test("Recorder.toMermaid() stands on the left who begins something, and is no longer than viewers take", () => {
  const stage = new Stage();
  using recorder = new Recorder(stage);
  stage.play(made("a-1"), "kitchen");
  stage.play(made("a-2", { source: "kitchen", cause: "a-1" }), "board");
  stage.play(made("a-3", { source: "ledger", cause: "a-2" }), "table 7");
  assertEquals(
    recorder.toMermaid().match(/(?<= as ).+/g),
    ["table 7", "bus", "kitchen", "board", "ledger"],
  );
  const long = "\u{1f35c}".repeat(1000);
  for (const n of range(200)) {
    stage.play(made(`b-${n}`, { type: long }), `${n}${long}`);
  }
  const text = recorder.toMermaid({ limit: Infinity });
  assert(text.length > 48_000 && text.length < 50_000);
  const [left] = /\d+(?= earlier arrows left out)/.exec(text)!;
  assertEquals(text.match(/->>|-\)/g)!.length + Number(left), 406);
});

Deno.test("Recorder.toMermaid() says nothing that could mean something to Mermaid", () => {
  for (const name of [...HOSTILE, "the end", "End"]) {
    const stage = new Stage(name);
    using recorder = new Recorder(stage);
    stage.play(made("a-1", { type: name, source: name }), `${name}.`);
    for (const line of recorder.toMermaid().trim().split("\n").slice(1)) {
      const [, text] = / as (.*)|: (.*)/.exec(line)!.filter((part) => part);
      const plain = text.replaceAll(/#\d+;/g, "");
      assertFalse(/[^\p{L}\p{N} _.,()-]|\bend\b/iu.test(plain), line);
      assert(text.trim() !== "");
    }
  }
});

/** Checks a trace against the format, and what viewers make of it. */
function check(trace: ChromeTrace): ChromeTraceEvent[] {
  const events: ChromeTraceEvent[] =
    JSON.parse(JSON.stringify(trace)).traceEvents;
  const threads = new Map<number, string>();
  const slices: ChromeTraceEvent[] = [];
  const starts = new Map<number, ChromeTraceEvent>();
  const ends = new Set<number>();
  for (const event of events) {
    const { ph, tid, pid, ts = NaN, dur = NaN, id = NaN } = event;
    assertEquals(pid, 1);
    assert(Number.isInteger(tid));
    assertEquals(typeof event.name, "string");
    switch (ph) {
      case "M": {
        if (event.name === "process_name") break;
        assertFalse(threads.has(tid));
        const { name } = event.args as { name: string };
        assert(name !== "");
        threads.set(tid, name);
        break;
      }
      case "X":
        assert(ts >= 0 && dur > 0, JSON.stringify(event));
        slices.push(event);
        break;
      case "s":
        assertFalse(starts.has(id));
        starts.set(id, event);
        break;
      case "f": {
        const start = starts.get(id)!;
        assertEquals([event.bp, event.cat], ["e", start.cat]);
        assert(start.ts! < ts, "an arrow goes forward in time");
        assertFalse(ends.has(id));
        ends.add(id);
      }
    }
  }
  assertEquals(new Set(threads.values()).size, threads.size);
  assertEquals(starts.size, ends.size);
  for (const { tid, ts, ph } of events) {
    if (ph === "M") continue;
    assert(threads.has(tid));
    const around = slices.filter((slice) =>
      slice.tid === tid && slice.ts! <= ts! && ts! < slice.ts! + slice.dur!
    );
    assertEquals(around.length, 1, "slices don't overlap, arrows end in one");
  }
  return events;
}

Deno.test("Recorder.toChromeTrace() shows handlers as slices, joined by arrows", () => {
  const stage = new Stage("restaurant");
  using recorder = new Recorder(stage);
  stage.play(made("a-1"), "kitchen");
  const served = { type: "served", source: "kitchen", cause: "a-1" };
  const event = stage.play(made("a-2", served), "board");
  const handler = { subscription: "bookkeeper", handler: true, waited: 1 };
  stage.tell("delivered", event, { ...handler, subscriptionId: 101 });
  stage.tell("delivered", event, { ...handler, subscriptionId: 102 });
  stage.tell("failed", event, { ...handler, subscriptionId: 102, error: BOOM });
  stage.tell("failed", event, { subscription: "filter", error: BOOM });
  stage.tell("dropped", event, { subscription: "full", reason: "overflow" });
  stage.tell("delivered", event, { subscription: "reader", waited: 1 });
  stage.tell("unheard", event);
  const events = check(recorder.toChromeTrace());
  const names = new Map(
    events.filter(({ ph }) => ph === "M").map((event) => [
      event.tid,
      (event.args as { name: string }).name,
    ]),
  );
  assertEquals([...names.values()], [
    "restaurant",
    "publisher table 7",
    "publisher kitchen",
    "subscription kitchen",
    "subscription board",
    "subscription bookkeeper",
    "subscription bookkeeper (2)",
    "subscription filter",
    "subscription full",
    "subscription reader",
  ]);
  const shown = events.filter(({ ph }) => ph === "X").map(
    ({ tid, name, args = {} }) => {
      const marks = ["error", "reason", "unheard", "unfinished"]
        .filter((key) => key in args).map((key) => `${key} ${args[key]}`);
      return [names.get(tid), name, ...marks].join(": ");
    },
  );
  assertEquals(shown, [
    "publisher table 7: order",
    "publisher kitchen: served: unheard true",
    "subscription kitchen: order",
    "subscription board: served",
    "subscription bookkeeper: served: unfinished true",
    "subscription bookkeeper (2): served: error Error: boom",
    "subscription filter: served: error Error: boom",
    "subscription full: served dropped: reason overflow",
    "subscription reader: served",
  ]);
  const arrows = events.filter(({ ph }) => ph === "f").map(({ name, tid }) =>
    `${name} to ${names.get(tid)}`
  );
  assertEquals(arrows, [
    "delivery to subscription kitchen",
    "cause to publisher kitchen",
    "delivery to subscription board",
    "delivery to subscription bookkeeper",
    "delivery to subscription bookkeeper (2)",
    "delivery to subscription reader",
  ]);
  assertEquals(recorder.toChromeTrace().otherData, {
    recorded: 15,
    dropped: 0,
  });
});

Deno.test("Recorder.toChromeTrace() counts microseconds from the first step", () => {
  const stage = new Stage();
  using recorder = new Recorder(stage);
  const event = made("a-1");
  const twin = { subscription: "twin" };
  stage.tell("published", event, { at: 5000 });
  stage.tell("delivered", event, { ...twin, handler: true, at: 5001.5 });
  const filter = { ...twin, subscriptionId: 101 };
  stage.tell("failed", event, { ...filter, error: "its filter", at: 5002 });
  stage.tell("handled", event, { ...twin, waited: 2.25, at: 5003.75 });
  stage.tell("delivered", event, { subscription: "reader", at: 5003.75 });
  const slices = check(recorder.toChromeTrace())
    .filter(({ ph }) => ph === "X").map(({ ts, dur }) => [ts, dur]);
  assertEquals(slices, [
    [0, 1], // a moment is shown as a microsecond
    [1500, 2250],
    [2000, 1],
    [3750 + 1 / 64, 1], // no two at the same time
  ]);
});

Deno.test("Recorder.toChromeTrace() shows a handler that goes on until now, or until it was disposed of", () => {
  const stage = new Stage();
  const recorder = new Recorder(stage);
  const event = made("a-1");
  stage.tell("published", event, { at: 1000 });
  stage.tell("delivered", event, {
    subscription: "hangs",
    handler: true,
    at: 1001,
  });
  const { performance } = globalThis;
  const now = performance.now;
  const duration = () =>
    check(recorder.toChromeTrace()).find(({ args }) => args?.unfinished)!.dur;
  try {
    performance.now = () => 1051;
    assertEquals(duration(), 50_000);
    recorder[Symbol.dispose]();
    performance.now = () => 9999;
    assertEquals(duration(), 50_000);
  } finally {
    performance.now = now;
  }
});

Deno.test("Recorder.toChromeTrace() takes any name, and a clock that stands still", () => {
  const stage = new Stage("\ud800\n");
  using recorder = new Recorder(stage);
  for (const name of HOSTILE) {
    stage.play(made(name, { type: name, source: name, cause: name }), name);
  }
  const { performance } = globalThis;
  const now = performance.now;
  performance.now = () => 7;
  try {
    for (const name of HOSTILE) {
      stage.play(made(name, { type: name }), name, name);
    }
  } finally {
    performance.now = now;
  }
  const events = check(recorder.toChromeTrace());
  assertEquals(
    events.filter(({ ph }) => ph === "X").length,
    HOSTILE.length * 5,
  );
});

Deno.test("Recorder shows a real bus", async () => {
  const { bus, passed, go } = open({ name: "real" });
  using recorder = new Recorder(bus);
  bus.on("n", () => passed, { name: "slow", concurrency: 2 });
  bus.on("n", async (event) => {
    await bus.publish("s", "served", { source: "kitchen", cause: event });
  }, { name: "kitchen" });
  bus.on("s", () => Promise.reject(BOOM), { name: "fails" });
  bus.subscribe("n", { name: "full", capacity: 1, overflow: "drop-oldest" });
  const first = await bus.publish("n", 1, { source: "table 1" });
  await bus.publish("n", 2, { source: "table 2" });
  await bus.publish("quit");
  await flush();
  const { event, effects } = recorder.lineage(first)!;
  const states = event.deliveries.map(({ subscription, state }) =>
    `${subscription} ${state}`
  );
  assertEquals(states.toSorted(), [
    "full dropped",
    "kitchen handled",
    "slow handling",
  ]);
  assertEquals(
    effects.map(({ type, source, cause }) => [type, source, cause]),
    [
      ["s", "kitchen", first.id],
    ],
  );
  const [delivery] = effects[0].deliveries;
  assertEquals([delivery.state, delivery.error], ["failed", "Error: boom"]);
  assert(delivery.took! >= 0 && delivery.waited! >= 0);
  const names = (trace: ChromeTrace) =>
    check(trace).flatMap(({ name, args }) =>
      name === "thread_name" ? [(args as { name: string }).name] : []
    ).toSorted();
  assertEquals(names(recorder.toChromeTrace()), [
    "publisher kitchen",
    "publisher table 1",
    "publisher table 2",
    "publisher unknown",
    "subscription fails",
    "subscription full",
    "subscription kitchen",
    "subscription slow",
    "subscription slow (2)",
  ]);
  go();
  await bus.close();
});

// -------------------------------------------------------------- CloudEvents

Deno.test("toCloudEvent() makes what CloudEvents 1.0 demands", () => {
  const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const event = made("a-2", { cause: "a-1", trace, data: { dish: "soup" } });
  assertEquals(toCloudEvent(event), {
    specversion: "1.0",
    id: "a-2",
    source: "table%207",
    type: "order",
    time: "2026-01-31T12:00:00.000Z",
    datacontenttype: "application/json",
    data: { dish: "soup" },
    traceparent: trace,
    causationid: "a-1",
  });
  assertEquals(Object.keys(toCloudEvent(made("a-1", { data: undefined }))), [
    "specversion",
    "id",
    "source",
    "type",
    "time",
  ]);
  for (const name of Object.keys(toCloudEvent(event))) {
    assert(/^[a-z0-9]{1,20}$/.test(name)); // what the specification allows
  }
});

Deno.test("toCloudEvent() carries any data", () => {
  for (const data of [null, 0, false, "", [], {}]) {
    const { datacontenttype, ...event } = toCloudEvent(made("a-1", { data }));
    assertStrictEquals(event.data, data);
    assertEquals(datacontenttype, "application/json");
  }
  const data = new Uint8Array([0, 1, 127, 128, 255]);
  const event = toCloudEvent(made("a-1", { data }));
  assertEquals(event.datacontenttype, "application/octet-stream");
  assertEquals(event.data_base64, "AAF/gP8=");
  assertFalse("data" in event);
});

Deno.test("toCloudEvent() makes a URI reference of any source", () => {
  const sources = {
    "front of house": "front%20of%20house",
    "/svc/orders": "/svc/orders",
    "https://example.com/a?b=c%20d": "https://example.com/a?b=c%20d",
    "urn:uuid:6e8bc430": "urn:uuid:6e8bc430",
    "a:b c": "a%3Ab%20c",
    "7:1": "7%3A1",
    "50%": "50%25",
    "50%25": "50%2525",
    "a#b?c": "a%23b%3Fc",
    "日本": "%E6%97%A5%E6%9C%AC",
    "[::1]": "%5B%3A%3A1%5D",
  };
  for (const [source, uri] of Object.entries(sources)) {
    assertEquals(toCloudEvent(made("a-1", { source })).source, uri);
    assert(URL.canParse(uri, "https://example.com"));
  }
});

Deno.test("toCloudEvent() refuses what CloudEvents forbids, and leaves out an invalid trace", () => {
  for (const wrong of ["", "a\nb", "\u0085", "\ud800", "\uffff"]) {
    for (const key of ["id", "type", "source", "cause"]) {
      assertThrows(
        () => toCloudEvent(made("a-1", { [key]: wrong })),
        RangeError,
        `Cannot make a CloudEvent: ${key} must be`,
      );
    }
    assertFalse("traceparent" in toCloudEvent(made("a-1", { trace: wrong })));
  }
});

// ------------------------------------------------- observers, OpenTelemetry

Deno.test("BusObserver.trace() gives an event its trace, and may be wrong", async () => {
  using reports = catchReports();
  const { bus } = open();
  const asked: unknown[] = [];
  const observers = [
    {
      trace(
        type: string,
        { source, trace }: { source?: string; trace?: string },
      ) {
        asked.push([type, source, trace]);
        return `${trace ?? "new"}+`;
      },
    },
    {
      trace() {
        throw BOOM;
      },
    },
  ].map((observer) => bus.observe(observer));
  const { trace } = await bus.publish("n", 1, { source: "table 7" });
  assertEquals(trace, "new+");
  assertEquals(bus.tryPublish("n", 2, { trace: "old" })?.trace, "old+");
  assertEquals(asked, [["n", "table 7", undefined], ["n", undefined, "old"]]);
  assertEquals(reports.errors, [BOOM, BOOM]);
  for (const observer of observers) observer[Symbol.dispose]();
  assertFalse("trace" in await bus.publish("n", 3));
});

Deno.test("BusObserver is told when each step was, and whether a handler follows", async () => {
  const { bus, see } = open();
  const steps: [string, BusStep][] = [];
  const note = (kind: string) => (step: BusStep) =>
    void steps.push([kind, step]);
  bus.observe({
    published: note("published"),
    queued: note("queued"),
    delivered: note("delivered"),
    handled: note("handled"),
    dropped: note("dropped"),
    unheard: note("unheard"),
    failed: note("failed"),
  });
  const before = performance.now();
  bus.on("n", ({ data }) => {
    see(data);
    if (data === 1) throw BOOM;
  }, { name: "handler" });
  const once = bus.once("n");
  const ends = bus.subscribe("n", { name: "ends" });
  await bus.publish("n", 1);
  await bus.publish("n", 2);
  await bus.publish("quit");
  await once;
  await flush();
  ends.unsubscribe();
  const times = steps.map(([_, { at }]) => at);
  assertEquals(times, times.toSorted((a, b) => a - b));
  assert(times[0] >= before && times.at(-1)! <= performance.now());
  for (const [kind, { handler, subscription, waited }] of steps) {
    const delivered = kind === "delivered";
    const byHandler = subscription === "handler";
    assertEquals(
      handler,
      delivered || /handled|failed/.test(kind) ? byHandler : undefined,
    );
    assertEquals(
      waited !== undefined,
      delivered || handler === true,
    );
    assert(waited === undefined || waited >= 0);
  }
  const kinds = new Set(steps.map(([kind]) => kind));
  assertEquals(kinds.size, 7);
});

Deno.test("BusObserver.around() stands around each handler, which runs once whatever it does", async () => {
  using reports = catchReports();
  const { bus, errors } = open();
  const seen: unknown[] = [];
  const arounds = [
    (run: () => void) => {
      seen.push("(");
      run();
      seen.push(")");
    },
    () => {}, // never
    (run: () => void) => {
      run();
      run(); // twice
    },
    (run: () => void) => {
      run();
      throw BOOM;
    },
  ];
  for (const around of arounds) {
    bus.observe({ around: (_, run) => around(run) });
  }
  bus.on("n", ({ data }) => {
    seen.push(data);
    if (data > 1) throw "thrown";
  });
  await bus.publish("n", 1);
  await bus.publish("n", 2);
  await flush();
  assertEquals(seen, ["(", 1, ")", "(", 2, ")"]);
  assertEquals(reports.errors, [BOOM, BOOM]);
  assertEquals(errors.map(({ cause }) => cause), ["thrown"]);
});

Deno.test("toOpenTelemetry() needs nothing but the shape of a tracer", async () => {
  const { bus } = open();
  const told: string[] = [];
  let spans = 0;
  const span = (name: string) => {
    const spanId = String(++spans).padStart(16, "0");
    told.push(`start ${name}`);
    return {
      spanContext: () => ({ traceId: "a".repeat(32), spanId, traceFlags: 1 }),
      setAttribute: () => {},
      setStatus: () => {},
      recordException: (error: unknown) => told.push(`${error}`),
      end: () => told.push(`end ${name}`),
    };
  };
  using _ = toOpenTelemetry(bus, {
    startSpan: span,
    startActiveSpan: (name, _, run) => run(span(name)),
  });
  bus.on("n", () => Promise.reject(BOOM));
  const { trace } = await bus.publish("n", 1);
  await flush();
  assertEquals(trace, `00-${"a".repeat(32)}-0000000000000001-01`);
  assertEquals(told, [
    "start publish n",
    "end publish n",
    "start process n",
    "Error: boom",
    "end process n",
  ]);
});

Deno.test("toOpenTelemetry() does not take a failing filter for a handler of the same name", () => {
  const stage = new Stage();
  const told: string[] = [];
  const span = (name: string) => ({
    spanContext: () => ({ traceId: "", spanId: "", traceFlags: 0 }),
    setAttribute: () => {},
    setStatus: () => told.push(`${name} failed`),
    recordException: () => {},
    end: () => told.push(`${name} ended`),
  });
  using _ = toOpenTelemetry(stage, {
    startSpan: span,
    startActiveSpan: (name, _, run) => run(span(name)),
  });
  const event = made("a-1");
  const step = { event, subscription: "twin", subscriptionId: 101, at: 0 };
  for (const observer of stage.observers) observer.around?.(step, () => {});
  const filter = { ...step, subscriptionId: 102 };
  stage.tell("failed", event, { ...filter, error: "its filter" });
  assertEquals(told, []);
  stage.tell("handled", event, { ...step, waited: 1 });
  assertEquals(told, ["process order ended"]);
});

Deno.test("Every tool of trace.ts takes a bus of any events", () => {
  const bus: Bus<Events> = open().bus;
  using _log = logTo(bus, () => {});
  using _recorder = new Recorder(bus);
  assertFalse(bus.inspect().closed);
});
