import {
  assert,
  assertEquals,
  assertFalse,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
} from "@std/assert";
import { QueueClosedError, QueueFullError } from "../queue.ts";
import {
  type HandlerContext,
  ReentrantRequestError,
  type RequestOptions,
  Serializer,
  type SerializerOptions,
} from "../serializer.ts";
import {
  catchReports,
  type Deferred,
  deferred,
  flush,
  follow,
  probedController,
  range,
  replaceGlobals,
  type Task,
} from "./_helpers.ts";

// ── Helpers ─────────────────────────────────────────────────────────────────

type Options =
  & Omit<SerializerOptions<number, string, unknown>, "open">
  & { open?: () => Promise<unknown> | void }; // when the oven is open

interface Baking extends Deferred<unknown> {
  context: HandlerContext;
}

/** A serializer of dishes with one letter, whose oven is a number: 1, 2, … */
class Kitchen {
  /** Everything that happens. */
  readonly log: string[] = [];
  /** Handlers under way: each bakes until the test says so. */
  readonly baking: Record<string, Baking> = {};
  readonly oven: Serializer<number, string, unknown>;
  opened = 0;
  closed = 0;

  constructor({ open, close, ...options }: Options = {}) {
    this.oven = new Serializer<number, string, unknown>({
      open: () => {
        const oven = ++this.opened;
        this.log.push(`open ${oven}`);
        return open?.()?.then(() => oven) ?? oven;
      },
      handle: (oven, dish, context) => {
        this.log.push(`${dish} in ${oven}`);
        this.baking[dish] = { ...deferred<unknown>(), context };
        return this.baking[dish].promise;
      },
      close: (oven) => {
        this.closed++;
        this.log.push(`close ${oven}`);
        return close?.(oven);
      },
      ...options,
    });
  }

  /** Logs how a promise settles. */
  follow(name: string, promise: Promise<unknown>): void {
    promise.then(
      () => this.log.push(`${name} done`),
      (error) => this.log.push(`${name}: ${error}`),
    );
  }

  ask(dishes: string, options?: RequestOptions): void {
    for (const dish of dishes) {
      this.follow(dish, this.oven.request(dish, options));
    }
  }

  /** Ends handlers, one after another. */
  async end(dishes = Object.keys(this.baking).join("")): Promise<void> {
    for (const dish of dishes) {
      this.baking[dish].resolve(dish);
      await flush();
    }
  }

  /** Compares what has happened since the last look. */
  async saw(lines: string): Promise<void> {
    await flush();
    assertEquals(this.log.splice(0).join(", "), lines);
  }
}

/** Catches rejections that nobody handles, until the end of the `using` block. */
function catchUnhandled(): Disposable & { errors: unknown[] } {
  const errors: unknown[] = [];
  const { process } = globalThis as unknown as {
    process?: Record<"on" | "off", (type: string, listener: unknown) => void>;
  };
  const node = (error: unknown) => errors.push(error);
  const web = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    errors.push(event.reason);
  };
  process?.on?.("unhandledRejection", node);
  globalThis.addEventListener?.("unhandledrejection", web);
  return {
    errors,
    [Symbol.dispose]() {
      process?.off?.("unhandledRejection", node);
      globalThis.removeEventListener?.("unhandledrejection", web);
    },
  };
}

/** Lets the runtime find rejections that nobody handles. */
async function turnOver(): Promise<void> {
  for (let i = 0; i < 3; i++) {
    await flush();
    await new Promise((resolve) => setTimeout(resolve));
  }
}

interface Storage {
  run<R>(store: string, task: () => R): R;
  getStore(): string | undefined;
}

const hooks = (globalThis as {
  process?: {
    getBuiltinModule?(
      name: string,
    ): { AsyncLocalStorage: new () => Storage } | undefined;
  };
}).process?.getBuiltinModule?.("node:async_hooks");

/** Registers a test that needs `AsyncLocalStorage`. */
function contextTest(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, fn, ignore: hooks === undefined });
}

const MODES = ["detect", "trust"] as const;
const VERBS = ["close", "abort"] as const;
const VALUES = [undefined, null, 0, -0, NaN, "", false, 1n, Symbol("any"), {}];
const ANSWERING: ((value: unknown) => unknown)[] = [
  (value) => value,
  (value) => Promise.resolve(value),
  (value) => ({ then: (resolve: (value: unknown) => void) => resolve(value) }),
];

const FAILING: ((error: unknown) => unknown)[] = [
  (error) => {
    throw error;
  },
  (error) => Promise.reject(error),
  (error) => ({
    then: (_: unknown, reject: typeof Promise.reject) => reject(error),
  }),
  (error) => ({
    get then() {
      throw error;
    },
  }),
];

const open = () => 1;
/** What a test passes that does not compile. */
const bad = (value: unknown) => value as never;

// ── Options and arguments ───────────────────────────────────────────────────

const CONCURRENCY = "concurrency must be an integer >= 1 or Infinity";
const REENTRANCY = `reentrancy must be "detect" or "trust"`;

const BAD_OPTIONS: [options: unknown, error: string][] = [
  [undefined, "TypeError: options must be an object, got undefined"],
  [null, "TypeError: options must be an object, got null"],
  [open, "TypeError: options must be an object, got a function"],
  [{}, "TypeError: open must be a function, got undefined"],
  [{ open: {} }, "TypeError: open must be a function, got an object"],
  [{ open, handle: 1 }, "TypeError: handle must be a function, got 1"],
  [{ open, close: null }, "TypeError: close must be a function, got null"],
  [
    { open, isFatal: [] },
    "TypeError: isFatal must be a function, got an array",
  ],
  [{ open, concurrency: 0 }, `RangeError: ${CONCURRENCY}, got 0`],
  [{ open, concurrency: 1.5 }, `RangeError: ${CONCURRENCY}, got 1.5`],
  [{ open, concurrency: NaN }, `RangeError: ${CONCURRENCY}, got NaN`],
  [{ open, concurrency: "2" }, `TypeError: ${CONCURRENCY}, got "2"`],
  [
    { open, maxWaiting: -1 },
    "RangeError: maxWaiting must be an integer >= 0 or Infinity, got -1",
  ],
  [{ open, reentrancy: "allow" }, `RangeError: ${REENTRANCY}, got "allow"`],
  [{ open, reentrancy: true }, `TypeError: ${REENTRANCY}, got true`],
  [{ open, name: 1 }, "TypeError: name must be a string, got 1"],
];

Deno.test("new Serializer() refuses bad options by name", () => {
  for (const [options, expected] of BAD_OPTIONS) {
    let found: unknown;
    try {
      new Serializer(bad(options));
    } catch (error) {
      found = error;
    }
    const [kind, message] = expected.split(": ");
    assertEquals(
      String(found),
      `${kind}: Cannot create serializer: ${message}`,
    );
  }
});

Deno.test("new Serializer() takes an object of a class; its methods see this", async () => {
  class Oven {
    log: string[] = [];
    open(): Oven {
      return this;
    }
    handle(_: Oven, dish: string): void {
      this.log.push(dish);
      throw dish;
    }
    isFatal(error: unknown): boolean {
      return this.log.push(`isFatal ${error}`) > 0;
    }
    close(): void {
      this.log.push("close");
    }
  }
  const oven = new Oven();
  await assertRejects(() => new Serializer(oven).request("pie"));
  await flush();
  assertEquals(oven.log, ["pie", "isFatal pie", "close"]);
});

