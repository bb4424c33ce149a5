import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { Bus, type BusObserver } from "../bus.ts";
import { inspector, type InspectorOptions } from "../inspector.ts";
import { Serializer } from "../serializer.ts";
import {
  catchReports,
  deferred,
  flush,
  probedController,
  range,
  replaceGlobals,
} from "./_helpers.ts";
import { Stage } from "./_trace.ts";

// ── Helpers ─────────────────────────────────────────────────────────────────

/** Timers that the test lets go off, until the end of the `using` block. */
function stopTimers() {
  const timers = new Map<number, () => void>();
  let last = 0;
  const replaced = replaceGlobals({
    setInterval: (body: () => void) => (timers.set(++last, body), last),
    clearInterval: (id: number) => timers.delete(id),
  });
  return Object.assign(replaced, {
    timers,
    tick: () => timers.forEach((body) => body()),
  });
}

/** A bus that knows who observes it. */
class Watched extends Bus<Record<string, unknown>> {
  observers = 0;

  override observe(observer: BusObserver): Disposable {
    const observing = super.observe(observer);
    let over = false;
    this.observers++;
    return {
      [Symbol.dispose]: () => {
        if (!over) this.observers--;
        over = true;
        observing[Symbol.dispose]();
      },
    };
  }
}

const get = (path: string, init?: RequestInit) =>
  new Request(`http://127.0.0.1${path}`, init);

type Step = [
  kind: number,
  event: number,
  id: number,
  name: string,
  at: number,
  waited: number,
  depth: number,
  extra: unknown,
];

interface Frame {
  at: number;
  // deno-lint-ignore no-explicit-any
  buses: any[];
  // deno-lint-ignore no-explicit-any
  serializers: any[];
}

/** Reads server-sent events. */
class Client {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #decoder = new TextDecoder();
  // deno-lint-ignore no-explicit-any
  hello: any;

  constructor(response: Response) {
    assertEquals(response.status, 200);
    this.#reader = response.body!.getReader();
  }

  static async open(
    inspect: (request: Request) => Response,
    init?: RequestInit,
  ): Promise<{ client: Client; first: Frame }> {
    const client = new Client(inspect(get("/events", init)));
    const hello = await client.#read();
    assertMatch(hello, /^retry: 1000\nevent: hello\ndata: .+\n\n$/);
    client.hello = JSON.parse(hello.split("data: ")[1]);
    return { client, first: await client.frame() };
  }

  async #read(): Promise<string> {
    const { value, done } = await this.#reader.read();
    return done ? "" : this.#decoder.decode(value);
  }

  /** The next frame. */
  async frame(): Promise<Frame> {
    const text = await this.#read();
    assertMatch(text, /^data: [^\n]+\n\n$/);
    return JSON.parse(text.slice(6));
  }

  /** Whether the stream ends with what there is. */
  async ended(): Promise<boolean> {
    while (await this.#read() !== "");
    return true;
  }

  leave(): Promise<void> {
    return this.#reader.cancel();
  }
}

const KINDS = "published queued dropped delivered handled failed unheard".split(
  " ",
);

/** What happened, in words. */
function said({ events, steps }: Frame["buses"][number]): string[] {
  return steps.map(([kind, event, _id, name, , , , extra]: Step) =>
    [KINDS[kind], events[event].type, name, extra]
      .filter((word) => typeof word === "string").join(" ")
  );
}

/** What one event is shown as. */
async function shown(
  data: unknown,
  options?: InspectorOptions,
): Promise<string> {
  using clock = stopTimers();
  const stage = new Stage();
  const { client } = await Client.open(inspector(stage, options));
  const event = { id: "1", type: "order", source: "x", time: 0, data };
  stage.tell("published", event);
  clock.tick();
  const { buses } = await client.frame();
  await client.leave();
  return buses[0].events[0].data;
}

// ── The page ────────────────────────────────────────────────────────────────

Deno.test("inspector() serves a page under any path that ends in a slash", async () => {
  const inspect = inspector(new Bus());
  for (const path of ["/", "/inspect/", "/a/b/?c=/d"]) {
    const response = inspect(get(path));
    assertEquals(response.status, 200, path);
    assertEquals(
      response.headers.get("content-type"),
      "text/html; charset=utf-8",
    );
    const page = await response.text();
    assertStringIncludes(page, "<title>Inspector</title>");
    // Its addresses are relative, and all within.
    const links = [...page.matchAll(/(?:src|href)="([^"]*)"/g)];
    assertEquals(links.map(([, link]) => link), ["data:,"]);
    assertStringIncludes(page, 'new EventSource("events")');
  }
});

Deno.test("inspector() lets nothing run in its page but its own script", async () => {
  const inspect = inspector(new Bus());
  const nonces: string[] = [];
  for (const _ of range(2)) {
    const response = inspect(get("/"));
    const page = await response.text();
    const policy = response.headers.get("content-security-policy")!;
    assertMatch(policy, /^default-src 'none'; script-src 'nonce-\w{32}'; /);
    for (
      const rule of [
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
      ]
    ) assertStringIncludes(policy, rule);
    assertEquals(/unsafe|\*|http/.test(policy), false, policy);
    const nonce = /'nonce-(\w+)'/.exec(policy)![1];
    assertEquals(page.split(`nonce="${nonce}"`).length, 3);
    assertEquals(page.match(/<(script|style)\b/g), ["<style", "<script"]);
    const [html, script] = page.split("<script");
    assertEquals(/ on\w+=| style=/.test(html), false);
    assertEquals(
      /innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(/
        .test(script),
      false,
    );
    nonces.push(nonce);
  }
  assertNotEquals(nonces[0], nonces[1]);
});

Deno.test("inspector() refuses all but GET of its page and events", async () => {
  const bus = new Watched();
  const inspect = inspector(bus);
  const cases: [status: number, path: string, method?: string][] = [
    [404, "/inspect"],
    [404, "/inspect/nothing"],
    [404, "/events.js"],
    [404, "/inspect/%3Cscript%3E"],
    [404, "/__proto__"],
    [404, "/nothing", "POST"],
    [405, "/", "POST"],
    [405, "/", "HEAD"],
    [405, "/events", "POST"],
    [405, "/events", "DELETE"],
    [405, "/events", "OPTIONS"],
  ];
  for (const [status, path, method] of cases) {
    const response = inspect(get(path, { method }));
    assertEquals(response.status, status, `${method} ${path}`);
    assertMatch(response.headers.get("content-type")!, /^text\/plain/);
    assertEquals((await response.text()).includes("script"), false);
    assertEquals(response.headers.get("allow"), status === 405 ? "GET" : null);
  }
  for (const site of ["cross-site", "same-site"]) {
    const request = get("/events");
    // Pages cannot set this header; here it is told as servers tell it.
    Object.defineProperty(request, "headers", {
      value: { get: (name: string) => name === "sec-fetch-site" ? site : null },
    });
    assertEquals(inspect(request).status, 403);
  }
  assertEquals(bus.observers, 0);
});

Deno.test("inspector() answers by addresses and localhost only, unless told other names", () => {
  using _ = stopTimers();
  const bus = new Watched();
  const cases: [status: number, host: string, hosts?: string[]][] = [
    [200, "127.0.0.1:8000"],
    [200, "192.168.0.7"],
    [200, "[::1]:8000"],
    [200, "localhost:8000"],
    [200, "LOCALHOST"],
    [200, "app.localhost"],
    // A site can give any machine a name of its own, and read along by it.
    [403, "evil.example"],
    [403, "evil.example:8000"],
    [403, "localhost.evil.example"],
    [403, "127.0.0.1.evil.example"],
    [403, "notlocalhost"],
    [403, "evil.example", ["good.example"]],
    [403, "a.good.example", ["good.example"]],
    [403, "__proto__", ["good.example"]],
    [200, "good.example:8000", ["good.example"]],
    [200, "good.example", ["Good.Example"]],
    [200, "127.0.0.1", ["good.example"]],
  ];
  for (const [status, host, hosts] of cases) {
    const inspect = inspector(bus, { hosts });
    for (const path of ["/", "/events"]) {
      const response = inspect(new Request(`http://${host}${path}`));
      assertEquals(response.status, status, `${host}${path}`);
      response.body?.cancel();
    }
  }
  assertEquals(bus.observers, 0);
});

Deno.test("inspector() refuses its events to pages of other sites also where no browser says so", () => {
  using _ = stopTimers();
  const bus = new Watched();
  const inspect = inspector(bus);
  const cases: [status: number, origin: string | null][] = [
    [200, null],
    [200, "http://127.0.0.1"],
    [403, "http://127.0.0.1:8000"],
    [403, "http://evil.example"],
    [403, "null"],
    [403, ""],
  ];
  for (const [status, origin] of cases) {
    const request = get("/events");
    Object.defineProperty(request, "headers", {
      value: { get: (name: string) => name === "origin" ? origin : null },
    });
    const response = inspect(request);
    assertEquals(response.status, status, `${origin}`);
    response.body?.cancel();
  }
  assertEquals(bus.observers, 0);
});

Deno.test("inspector() refuses arguments that make no sense", () => {
  const bus = new Bus();
  const cases: [target: unknown, options: unknown, message: string][] = [
    [undefined, {}, "what is shown must be a Bus, or an object, got undefined"],
    [[bus], {}, "what is shown must be a Bus, or an object, got an array"],
    [{ buses: bus }, {}, "buses must be an array, got an object"],
    [{ buses: [1] }, {}, "each of buses must be a Bus, got 1"],
    [{ buses: [{}] }, {}, "observe of each of buses must be a function"],
    [{ serializers: 1 }, {}, "serializers must be an object, got 1"],
    [{ serializers: { a: 1 } }, {}, "serializers.a must be a Serializer"],
    [bus, null, "options must be an object, got null"],
    [bus, { showData: 1 }, "showData must be a boolean or a function, got 1"],
    [bus, { showErrors: 1 }, "showErrors must be a boolean, got 1"],
    [bus, { hosts: "a" }, 'hosts must be an array of strings, got "a"'],
    [bus, { hosts: [1] }, "hosts must be an array of strings, got an array"],
    [bus, { maxPages: 0 }, "maxPages must be an integer >= 1 or Infinity"],
    [bus, { maxPages: "1" }, "maxPages must be an integer >= 1 or Infinity"],
  ];
  for (const [target, options, message] of cases) {
    assertThrows(
      () => inspector(target as Bus, options as InspectorOptions),
      Error,
      `Cannot inspect: ${message}`,
    );
  }
});

// ── When it observes ────────────────────────────────────────────────────────

Deno.test("inspector() observes only while a page is open", async () => {
  using clock = stopTimers();
  const bus = new Watched();
  const inspect = inspector(bus);
  await inspect(get("/")).text();
  assertEquals([bus.observers, clock.timers.size], [0, 0]);

  const a = await Client.open(inspect);
  const b = await Client.open(inspect);
  assertEquals([bus.observers, clock.timers.size], [2, 2]);
  await a.client.leave();
  assertEquals([bus.observers, clock.timers.size], [1, 1]);
  await b.client.leave();
  assertEquals([bus.observers, clock.timers.size], [0, 0]);

  const c = await Client.open(inspect);
  assertEquals(bus.observers, 1);
  await c.client.leave();
  assertEquals([bus.observers, clock.timers.size], [0, 0]);
});

for (const order of ["signal", "cancel", "signal, cancel", "cancel, signal"]) {
  Deno.test(`inspector() leaves nothing behind when a page leaves by ${order}`, async () => {
    using clock = stopTimers();
    const bus = new Watched();
    const inspect = inspector(bus, { maxPages: 1 });
    for (const _ of range(3)) { // its place is free again
      const controller = probedController();
      const request = get("/events");
      Object.defineProperty(request, "signal", { value: controller.signal });
      const client = new Client(inspect(request));
      assertEquals([bus.observers, controller.listening], [1, 1]);
      for (const way of order.split(", ")) {
        if (way === "signal") controller.abort();
        else await client.leave();
        const { observers } = bus;
        const { listening } = controller;
        assertEquals([observers, clock.timers.size, listening], [0, 0, 0]);
      }
      assert(await client.ended());
    }
  });
}

Deno.test("inspector() does not observe for who has left already", () => {
  using clock = stopTimers();
  const bus = new Watched();
  const inspect = inspector(bus);
  const request = get("/events", { signal: AbortSignal.abort() });
  assertEquals(inspect(request).status, 499);
  assertEquals([bus.observers, clock.timers.size], [0, 0]);
});

Deno.test("inspector() lets no more pages be open than it may", async () => {
  using _ = stopTimers();
  const bus = new Watched();
  for (const maxPages of [1, 3]) {
    const inspect = inspector(bus, { maxPages });
    const open = await Promise.all(
      range(maxPages).map(() => Client.open(inspect)),
    );
    const refused = inspect(get("/events"));
    assertEquals(refused.status, 503);
    assertEquals(refused.headers.get("retry-after"), "5");
    assertEquals(bus.observers, maxPages);
    await open[0].client.leave();
    open[0] = await Client.open(inspect);
    for (const { client } of open) await client.leave();
    assertEquals(bus.observers, 0);
  }
});

Deno.test("inspector() lets a page go that takes nothing", async () => {
  using clock = stopTimers();
  const bus = new Watched();
  const client = new Client(inspector(bus)(get("/events")));
  let ticks = 0;
  for (; bus.observers > 0; ticks++) {
    bus.tryPublish("order", 1);
    clock.tick();
    assert(ticks < 1000);
  }
  assert(ticks > 100, `after ${ticks}`);
  assertEquals(clock.timers.size, 0);
  assert(await client.ended());
});

// ── What it tells ───────────────────────────────────────────────────────────

Deno.test("inspector() tells the way of each event", async () => {
  using clock = stopTimers();
  const { promise, resolve } = deferred();
  const bus = new Bus<{ order: string; served: string; bell: undefined }>({
    name: "restaurant",
    onError: () => resolve(),
  });
  bus.on("order", async (order) => {
    const options = { source: "kitchen", cause: order };
    await bus.publish("served", order.data, options);
  }, { name: "kitchen" });
  bus.on("served", () => {
    throw new Error("no ink");
  }, { name: "bookkeeper", capacity: 8 });
  const overflow = "drop-oldest";
  bus.subscribe("served", { name: "board", capacity: 1, overflow });
  const { client, first } = await Client.open(
    inspector(bus, { showErrors: true }),
  );
  assertEquals(first.buses[0].steps, []);
  assertEquals(first.buses[0].name, "restaurant");

  await bus.publish("order", "soup", { source: "table 7" });
  await promise;
  await bus.publish("bell");
  await flush();
  clock.tick();
  const { buses: [shown] } = await client.frame();
  assertEquals(said(shown), [
    "published order",
    "queued order kitchen",
    "delivered order kitchen",
    "published served",
    "queued served bookkeeper",
    "queued served board",
    "handled order kitchen",
    "delivered served bookkeeper",
    "failed served bookkeeper Error: no ink",
    "published bell",
    "unheard bell",
  ]);
  const [order, served] = shown.events;
  assertEquals([order.source, served.source], ["table 7", "kitchen"]);
  assertEquals([order.cause, served.cause], [undefined, order.id]);
  assertEquals(order.data, "string, 4 characters"); // and not which
  assertEquals(JSON.stringify(shown).includes("soup"), false);
  const { published, delivered, dropped, failed, whole, more } = shown;
  assertEquals([published, delivered, dropped, failed], [3, 2, 0, 1]);
  assertEquals([whole, more], [true, 0]);
  const subscriptions = shown.subscriptions.map((
    { name, types, size, capacity, waiting, failed }: Record<string, unknown>,
  ) => [name, types, size, capacity, waiting, failed]);
  assertEquals(subscriptions, [
    ["kitchen", ["order"], 0, 256, 0, 0],
    ["bookkeeper", ["served"], 0, 8, 0, 1],
    ["board", ["served"], 1, 1, 0, 0],
  ]);

  clock.tick(); // nothing is told twice
  const { buses: [next] } = await client.frame();
  assertEquals([next.steps, next.events, next.published], [[], [], 3]);
  await client.leave();
});

Deno.test("inspector() shows who holds publishers back, and since when", async () => {
  using clock = stopTimers();
  const bus = new Bus<{ n: number }>();
  using slow = bus.subscribe("n", { name: "slow", capacity: 1 });
  const { client } = await Client.open(inspector(bus));
  await bus.publish("n", 1);
  const waiting = bus.publish("n", 2);
  clock.tick();
  const { at, buses } = await client.frame();
  const [shown] = buses[0].subscriptions;
  assertEquals([shown.name, shown.size, shown.waiting], ["slow", 1, 1]);
  assert(shown.heldSince <= at);
  await client.leave();
  slow.unsubscribe();
  await waiting;
});

Deno.test("inspector() samples a bus that is too busy, counts exactly, and says so", async () => {
  using clock = stopTimers();
  const bus = new Watched();
  let got = 0;
  bus.on("n", () => void got++, { capacity: Infinity });
  const { client } = await Client.open(inspector(bus));
  for (const burst of [1, 2]) {
    for (const n of range(5000)) bus.tryPublish("n", n);
    assertEquals(bus.observers, 0); // it has seen enough for now
    while (got < burst * 5000) await flush();
    clock.tick();
    const { buses: [shown] } = await client.frame();
    assertEquals(bus.observers, 1); // and looks again
    assertEquals(shown.whole, false);
    assertEquals(shown.steps.length, 2000);
    assertEquals(shown.published, burst * 5000);
    assertEquals(shown.delivered, burst * 5000);
  }
  bus.tryPublish("n", 1);
  await flush();
  clock.tick();
  assertEquals((await client.frame()).buses[0].whole, true);
  await client.leave();
});

Deno.test("inspector() counts what was dropped and failed of all subscriptions, also of those that are not shown, or have gone", async () => {
  using clock = stopTimers();
  const bus = new Bus<{ n: number }>({ onError() {} });
  const overflow = "drop-oldest";
  const lossy = bus.subscribe("n", { capacity: 1, overflow });
  for (const _ of range(300)) {
    bus.on("n", () => {
      throw new Error("no ink");
    });
  }
  await bus.publish("n", 1); // before anybody looks
  await bus.publish("n", 2);
  await flush();
  const { client, first } = await Client.open(inspector(bus));
  const counts = (
    { buses: [{ delivered, dropped, failed }] }: Frame,
  ) => [delivered, dropped, failed];
  assertEquals(counts(first), [600, 1, 600]);
  await bus.publish("n", 3);
  const { promise, resolve } = deferred();
  bus.once("n").then(() => resolve()); // comes and goes between two frames
  await bus.publish("n", 4);
  await promise;
  lossy.unsubscribe();
  await flush();
  clock.tick();
  assertEquals(counts(await client.frame()), [1201, 3, 1200]);
  clock.tick();
  assertEquals(counts(await client.frame()), [1201, 3, 1200]);
  await client.leave();
});

Deno.test("inspector() says of how many subscriptions publishers wait for, also of those that are not shown", async () => {
  using _ = stopTimers();
  const bus = new Bus<{ n: number }>();
  for (const _ of range(300)) bus.subscribe("n", { capacity: 1 });
  bus.publish("n", 1);
  bus.publish("n", 2).catch(() => {});
  const { client, first } = await Client.open(inspector(bus));
  assertEquals(first.buses[0].held, 300);
  await client.leave();
  await bus.abort();
});

Deno.test("inspector() keeps no more for a page than four frames, and loses no counts", async () => {
  using clock = stopTimers();
  const bus = new Bus<{ n: number }>();
  const { client } = await Client.open(inspector(bus));
  for (const n of range(20)) {
    bus.tryPublish("n", n);
    clock.tick();
  }
  const frames: Frame[] = [];
  while (frames.at(-1)?.buses[0].published !== 20) {
    frames.push(await client.frame());
    if (frames.length >= 4) clock.tick();
  }
  assert(frames.length <= 6, `${frames.length}`);
  const steps = frames.flatMap(({ buses }) => said(buses[0]));
  assertEquals(steps.filter((step) => step === "published n").length, 20);
  await client.leave();
});

Deno.test("inspector() shows several buses and serializers, by name", async () => {
  using clock = stopTimers();
  const [a, b] = [new Bus({ name: "a" }), new Bus({ name: "b" })];
  const { promise, resolve } = deferred();
  const oven = new Serializer({ open: () => 1, handle: () => promise });
  const plain = { waiting: 0, running: 2, closed: true };
  const inspect = inspector({
    buses: [a, b, a],
    serializers: { oven, plain },
  });
  const { client, first } = await Client.open(inspect);
  assertEquals(first.buses.map(({ name }) => name), ["a", "b"]);
  assertEquals(first.serializers, [
    { name: "oven", waiting: 0, running: 0, closed: false, oldestSince: null },
    { name: "plain", ...plain, oldestSince: null },
  ]);
  const requests = [oven.request(undefined as never), oven.run(() => {})];
  clock.tick();
  const { at, serializers: [shown] } = await client.frame();
  assertEquals([shown.running, shown.waiting], [1, 1]);
  assert(Math.abs(at - shown.oldestSince) < 1000);
  resolve();
  await Promise.all(requests);
  await client.leave();
});

Deno.test("inspector() tells buses of one name apart by a number", async () => {
  using _ = stopTimers();
  const buses = [new Bus(), new Bus({ name: "b" }), new Bus(), new Bus()];
  const { client, first } = await Client.open(inspector({ buses }));
  const names = first.buses.map(({ name }) => name);
  assertEquals(names, ["bus", "b", "bus (2)", "bus (3)"]);
  await client.leave();
});

Deno.test("inspector() tells pages apart what is new by a name of its own", async () => {
  using _ = stopTimers();
  const bus = new Bus();
  const sessions: string[] = [];
  const inspect = inspector(bus);
  for (const handler of [inspect, inspect, inspector(bus)]) {
    const { client } = await Client.open(handler);
    sessions.push(client.hello.session);
    await client.leave();
  }
  assertEquals(sessions[0], sessions[1]);
  assertNotEquals(sessions[0], sessions[2]);
});

// ── Names and data ──────────────────────────────────────────────────────────

Deno.test("inspector() shows no more than the beginning of a name", async () => {
  using clock = stopTimers();
  const long = `<img src=x onerror=alert(1)>\n\n\ud800data: ${"x".repeat(1e6)}`;
  const bus = new Bus<Record<string, unknown>>({ name: long, onError() {} });
  bus.on(long, () => {
    throw long;
  }, { name: long });
  bus.on(range(1000).map((n) => `${n}`), () => {}, { name: "many" });
  const inspect = inspector({
    buses: [bus],
    serializers: { [long]: new Serializer({ open: () => 1 }) },
  });
  const { client, first } = await Client.open(inspect);
  const [, many] = first.buses[0].subscriptions;
  assertEquals([many.types.length, many.moreTypes], [20, 980]);
  const cause = { id: long } as never;
  await bus.publish(long, long, { source: long, trace: long, cause });
  await flush();
  clock.tick();
  const frame = await client.frame(); // one message, which is JSON
  const text = JSON.stringify(frame);
  assert(text.length < 10_000, `${text.length}`);
  assertStringIncludes(text, "<img src=x onerror=alert(1)>");
  assertEquals(frame.buses[0].events[0].source.length, 200);
  await client.leave();
});

Deno.test("inspector() shows no characters that turn the text beside them around", async () => {
  using _ = stopTimers();
  const name = "\u202ekitchen\u2066 \u05e9\u05dc\u05d5\u05dd";
  const bus = new Bus({ name });
  const { client, first } = await Client.open(inspector(bus));
  const shown = "\ufffdkitchen\ufffd \u05e9\u05dc\u05d5\u05dd";
  assertEquals(first.buses[0].name, shown);
  await client.leave();
});

Deno.test("inspector() cuts no character in two", async () => {
  using _ = stopTimers();
  const bus = new Bus({ name: "\u{1f372}".repeat(200) });
  const { client, first } = await Client.open(inspector(bus));
  assertEquals(first.buses[0].name, `${"\u{1f372}".repeat(99)}\u2026`);
  await client.leave();
});

Deno.test("inspector() shows the messages of errors only if it may", async () => {
  class NoInkError extends Error {
    override name = "NoInkError";
  }
  const thrown: [error: unknown, kind: string, text: string][] = [
    [new NoInkError("card 1234"), "NoInkError", "NoInkError: card 1234"],
    ["card 1234", "string, 9 characters", '"card 1234"'],
    [{ card: 1234 }, "object", "an object"],
    [undefined, "undefined", "undefined"],
    [proxy, "object", "an error that cannot be shown"],
  ];
  for (const [error, kind, text] of thrown) {
    const options: [InspectorOptions, string][] = [
      [{}, kind],
      [{ showData: true }, kind],
      [{ showErrors: true }, text],
    ];
    for (const [may, shown] of options) {
      using clock = stopTimers();
      const stage = new Stage();
      const { client } = await Client.open(inspector(stage, may));
      const event = { id: "1", type: "n", source: "x", time: 0, data: 1 };
      stage.tell("failed", event, { subscription: "s", error });
      clock.tick();
      const { buses } = await client.frame();
      assertEquals(buses[0].steps[0][7], shown);
      await client.leave();
    }
    // What showData throws may be about the data, too.
    const showData = () => {
      throw error;
    };
    assertEquals(
      await shown(1, { showData }),
      `showData has failed: ${kind}`,
    );
  }
});

Deno.test("inspector() shows no more than 200 subscriptions, those first that publishers wait for", async () => {
  using _ = stopTimers();
  const bus = new Bus<{ n: number; slow: number }>();
  for (const n of range(300)) bus.subscribe("n", { name: `${n}` });
  bus.subscribe("slow", { name: "slow", capacity: 1 });
  bus.publish("slow", 1);
  bus.publish("slow", 2).catch(() => {});
  const { client, first } = await Client.open(inspector(bus));
  const { subscriptions, more } = first.buses[0];
  assertEquals([subscriptions.length, more], [200, 101]);
  assertEquals(subscriptions[0].name, "slow");
  await client.leave();
  await bus.abort();
});

const proxy = new Proxy({}, {
  ownKeys() {
    throw new Error("no keys");
  },
  getPrototypeOf() {
    throw new Error("no prototype");
  },
});
const cyclic: Record<string, unknown> = { name: "me" };
cyclic.self = cyclic;
const getter = {
  get secret() {
    throw new Error("called");
  },
};
/** Data, what is shown of it by default, and if it may be shown. */
const SHOWN: [name: string, data: unknown, kind: string, text: string][] = [
  ["undefined", undefined, "undefined", "undefined"],
  ["null", null, "null", "null"],
  ["a number", -0.5, "number", "-0.5"],
  ["a bigint", 12n, "bigint", "12n"],
  ["a huge bigint", 2n ** 100_000n, "bigint", "a large bigint"],
  ["a string", 'a"\n', "string, 3 characters", '"a\\"\\n"'],
  ["a symbol", Symbol("s"), "symbol", "Symbol(s)"],
  ["a function", () => 1, "function", "a function"],
  ["an array", [1, "b"], "array, 2 items", '[1, "b"]'],
  ["an object", { a: 1, b: [] }, "object", "{a: 1, b: []}"],
  ["bytes", new Uint8Array(3), "bytes, 3 bytes", "bytes, 3 bytes"],
  ["a map", new Map([[1, 2]]), "map, 1 entry", "map, 1 entry: [[1, 2]]"],
  ["a set", new Set([1]), "set, 1 item", "set, 1 item: [1]"],
  ["an error", new TypeError("t"), "object", "TypeError: t"],
  ["a date", new Date(5), "object", "5 ms"],
  ["a getter", getter, "object", "{secret: a getter}"],
  ["a proxy", proxy, "object", "cannot be shown"],
  [
    "a cycle",
    cyclic,
    "object",
    '{name: "me", self: {name: "me", self: {name: "me", self: object}}}',
  ],
];

for (const [name, data, kind, text] of SHOWN) {
  Deno.test(`inspector() shows ${name} as data only if it may`, async () => {
    assertEquals(await shown(data), kind);
    assertEquals(await shown(data, { showData: true }), text);
    assertEquals(await shown(1, { showData: () => data }), text);
  });
}

Deno.test("inspector() shows the beginning of data that is large or deep", async () => {
  let deep: unknown = "end";
  for (const _ of range(10_000)) deep = [deep];
  const large = [
    "x".repeat(1e7),
    range(1e6),
    Object.fromEntries(range(1e4).map((n) => [`key ${n}`, "x".repeat(1000)])),
    { ["k".repeat(1e6)]: 1 },
    new Map(range(1e5).map((n) => [n, n])),
    new Array(1e9),
    deep,
    new Error("x".repeat(1e6)),
  ];
  for (const data of large) {
    assert((await shown(data)).length < 60);
    assert((await shown(data, { showData: true })).length <= 300);
  }
});

Deno.test("inspector() shows what showData returns, or that it has failed", async () => {
  assertEquals(
    await shown({ card: "1234" }, { showData: ({ type }) => ({ type }) }),
    '{type: "order"}',
  );
  const showData = () => {
    throw new Error("no");
  };
  const failed = "showData has failed: Error";
  assertEquals(await shown(1, { showData }), failed);
  assertEquals(await shown(1, { showData, showErrors: true }), `${failed}: no`);
});

Deno.test("inspector() leaves nothing behind when showData makes the page leave", async () => {
  using clock = stopTimers();
  using reports = catchReports();
  const buses = [new Watched(), new Watched()];
  const controller = new AbortController();
  const request = get("/events");
  Object.defineProperty(request, "signal", { value: controller.signal });
  const showData = () => controller.abort();
  const client = new Client(inspector({ buses }, { showData })(request));
  for (const bus of buses) bus.tryPublish("order", 1);
  clock.tick();
  assert(await client.ended());
  assertEquals(buses.map(({ observers }) => observers), [0, 0]);
  assertEquals([clock.timers.size, reports.errors], [0, []]);
});

Deno.test("inspector() ends a page, and reports why, if a bus does not let itself be inspected", async () => {
  using clock = stopTimers();
  using reports = catchReports();
  const broken = new Error("broken");
  for (const from of [1, 2]) {
    let looks = 0;
    const bus = new Watched();
    bus.inspect = () => {
      if (++looks >= from) throw broken;
      return Bus.prototype.inspect.call(bus);
    };
    const client = new Client(inspector(bus)(get("/events")));
    if (from === 2) clock.tick();
    assert(await client.ended());
    assertEquals([bus.observers, clock.timers.size], [0, 0]);
  }
  assertEquals(reports.errors, [broken, broken]);
});