Deno.test("Serializer.request() and run() reject bad arguments by name, they never throw", async () => {
  const { oven, log } = new Kitchen();
  const till = new Serializer<number, string>({ open, name: "till" });
  const calls: [call: () => Promise<unknown>, error: string][] = [
    [() => oven.request("a", bad(null)), "TypeError: "],
    [() => oven.request("a", { signal: bad({}) }), "got an object"],
    [() => oven.request("a", { signal: bad(null) }), "got null"],
    [
      () => oven.run(bad(1)),
      "TypeError: Cannot run: task must be a function, got 1",
    ],
    [
      () => till.request("a"),
      "TypeError: Cannot request: till has no option `handle`",
    ],
  ];
  const numbers = { NaN, '"1"': "1", null: null, true: true, "an object": {} };
  for (const [got, priority] of Object.entries(numbers)) {
    const Kind = Number.isNaN(priority) ? "RangeError" : "TypeError";
    const error =
      `${Kind}: Cannot request: priority must be a number, got ${got}`;
    calls.push([() => oven.request("a", { priority: bad(priority) }), error]);
    calls.push([() => oven.run(open, { priority: bad(priority) }), error]);
  }
  for (const [call, expected] of calls) {
    const error = await call().catch((error) => error);
    assertStringIncludes(String(error), expected);
  }
  assertEquals([oven.waiting, oven.running, log], [0, 0, []]);
});

// ── Exclusion and order ─────────────────────────────────────────────────────

for (const concurrency of [1, 2, 3, Infinity]) {
  for (const reentrancy of MODES) {
    Deno.test(`Serializer runs one handler at a time on each copy (concurrency ${concurrency}, ${reentrancy})`, async () => {
      const busy = new Set<object>();
      let [copies, most] = [0, 0];
      const serializer = new Serializer({
        concurrency,
        reentrancy,
        open: () => ({ copy: ++copies }),
        async handle(oven, n: number) {
          assertFalse(busy.has(oven));
          most = Math.max(most, busy.add(oven).size);
          for (let i = 0; i <= n % 5; i++) await undefined;
          busy.delete(oven);
          return n;
        },
      });
      const asked = range(100).map((n) => serializer.request(n));
      const limit = Math.min(concurrency, 100);
      assertEquals([serializer.running, serializer.waiting], [
        limit,
        100 - limit,
      ]);
      assertEquals(await Promise.all(asked), range(100));
      assertEquals([copies, most], [limit, limit]);
      await flush();
      assertEquals([serializer.running, serializer.waiting], [0, 0]);
    });
  }
}

Deno.test("Serializer serves in the order in which they came, answers before it goes on, and lets nobody overtake", async () => {
  const kitchen = new Kitchen();
  kitchen.ask("ab");
  kitchen.follow(
    "run",
    kitchen.oven.run((oven) => kitchen.log.push(`run in ${oven}`)),
  );
  await kitchen.end("a");
  kitchen.ask("c");
  await kitchen.end("bc");
  await kitchen.saw(
    "open 1, a in 1, a done, b in 1, b done, run in 1, run done, c in 1, c done",
  );
});

const PRIORITIES: Record<string, number[]> = {
  bdace: [0, 1, 0, 1, 0],
  bdaec: [-1, 0, -2, 0, -1],
  cdabe: [0, -1, Infinity, Infinity, -Infinity],
  bcade: [0.1, 0.3, 0.2, 1e-300, 0],
  abcde: [0, -0, 0, -0, 0],
};

for (const [served, priorities] of Object.entries(PRIORITIES)) {
  Deno.test(`Serializer serves the highest priority first, equals in order: ${priorities}`, async () => {
    const kitchen: Kitchen = new Kitchen({
      handle: (_, dish) => void kitchen.log.push(dish),
    });
    const { promise, resolve } = deferred();
    follow(kitchen.oven.run(() => promise));
    for (const [i, priority] of priorities.entries()) {
      follow(kitchen.oven.request("abcde"[i], { priority }));
    }
    resolve();
    await kitchen.saw(["open 1", ...served].join(", "));
  });
}

const MANY = 200_000;
const MANY_PRIORITIES: Record<string, (i: number) => number> = {
  "well mixed": (i) => i * 7919 % MANY - MANY / 2,
  "rising": (i) => i,
  "falling": (i) => -i,
};

for (const [way, priorityOf] of Object.entries(MANY_PRIORITIES)) {
  Deno.test(`Serializer keeps 200,000 priorities apart, also when half of those waiting leave: ${way}`, async () => {
    const serializer = new Serializer({ open, reentrancy: "trust" });
    const controller = new AbortController();
    const { promise, resolve } = deferred();
    follow(serializer.run(() => promise));
    const served: number[] = [];
    const stays: number[] = [];
    for (const i of range(MANY)) {
      const priority = priorityOf(i); // each once
      const leaves = i % 3 === 1 || i % 6 === 2;
      if (!leaves) stays.push(priority);
      const signal = leaves ? controller.signal : undefined;
      follow(serializer.run(() => served.push(priority), { priority, signal }));
    }
    controller.abort();
    assertEquals(serializer.waiting, MANY / 2);
    resolve();
    await serializer.close();
    const expected = stays.sort((a, b) => b - a);
    assertEquals(served.findIndex((each, i) => each !== expected[i]), -1);
    assertEquals(served.length, expected.length);
  });
}

Deno.test("Serializer serves a priority again that everyone had left", async () => {
  const kitchen = new Kitchen();
  const controller = new AbortController();
  const ask = (dish: string, priority: number, signal?: AbortSignal) =>
    kitchen.ask(dish, { priority, signal });
  kitchen.ask("a");
  ask("b", 1, controller.signal); // leaves
  ask("c", -1);
  controller.abort("bye");
  ask("d", -1);
  ask("e", 1);
  await kitchen.end("aecd");
  await kitchen.saw(
    "open 1, a in 1, b: bye, a done, e in 1, e done, c in 1, c done, d in 1, d done",
  );
  for (const dish of "fghi") ask(dish, 1); // served, one and all
  await kitchen.end("fghi");
  await kitchen.saw(
    "f in 1, f done, g in 1, g done, h in 1, h done, i in 1, i done",
  );
});

Deno.test("Serializer answers a million requests in line for a synchronous handler", async () => {
  const serializer = new Serializer({
    open: () => ({ sum: 0 }),
    handle: (total, n: number) => total.sum += n,
  });
  const { promise, resolve } = deferred();
  follow(serializer.run(() => promise));
  const n = 1_000_000;
  let last: Promise<number> | undefined;
  for (let i = 0; i < n; i++) last = serializer.request(1);
  assertEquals(serializer.waiting, n);
  resolve();
  assertEquals(await last, n);
});

for (const concurrency of [1, 2]) {
  for (const maxWaiting of [0, 1, 3, Infinity]) {
    Deno.test(`Serializer.request(): ${maxWaiting} may wait for ${concurrency}, further ones get their request back`, async () => {
      const { oven, baking } = new Kitchen({ maxWaiting, concurrency });
      const tasks = [..."abcdefg"].map((dish) => follow(oven.request(dish)));
      await flush();
      for (const [i, { state, error }] of tasks.entries()) {
        if (i < concurrency + maxWaiting) assertEquals(state, "pending");
        else {
          assertInstanceOf(error, QueueFullError);
          assertEquals(error.value, "abcdefg"[i]);
          assertStringIncludes(
            error.message,
            `${maxWaiting} requests wait for`,
          );
        }
      }
      baking.a.resolve("a");
      await flush();
      const next = follow(oven.request("h")); // there is room again
      await flush();
      assertEquals(next.state, "pending");
    });
  }
}

// ── open ────────────────────────────────────────────────────────────────────

Deno.test("Serializer opens with the first request, in the same step, and no second copy while one will do", async () => {
  const kitchen = new Kitchen({ concurrency: 2 });
  await kitchen.saw("");
  kitchen.ask("a");
  assertEquals(kitchen.log.join(), "open 1,a in 1");
  await kitchen.end("a");
  kitchen.ask("b");
  await kitchen.saw("open 1, a in 1, a done, b in 1");
});

Deno.test("Serializer takes anything for a resource, and opens it once", async () => {
  for (const resource of VALUES) {
    for (const answer of ANSWERING) {
      const open = () => answer(resource);
      const log: unknown[] = [];
      const serializer = new Serializer<unknown>({
        open: () => (log.push("open"), open()),
        close: (resource) => void log.push("close", resource),
      });
      await serializer.run((resource) => log.push(resource));
      await serializer.run((resource) => log.push(resource));
      await serializer.close();
      assertEquals(log, ["open", resource, resource, "close", resource]);
      await using plain = new Serializer<unknown>({ open }); // nothing to dispose of
      assertEquals(await plain.run((resource) => resource), resource);
    }
  }
});

for (const how of ["throws", "rejects"]) {
  Deno.test(`Serializer: an open that ${how} fails its request alone, the next one tries again`, async () => {
    const kitchen: Kitchen = new Kitchen({
      open() {
        if (kitchen.opened === 2) return;
        if (how === "throws") throw "cold";
        return Promise.reject("cold");
      },
      isFatal: () => kitchen.log.push("isFatal") > 0, // is about handlers
    });
    kitchen.ask("a");
    if (how === "throws") await flush();
    kitchen.ask("b");
    await kitchen.saw("open 1, a: cold, open 2, b in 2");
    kitchen.follow("close", kitchen.oven.close());
    await kitchen.end("b");
    await kitchen.saw("b done, close 2, close done");
  });
}

Deno.test("Serializer opens nothing while an open copy is idle: who asks gets that one", async () => {
  const second = deferred();
  const kitchen: Kitchen = new Kitchen({
    concurrency: 2,
    open: () => kitchen.opened === 1 ? undefined : second.promise,
  });
  kitchen.ask("ab");
  await kitchen.end("a");
  second.reject("one only"); // so the shut copy is put back last
  await kitchen.saw("open 1, a in 1, open 2, a done, b: one only");
  kitchen.ask("c");
  await kitchen.saw("c in 1");
});

for (const [concurrency, limit] of [[2, 1], [3, 1], [10, 4], [100, 10]]) {
  for (const how of ["throws", "rejects", "is slower than its refusal"]) {
    Deno.test(`Serializer: while only ${limit} of ${concurrency} copies can be opened, few requests fail, and it recovers (the open ${how})`, async () => {
      let [open, most, allowed] = [0, 0, limit];
      const serializer = new Serializer({
        concurrency,
        open() {
          if (open === allowed) {
            if (how === "throws") throw "too many";
            return Promise.reject("too many");
          }
          most = Math.max(most, ++open);
          if (how === "throws") return open;
          return how === "rejects"
            ? Promise.resolve(open)
            : flush().then(() => open);
        },
        close: () => void open--,
        isFatal: (error) => error === "fire",
      });
      /** How many of so many requests made at once fail. */
      const fail = async (requests: number) => {
        const asked = range(requests).map(() => serializer.run(flush));
        const ends = await Promise.allSettled(asked);
        return ends.filter(({ status }) => status === "rejected").length;
      };
      // Those who open at the same time all fail, and one after each that can be
      // opened; then one at a time, ever more rarely.
      const atOnce = how === "throws"
        ? 0
        : how === "rejects"
        ? concurrency - limit
        : concurrency;
      const first = await fail(1000);
      assert(first > 0 && first <= atOnce + 12, `${first} failed at first`);
      const then = await fail(1000);
      assert(then <= 2, `${then} failed then`);
      assertEquals(most, limit);
      await errorOf(serializer.run(() => Promise.reject("fire"))); // opened again
      const broken = await fail(1000);
      assert(broken <= 12, `${broken} failed after a broken copy`);

      allowed = Infinity;
      for (let i = 0; i < 8; i++) assertEquals(await fail(1000), 0);
      assertEquals(most, concurrency);
      await serializer.close();
      assertEquals(open, 0);
    });
  }
}

Deno.test("Serializer tries a copy again for the second request after it could not be opened, however long the first one runs", async () => {
  const kitchen: Kitchen = new Kitchen({
    concurrency: 2,
    open: () => kitchen.opened === 2 ? Promise.reject("cold") : undefined,
  });
  kitchen.ask("ab");
  await kitchen.saw("open 1, a in 1, open 2, b: cold");
  kitchen.ask("c");
  await kitchen.saw("open 3, c in 3");
});

Deno.test("Serializer opens for those in line once the last open copy has broken, even if its closing hangs", async () => {
  const kitchen: Kitchen = new Kitchen({
    concurrency: 2,
    open: () =>
      [2, 3].includes(kitchen.opened) ? Promise.reject("cold") : undefined,
    close: () => new Promise(() => {}),
    isFatal: () => true,
  });
  for (const dish of "abcd") {
    kitchen.ask(dish);
    await flush();
  }
  await kitchen.saw("open 1, a in 1, open 2, b: cold, open 3, c: cold");
  assertEquals(kitchen.oven.waiting, 1);
  kitchen.baking.a.reject("fire");
  await kitchen.saw("a: fire, close 1, open 4, d in 4");
});

// ── handle ──────────────────────────────────────────────────────────────────

for (const reentrancy of MODES) {
  Deno.test(`Serializer gives any answer, and any error, to its caller (${reentrancy})`, async () => {
    for (const handle of [...ANSWERING, ...FAILING]) {
      const serializer = new Serializer<number, unknown, unknown>({
        open,
        reentrancy,
        handle: (_, value) => handle(value),
      });
      for (const value of VALUES) {
        for (const run of [false, true]) {
          const task = follow(
            run
              ? serializer.run(() => handle(value))
              : serializer.request(value),
          );
          await flush();
          const failed = FAILING.includes(handle);
          assertEquals(task.state, failed ? "rejected" : "resolved");
          assert(Object.is(failed ? task.error : task.value, value));
        }
      }
    }
  });

  for (const first of ["opens at once", "waits for its open"]) {
    for (const [i, how] of ["throws", "rejects"].entries()) {
      Deno.test(`Serializer: a handler that ${how} fails its own request alone, and leaves the resource open; the first ${first} (${reentrancy})`, async () => {
        const kitchen: Kitchen = new Kitchen({
          reentrancy,
          open: () => first === "opens at once" ? undefined : flush(),
          handle(oven, dish) {
            kitchen.log.push(`${dish} in ${oven}`);
            return dish === "c" || FAILING[i](`burnt`);
          },
        });
        for (const dish of "abc") {
          kitchen.ask(dish);
          for (let i = 0; i < 3; i++) await flush();
        }
        await kitchen.oven.close();
        await kitchen.saw(
          "open 1, a in 1, a: burnt, b in 1, b: burnt, c in 1, c done, close 1",
        );
      });
    }
  }
}

Deno.test("Serializer.run() gives its task the resource and a context whose signal outlives nothing", async () => {
  const serializer = new Serializer({ open: () => ({ dishes: 1 }) });
  let signal: AbortSignal | undefined;
  const dishes = await serializer.run((oven, context) => {
    ({ signal } = context);
    assertStrictEquals(context.signal, signal);
    return oven.dishes;
  });
  await serializer.abort(); // that request was over
  assertEquals([dishes, signal!.aborted], [1, false]);
});

// ── isFatal ─────────────────────────────────────────────────────────────────

Deno.test("Serializer.isFatal(): the resource is closed, and opened anew for the next request", async () => {
  const closing = deferred();
  const kitchen = new Kitchen({
    isFatal: (error) => error === "fire",
    close: (oven) => oven === 1 ? closing.promise : undefined,
  });
  const { oven, baking } = kitchen;
  kitchen.ask("abcd");
  baking.a.reject("burnt");
  await kitchen.saw("open 1, a in 1, a: burnt, b in 1");
  baking.b.reject("fire");
  await kitchen.saw("b: fire, close 1"); // who gets the error does not wait for the close
  assertEquals([oven.running, oven.waiting], [0, 2]);
  closing.resolve();
  await kitchen.saw("open 2, c in 2");
  await kitchen.end("c");
  baking.d.reject("fire");
  await kitchen.saw("c done, d in 2, d: fire, close 2"); // nobody is next
  kitchen.follow("run", oven.run((oven) => Promise.reject(oven)));
  kitchen.follow("close", oven.close());
  await kitchen.saw("open 3, run: 3, close 3, close done");
});

Deno.test("Serializer.isFatal() is asked about any error, also that of the first request", async () => {
  for (const fail of FAILING) {
    const kitchen = new Kitchen({ isFatal: (error) => error === undefined });
    follow(kitchen.oven.run(() => fail(undefined)));
    await kitchen.saw("open 1, close 1");
  }
});

Deno.test("Serializer.isFatal(): one copy is broken, the others work on", async () => {
  const kitchen = new Kitchen({ concurrency: 2, isFatal: () => true });
  kitchen.ask("abcd");
  kitchen.baking.a.reject("fire");
  await kitchen.saw(
    "open 1, a in 1, open 2, b in 2, a: fire, close 1, open 3, c in 3",
  );
  await kitchen.end("bcd");
  await kitchen.saw("b done, d in 2, c done, d done");
  await kitchen.oven.close();
  await kitchen.saw("close 3, close 2");
});

Deno.test("Serializer reports what isFatal throws, and keeps the resource", async () => {
  using reports = catchReports();
  const kitchen = new Kitchen({ isFatal: FAILING[0] as () => boolean });
  kitchen.ask("ab");
  kitchen.baking.a.reject("burnt");
  await kitchen.saw("open 1, a in 1, a: burnt, b in 1");
  assertEquals(reports.errors, ["burnt"]);
});

Deno.test("Serializer reports an isFatal that does not say yes or no, and keeps the resource", async () => {
  const answers: [answer: unknown, got: string][] = [
    [Promise.resolve(true), "an object"],
    [1, "1"],
    ["fire", '"fire"'],
    [["fire"], "an array"],
  ];
  for (const [answer, got] of answers) {
    using reports = catchReports();
    const kitchen = new Kitchen({ isFatal: bad(() => answer) });
    kitchen.ask("ab");
    kitchen.baking.a.reject("burnt");
    await kitchen.saw("open 1, a in 1, a: burnt, b in 1");
    const text =
      `TypeError: Cannot judge an error: what isFatal returns must be a boolean, got ${got}`;
    assertEquals(reports.errors.map(String), [text]);
  }
  for (const none of [undefined, null]) { // no answer: no
    using reports = catchReports();
    const kitchen = new Kitchen({ isFatal: bad(() => none) });
    kitchen.ask("ab");
    kitchen.baking.a.reject("burnt");
    await kitchen.saw("open 1, a in 1, a: burnt, b in 1");
    assertEquals(reports.errors, []);
  }
});

Deno.test("Serializer reports that close fails after a fatal error, and goes on", async () => {
  for (const fail of FAILING) {
    using reports = catchReports();
    const close = (oven: number) => fail(`stuck ${oven}`) as void;
    const kitchen = new Kitchen({ isFatal: () => true, close });
    kitchen.ask("ab");
    kitchen.baking.a.reject("fire");
    await kitchen.saw("open 1, a in 1, a: fire, close 1, open 2, b in 2");
    assertEquals(reports.errors, ["stuck 1"]);
  }
});

Deno.test("Serializer.isFatal() is shown what a handler throws after its caller has gone", async () => {
  const kitchen = new Kitchen({ isFatal: (error) => error === "fire" });
  const controller = new AbortController();
  kitchen.ask("a", { signal: controller.signal });
  kitchen.ask("b");
  controller.abort("bye");
  kitchen.baking.a.reject("fire");
  await kitchen.saw("open 1, a in 1, a: bye, close 1, open 2, b in 2");
});

// ── Closing the resource ────────────────────────────────────────────────────

Deno.test("Serializer closes by its hook, else by Symbol.asyncDispose, else by Symbol.dispose", async () => {
  const log: string[] = [];
  const plain = { [Symbol.dispose]: () => void log.push("dispose") };
  const async = {
    ...plain,
    async [Symbol.asyncDispose](this: unknown) {
      assertStrictEquals(this, async);
      await flush();
      log.push("asyncDispose");
    },
  };
  const close = () => void log.push("close");
  for (
    const options of [
      { open: () => plain },
      { open: () => plain, close },
      { open: () => async },
      { open: () => async, close },
    ]
  ) {
    await using serializer = new Serializer<Disposable>(options);
    await serializer.run(() => {});
  }
  assertEquals(log, ["dispose", "close", "asyncDispose", "close"]);
});

for (const verb of VERBS) {
  Deno.test(`Serializer.${verb}() rejects with what closing threw, all of it`, async () => {
    for (const fail of FAILING) {
      for (const concurrency of [1, 2]) {
        const close = (oven: number) => fail(`stuck ${oven}`) as void;
        const { oven, ...kitchen } = new Kitchen({ concurrency, close });
        const asked = follow(
          Promise.allSettled([..."ab"].map((x) => oven.request(x))),
        );
        const tasks = [follow(oven[verb]()), follow(oven.close())];
        for (const dish of "ab") {
          kitchen.baking[dish]?.resolve(dish);
          await flush();
        }
        assertEquals(asked.state, "resolved");
        for (const { error } of tasks) {
          if (concurrency === 1) assertEquals(error, "stuck 1");
          else {
            assertInstanceOf(error, AggregateError);
            assertEquals(error.errors, ["stuck 1", "stuck 2"]);
          }
        }
      }
    }
  });
}

// ── close() and abort() ─────────────────────────────────────────────────────

Deno.test("Serializer.close() refuses new requests, answers those waiting, then closes the resource", async () => {
  const closing = deferred();
  const kitchen = new Kitchen({ close: () => closing.promise });
  const { oven } = kitchen;
  kitchen.ask("abc");
  assertFalse(oven.closed);
  kitchen.follow("close", oven.close());
  assert(oven.closed);
  const error = await assertRejects(() => oven.request("d"), QueueClosedError);
  assertEquals(error.value, "d");
  assertStringIncludes(error.message, "Cannot request: serializer is closed");
  await kitchen.end("ab");
  await kitchen.saw("open 1, a in 1, a done, b in 1, b done, c in 1");
  await kitchen.end("c");
  await kitchen.saw("c done, close 1");
  closing.resolve();
  await kitchen.saw("close done");
});

Deno.test("Serializer.abort() rejects everyone at once, tells the handlers, and closes each copy once its handler has ended", async () => {
  const kitchen = new Kitchen({ concurrency: 2 });
  const { oven, baking } = kitchen;
  kitchen.ask("abcd");
  const { signal } = baking.a.context;
  kitchen.follow("abort", oven.abort("fire"));
  assertEquals([signal.reason, baking.b.context.signal.reason], [
    "fire",
    "fire",
  ]);
  await kitchen.saw(
    "open 1, a in 1, open 2, b in 2, c: fire, d: fire, a: fire, b: fire",
  );
  assertEquals([oven.running, oven.waiting], [2, 0]);
  await kitchen.end("a");
  await kitchen.saw("close 1");
  baking.b.reject("too late");
  await kitchen.saw("close 2, abort done");
  assertEquals(oven.running, 0);
});

Deno.test("Serializer.abort() takes any reason but undefined, for which it has one", async () => {
  for (const reason of VALUES) {
    const { oven } = new Kitchen({ name: "oven" });
    const task = follow(oven.request("a"));
    follow(oven.abort(reason));
    await flush();
    if (reason !== undefined) assert(Object.is(task.error, reason));
    else assertEquals(String(task.error), "AbortError: oven was aborted");
  }
});

Deno.test("Serializer.close(): each call returns the same promise, so do abort() and dispose", async () => {
  const { oven } = new Kitchen();
  const done = oven.close();
  const others = [oven.close(), oven.abort(), oven[Symbol.asyncDispose]()];
  for (const other of others) assertStrictEquals(other, done);
  await done;
});

Deno.test("Serializer closes at the end of an await using block", async () => {
  const kitchen = new Kitchen({
    handle: (_, dish) => flush().then(() => dish),
  });
  {
    await using _ = kitchen.oven;
    kitchen.ask("ab");
  }
  assertEquals([kitchen.opened, kitchen.closed], [1, 1]);
  assertEquals(kitchen.log.filter((line) => line.endsWith("done")), [
    "a done",
    "b done",
  ]);
});

/** A serializer on its way into a state. */
class Stage {
  readonly opening = deferred();
  readonly closing = deferred();
  readonly kitchen: Kitchen;
  readonly tasks: Task<unknown>[] = [];

  constructor(concurrency: number) {
    this.kitchen = new Kitchen({
      concurrency,
      open: () => this.opening.promise,
      close: () => this.closing.promise,
      isFatal: () => true,
    });
    follow(Promise.all([this.opening.promise, this.closing.promise]));
  }

  async enter(state: string): Promise<void> {
    const { kitchen: { oven, ...kitchen }, tasks } = this;
    if (state === "never opened") return;
    tasks.push(...[..."abc"].map((dish) => follow(oven.request(dish))));
    if (state === "opening") return;
    this.opening.resolve();
    await flush();
    switch (state) {
      case "handed over":
        kitchen.baking.a.resolve("a");
        for (const { waiting } = oven; oven.waiting === waiting;) {
          await undefined;
        }
        return;
      case "after a fatal error":
        kitchen.baking.a.reject("fire");
        return;
      case "closing":
        return void tasks.push(follow(oven.close()));
      case "aborted":
        return void tasks.push(follow(oven.abort()));
    }
    if (state === "running") return;
    await this.kitchen.end("a");
    await this.kitchen.end("b");
    await this.kitchen.end("c");
    if (state === "idle") return;
    tasks.push(follow(oven.close()));
    if (state === "closed") this.closing.resolve();
    await flush();
  }
}

const STATES = ["never opened", "opening", "running", "handed over"]
  .concat("after a fatal error", "closing", "aborted", "idle")
  .concat("closing the resource", "closed");

for (const state of STATES) {
  Deno.test(`Serializer.close() and abort() settle everything, and close what was opened: ${state}`, async () => {
    const sequences = [[0], [1], [0, 0], [1, 1], [0, 1], [1, 0]];
    for (const concurrency of [1, 2]) {
      for (const sequence of sequences) {
        for (const late of ["resolve", "reject"] as const) {
          const stage = new Stage(concurrency);
          const { kitchen, opening, closing, tasks } = stage;
          await stage.enter(state);
          const { oven } = kitchen;
          for (const i of sequence) tasks.push(follow(oven[VERBS[i]]()));
          assert(oven.closed);
          await flush();
          opening[late](undefined);
          closing.resolve();
          for (let i = 0; i < 4; i++) await flush().then(() => kitchen.end());
          const states = tasks.map(({ state }) => state);
          assertFalse(states.includes("pending"), `${sequence} ${late}`);
          assertEquals(states.at(-1), "resolved");
          const failed = state === "opening" && late === "reject";
          assertEquals(kitchen.closed, failed ? 0 : kitchen.opened);
          assertEquals([oven.running, oven.waiting], [0, 0]);
          await assertRejects(() => oven.run(open), QueueClosedError);
        }
      }
    }
  });
}

for (const late of ["resolve", "reject", undefined] as const) {
  Deno.test(`Serializer.abort() does not wait for an open (which will ${late ?? "hang"}), and neither does close() then`, async () => {
    using reports = catchReports();
    const { kitchen, opening, closing } = new Stage(1);
    kitchen.ask("ab");
    kitchen.follow("close", kitchen.oven.close());
    await kitchen.saw("open 1");
    kitchen.follow("abort", kitchen.oven.abort("fire"));
    await kitchen.saw("b: fire, a: fire, close done, abort done");
    if (late) opening[late](undefined);
    await kitchen.saw(late === "resolve" ? "close 1" : "");
    closing.reject("stuck"); // nobody waits for it any more
    await flush();
    assertEquals(reports.errors, late === "resolve" ? ["stuck"] : []);
  });
}

// ── From inside a handler ───────────────────────────────────────────────────

for (const verb of VERBS) {
  Deno.test(`Serializer.${verb}() by one of its handlers resolves at once; what closing throws is reported`, async () => {
    using reports = catchReports();
    using unhandled = catchUnhandled();
    const kitchen: Kitchen = new Kitchen({
      close: () => Promise.reject("stuck"),
      handle: async (_, dish) => {
        await kitchen.oven[verb]("fire");
        kitchen.log.push(`${dish} out`);
      },
    });
    kitchen.ask("a");
    await turnOver();
    const lines = {
      close: "a out, a done, close 1",
      abort: "a out, a: fire, close 1",
    };
    await kitchen.saw(`open 1, ${lines[verb]}`);
    assertEquals([unhandled.errors, reports.errors], [[], ["stuck"]]);
  });

  contextTest(
    `Serializer.${verb}() by one of its handlers resolves at once, after an await and through another serializer`,
    async () => {
      const till = new Serializer({ open });
      const kitchen: Kitchen = new Kitchen({
        async handle(_, dish) {
          await flush();
          await till.run(() => flush().then(() => kitchen.oven[verb]("fire")));
          await kitchen.oven[verb]();
          kitchen.log.push(`${dish} out`);
        },
      });
      kitchen.ask("a");
      for (let i = 0; i < 5; i++) await flush();
      const lines = {
        close: "a out, a done, close 1",
        abort: "a: fire, a out, close 1",
      };
      await kitchen.saw(`open 1, ${lines[verb]}`);
    },
  );
}

Deno.test("Serializer.close() by the handler of another serializer waits", async () => {
  const kitchen = new Kitchen();
  const till = new Serializer({ open });
  kitchen.ask("a");
  kitchen.follow("till", till.run(() => kitchen.oven.close()));
  await kitchen.saw("open 1, a in 1");
  await kitchen.end("a");
  await kitchen.saw("a done, close 1, till done");
});

function assertReentrant(error: unknown): void {
  assertInstanceOf(error, ReentrantRequestError);
  assertEquals(error.name, "ReentrantRequestError");
  const text = "a handler of oven asks oven; if all who have a turn wait for";
  assertStringIncludes(error.message, text);
}

/** What `request()` or `run()` fails with. */
function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(() => undefined, (error) => error);
}

for (const late of [false, true]) {
  const register = late ? contextTest : Deno.test;
  const when = late ? "after an await" : "in its synchronous part";
  /** Calls it now, or when the stack is another. */
  const call = <T>(task: () => Promise<T>) =>
    late ? flush().then(task) : task();

  register(
    `Serializer.request() refuses a handler of its own, ${when}, and serves the others`,
    async () => {
      for (const open of [undefined, flush]) {
        const kitchen: Kitchen = new Kitchen({
          name: "oven",
          open,
          handle: (_, dish) =>
            call(async () => {
              const { oven } = kitchen;
              const asked = [oven.request("z"), oven.run(() => 1)];
              for (const error of await Promise.all(asked.map(errorOf))) {
                assertReentrant(error);
              }
              const counts = [oven.running, oven.waiting];
              assertEquals(counts, [1, dish === "a" ? 1 : 0]);
            }),
        });
        kitchen.ask("ab"); // siblings
        for (let i = 0; i < 5; i++) await flush();
        await kitchen.saw("open 1, a done, b done");
      }
    },
  );

  register(
    `Serializer.request() refuses a handler of its own that asks through another serializer, ${when}`,
    async () => {
      const till = new Serializer({ open });
      const oven = new Serializer({ open, name: "oven" });
      const order = () =>
        oven.run(() =>
          call(() => till.run(() => call(() => errorOf(oven.run(open)))))
        );
      const siblings = [order(), order()];
      for (const error of await Promise.all(siblings)) assertReentrant(error);
    },
  );

  register(
    `Serializer.request() refuses a handler whose caller has gone, ${when}`,
    async () => {
      const oven = new Serializer({ open, name: "oven" });
      const controller = new AbortController();
      let error: Promise<unknown> | undefined;
      const task = follow(oven.run(() => {
        controller.abort();
        return error = call(() => errorOf(oven.run(open)));
      }, controller));
      await flush();
      assertEquals(task.state, "rejected");
      assertReentrant(await error);
    },
  );
}

Deno.test("Serializer.request() refuses a handler of its own, although a copy is free", async () => {
  const oven = new Serializer({ open, name: "oven", concurrency: 2 });
  assertReentrant(await oven.run(() => errorOf(oven.run(open))));
});

Deno.test("Serializer.request() refuses a listener that a handler calls", async () => {
  const oven = new Serializer({ open, name: "oven" });
  const asked: Promise<unknown>[] = [];
  const bell = new EventTarget();
  bell.addEventListener("ring", () => asked.push(errorOf(oven.run(open))));
  await oven.run(() => bell.dispatchEvent(new Event("ring")));
  assertEquals(asked.length, 1);
  assertReentrant(await asked[0]);
});

contextTest(
  "Serializer.request() by a handler, side by side: its own is refused, others serve",
  async () => {
    const till = new Serializer({ open });
    const oven = new Serializer({ open });
    const results = await oven.run(() =>
      Promise.allSettled([till, oven, till].map((each) => each.run(flush)))
    );
    const statuses = results.map(({ status }) => status);
    assertEquals(statuses, ["fulfilled", "rejected", "fulfilled"]);
  },
);

Deno.test("Serializer.request() serves what a handler leaves behind, once it has ended: a timer, a promise", async () => {
  const { oven } = new Kitchen({ handle: (_, dish) => dish });
  const ended = deferred();
  const left = await oven.run(() => ({
    timer: new Promise((resolve) =>
      setTimeout(() => resolve(oven.request("a")))
    ),
    promise: ended.promise.then(() => oven.request("b")),
  }));
  ended.resolve();
  assertEquals([await left.timer, await left.promise], ["a", "b"]);
});

Deno.test("Serializer.request() serves what a close hook leaves behind, once it has ended", async () => {
  const ended = deferred();
  let left: Promise<number> | undefined;
  const oven: Serializer<number> = new Serializer({
    open,
    isFatal: () => true,
    close: () => void (left = ended.promise.then(() => oven.run(open))),
  });
  await errorOf(oven.run(() => Promise.reject("fire")));
  await flush();
  ended.resolve();
  assertEquals(await left, 1);
});

contextTest(
  "Serializer.request() knows which handler still runs once an inner one has ended",
  async () => {
    const oven = new Serializer({ open, name: "oven" });
    const till = new Serializer({ open });
    const ended = deferred();
    await oven.run(async () => {
      const inner = () => ({
        late: ended.promise.then(() => errorOf(oven.run(open))),
      });
      const { late } = await till.run(inner);
      ended.resolve();
      assertReentrant(await late);
    });
  },
);

Deno.test('Serializer.request() lets its own handler wait in line, reentrancy "trust"', async () => {
  const kitchen = new Kitchen({ reentrancy: "trust" });
  kitchen.follow("first", kitchen.oven.run(() => kitchen.ask("ab")));
  await flush();
  await kitchen.end("a");
  await kitchen.saw("open 1, a in 1, first done, a done, b in 1");
});

for (const hook of ["open", "close"]) {
  Deno.test(`Serializer.request() by its own ${hook} is refused: it would wait for itself`, async () => {
    using _ = catchReports();
    let error: unknown;
    const oven: Serializer<number> = new Serializer({
      name: "oven",
      isFatal: () => true,
      async open() {
        if (hook === "open") error ??= await errorOf(oven.run(open));
        return 1;
      },
      async close() {
        if (hook === "close") error ??= await errorOf(oven.run(open));
      },
    });
    follow(oven.run(() => Promise.reject("fire")));
    await flush();
    assertReentrant(error);
  });
}

contextTest(
  "Serializer.request() refuses a handler of its own that closes another one whose close hook asks it",
  async () => {
    const oven = new Serializer({ open, name: "oven" });
    let error: unknown;
    const close = async () => void (error = await errorOf(oven.run(open)));
    const till = new Serializer({ open, close });
    await till.run(open);
    follow(oven.run(() => till.close()));
    await flush();
    assertReentrant(error);
  },
);

// ── The caller's async context ──────────────────────────────────────────────

for (const reentrancy of MODES) {
  contextTest(
    `Serializer runs each handler in its caller's async context, callers interleaved (${reentrancy})`,
    async () => {
      const storage = new hooks!.AsyncLocalStorage();
      const seen: string[] = [];
      const see = (what: string) => seen.push(`${what}: ${storage.getStore()}`);
      const oven = new Serializer({
        reentrancy,
        open: async () => (await flush(), see("open")),
        async handle(_, dish: string) {
          see(`${dish} in`);
          await flush();
          see(`${dish} out`);
          if (dish === "b") throw "fire";
        },
        isFatal: () => see("isFatal") > 0,
      });
      const order = async (dish: string) => {
        await errorOf(oven.request(dish));
        see(`${dish} served`);
      };
      await Promise.all(
        [..."abc"].map((dish) => storage.run(`of ${dish}`, () => order(dish))),
      );
      assertEquals(seen.filter((line) => !line.includes("served")), [
        ...[
          "open: of a",
          "a in: of a",
          "a out: of a",
          "b in: of b",
          "b out: of b",
        ],
        ...["isFatal: of b", "open: of c", "c in: of c", "c out: of c"],
      ]);
      const served = seen.filter((line) => line.includes("served"));
      assertEquals(
        served,
        [..."abc"].map((dish) => `${dish} served: of ${dish}`),
      );
    },
  );
}

// ── Signals ─────────────────────────────────────────────────────────────────

Deno.test("Serializer.request(): an aborted signal wins, whatever else there is to say", async () => {
  const signal = AbortSignal.abort("before");
  for (const state of STATES) {
    const stage = new Stage(1);
    await stage.enter(state);
    const { kitchen: { oven, log } } = stage;
    const before = [...log];
    assertEquals(await errorOf(oven.request("z", { signal })), "before");
    assertEquals(await errorOf(oven.run(open, { signal })), "before");
    assertEquals(log.filter((line) => /z/.test(line)), []);
    if (state === "never opened") assertEquals(log, before);
  }
  const handless = new Serializer<number, number>({ open: () => 1 });
  assertEquals(await errorOf(handless.request(1, { signal })), "before");
  assertEquals(await errorOf(handless.run(1 as never, { signal })), "before");
  const { oven } = new Kitchen({ maxWaiting: 0 });
  await oven.run(async () => { // full, and re-entrant
    assertEquals(await errorOf(oven.request("z", { signal })), "before");
  });
});

Deno.test("Serializer.request(): an abort while waiting leaves the line, and the handler never runs", async () => {
  const kitchen = new Kitchen({ maxWaiting: 5 });
  const controller = new AbortController();
  kitchen.ask("a");
  kitchen.ask("bcd", controller);
  kitchen.ask("e");
  kitchen.ask("f", { signal: controller.signal, priority: 1 });
  assertEquals(kitchen.oven.waiting, 5);
  controller.abort("bye");
  assertEquals([kitchen.oven.running, kitchen.oven.waiting], [1, 1]);
  kitchen.ask("g"); // there is room again
  await kitchen.saw("open 1, a in 1, b: bye, c: bye, d: bye, f: bye");
  await kitchen.end("ae");
  await kitchen.saw("a done, e in 1, e done, g in 1");
});

for (const copy of ["open", "shut"]) {
  Deno.test(`Serializer.request(): an abort between hand-over and start; the handler never runs (copy ${copy})`, async () => {
    const kitchen = new Kitchen({ isFatal: () => true });
    const { oven, baking } = kitchen;
    const controller = new AbortController();
    kitchen.ask("a");
    kitchen.ask("b", controller);
    kitchen.ask("c");
    if (copy === "open") baking.a.resolve("a");
    else baking.a.reject("fire");
    while (oven.waiting === 2) await undefined;
    assertEquals([oven.running, oven.waiting], [1, 1]);
    controller.abort("bye");
    const lines = {
      open: "a done, b: bye, c in 1",
      shut: "a: fire, close 1, b: bye, open 2, c in 2",
    };
    await kitchen.saw(`open 1, a in 1, ${lines[copy as "open"]}`);
  });
}

for (const late of ["resolve", "reject"] as const) {
  Deno.test(`Serializer.request(): an abort while opening (which will ${late}); the next one gets the resource, or opens it`, async () => {
    const opening = deferred();
    const kitchen: Kitchen = new Kitchen({
      open: () => kitchen.opened === 1 ? opening.promise : undefined,
    });
    const controller = new AbortController();
    kitchen.ask("a", controller);
    kitchen.ask("b");
    controller.abort("bye");
    await kitchen.saw("open 1, a: bye");
    opening[late](undefined);
    await kitchen.saw(late === "resolve" ? "b in 1" : "open 2, b in 2");
  });
}

for (const late of ["resolve", "reject"] as const) {
  Deno.test(`Serializer.request(): an abort while running rejects at once; the turn is kept until the handler has ended (will ${late})`, async () => {
    const kitchen = new Kitchen();
    const { oven, baking } = kitchen;
    const controller = new AbortController();
    kitchen.ask("a", controller);
    kitchen.ask("b");
    const { context } = baking.a;
    if (late === "resolve") {
      context.signal.onabort = () => kitchen.log.push("told");
    }
    controller.abort("bye");
    await kitchen.saw(
      `open 1, a in 1, ${late === "resolve" ? "told, " : ""}a: bye`,
    );
    assertEquals(context.signal.reason, "bye"); // also if it is looked at only now
    assertEquals([oven.running, oven.waiting], [1, 1]);
    baking.a[late]("too late"); // nobody hears of it
    await kitchen.saw("b in 1");
    follow(oven.abort("fire"));
    const reasons = [context, baking.b.context].map(({ signal }) =>
      signal.reason
    );
    assertEquals(reasons, ["bye", "fire"]);
  });
}

for (const place of ["open", "handle"]) {
  Deno.test(`Serializer.request(): an abort in the synchronous part of ${place}`, async () => {
    const controller = new AbortController();
    const kitchen: Kitchen = new Kitchen({
      open: () => place === "open" ? controller.abort("bye") : undefined,
      handle(_, dish, { signal }) {
        if (dish === "a") controller.abort("bye");
        kitchen.log.push(`${dish} in, ${signal.reason}`);
      },
    });
    kitchen.ask("ab", controller);
    kitchen.ask("c");
    const ran = place === "handle" ? "a in, bye, " : "";
    const { log } = kitchen;
    assertEquals(
      log.splice(0).join(", ") + ", ",
      `open 1, ${ran}c in, undefined, `,
    );
    await kitchen.saw("a: bye, b: bye, c done");
  });
}

Deno.test("Serializer.request(): an abort wins over an answer still under way, and is nothing after it", async () => {
  const kitchen = new Kitchen();
  const [early, late] = [new AbortController(), new AbortController()];
  kitchen.ask("a", early);
  kitchen.baking.a.resolve("a");
  early.abort("bye");
  await kitchen.saw("open 1, a in 1, a: bye");
  kitchen.ask("b", late);
  const { signal } = kitchen.baking.b.context;
  await kitchen.end("b");
  late.abort("bye");
  await kitchen.saw("b in 1, b done");
  assertFalse(signal.aborted);
});

Deno.test("Serializer.request(): an aborted signal wins also before its listeners are called", async () => {
  // Browsers let microtasks run between two listeners.
  const listeners = new Set<() => void>();
  const signal = {
    aborted: false,
    reason: "bye",
    addEventListener: (_: string, listener: () => void) =>
      listeners.add(listener),
    removeEventListener: (_: string, listener: () => void) =>
      listeners.delete(listener),
  };
  for (const wait of ["a turn", "open"]) {
    Object.assign(signal, { aborted: false });
    const log: string[] = [];
    const first = deferred();
    const serializer = new Serializer({
      open: () => wait === "open" ? first.promise : undefined,
    });
    if (wait === "a turn") follow(serializer.run(() => first.promise));
    const options = { signal: signal as unknown as AbortSignal };
    const task = follow(serializer.run(() => log.push("ran"), options));
    first.resolve();
    if (wait === "a turn") { while (serializer.waiting > 0) await null; }
    signal.aborted = true;
    await flush();
    for (const listener of [...listeners]) listener();
    await flush();
    assertEquals([task.state, task.error, log], ["rejected", "bye", []], wait);
    assertEquals([serializer.running, listeners.size], [0, 0], wait);
  }
});

Deno.test("Serializer: an answer that settles twice by a then of its own ends one turn", async () => {
  const serializer = new Serializer({ open: () => 1 });
  const answer = Object.assign(Promise.resolve(1), {
    then: (resolve: (answer: unknown) => void) =>
      queueMicrotask(() => (resolve("mine"), resolve("a stranger's"))),
  });
  const log: string[] = [];
  const second = deferred();
  const tasks = [
    follow(serializer.run(() => answer)),
    follow(serializer.run(() => second.promise)),
    follow(serializer.run(() => log.push("third"))),
  ];
  await flush();
  assertEquals(tasks.map(({ state }) => state), [
    "resolved",
    "pending",
    "pending",
  ]);
  assertEquals([tasks[0].value as unknown, log], ["mine", []]);
  second.resolve();
  await flush();
  assertEquals(log, ["third"]);
});

Deno.test("Serializer.abort() by isFatal leaves the signal of the handler that has ended alone", async () => {
  let signal: AbortSignal | undefined;
  const serializer: Serializer<number> = new Serializer({
    open: () => 1,
    isFatal: () => {
      follow(serializer.abort("bye"));
      return true;
    },
  });
  const task = follow(serializer.run((_, context) => {
    ({ signal } = context);
    return Promise.reject("fire");
  }));
  await flush();
  assertEquals([task.error, signal!.aborted], ["fire", false]);
});

Deno.test("Serializer.abort() by a listener of context.signal leaves its caller the reason", async () => {
  const kitchen = new Kitchen();
  const controller = new AbortController();
  kitchen.ask("a", controller);
  const { signal } = kitchen.baking.a.context;
  signal.onabort = () => follow(kitchen.oven.abort("fire"));
  controller.abort("bye");
  await kitchen.saw("open 1, a in 1, a: bye");
});

Deno.test("Serializer: context.signal keeps the first reason, also if it is looked at only after the second", () => {
  const kitchen = new Kitchen();
  const controller = new AbortController();
  kitchen.ask("a", controller);
  controller.abort("bye");
  follow(kitchen.oven.abort("fire"));
  assertEquals(kitchen.baking.a.context.signal.reason, "bye");
});

Deno.test("Serializer.abort() by a listener of a signal leaves those waiting under it its reason", async () => {
  const kitchen = new Kitchen();
  const controller = new AbortController();
  const { signal } = controller;
  signal.onabort = () => follow(kitchen.oven.abort("fire")); // before ours
  kitchen.ask("a");
  kitchen.ask("b", { signal });
  controller.abort("bye");
  await kitchen.saw("open 1, a in 1, b: bye, a: fire");
});

for (const end of ["answered", "aborted", "refused"]) {
  Deno.test(`Serializer: 10,000 requests under one signal, at two serializers, share a listener and leave none: ${end}`, async () => {
    const controller = probedController();
    const { signal } = controller;
    const ovens = [1, 2].map((concurrency) =>
      new Kitchen({ concurrency }).oven
    );
    const tasks = range(10_000).map((i) =>
      follow(ovens[i % 2].run(flush, { signal }))
    );
    assertEquals([controller.listening, controller.added], [1, 1]);
    if (end === "aborted") controller.abort("bye");
    if (end === "refused") { for (const oven of ovens) follow(oven.abort()); }
    for (const oven of ovens) await oven.close();
    const state = end === "answered" ? "resolved" : "rejected";
    assertEquals(tasks.filter((task) => task.state !== state), []);
    assertEquals([controller.listening, controller.added], [0, 1]);
  });
}

Deno.test("Serializer leaves no listener, whatever the end of a request", async () => {
  const controller = probedController();
  const { signal } = controller;
  const kitchen: Kitchen = new Kitchen({
    maxWaiting: 1,
    open: () => kitchen.opened === 1 ? Promise.reject("cold") : undefined,
  });
  const { oven, baking } = kitchen;
  kitchen.ask("a", { signal }); // cannot be opened
  await flush();
  kitchen.ask("bcd", { signal }); // d is one too many
  assertEquals([controller.listening, controller.added], [1, 2]);
  baking.b.reject("fire");
  await flush();
  await kitchen.end("c");
  kitchen.ask("e", { signal, priority: NaN });
  follow(oven.run(() => oven.request("f", { signal }), { signal })); // re-entrant
  follow(oven.close());
  kitchen.ask("g", { signal }); // closed
  await flush();
  assertEquals([controller.listening, controller.added], [0, 3]);
});

Deno.test("Serializer leaves no promise of its own unhandled", async () => {
  using unhandled = catchUnhandled();
  using _ = catchReports();
  for (const state of STATES) {
    const stage = new Stage(1);
    await stage.enter(state);
    follow(stage.kitchen.oven.abort());
    stage.opening.reject("cold");
    stage.closing.reject("stuck");
    for (const dish of Object.values(stage.kitchen.baking)) {
      dish.reject("burnt");
    }
  }
  await turnOver();
  assertEquals(unhandled.errors, []);
});

// ── inspect() ───────────────────────────────────────────────────────────────

Deno.test("Serializer.inspect() is plain data, that of an idle one, too", async () => {
  const oven = new Serializer({ open: () => 1, name: "oven" });
  const idle = { name: "oven", waiting: 0, running: 0, oldestSince: null };
  assertEquals(oven.inspect(), { ...idle, closed: false });
  await oven.close();
  assertEquals(JSON.parse(JSON.stringify(oven.inspect())), {
    ...idle,
    closed: true,
  });
});

Deno.test("Serializer.inspect() dates the oldest request by the first look after it", async () => {
  const clock = { now: 1000 };
  using _ = replaceGlobals({
    Date: class extends Date {
      static override now = () => clock.now;
    },
  });
  const tasks = range(4).map(() => deferred());
  const oven = new Serializer({ open: () => 1 });
  const look = (now: number) => {
    clock.now = now;
    const { running, waiting, oldestSince } = oven.inspect();
    return [running, waiting, oldestSince];
  };
  const ask = (n: number, priority = 0) =>
    oven.run(() => tasks[n].promise, { priority });
  assertEquals(look(1000), [0, 0, null]);
  const first = ask(0);
  const second = ask(1, -1); // lower ones wait longest
  assertEquals(look(2000), [1, 1, 2000]);
  const third = ask(2);
  assertEquals(look(3000), [1, 2, 2000]);
  tasks[0].resolve();
  await first;
  assertEquals(look(4000), [1, 1, 2000]); // the second one still waits
  tasks[2].resolve();
  await third;
  assertEquals(look(5000), [1, 0, 2000]);
  const fourth = ask(3);
  tasks[1].resolve();
  await second;
  assertEquals(look(6000), [1, 0, 6000]);
  tasks[3].resolve();
  await fourth;
  assertEquals(look(7000), [0, 0, null]);
});

Deno.test("Serializer.inspect() counts a handler that runs on after its caller has gone", async () => {
  const { promise, resolve } = deferred();
  const oven = new Serializer({ open: () => 1, concurrency: 2 });
  const controller = new AbortController();
  const { signal } = controller;
  const request = follow(oven.run(() => promise, { signal }));
  const { oldestSince } = oven.inspect();
  controller.abort();
  await flush();
  assertEquals(request.state, "rejected");
  assertEquals(oven.inspect().running, 1);
  assertEquals(oven.inspect().oldestSince, oldestSince);
  resolve();
  await flush();
  assertEquals(oven.inspect().oldestSince, null);
});
