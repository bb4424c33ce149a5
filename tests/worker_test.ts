import {
  assert,
  assertEquals,
  assertFalse,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { sendTo } from "../port.ts";
import { Queue, QueueClosedError, QueueFullError } from "../queue.ts";
import {
  serve,
  transfer,
  type WorkerDefinition,
  WorkerDiedError,
  type WorkerLike,
  WorkerSerializer,
  type WorkerSerializerOptions,
} from "../worker.ts";
import {
  catchReports,
  type Deferred,
  deferred,
  flush,
  follow,
  probedController,
  range,
  replaceGlobals,
} from "./_helpers.ts";
import {
  type FakePort,
  fakePorts,
  isDeno,
  isPage,
  isWorkerd,
  workerUrl,
} from "./_ports.ts";
import { FakeThreads, type FakeWorker } from "./_threads.ts";
import type { Kitchen, Order } from "./workers/kitchen.ts";
import type { Quick } from "./workers/quick.ts";

// ── Helpers ─────────────────────────────────────────────────────────────────

const KITCHEN = workerUrl("kitchen");
const count: Order = { do: "count" };

/** Node's `worker_threads`, where there is one. */
const threads = (globalThis as unknown as {
  process?: {
    getBuiltinModule?(name: string): {
      Worker: new (url: URL, options?: unknown) => WorkerLike & {
        on(type: string, listener: () => void): void;
      };
    } | undefined;
  };
}).process?.getBuiltinModule?.("node:worker_threads");

const isNode = threads !== undefined && !("Worker" in globalThis);

/** A test that needs workers, which workerd has not. */
function test(
  name: string,
  fn: () => Promise<void>,
  { ignore = false } = {},
): void {
  Deno.test({ name, ignore: isWorkerd || ignore, fn });
}

function kitchen(
  options: WorkerSerializerOptions = {},
): WorkerSerializer<Kitchen> {
  return new WorkerSerializer<Kitchen>(KITCHEN, { ...PATIENT, ...options });
}

function quick(
  options: WorkerSerializerOptions = {},
): WorkerSerializer<Quick> {
  const url = workerUrl("quick");
  return new WorkerSerializer<Quick>(url, { ...PATIENT, ...options });
}

/** Deno checks the types of a worker's script first, which may take long. */
const PATIENT = { startTimeout: Infinity };

/** Asks 2,000 times, so that the next requests of one turn travel in large batches. */
async function drill(serializer: WorkerSerializer<Quick>): Promise<void> {
  for (const _ of range(20)) {
    await Promise.all(range(100).map(() => serializer.request(1)));
  }
}

/** A handler under way, as the test sees it. */
class Held {
  readonly #port: MessagePort;
  readonly #heard: unknown[] = [];
  #hear: ((message: unknown) => void) | undefined;
  /** What the handler was given. */
  readonly order: Order;

  constructor(what: Extract<Order, { port: unknown }>["do"]) {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.onmessage = ({ data }) => {
      if (this.#hear === undefined) this.#heard.push(data);
      else this.#hear(data);
      this.#hear = undefined;
    };
    this.order = transfer({ do: what, port: port2 }, [port2]);
  }

  /** What the handler says next. */
  said(): Promise<unknown> {
    return new Promise((resolve) => {
      if (this.#heard.length > 0) resolve(this.#heard.shift());
      else this.#hear = resolve;
    });
  }

  /** Lets the handler end. */
  end(answer: unknown = "ended"): void {
    this.#port.postMessage(answer);
  }

  /** Lets go of the port. */
  close(): void {
    this.#port.close();
  }
}

// ── What it is for ──────────────────────────────────────────────────────────

test("WorkerSerializer.request() is answered by the handler in the worker, in order", async () => {
  await using serializer = kitchen();
  const answers = range(100).map(() => serializer.request(count));
  assertEquals(await Promise.all(answers), range(100).map((i) => i + 1));
});

test("WorkerSerializer does nothing before the first request", async () => {
  let made = 0;
  const serializer = new WorkerSerializer<Kitchen>(() => {
    made++;
    throw new Error("not needed");
  });
  assertEquals([serializer.waiting, serializer.running], [0, 0]);
  await serializer.close();
  assertEquals(made, 0);
});

test("WorkerSerializer.request() carries every value both ways", async () => {
  await using serializer = kitchen();
  const values = [undefined, null, 0, NaN, false, "", 1n, [1, [2]], { a: 1 }];
  for (const value of values) {
    assertEquals(await serializer.request({ do: "return", value }), value);
  }
});

test("WorkerSerializer waits for a worker that serves late", async () => {
  await using serializer = new WorkerSerializer<Kitchen>(
    workerUrl("late"),
    PATIENT,
  );
  assertEquals(await serializer.request(count), 1);
});

test("WorkerSerializer takes the address of a script as a string", async () => {
  await using serializer = new WorkerSerializer<Kitchen>(KITCHEN.href, PATIENT);
  assertEquals(await serializer.request(count), 1);
});

test("WorkerSerializer runs one handler at a time", async () => {
  await using serializer = kitchen();
  const held = [new Held("hold"), new Held("hold")];
  const answers = held.map(({ order }) => serializer.request(order));
  assertEquals(await held[0].said(), "begun");
  assertEquals([serializer.running, serializer.waiting], [1, 1]);
  const second = follow(held[1].said());
  held[0].end("one");
  assertEquals(await answers[0], "one");
  held[1].end("two");
  assertEquals(await answers[1], "two");
  assertEquals(second.value, "begun");
  assertEquals([serializer.running, serializer.waiting], [0, 0]);
  held.forEach((handler) => handler.close());
});

test("WorkerSerializer runs as many handlers at a time as it has workers", async () => {
  await using serializer = kitchen({ concurrency: 2 });
  const held = range(3).map(() => new Held("hold"));
  const answers = held.map(({ order }) => serializer.request(order));
  assertEquals(await held[0].said(), "begun");
  assertEquals(await held[1].said(), "begun");
  assertEquals([serializer.running, serializer.waiting], [2, 1]);
  held[1].end("two"); // whoever is free first takes the third
  assertEquals(await answers[1], "two");
  assertEquals(await held[2].said(), "begun");
  held[0].end("one");
  held[2].end("three");
  assertEquals(await Promise.all(answers), ["one", "two", "three"]);
  held.forEach((handler) => handler.close());
});

test("WorkerSerializer: each worker of a pool has a resource of its own", async () => {
  await using serializer = kitchen({ concurrency: 2 });
  const held = range(2).map(() => new Held("hold"));
  const answers = held.map(({ order }) => serializer.request(order));
  for (const handler of held) assertEquals(await handler.said(), "begun");
  held.forEach((handler) => handler.end());
  await Promise.all(answers);
  for (const i of [1, 2, 3]) {
    const counts = range(2).map(() => serializer.request(count));
    assertEquals(await Promise.all(counts), [i, i]);
  }
  const ends = range(2).map(() => new Held("tell of close"));
  await Promise.all(ends.map(({ order }) => serializer.request(order)));
  await serializer.close();
  for (const end of ends) assertEquals(await end.said(), "closed");
  for (const handler of [...held, ...ends]) handler.close();
});

test("WorkerSerializer serves the highest priority first, equals in order", async () => {
  await using serializer = kitchen();
  const held = new Held("hold");
  const order: number[] = [];
  const first = serializer.request(held.order);
  assertEquals(await held.said(), "begun");
  const others = [0, 1, -1, 2, 1].map((priority, i) =>
    serializer.request(count, { priority }).then((n) => {
      order[n as number - 1] = i;
    })
  );
  held.end();
  await Promise.all([first, ...others]);
  assertEquals(order, [3, 1, 4, 0, 2]);
  held.close();
});

test("WorkerSerializer.request(): an abort while waiting leaves the line", async () => {
  await using serializer = kitchen();
  const stop = probedController();
  const held = new Held("hold");
  const first = serializer.request(held.order);
  const never = follow(serializer.request(count, { signal: stop.signal }));
  const last = serializer.request(count);
  assertEquals(await held.said(), "begun");
  assertEquals(serializer.waiting, 2);
  stop.abort("enough");
  assertEquals(serializer.waiting, 1);
  held.end();
  await first;
  assertEquals(await last, 1); // the other one never ran
  assertEquals([never.state, never.error], ["rejected", "enough"]);
  assertEquals(stop.listening, 0);
  held.close();
});

test("WorkerSerializer.request(): an abort in the turn of the request never sends it", async () => {
  await using serializer = kitchen();
  const stop = new AbortController();
  const never = follow(serializer.request(count, { signal: stop.signal }));
  const last = serializer.request(count);
  stop.abort("enough");
  assertEquals(await last, 1);
  assertEquals(never.error, "enough");
});

test("WorkerSerializer.request(): an abort while running rejects at once; the next one waits for the handler", async () => {
  await using serializer = kitchen();
  const stop = probedController();
  const held = new Held("hold");
  const first = follow(
    serializer.request(held.order, { signal: stop.signal }),
  );
  assertEquals(await held.said(), "begun");
  const next = follow(serializer.request(count));
  stop.abort({ why: "enough" });
  await flush();
  assertEquals([first.state, first.error], ["rejected", { why: "enough" }]);
  assertEquals([serializer.running, serializer.waiting], [1, 1]);
  assertEquals(await held.said(), { aborted: { why: "enough" } });
  assertEquals(next.state, "pending");
  held.end();
  assertEquals(await serializer.request(count), 2);
  assertEquals(next.value, 1);
  assertEquals(stop.listening, 0);
  held.close();
});

test("WorkerSerializer.request() rejects at once with a signal that has aborted", async () => {
  await using serializer = kitchen();
  const signal = AbortSignal.abort("before");
  const asked = follow(serializer.request(count, { signal }));
  await flush();
  assertEquals([asked.state, asked.error], ["rejected", "before"]);
  assertEquals(serializer.running, 0);
});

test("WorkerSerializer.request() leaves no listener behind", async () => {
  await using serializer = kitchen();
  const stop = probedController();
  const { signal } = stop;
  const asked = range(10).map(() => serializer.request(count, { signal }));
  assertEquals([stop.listening, stop.added], [1, 1]);
  await Promise.all(asked);
  assertEquals(stop.listening, 0);
});

for (const maxWaiting of [0, 1, 2]) {
  test(`WorkerSerializer: ${maxWaiting} requests may wait, further ones get their request back`, async () => {
    await using serializer = kitchen({ maxWaiting });
    const held = new Held("hold");
    const asked = [follow(serializer.request(held.order))]; // has a worker, once it has started
    for (const _ of range(4)) asked.push(follow(serializer.request(count)));
    await flush();
    const refused = asked.filter(({ state }) => state === "rejected");
    assertEquals(refused.length, 4 - maxWaiting);
    for (const { error } of refused) {
      assertInstanceOf(error, QueueFullError);
      assertEquals(error.value, count);
    }
    assertEquals([serializer.running, serializer.waiting], [1, maxWaiting]);
    assertEquals(await held.said(), "begun");
    const stop = new AbortController();
    await assertRejects(
      () => serializer.request(count, { signal: stop.signal }),
      QueueFullError,
    );
    held.end();
    assertEquals(asked[0].state, "pending");
    while (serializer.running > 0) {
      await new Promise((resolve) => setTimeout(resolve));
    }
    assertEquals(
      asked.flatMap(({ value }) => typeof value === "number" ? [value] : []),
      range(maxWaiting).map((i) => i + 1),
    );
    held.close();
  });
}

test("WorkerSerializer.request(): requests of one turn travel in one message, answers likewise", async () => {
  const messages = { posted: 0, heard: 0 };
  const { MessageChannel } = globalThis;
  await using serializer = quick();
  {
    using _ = replaceGlobals({
      MessageChannel: function () {
        const channel = new MessageChannel();
        const { port1 } = channel;
        const postMessage = port1.postMessage.bind(port1);
        port1.postMessage = (...args: unknown[]) => {
          messages.posted++;
          postMessage(...args as [unknown]);
        };
        port1.addEventListener("message", () => messages.heard++);
        return channel;
      },
    });
    await serializer.request(1);
  }
  assertEquals([messages.posted, messages.heard], [1, 2]); // it has been opened
  // The batches grow with what it has done quickly, and begin anew after what
  // was slow, such as a pause of the machine.
  for (let asked = 1, most = 0; most < 64; asked += 64) {
    messages.posted = messages.heard = 0;
    const answers = await Promise.all(
      range(64).map(() => serializer.request(1)),
    );
    assertEquals(answers, range(64).map((i) => asked + i + 1));
    most = 64 / Math.max(messages.posted, messages.heard);
  }
});

test("WorkerSerializer.request(): an answer is copied when its handler ends", async () => {
  await using serializer = quick();
  for (const round of range(20)) {
    const asked = range(100).map(() => serializer.request("numbers"));
    const answers = await Promise.all(asked);
    assertEquals(
      answers,
      range(100).map((i) => [round * 100 + i + 1]),
    );
  }
});

test("WorkerSerializer.request(): answers do not wait for a handler that does", async () => {
  await using serializer = quick();
  const order: string[] = [];
  await drill(serializer);
  await Promise.all([
    ...range(50).map(() => serializer.request(1).then(() => order.push("a"))),
    serializer.request("wait").then(() => order.push("wait")),
    ...range(50).map(() => serializer.request(1).then(() => order.push("b"))),
  ]);
  assertEquals(order.join(""), `${"a".repeat(50)}wait${"b".repeat(50)}`);
  assertEquals(await serializer.request(1), 2102); // each ran once
});

// ── Errors, transfers ───────────────────────────────────────────────────────

test("WorkerSerializer.request() rejects with what the handler threw, as it was", async () => {
  await using serializer = kitchen();
  const thrown = async (what: string) => {
    const asked = follow(serializer.request({ do: "throw", what }));
    await serializer.request(count); // the next one runs
    assertEquals(asked.state, "rejected");
    return asked.error;
  };

  const custom = await thrown("custom");
  assertInstanceOf(custom, RangeError);
  assertEquals([custom.name, custom.message], ["OvenError", "too hot"]);
  const { code, callback, inner, cause } = custom as
    & RangeError
    & Record<
      string,
      unknown
    >;
  assertEquals(code, "E_OVEN");
  assertEquals(
    callback,
    "[a function, which cannot be sent to another thread]",
  );
  assertInstanceOf(inner, TypeError);
  assertEquals(inner.message, "inside");
  assertInstanceOf(cause, SyntaxError);
  assertEquals([cause.message, cause.cause], ["no fan", 7]);
  assertFalse(Object.keys(custom).includes("cause"));

  const unnamed = await thrown("unnamed");
  assertInstanceOf(unnamed, Error);
  assertStringIncludes(unnamed.name, "NoName"); // esbuild makes it _NoName

  const aggregate = await thrown("aggregate");
  assertInstanceOf(aggregate, AggregateError);
  assertEquals(aggregate.message, "all");
  assertInstanceOf(aggregate.errors[0], TypeError);
  assertEquals(aggregate.errors[1], "two");
  assertEquals(aggregate.errors[2].name, "OvenError");

  const dom = await thrown("dom");
  assertInstanceOf(dom, DOMException);
  assertEquals([dom.name, dom.message], ["NotFoundError", "gone"]);

  const circular = await thrown("circular");
  assertInstanceOf(circular, Error);
  assertStringIncludes(String(circular.cause), "a circle");

  const getter = await thrown("getter") as Record<string, unknown>;
  assertStringIncludes(String(getter.bad), "a getter that throws");

  assertEquals(await thrown("string"), "a string");
  assertEquals(await thrown("nothing"), undefined);
  assertStringIncludes(String(await thrown("function")), "a function");
});

test("WorkerSerializer.request() rejects with the stacks of both sides", async () => {
  await using serializer = kitchen();
  async function askForTrouble() {
    await serializer.request({ do: "throw", what: "plain" });
  }
  const error = await assertRejects(askForTrouble, Error, "plain");
  assertStringIncludes(error.stack!, "serveOrder"); // there
  assertStringIncludes(error.stack!, "askForTrouble"); // here
});

test("WorkerSerializer.request() moves what is to be transferred, both ways", async () => {
  await using serializer = kitchen();
  const bytes = new Uint8Array([1, 2, 3]);
  const order = transfer({ do: "transfer" as const, bytes }, [bytes.buffer]);
  const answer = await serializer.request(order);
  assertEquals(answer, new Uint8Array([2, 3, 4]));
  assertEquals(bytes.byteLength, 0);
});

test("WorkerSerializer.request() refuses a request or an answer that cannot be copied; others are served", async () => {
  await using serializer = kitchen();
  const value = () => {};
  const asked = [
    serializer.request(count),
    serializer.request({ do: "return", value }),
    serializer.request(count),
    serializer.request({ do: "return a function" }),
    serializer.request(count),
  ].map(follow);
  assertEquals(await serializer.request(count), 4);
  assertEquals(asked.map(({ value }) => value), [
    1,
    undefined,
    2,
    undefined,
    3,
  ]);
  for (
    const [i, what] of [[1, "the request"], [3, "what the handler returned"]]
  ) {
    const { error } = asked[i as number];
    assertInstanceOf(error, TypeError);
    assertStringIncludes(error.message, `${what} cannot be sent`);
  }
});

test("WorkerSerializer.request(): one in a batch that cannot be copied leaves the others alone", async () => {
  await using serializer = quick();
  await drill(serializer);
  const asked = range(100).map((i) =>
    follow(serializer.request(i === 50 ? (() => {}) as never : 1))
  );
  assertEquals(await serializer.request(1), 2100);
  assertEquals(
    asked.map(({ value }) => value),
    range(100).map((i) => i === 50 ? undefined : 2001 + i - Number(i > 50)),
  );
});

test("WorkerSerializer: an error that is fatal replaces the resource, not the worker", async () => {
  await using serializer = kitchen();
  const end = new Held("tell of close");
  await serializer.request(end.order);
  assertEquals(await serializer.request(count), 1);
  await assertRejects(
    () => serializer.request({ do: "throw", what: "fatal" }),
    Error,
    "fatal",
  );
  assertEquals(await end.said(), "closed");
  assertEquals(await serializer.request(count), 1);
  end.close();
});

// ── The end ─────────────────────────────────────────────────────────────────

test("WorkerSerializer.close() answers those waiting, closes the resource, and refuses", async () => {
  const serializer = kitchen();
  const [held, end] = [new Held("hold"), new Held("tell of close")];
  const first = follow(serializer.request(held.order));
  const second = follow(serializer.request(end.order));
  const third = follow(serializer.request(count));
  assertEquals(await held.said(), "begun");
  const closed = follow(serializer.close());
  assert(serializer.closed);
  const error = await assertRejects(
    () => serializer.request(count),
    QueueClosedError,
  );
  assertEquals(error.value, count);
  assertEquals([first.state, closed.state], ["pending", "pending"]);
  held.end();
  assertEquals(await end.said(), "closed");
  await serializer.close(); // twice is the same
  assertEquals([first.value, second.state, third.value], [
    "ended",
    "resolved",
    1,
  ]);
  assertEquals(closed.state, "resolved");
  held.close();
  end.close();
});

test("WorkerSerializer.close() rejects with what closing the resource threw", async () => {
  const serializer = kitchen();
  await serializer.request({ do: "break close" });
  const error = await assertRejects(() => serializer.close(), RangeError);
  assertEquals([error.name, error.message], ["OvenError", "cannot close"]);
});

test("WorkerSerializer.abort() rejects all, lets the handler know, and closes the resource once it has ended", async () => {
  const serializer = kitchen();
  const [end, held] = [new Held("tell of close"), new Held("hold")];
  await serializer.request(end.order);
  const running = follow(serializer.request(held.order));
  const waiting = follow(serializer.request(count));
  assertEquals(await held.said(), "begun");
  const aborted = follow(serializer.abort("enough"));
  await flush();
  assertEquals([running.error, waiting.error], ["enough", "enough"]);
  assertEquals(aborted.state, "pending");
  assertEquals(await held.said(), { aborted: "enough" });
  held.end();
  assertEquals(await end.said(), "closed");
  await serializer.abort();
  assertEquals(aborted.state, "resolved");
  held.close();
  end.close();
});

test("WorkerSerializer.abort() has an AbortError for reason, by default", async () => {
  const serializer = kitchen({ name: "kitchen" });
  const asked = follow(serializer.request(count)); // its worker starts
  await serializer.abort();
  await flush();
  assertInstanceOf(asked.error, DOMException);
  assertEquals(asked.error.name, "AbortError");
  assertStringIncludes(asked.error.message, "kitchen was aborted");
});

for (const closes of [false, true]) {
  test(`WorkerSerializer.abort() terminates a worker that does not end${closes ? ", and lets a close() settle" : ""}`, async () => {
    const serializer = kitchen({ grace: 1 });
    const block = new Held("block");
    const running = follow(serializer.request(block.order));
    assertEquals(await block.said(), "begun");
    const closed = closes ? serializer.close() : undefined;
    await serializer.abort("enough");
    await closed;
    assertEquals(running.error, "enough");
    block.close();
  });
}

test("WorkerSerializer.close() settles though terminate() does not, and reports it", async () => {
  const { setTimeout } = globalThis;
  const serializer = new WorkerSerializer<Kitchen>(() => {
    const worker = newWorker("kitchen");
    const terminate = worker.terminate.bind(worker);
    worker.terminate = () => {
      terminate();
      return new Promise(() => {});
    };
    return worker;
  }, PATIENT);
  await serializer.request(count);
  using reports = catchReports();
  using _ = replaceGlobals({
    setTimeout: (then: () => void) => setTimeout(then),
  });
  await serializer.close();
  assertEquals(reports.errors.map(String), [
    "Error: Cannot end worker: terminate() has not settled within 5000 ms; it is left alone",
  ]);
});

test("WorkerSerializer: an idle one keeps no process alive", async () => {
  const serializer = kitchen(); // the hosts look whether the process ends
  assertEquals(await serializer.request(count), 1);
  // A page goes on anyway, and Deno looks for what a test has left behind.
  if (!isNode) await serializer.close();
});

// ── Death ───────────────────────────────────────────────────────────────────

function newWorker(name: string, options: object = {}): WorkerLike {
  const url = workerUrl(name);
  return threads === undefined
    ? new Worker(url, { type: "module" })
    : new threads.Worker(url, options);
}

/** Asks three times; the second request is the end of the worker. */
async function dieWith(
  serializer: WorkerSerializer<Kitchen>,
  deadly: Order,
): Promise<WorkerDiedError> {
  const asked = [
    serializer.request(count),
    serializer.request(deadly),
    serializer.request(count),
    serializer.request(count),
  ].map(follow);
  assertEquals(await serializer.request(count), 3); // by a fresh worker
  assertEquals(asked.map(({ value }) => value), [1, undefined, 1, 2]);
  const { error } = asked[1];
  assertInstanceOf(error, WorkerDiedError);
  assertStringIncludes(error.message, "with this request in hand");
  return error;
}

test("WorkerSerializer: a worker that exits rejects the request it runs, others go to a fresh one", async () => {
  await using serializer = kitchen({ name: "kitchen" });
  const error = await dieWith(serializer, { do: "exit" });
  assertEquals(error.value, { do: "exit" });
  assertStringIncludes(error.message, "kitchen");
  assertStringIncludes(error.message, "it ended");
});

test(
  "WorkerSerializer: a web Worker that exits, likewise",
  async () => {
    await using serializer = new WorkerSerializer<Kitchen>(
      () => new Worker(KITCHEN, { type: "module" }),
      PATIENT,
    );
    await dieWith(serializer, { do: "exit" });
  },
  { ignore: isNode },
);

for (
  const [what, how, why] of [
    ["exits later", "exit after", "it ended"],
    ["throws outside of a request", "throw after", "thrown later"],
    ["leaves a rejection unhandled", "reject after", ""],
  ] as const
) {
  test(
    `WorkerSerializer: a worker that ${what}, likewise`,
    async () => {
      await using serializer = kitchen();
      const held = new Held(how);
      const running = follow(serializer.request(held.order));
      assertEquals(await held.said(), "begun");
      const waiting = serializer.request(count);
      held.end();
      assertEquals(await waiting, 1);
      assertInstanceOf(running.error, WorkerDiedError);
      assertStringIncludes(running.error.message, why);
      held.close();
    },
    { ignore: isPage && how === "reject after" }, // where it is no end
  );
}

test("WorkerSerializer reports what an idle worker throws, and starts a fresh one for the next request", async () => {
  using reports = catchReports();
  await using serializer = kitchen();
  await serializer.request({ do: "throw later" });
  while (reports.errors.length === 0) {
    await new Promise((resolve) => setTimeout(resolve));
  }
  assertInstanceOf(reports.errors[0], WorkerDiedError);
  assertStringIncludes(reports.errors[0].message, "thrown later");
  assertEquals(await serializer.request(count), 1);
});

test("WorkerSerializer: a worker that is terminated from outside, at work or idle", async () => {
  const workers: WorkerLike[] = [];
  await using serializer = new WorkerSerializer<Kitchen>(() => {
    workers.push(newWorker("kitchen"));
    return workers.at(-1)!;
  });
  const held = new Held("hold");
  const running = follow(serializer.request(held.order));
  const waiting = follow(serializer.request(count));
  assertEquals(await held.said(), "begun");
  workers[0].terminate();
  assertEquals(await serializer.request(count), 2);
  assertEquals([workers.length, waiting.value], [2, 1]);
  assertInstanceOf(running.error, WorkerDiedError);
  await workers[1].terminate();
  const next = follow(serializer.request(count));
  const last = await serializer.request(count);
  if (typeof SharedArrayBuffer === "undefined" && next.state === "rejected") {
    assertEquals(last, 1); // nobody knew that the next one had not begun
  } else assertEquals([next.value, last], [1, 2]);
  assertEquals(workers.length, 3);
  held.close();
});

test(
  "WorkerSerializer: a worker that runs out of memory",
  async () => {
    await using serializer = new WorkerSerializer<Kitchen>(() =>
      newWorker("kitchen", { resourceLimits: { maxOldGenerationSizeMb: 30 } })
    );
    const eat = new Held("eat");
    const error = await dieWith(serializer, eat.order);
    assertStringIncludes(error.message, "memory");
    eat.close();
  },
  { ignore: !isNode && !isDeno }, // others know no limits
);

test(
  "WorkerSerializer: a worker that runs out of memory while it opens its resource",
  async () => {
    await using serializer = new WorkerSerializer<Kitchen>(() =>
      newWorker("glutton", { resourceLimits: { maxOldGenerationSizeMb: 30 } })
    );
    const error = await assertRejects(
      () => serializer.request(count),
      WorkerDiedError,
      "memory",
    );
    assertEquals(error.carriedOut, false);
  },
  { ignore: !isNode && !isDeno },
);

test("WorkerSerializer terminates a worker whose handler loops, after its caller's abort and `grace`", async () => {
  await using serializer = kitchen({ grace: 1 });
  const block = new Held("block");
  const stop = new AbortController();
  const looping = follow(
    serializer.request(block.order, { signal: stop.signal }),
  );
  const next = serializer.request(count);
  assertEquals(await block.said(), "begun");
  stop.abort("enough");
  assertEquals(await next, 1); // by a fresh worker
  assertEquals(looping.error, "enough");
  assertEquals(await serializer.request(count), 2);
  block.close();
});

test("WorkerSerializer waits for a handler whose caller has gone, if it ends within `grace`", async () => {
  await using serializer = kitchen({ grace: Infinity });
  const held = new Held("hold");
  const stop = new AbortController();
  await serializer.request(count);
  const asked = follow(
    serializer.request(held.order, { signal: stop.signal }),
  );
  assertEquals(await held.said(), "begun");
  stop.abort();
  assertEquals(await held.said(), { aborted: "AbortError" });
  held.end();
  assertEquals(await serializer.request(count), 2); // by the same worker
  assertEquals(asked.state, "rejected");
  held.close();
});

for (
  const [what, name, message] of [
    ["is missing", "missing", ""],
    // Deno has been seen to tell of its end alone.
    ["throws at import", "throws", isDeno ? "" : "thrown at import"],
  ]
) {
  test(`WorkerSerializer: a script that ${what} rejects each request with why`, async () => {
    await using serializer = new WorkerSerializer<Kitchen>(workerUrl(name), {
      ...PATIENT,
      name: "kitchen",
    });
    const asked = range(3).map(() => serializer.request(count));
    for (const outcome of await Promise.allSettled(asked)) {
      const { reason } = outcome as PromiseRejectedResult;
      assertInstanceOf(reason, WorkerDiedError);
      assertStringIncludes(reason.message, "Cannot start kitchen: it ");
      assertStringIncludes(reason.message, message);
      assertEquals(reason.value, count);
    }
  });
}

test("WorkerSerializer: a worker that never says ready is given up after `startTimeout`", async () => {
  await using serializer = new WorkerSerializer<Kitchen>(workerUrl("silent"), {
    startTimeout: 1,
  });
  const asked = range(2).map(() => serializer.request(count));
  for (const outcome of await Promise.allSettled(asked)) {
    const { reason } = outcome as PromiseRejectedResult;
    assertInstanceOf(reason, WorkerDiedError);
    assertEquals(
      reason.message,
      "Cannot start worker: it was not ready within 1 ms",
    );
  }
});

test("WorkerSerializer: a worker that cannot be started is tried once for all that wait", async () => {
  let made = 0;
  let fail!: (error: unknown) => void;
  await using serializer = new WorkerSerializer<Kitchen>(() => {
    if (++made > 1) return newWorker("kitchen");
    return new Promise((_, reject) => fail = reject);
  }, PATIENT);
  const asked = range(3).map((priority) =>
    follow(serializer.request(count, { priority }))
  );
  await flush();
  const later = serializer.request(count, { priority: 1 });
  fail(new RangeError("no worker"));
  assertEquals(await later, 1);
  for (const { error } of asked) assertInstanceOf(error, WorkerDiedError);
  assertEquals(made, 2);
});

test("WorkerSerializer: as many workers as there may be that cannot be started reject all that wait, and report nothing", async () => {
  const fails: ((error: unknown) => void)[] = [];
  await using serializer = new WorkerSerializer<Kitchen>(
    () => new Promise((_, reject) => fails.push(reject)),
    { ...PATIENT, concurrency: 3 },
  );
  const asked = range(9).map(() => follow(serializer.request(count)));
  await flush();
  for (const fail of fails) fail(new RangeError("no worker"));
  await flush();
  assertEquals(fails.length, 3);
  for (const { error } of asked) assertInstanceOf(error, WorkerDiedError);
});

test("WorkerSerializer: a function that makes no worker rejects each request, and is asked again", async () => {
  let made = 0;
  await using serializer = new WorkerSerializer<Kitchen>(async () => {
    await undefined;
    if (++made < 3) throw new RangeError(`no worker ${made}`);
    return newWorker("kitchen");
  });
  for (const i of [1, 2]) {
    const error: Error = await assertRejects(
      () => serializer.request(count),
      WorkerDiedError,
      `no worker ${i}`,
    );
    assertInstanceOf(error.cause, RangeError);
  }
  assertEquals(await serializer.request(count), 1);
});

Deno.test("WorkerSerializer: whatever a function throws that makes no worker, it is told", async () => {
  const thrown = Object.create(null); // not even a text can be made of it
  await using serializer = new WorkerSerializer<Kitchen>(() => {
    throw thrown;
  });
  const error = await assertRejects(
    () => serializer.request(count),
    WorkerDiedError,
    "Cannot start worker: ",
  );
  assert(error.cause === thrown);
});

Deno.test("WorkerSerializer: a worker that does not take a port is none", async () => {
  using threads = new FakeThreads();
  const never = new Promise<Kitchen>(() => {});
  const serializer = new WorkerSerializer<Kitchen>(() => {
    const worker = threads.start(never);
    worker.postMessage = () => {
      throw new TypeError("no ports here");
    };
    return worker;
  });
  const asked = follow(serializer.request(count));
  await flush();
  const [worker] = threads.workers as (FakeWorker & FakePort)[];
  worker.hear("message", { data: ["@sauce/queues/worker", 1] });
  await threads.pass();
  assertInstanceOf(asked.error, WorkerDiedError);
  assertStringIncludes(asked.error.message, "no ports here");
  assert(worker.terminated);
  assertEquals(threads.timing, 0);
});

Deno.test("WorkerSerializer: a worker that comes when nobody needs it any more is terminated, whatever becomes of it", async () => {
  using threads = new FakeThreads();
  using reports = catchReports();
  const made = deferred<FakeWorker>();
  const serializer = new WorkerSerializer<Kitchen>(() => made.promise);
  const asked = follow(serializer.request(count));
  await flush();
  await serializer.abort("enough");
  const worker = threads.start<null, Order, unknown>(new Promise(() => {}));
  let terminated = 0;
  worker.terminate = () => {
    terminated++;
    return Promise.reject(new Error("cannot end"));
  };
  made.resolve(worker);
  await flush();
  const { hear, listening } = worker as unknown as FakePort;
  assertEquals([terminated, asked.error], [1, "enough"]);
  assertEquals(reports.errors.map(String), ["Error: cannot end"]);
  assert(listening > 0); // or what it still throws would be thrown here, by Node
  hear.call(worker as unknown as FakePort, "error", { message: "too late" });
  await threads.pass();
  assertEquals([terminated, reports.errors.length], [1, 1]);
});

Deno.test("WorkerSerializer: a worker that dies in the turn in which it is made is no secret", async () => {
  using threads = new FakeThreads();
  let made = 0;
  const serializer = new WorkerSerializer<Kitchen>(() => {
    const worker = threads.start<null, Order, unknown>(new Promise(() => {}));
    made++;
    queueMicrotask(() => (worker as unknown as FakePort).hear("close"));
    return worker;
  }, { startTimeout: Infinity });
  const asked = range(2).map(() => follow(serializer.request(count)));
  await threads.pass();
  for (const { error } of asked) {
    assertInstanceOf(error, WorkerDiedError);
    assertEquals(error.message, "Cannot start worker: the port was closed");
  }
  assertEquals([made, threads.timing], [1, 0]);
});

test("WorkerSerializer refuses a worker that is none, or speaks another language", async () => {
  const alive = setInterval(() => {}, 1000); // such workers do not see to that
  const none = new WorkerSerializer<Kitchen>(() => ({}) as WorkerLike);
  await assertRejects(
    () => none.request(count),
    WorkerDiedError,
    "it must be a Worker",
  );
  for (
    const [said, why] of [
      [[2], "it speaks version 2 of the protocol"],
      [[1], 'it said "hello", which makes no sense'],
    ] as const
  ) {
    let terminated = 0;
    const serializer = new WorkerSerializer<Kitchen>(() => {
      const worker = Object.assign(fakePorts()[0], {
        terminate: () => terminated++,
        postMessage: ([_, port]: [string, MessagePort]) =>
          port.postMessage(["hello"]),
      });
      setTimeout(() => {
        worker.hear("message", { data: "for somebody else" });
        worker.hear("message", { data: ["@sauce/queues/worker", ...said] });
      });
      return worker as unknown as WorkerLike;
    });
    await assertRejects(() => serializer.request(count), WorkerDiedError, why);
    assertEquals(terminated, 1);
  }
  clearInterval(alive);
});

test("WorkerSerializer: of a batch whose worker dies, what had not begun goes to a fresh one in order, nothing runs again", async () => {
  await using serializer = quick();
  await drill(serializer);
  const asked = range(3000).map((i) =>
    follow(serializer.request(i === 50 ? "exit" : 1))
  );
  await serializer.request(1);
  const lost = asked.filter(({ state }) => state === "rejected");
  for (const { error } of lost) assertInstanceOf(error, WorkerDiedError);
  assertEquals(asked[50].state, "rejected");
  const answers = (from: number, to?: number) =>
    asked.slice(from, to).flatMap(({ value }) => value as number ?? []);
  const [before, after] = [answers(0, 50), answers(51)];
  assertEquals(before, before.map((_, i) => 2001 + i));
  assertEquals(after, after.map((_, i) => 1 + i)); // by a fresh worker
  if (typeof SharedArrayBuffer !== "undefined") {
    assertEquals(after.length, 2949);
  } else assert(lost.length <= 2000 / 16, `${lost.length} lost`);
  assertEquals(before.length + lost.length + after.length, 3000);
});

/** Workers in this thread, which write down what they run: `worker:request`. */
class Stage implements Disposable {
  readonly threads: FakeThreads;
  readonly serializer: WorkerSerializer<StageDefinition>;
  ran: string[] = [];
  /** Is shown each worker before it starts. */
  cast: (worker: FakeWorker, number: number) => void = () => {};
  /** Opens and closes the resource of a worker. */
  open: (number: number) => unknown = () => null;
  close: (number: number) => unknown = () => {};
  isFatal: (error: unknown) => boolean = (error) => error === "fatal";
  /** Ends the handlers of requests that wait for that. */
  readonly ends = new Map<string, Deferred<string>>();

  constructor(
    options: WorkerSerializerOptions & { sharesMemory?: boolean } = {},
  ) {
    this.threads = new FakeThreads(options);
    this.serializer = new WorkerSerializer(() => this.#start(), options);
  }

  #start(): FakeWorker {
    const number = this.threads.workers.length + 1;
    const worker = this.threads.start<unknown, string, string>(Promise.resolve({
      open: () => this.open(number),
      close: (): void => this.close(number) as void,
      isFatal: (error) => this.isFatal(error),
      handle: (_, request) => {
        this.ran.push(`${number}:${request}`);
        if (request === "fatal") throw request;
        if (request === "throw") throw { date: new Date(0) };
        if (request === "date") return new Date(0) as never;
        if (request === "die") worker.die();
        else if (request === "function") return (() => {}) as never;
        else if (!request.startsWith("wait")) return request;
        this.ends.set(request, deferred<string>());
        return this.ends.get(request)!.promise;
      },
    }));
    this.cast(worker, number);
    return worker;
  }

  /** Makes the first worker fast, so that it gets up to ten requests in a batch. */
  async warm(): Promise<void> {
    for (const _ of range(160)) await this.serializer.request("warm");
    this.ran = [];
  }

  /** Asks once for each request. */
  ask(...requests: string[]) {
    return requests.map((request) => follow(this.serializer.request(request)));
  }

  [Symbol.dispose](): void {
    this.threads[Symbol.dispose]();
  }
}

type StageDefinition = {
  open(): null;
  handle(resource: null, request: string): string | Promise<string>;
};

/** How each of those that asked stands. */
function outcomes(asked: { value: unknown; error: unknown }[]): unknown[] {
  return asked.map(({ value, error }) =>
    error instanceof WorkerDiedError ? error.carriedOut ?? "perhaps" : value
  );
}

Deno.test("WorkerSerializer: when a worker dies, each request of its batch gets what is true of it", async () => {
  using stage = new Stage();
  const { serializer, threads } = stage;
  await stage.warm();
  const asked = stage.ask("a", "b", "wait", "c", "d");
  await flush();
  const urgent = follow(serializer.request("urgent", { priority: 1 }));
  const late = follow(serializer.request("e"));
  threads.workers[0].die(new TypeError("no more"));
  await threads.pass();
  assertEquals(outcomes(asked), [true, true, "perhaps", "c", "d"]);
  assertEquals([urgent.value, late.value], ["urgent", "e"]);
  assertEquals(
    stage.ran,
    ["1:a", "1:b", "1:wait", "2:urgent", "2:c", "2:d", "2:e"],
  );
  const why = ": it failed with no more";
  const died = "Cannot answer: worker died with this request in hand";
  assertEquals(asked.slice(0, 3).map(({ error }) => (error as Error).message), [
    `${died}, which had been carried out${why}`,
    `${died}, which had been carried out${why}`,
    `${died}${why}`,
  ]);
  const { cause, value } = asked[1].error as WorkerDiedError;
  assertInstanceOf(cause, TypeError);
  assertEquals(value, "b");
});

Deno.test("WorkerSerializer: when a worker dies that shares no memory, its whole batch may have been carried out", async () => {
  using stage = new Stage({ sharesMemory: false });
  await stage.warm();
  const asked = stage.ask("a", "wait", "b");
  await flush();
  stage.threads.workers[0].die();
  const late = stage.ask("c");
  await stage.threads.pass();
  assertEquals(outcomes(asked), ["perhaps", "perhaps", "perhaps"]);
  assertEquals(outcomes(late), ["c"]);
});

Deno.test("WorkerSerializer: what was to be moved is lost with a worker that had not begun it; nothing else is", async () => {
  using threads = new FakeThreads();
  const serializer = new WorkerSerializer<
    { open(): null; handle(resource: null, bytes: Uint8Array): number }
  >(() =>
    threads.start<null, Uint8Array, number>(Promise.resolve({
      open: () => null,
      handle: (_, bytes) => bytes.length,
    }))
  );
  const moved = () => {
    const bytes = new Uint8Array(3);
    return transfer(bytes, [bytes.buffer]);
  };
  assertEquals(await serializer.request(moved()), 3);
  const asked = [moved(), new Uint8Array(2), moved()].map((bytes) =>
    follow(serializer.request(bytes))
  );
  threads.workers[0].die(); // nobody has been told yet
  await threads.pass();
  assertEquals(outcomes(asked), [false, 2, 3]);
});

for (const index of [0, 1, 2]) {
  Deno.test(`WorkerSerializer.request(): an answer that cannot be copied fails its own request in a batch (at ${index})`, async () => {
    using stage = new Stage();
    await stage.warm();
    const requests = ["a", "b", "c"];
    requests[index] = "function";
    const asked = stage.ask(...requests);
    await flush();
    assertEquals(
      outcomes(asked),
      requests.map((request, i) => i === index ? undefined : request),
    );
    assertStringIncludes(String(asked[index].error), "cannot be sent");
    assertEquals(stage.ran.length, 3);
  });
}

// No runtime is known to do so, but none promises not to.
for (const [what, request] of [["an answer", "date"], ["an error", "throw"]]) {
  for (const isAlone of [true, false]) {
    Deno.test(`WorkerSerializer.request(): ${what} that can be cloned and yet not sent is refused, whatever the port throws (${isAlone ? "alone" : "in a batch"})`, async () => {
      using stage = new Stage();
      const { serializer, threads } = stage;
      await stage.warm();
      class Refusal extends Error {
        readonly date = new Date(0);
      }
      threads.refuses = (message) =>
        JSON.stringify(message)?.includes("1970-")
          ? new Refusal("no dates")
          : undefined;
      const asked = isAlone ? stage.ask(request) : stage.ask("a", request, "b");
      await threads.pass();
      const { error } = asked[isAlone ? 0 : 1];
      assertInstanceOf(error, TypeError);
      assertEquals(
        error.message,
        `Cannot answer: what the handler ${
          request === "throw" ? "threw" : "returned"
        } cannot be sent to another thread: Error: no dates`,
      );
      if (!isAlone) assertEquals([asked[0].value, asked[2].value], ["a", "b"]);
      assertEquals(await serializer.request("c"), "c");
    });
  }
}

Deno.test("WorkerSerializer: a worker that is being terminated begins nothing of its batch any more", async () => {
  using stage = new Stage({ grace: 0 });
  const { serializer, threads } = stage;
  await stage.warm();
  const stop = new AbortController();
  const { signal } = stop;
  const first = follow(serializer.request("wait", { signal }));
  const asked = stage.ask("a", "b");
  await flush();
  stop.abort("enough");
  await threads.pass();
  assert(threads.workers[0].terminated);
  assertEquals(first.error, "enough");
  stage.ends.get("wait")!.resolve("at last"); // it is not dead yet
  await flush();
  assertEquals(outcomes(asked), ["a", "b"]);
  assertEquals(stage.ran, ["1:wait", "2:a", "2:b"]);
});

Deno.test("WorkerSerializer: what was called off in a batch stays so when its worker dies", async () => {
  using stage = new Stage();
  const { serializer, threads } = stage;
  await stage.warm();
  const stop = new AbortController();
  stage.ask("wait");
  const gone = follow(serializer.request("gone", { signal: stop.signal }));
  const last = stage.ask("last");
  await flush();
  stop.abort("enough");
  threads.workers[0].die();
  await threads.pass();
  assertEquals([gone.error, last[0].value], ["enough", "last"]);
  assertEquals(stage.ran, ["1:wait", "2:last"]);
});

Deno.test("WorkerSerializer.close() answers what had not begun when its worker died", async () => {
  using stage = new Stage();
  await stage.warm();
  const asked = stage.ask("wait", "a");
  await flush();
  const closed = follow(stage.serializer.close());
  stage.threads.workers[0].die();
  await stage.threads.pass();
  assertEquals(outcomes(asked), ["perhaps", "a"]);
  assertEquals(closed.state, "resolved");
});

Deno.test("WorkerSerializer: a worker that dies before it begins anything rejects its request, the next one gets a fresh one", async () => {
  using stage = new Stage();
  stage.cast = (worker, number) => {
    // It has said that it is ready, and is answered.
    if (number < 3) worker.postMessage = () => worker.die();
  };
  const asked = stage.ask("a", "b", "c");
  await stage.threads.pass();
  assertEquals(outcomes(asked), [false, false, "c"]);
  assertStringIncludes(String(asked[0].error), "which had not begun");
  assertEquals(stage.ran, ["3:c"]);
});

Deno.test("WorkerSerializer.close() does not wait for a worker to start whose caller has gone", async () => {
  using threads = new FakeThreads();
  const never = new Promise<Kitchen>(() => {});
  const serializer = new WorkerSerializer<Kitchen>(
    () => threads.start(never),
    { startTimeout: Infinity },
  );
  const stop = new AbortController();
  const asked = follow(serializer.request(count, { signal: stop.signal }));
  const closed = follow(serializer.close());
  await threads.pass();
  stop.abort("enough");
  await threads.pass();
  assertEquals([asked.error, closed.state], ["enough", "resolved"]);
  assert(threads.workers[0].terminated);
});

Deno.test("WorkerSerializer starts a script that is dead once for all who ask meanwhile, and not by itself", async () => {
  using stage = new Stage();
  const { threads } = stage;
  stage.cast = (worker) => queueMicrotask(() => worker.die());
  for (const i of range(5)) {
    const asked = stage.ask("a", "b", "c");
    await threads.pass(60_000);
    assertEquals(outcomes(asked), [false, false, false]);
    assertEquals([threads.workers.length, threads.timing], [i + 1, 0]);
  }
  stage.cast = () => {};
  const asked = stage.ask("a", "b"); // no worse for what has been
  await flush();
  assertEquals(outcomes(asked), ["a", "b"]);
});

Deno.test("WorkerSerializer: a request that ends its worker takes no other one with it, however many there are", async () => {
  using stage = new Stage();
  const asked = stage.ask("die", "die", "a", "die", "b");
  await stage.threads.pass();
  assertEquals(
    outcomes(asked),
    ["perhaps", "perhaps", "a", "perhaps", "b"],
  );
  assertEquals(stage.ran, ["1:die", "2:die", "3:a", "3:die", "4:b"]);
});

Deno.test("WorkerSerializer: a dead worker's request waits until it has been terminated", async () => {
  using stage = new Stage({ grace: 10 });
  const { serializer, threads } = stage;
  await serializer.request("warm");
  const [first] = threads.workers;
  const ended = deferred();
  first.terminate = () => ended.promise;
  const stop = new AbortController();
  const asked = follow(serializer.request("wait", { signal: stop.signal }));
  const next = stage.ask("next");
  await flush();
  stop.abort("enough");
  await threads.pass(10);
  assertEquals(asked.error, "enough");
  assertEquals([next[0].state, threads.workers.length], ["pending", 1]);
  assertEquals([serializer.running, serializer.waiting], [1, 0]);
  ended.resolve();
  await flush();
  assertEquals(next[0].value, "next");
});

Deno.test("WorkerSerializer: what a worker gives back goes to another one that is free", async () => {
  using stage = new Stage({ concurrency: 2 });
  const { threads } = stage;
  const both = stage.ask("wait 1", "wait 2"); // starts two workers
  await flush();
  for (const { resolve } of stage.ends.values()) resolve("done");
  await flush();
  assertEquals(outcomes(both), ["done", "done"]);
  await stage.warm();
  await stage.warm(); // either may have served
  const asked = stage.ask("wait 3", "a", "wait 4", "b");
  await flush();
  stage.ends.get("wait 4")?.resolve("done");
  await threads.pass(1);
  assertEquals(outcomes(asked), [undefined, "a", "done", "b"]);
  stage.ends.get("wait 3")!.resolve("done");
  await flush();
});

Deno.test("WorkerSerializer: requests that come back from several workers are served as they came", async () => {
  using stage = new Stage({ concurrency: 2 });
  const { threads } = stage;
  for (const _ of range(160)) { // each gets one
    stage.ask("warm", "warm");
    await flush();
  }
  stage.ran = [];
  const asked = stage.ask(...["wait 3", "a", "b", "wait 4", "c", "d", "e"]);
  await flush();
  await threads.pass(1); // both give back
  stage.ends.get("wait 4")!.resolve("done");
  await flush();
  assertEquals(
    stage.ran.map((run) => run.slice(2)),
    ["wait 3", "wait 4", "a", "b", "c", "d", "e"],
  );
  stage.ends.get("wait 3")!.resolve("done");
  await flush();
  assertEquals(asked.filter(({ state }) => state === "pending"), []);
});

for (const what of ["its caller goes", "it is aborted"]) {
  Deno.test(`WorkerSerializer: a worker that stands still between two handlers is replaced once ${what}`, async () => {
    using stage = new Stage({ grace: 10 });
    const { serializer, threads } = stage;
    await stage.warm();
    threads.workers[0].stall();
    const stop = new AbortController();
    const { signal } = stop;
    const asked = ["a", "b"].map((request) =>
      follow(serializer.request(request, { signal }))
    );
    await flush();
    if (what === "it is aborted") {
      const aborted = follow(serializer.abort("enough"));
      await threads.pass(10);
      assertEquals(aborted.state, "resolved");
    } else {
      stop.abort("enough");
      const next = stage.ask("next");
      await threads.pass(10);
      assertEquals(outcomes(next), ["next"]);
    }
    assertEquals(asked.map(({ error }) => error), ["enough", "enough"]);
    assert(threads.workers[0].terminated);
    assertEquals(threads.timing, 0);
  });
}

Deno.test("WorkerSerializer.close() waits for a worker that stands still as long as somebody wants its answer; abort() ends that", async () => {
  using stage = new Stage({ grace: 10, concurrency: 2 });
  const { serializer, threads } = stage;
  await stage.warm();
  threads.workers[0].stall();
  const [asked] = stage.ask("a"); // cannot be called off, and has not begun
  await flush();
  const closed = follow(serializer.close());
  await threads.pass(1e6);
  assertEquals([asked.state, closed.state], ["pending", "pending"]);
  const aborted = follow(serializer.abort("enough"));
  await threads.pass(10);
  assertEquals(asked.error, "enough");
  assertEquals([closed.state, aborted.state], ["resolved", "resolved"]);
  assert(threads.workers[0].terminated);
  assertEquals(threads.timing, 0);
});

Deno.test("WorkerSerializer: a worker that stands still after a handler is replaced once nobody wants anything of it", async () => {
  using stage = new Stage({ grace: 10 });
  const { serializer, threads } = stage;
  await stage.warm();
  const stop = new AbortController();
  const { signal } = stop;
  const asked = ["wait", "a"].map((request) =>
    follow(serializer.request(request, { signal }))
  );
  await flush();
  stop.abort("enough");
  threads.workers[0].stall();
  stage.ends.get("wait")!.resolve("done"); // nobody hears of it
  const next = stage.ask("next");
  await threads.pass(20);
  assertEquals([...asked.map(({ error }) => error), next[0].value], [
    ...["enough", "enough"],
    "next",
  ]);
  assert(threads.workers[0].terminated);
});

Deno.test("WorkerSerializer.request(): without shared memory, what was called off and comes back does not end the handler before it", async () => {
  using stage = new Stage({ sharesMemory: false, grace: 10 });
  const { serializer, threads } = stage;
  await stage.warm();
  const stop = new AbortController();
  const { signal } = stop;
  const first = stage.ask("wait");
  const second = follow(serializer.request("a", { signal }));
  await flush();
  stop.abort("enough");
  await threads.pass(100);
  assertFalse(threads.workers[0].terminated);
  stage.ends.get("wait")!.resolve("done");
  await flush();
  assertEquals([first[0].value, second.error], ["done", "enough"]);
});

// ── What cannot be opened, started or closed ────────────────────────────────

/** Who was refused, and with what. */
function errors(asked: { error: unknown }[]): unknown[] {
  return asked.flatMap(({ error }) =>
    error instanceof WorkerDiedError ? "died" : error ?? []
  );
}

for (const how of ["cannot open its resource", "cannot be started"]) {
  Deno.test(`WorkerSerializer: beside one that is busy, a worker that ${how} is tried ever more rarely, and at once when there is none`, async () => {
    using stage = new Stage({ concurrency: 2 });
    const isGood = (number: number) => number === 1 || number > 100;
    if (how === "cannot be started") {
      stage.cast = (worker, number) => {
        if (!isGood(number)) queueMicrotask(() => worker.die());
      };
    } else {
      stage.open = (number) => isGood(number) ? null : Promise.reject("cold");
    }
    const [first] = stage.ask("wait");
    await stage.threads.pass();
    const asked = stage.ask(...range(100).map(String));
    for (const _ of range(8)) await stage.threads.pass();
    assertEquals(errors(asked).length, 1); // not all that wait
    for (const i of range(100)) {
      asked.push(...stage.ask(`${i}`));
      for (const _ of range(4)) await stage.threads.pass();
    }
    // After 1, 2, 4, 8, 16, 32 of them: the next pause is longer than there are.
    assertEquals(errors(asked).length, 7);
    assertEquals(first.state, "pending");
    stage.ends.get("wait")!.resolve("done");
    for (const _ of range(20)) await stage.threads.pass();
    assertEquals(asked.filter(({ state }) => state === "pending"), []);
    assert(errors(asked).length <= 9); // those served shorten the pause
    stage.threads.workers[0].die();
    await stage.threads.pass();
    const more = stage.ask("a", "b", "c");
    for (const _ of range(8)) await stage.threads.pass();
    assertEquals(errors(more).length, 3); // nobody is there to wait for
  });
}

Deno.test("WorkerSerializer: once a worker can be opened, all may be, one after the other", async () => {
  using stage = new Stage({ concurrency: 3 });
  let good = 1;
  stage.open = (number) => number > good && Promise.reject("cold");
  const asked = stage.ask(...range(8).map((i) => `wait ${i}`));
  for (const _ of range(8)) await stage.threads.pass();
  assertEquals(errors(asked).length, 2); // of three that were tried at once
  good = 3;
  asked.push(...stage.ask("wait 8", "wait 9"));
  for (const _ of range(8)) await stage.threads.pass();
  assertEquals(errors(asked).length, 2);
  assertEquals(stage.ends.size, 3); // so many handlers are under way
  assertEquals(stage.threads.workers.length, 3);
});

Deno.test("WorkerSerializer: if one of several workers that start fails, who waits gets another one, if there are as many", async () => {
  for (const [waiting, refused] of [[3, 1], [2, 0]]) {
    const ready = deferred<WorkerDefinition<null, string, string>>();
    using threads = new FakeThreads();
    const serializer = new WorkerSerializer<StageDefinition>(
      () => threads.start(ready.promise),
      { concurrency: 3 },
    );
    const stop = new AbortController();
    const { signal } = stop;
    const asked = range(3).map((i) =>
      follow(
        serializer.request(`${i}`, i < waiting ? undefined : { signal }),
      )
    );
    await threads.pass();
    stop.abort("enough");
    threads.workers[0].die();
    await threads.pass();
    ready.resolve({ open: () => null, handle: (_, request) => request });
    await threads.pass();
    assertEquals(errors(asked.slice(0, waiting)).length, refused);
    assertEquals(threads.workers.length, 3);
    assertEquals(
      outcomes(asked.slice(refused, waiting)),
      ["0", "1", "2"].slice(refused, waiting),
    );
  }
});

Deno.test("WorkerSerializer: a lone worker that cannot open its resource fails each request that it takes, and tries again with the next one", async () => {
  using stage = new Stage();
  let tries = 0;
  stage.open = () => ++tries < 4 ? Promise.reject(`cold ${tries}`) : null;
  const asked = stage.ask("a", "b", "c", "d", "e");
  await stage.threads.pass();
  assertEquals(errors(asked), ["cold 1", "cold 2", "cold 3"]);
  assertEquals(outcomes(asked.slice(3)), ["d", "e"]);
  assertEquals([tries, stage.threads.workers.length], [4, 1]);
  assertEquals(stage.ran, ["1:d", "1:e"]);
});

Deno.test("WorkerSerializer: a worker that dies while it opens its resource is tried as rarely as one that fails to", async () => {
  using stage = new Stage({ concurrency: 2 });
  stage.open = (number) => {
    if (number === 1) return null;
    stage.threads.workers[number - 1].die();
    return new Promise(() => {});
  };
  stage.ask("wait");
  await stage.threads.pass();
  const asked = stage.ask(...range(50).map(String));
  for (const _ of range(20)) await stage.threads.pass();
  assertEquals(errors(asked), ["died"]);
  assertEquals(outcomes(asked)[0], false); // it had not begun
});

for (const reaches of ["the limit", "the rest"]) {
  Deno.test(`WorkerSerializer: maxWaiting counts who waits during a pause (${reaches})`, async () => {
    using stage = new Stage({ concurrency: 2, maxWaiting: 1 });
    stage.open = (number) => number === 2 ? Promise.reject("cold") : null;
    const { serializer, threads } = stage;
    const asked = stage.ask("wait", "a");
    await threads.pass();
    assertEquals([asked[0].state, asked[1].error], ["pending", "cold"]);
    assertEquals([serializer.running, serializer.waiting], [1, 0]);
    if (reaches === "the rest") {
      asked.push(...stage.ask("b")); // the pause is over: tried again
      await threads.pass();
      assertEquals(asked[2].error, "cold");
      asked.push(...stage.ask("c")); // that makes one, of two
      await threads.pass();
      assertEquals([serializer.running, serializer.waiting], [1, 1]);
      assertEquals(asked[3].state, "pending");
    }
    stage.ends.get("wait")!.resolve("done");
    await threads.pass();
    assertEquals([serializer.running, serializer.waiting], [0, 0]);
  });
}

Deno.test("WorkerSerializer: a caller who goes while the resource is being opened leaves it to the next", async () => {
  using stage = new Stage();
  const opening = deferred();
  stage.open = () => opening.promise;
  const stop = new AbortController();
  const { signal } = stop;
  const gone = follow(stage.serializer.request("gone", { signal }));
  const [next] = stage.ask("next");
  await stage.threads.pass();
  stop.abort("enough");
  opening.resolve();
  await stage.threads.pass();
  assertEquals([gone.error, next.value], ["enough", "next"]);
  assertEquals(stage.ran, ["1:next"]);
});

for (const fails of [false, true]) {
  Deno.test(`WorkerSerializer: after a fatal error, the next one waits until the resource is closed${fails ? "; what that throws is reported here" : ""}`, async () => {
    using stage = new Stage();
    using reports = catchReports();
    const log: string[] = [];
    const closing = deferred();
    let opened = 0;
    stage.open = () => log.push(`open ${++opened}`);
    stage.close = () => {
      log.push("close");
      return opened === 1 ? closing.promise : undefined;
    };
    await stage.warm();
    const asked = stage.ask("fatal", "a", "b"); // in one batch
    await stage.threads.pass();
    assertEquals(asked[0].error, "fatal"); // who gets it does not wait
    assertEquals(asked[1].state, "pending");
    assertEquals(stage.threads.workers[0].held, 1); // it has to do
    if (fails) closing.reject(new RangeError("stuck"));
    else closing.resolve();
    await stage.threads.pass();
    assertEquals(outcomes(asked.slice(1)), ["a", "b"]);
    assertEquals(log, ["open 1", "close", "open 2"]);
    assertEquals(
      reports.errors.map(String),
      fails ? ["RangeError: stuck"] : [],
    );
    assertEquals(stage.threads.workers.length, 1);
    await stage.serializer.close();
    assertEquals(log.at(-1), "close");
  });
}

Deno.test("WorkerSerializer.close() rejects with what closing a resource throws after a fatal error, if that is under way", async () => {
  using stage = new Stage();
  using reports = catchReports();
  const closing = deferred();
  stage.close = () => closing.promise;
  const asked = stage.ask("fatal");
  await stage.threads.pass();
  const closed = follow(stage.serializer.close());
  await stage.threads.pass();
  assertEquals([asked[0].error, closed.state], ["fatal", "pending"]);
  closing.reject("stuck");
  await stage.threads.pass();
  assertEquals([closed.state, closed.error], ["rejected", "stuck"]);
  assertEquals(reports.errors, []);
});

for (const first of ["abort", "fatal"]) {
  Deno.test(`WorkerSerializer.abort() gives grace to a close after a fatal error, whichever comes first (${first})`, async () => {
    using stage = new Stage({ grace: 10 });
    const { serializer, threads } = stage;
    stage.close = () => new Promise(() => {});
    stage.ask("wait");
    await threads.pass();
    const { reject } = stage.ends.get("wait")!;
    if (first === "fatal") reject("fatal");
    await threads.pass(100);
    assertFalse(threads.workers[0].terminated);
    const aborted = follow(serializer.abort("enough"));
    if (first === "abort") reject("fatal");
    await threads.pass(10);
    assertEquals(aborted.state, "resolved");
    assert(threads.workers[0].terminated);
    assertEquals(threads.timing, 0);
  });
}

Deno.test("WorkerSerializer reports here what isFatal throws, or says that is no answer, and keeps the resource", async () => {
  using stage = new Stage();
  using reports = catchReports();
  let opened = 0;
  stage.open = () => opened++;
  for (
    const answer of [() => 1, () => {
      throw new RangeError("cannot say");
    }]
  ) {
    stage.isFatal = answer as never;
    const asked = stage.ask("fatal", "a");
    await stage.threads.pass();
    assertEquals([asked[0].error, asked[1].value], ["fatal", "a"]);
  }
  assertEquals(reports.errors.map(String), [
    "TypeError: Cannot judge an error: what isFatal returns must be a boolean, got 1",
    "RangeError: cannot say",
  ]);
  assertEquals(opened, 1);
});

test("WorkerSerializer: a close hook that throws after a fatal error leaves the worker alone, and is reported here", async () => {
  using reports = catchReports();
  await using serializer = kitchen();
  await serializer.request({ do: "break close" });
  const asked = follow(serializer.request({ do: "throw", what: "fatal" }));
  assertEquals(await serializer.request({ do: "opened" }), 2); // in the same worker
  assertStringIncludes(String(asked.error), "fatal");
  assertEquals(reports.errors.map(String), ["OvenError: cannot close"]);
});

Deno.test("WorkerSerializer: a worker that starts for nobody keeps no process alive, until somebody waits for it again", async () => {
  using threads = new FakeThreads();
  const ready = deferred<WorkerDefinition<null, string, string>>();
  const made = deferred();
  const serializer = new WorkerSerializer<StageDefinition>(async () => {
    await made.promise;
    return threads.start(ready.promise);
  }, { startTimeout: 100 });
  const ask = async () => {
    const stop = new AbortController();
    const { signal } = stop;
    const asked = follow(serializer.request("gone", { signal }));
    await threads.pass(10);
    assertEquals(threads.timing, 1);
    return () => {
      stop.abort("enough");
      return threads.pass().then(() => assertEquals(asked.error, "enough"));
    };
  };
  let leave = await ask();
  await leave();
  assertEquals(threads.timing, 0);
  made.resolve(); // it comes when nobody waits
  await threads.pass(30);
  assertEquals([threads.workers.length, threads.workers[0].held], [1, 0]);
  leave = await ask();
  assertEquals([threads.workers.length, threads.workers[0].held], [1, 1]);
  await leave();
  assertEquals([threads.timing, threads.workers[0].held], [0, 0]);
  ready.resolve({ open: () => null, handle: (_, request) => request });
  await threads.pass();
  assertEquals(await serializer.request("a"), "a");
  assertEquals([threads.workers.length, threads.timing], [1, 0]);
});

Deno.test("WorkerSerializer: a worker beyond those who wait keeps no process alive while it starts", async () => {
  using threads = new FakeThreads();
  const serves = Promise.resolve<WorkerDefinition<null, string, string>>({
    open: () => null,
    handle: (_, request) => request,
  });
  const never = new Promise<typeof serves extends Promise<infer D> ? D : never>(
    () => {},
  );
  const serializer = new WorkerSerializer<StageDefinition>(
    () => threads.start(threads.workers.length === 0 ? serves : never),
    { concurrency: 2 },
  );
  const asked = ["a", "b"].map((request) =>
    follow(serializer.request(request))
  );
  await threads.pass();
  assertEquals(outcomes(asked), ["a", "b"]);
  assertEquals(threads.workers.map(({ held }) => held), [0, 0]);
  assertEquals(threads.timing, 0);
});

Deno.test("WorkerSerializer: startTimeout runs from the start, though nobody waited for a while", async () => {
  using threads = new FakeThreads();
  const never = new Promise<WorkerDefinition<null, string, string>>(() => {});
  const serializer = new WorkerSerializer<StageDefinition>(
    () => threads.start(never),
    { startTimeout: 100 },
  );
  const stop = new AbortController();
  const { signal } = stop;
  const gone = follow(serializer.request("gone", { signal }));
  await threads.pass(50);
  stop.abort("enough");
  await threads.pass(1000);
  assertFalse(threads.workers[0].terminated);
  const late = follow(serializer.request("late"));
  await threads.pass();
  assert(threads.workers[0].terminated);
  assertEquals([gone.error, late.state], ["enough", "pending"]); // gets a fresh one
  await threads.pass(100);
  assertEquals(outcomes([late]), [false]);
});

for (const sharesMemory of [true, false]) {
  for (const batch of [1, 3]) {
    Deno.test(`WorkerSerializer.request(): one whose own getter calls it off does not run (${batch} in a message, memory ${sharesMemory ? "" : "not "}shared)`, async () => {
      using threads = new FakeThreads({ sharesMemory });
      const ran: number[] = [];
      const serializer = new WorkerSerializer<
        { open(): null; handle(resource: null, request: { n: number }): number }
      >(() =>
        threads.start<null, { n: number }, number>(Promise.resolve({
          open: () => null,
          handle: (_, { n }) => ran.push(n),
        }))
      );
      for (const n of range(100)) await serializer.request({ n });
      ran.length = 0;
      const stop = new AbortController();
      const { signal } = stop;
      const trap = {
        get n() {
          stop.abort("enough");
          return 2;
        },
      };
      const asked = range(batch - 1).map((n) =>
        follow(serializer.request({ n }))
      );
      const trapped = follow(serializer.request(trap, { signal }));
      await threads.pass();
      assertEquals(trapped.error, "enough");
      assertEquals(asked.filter(({ state }) => state !== "resolved"), []);
      if (sharesMemory || batch > 1) assertEquals(ran, range(batch - 1));
      assertEquals([serializer.running, serializer.waiting], [0, 0]);
      assertEquals(threads.timing, 0);
      assertFalse(threads.workers[0].terminated);
    });
  }
}

Deno.test("WorkerSerializer.request(): a getter that aborts it all, and a message that cannot be sent then", async () => {
  using threads = new FakeThreads();
  const serializer = new WorkerSerializer<
    { open(): null; handle(resource: null, request: object): number }
  >(() =>
    threads.start<null, object, number>(Promise.resolve({
      open: () => null,
      handle: () => 1,
    }))
  );
  await serializer.request({});
  let aborted;
  const asked = follow(serializer.request({
    get n() {
      aborted = follow(serializer.abort("enough"));
      return () => {}; // cannot be cloned
    },
  }));
  await threads.pass();
  assertEquals(asked.error, "enough");
  assertEquals(aborted!.state, "resolved");
  assertEquals(threads.timing, 0);
});

Deno.test("WorkerSerializer.request(): a signal that is none leaves nothing behind", async () => {
  using stage = new Stage({ maxWaiting: 0 });
  const { serializer } = stage;
  for (const _ of range(3)) {
    await assertRejects(
      () => serializer.request("a", { signal: { aborted: false } as never }),
      TypeError,
      "signal must be an AbortSignal",
    );
  }
  assertEquals([serializer.running, serializer.waiting], [0, 0]);
  assertEquals(await serializer.request("b"), "b");
});

Deno.test("WorkerSerializer.running counts a handler whose caller has gone, not one that has ended before it in its batch", async () => {
  using stage = new Stage();
  const { serializer, threads } = stage;
  await stage.warm();
  const stop = new AbortController();
  const { signal } = stop;
  const asked = [
    follow(serializer.request("a", { signal })),
    ...stage.ask("wait"),
  ];
  await flush();
  stop.abort("enough"); // "a" has run, its answer has not been sent
  assertEquals([serializer.running, serializer.waiting], [1, 0]);
  stage.ends.get("wait")!.resolve("done");
  await threads.pass();
  assertEquals([asked[0].error, asked[1].value], ["enough", "done"]);
  assertEquals([serializer.running, serializer.waiting], [0, 0]);
});

test("WorkerSerializer: a worker that loops between two requests is replaced, after their caller's abort and `grace`", async () => {
  await using serializer = kitchen({ grace: 1 });
  const block = new Held("block later");
  await serializer.request(block.order);
  assertEquals(await block.said(), "begun");
  const stop = new AbortController();
  const asked = follow(serializer.request(count, { signal: stop.signal }));
  await flush();
  stop.abort("enough");
  assertEquals(await serializer.request(count), 1); // by a fresh worker
  assertEquals(asked.error, "enough");
  block.close();
});

// ── Many of them ────────────────────────────────────────────────────────────

Deno.test("WorkerSerializer: a thousand workers that come and go leave no listener, port or timer behind, whatever ends them", async () => {
  const ports: (FakePort & { open: boolean })[] = [];
  using threads = new FakeThreads();
  const { MessageChannel } = globalThis;
  using _ = replaceGlobals({
    MessageChannel: function () {
      const channel = new MessageChannel();
      const port = channel.port1 as unknown as typeof ports[0] & MessagePort;
      const close = port.close.bind(port);
      ports.push(Object.assign(port, {
        open: true,
        close: () => {
          port.open = false;
          close();
        },
      }));
      return channel;
    },
  });
  using reports = catchReports();
  const WAYS = [
    ...["close", "abort", "abort a handler", "fail to open", "be fatal"],
    ...["die", "die while idle", "never start", "die while starting"],
    "start for nobody",
  ];
  const stop = probedController();
  for (const i of range(1000)) {
    const way = WAYS[i % WAYS.length];
    const handle = (_: null, request: string) =>
      request === "fail"
        ? Promise.reject("fatal")
        : request === "wait"
        ? new Promise<string>(() => {})
        : request;
    const starts = !["never start", "start for nobody"].includes(way);
    const serializer = new WorkerSerializer<StageDefinition>(
      () =>
        threads.start<null, string, string>(
          starts
            ? Promise.resolve({
              open: () =>
                way === "fail to open" ? Promise.reject("cold") : null,
              handle,
              isFatal: () => way === "be fatal",
            })
            : new Promise(() => {}),
        ),
      { grace: 5, startTimeout: 10 },
    );
    const ask = (request: string, signal = stop.signal) =>
      follow(serializer.request(request, { signal }));
    const own = new AbortController();
    const asked = [
      ask(way === "abort a handler" || way === "die" ? "wait" : "fail"),
      ask("a", own.signal),
    ];
    if (way === "die while starting") {
      queueMicrotask(() => threads.workers.at(-1)!.die());
    }
    if (way === "start for nobody") own.abort();
    await threads.pass(starts ? 0 : 20);
    if (way.startsWith("die")) threads.workers.at(-1)!.die(new Error(way));
    if (way.startsWith("abort")) follow(serializer.abort("enough"));
    await threads.pass(way === "abort a handler" ? 20 : 0);
    if (way !== "abort") await threads.pass(0);
    if (way !== "die") follow(serializer.close());
    else follow(serializer.abort());
    await threads.pass(20);
    assertEquals(asked.filter(({ state }) => state === "pending"), [], way);
    assertEquals([way, threads.timing], [way, 0]);
  }
  assertEquals(stop.listening, 0);
  assertEquals(ports.filter(({ open }) => open), []);
  assertEquals(ports.filter(({ listening }) => listening > 0), []);
  assertEquals(threads.workers.filter(({ terminated }) => !terminated), []);
  assertEquals(reports.errors.length, 100); // those who died while idle
});

test("WorkerSerializer: thirty workers that come and go leave nothing behind that keeps a process alive", async () => {
  const { process } = globalThis as unknown as {
    process?: { getActiveResourcesInfo?(): string[] };
  };
  const active = () =>
    process?.getActiveResourcesInfo?.().filter((name) =>
      ["MessagePort", "Worker"].includes(name)
    ).length ?? 0;
  const before = active();
  for (const _ of range(10)) {
    const serializers = range(3).map(() => quick());
    const asked = serializers.map((serializer) => serializer.request(1));
    assertEquals(await Promise.all(asked), [1, 1, 1]);
    await Promise.all(
      serializers.map((serializer, i) =>
        i % 2 === 0 ? serializer.close() : serializer.abort()
      ),
    );
  }
  assertEquals(active(), before);
});

// ── Batches ─────────────────────────────────────────────────────────────────

/** Asks so often that the next requests of one turn travel together. */
async function warm(serializer: WorkerSerializer<Quick>): Promise<void> {
  for (let i = 0; i < 160; i++) await serializer.request(0);
}

/** A handler that blocks its thread until it is let go. */
class Blocked {
  readonly gate = new Int32Array(new SharedArrayBuffer(4));

  /** Resolves once the handler has begun. */
  async begun(): Promise<void> {
    while (Atomics.load(this.gate, 0) === 0) {
      await new Promise((resolve) => setTimeout(resolve));
    }
  }

  /** Lets the handler end. */
  end(): void {
    Atomics.store(this.gate, 0, 2);
    Atomics.notify(this.gate, 0);
  }
}

const sharesMemory = { ignore: typeof SharedArrayBuffer === "undefined" };

for (
  const [what, index] of [
    [
      "what waits in a batch neither ends its neighbour that runs, nor runs later",
      1,
    ],
    [
      "what runs in a batch ends its worker, and what waits goes to another one",
      0,
    ],
  ] as const
) {
  test(
    `WorkerSerializer.request(): an abort of ${what}`,
    async () => {
      await using serializer = quick({ grace: 0 });
      await warm(serializer);
      const blocked = new Blocked();
      const stop = new AbortController();
      const asked = [blocked.gate, 0, 0].map((request, i) => {
        const signal = i === index ? stop.signal : undefined;
        return follow(serializer.request(request, { signal }));
      });
      await blocked.begun();
      stop.abort("enough");
      if (index === 1) setTimeout(() => blocked.end()); // after the time of grace
      const last = await serializer.request(0);
      assertEquals(asked[index].error, "enough");
      assertEquals(
        [...asked.map(({ value }) => value), last],
        index === 1 ? [161, undefined, 162, 163] : [undefined, 1, 2, 3],
      );
    },
    sharesMemory,
  );
}

test(
  "WorkerSerializer.request(): without shared memory, an abort gives what is left of a batch the time of grace",
  async () => {
    await using serializer = quick({ grace: 0 });
    {
      using _ = replaceGlobals({ SharedArrayBuffer: undefined });
      await serializer.request(0);
    }
    const controller = new AbortController();
    const { signal } = controller;
    let [first, second]: { error: unknown }[] = [];
    // After what was slow, such as a pause of the machine, they go one by one.
    for (let areTogether = false; !areTogether;) {
      await warm(serializer);
      const blocked = new Blocked();
      const probe = {
        get list() {
          areTogether = true; // it is being sent
          return [];
        },
      };
      const asked = [
        serializer.request(blocked.gate),
        serializer.request(probe, { signal }),
      ];
      [first, second] = asked.map(follow);
      await blocked.begun();
      if (areTogether) break;
      blocked.end();
      await Promise.all(asked);
      areTogether = false;
    }
    controller.abort("enough");
    assertEquals(await serializer.request(0), 1);
    assertInstanceOf(first.error, WorkerDiedError);
    assertEquals(second.error, "enough");
  },
  sharesMemory,
);

test("WorkerSerializer: the time of grace begins once, however often its handler is called off", async () => {
  const waits: (() => void)[] = [];
  const { setTimeout } = globalThis;
  using _ = replaceGlobals({
    setTimeout: (then: () => void, ms?: number) =>
      ms === 4321 ? void waits.push(then) : setTimeout(then, ms),
  });
  const serializer = kitchen({ grace: 4321 });
  const held = new Held("block");
  const controller = new AbortController();
  const { signal } = controller;
  const asked = follow(serializer.request(held.order, { signal }));
  await held.said();
  controller.abort("enough");
  const aborted = serializer.abort();
  assertEquals(waits.length, 1);
  waits[0]();
  await aborted;
  assertEquals(asked.error, "enough");
  held.close();
});

test("WorkerSerializer.request(): one in a batch that cannot be copied leaves alone what others move", async () => {
  await using serializer = quick();
  await warm(serializer);
  const bytes = () => {
    const list = new Uint8Array([1, 2]);
    return transfer({ list }, [list.buffer]);
  };
  const wrong = (() => {}) as unknown as number;
  const [first, bad, last] = await Promise.allSettled(
    [bytes(), wrong, bytes()].map((request) => serializer.request(request)),
  );
  assertEquals(first, { status: "fulfilled", value: 2 });
  assertEquals(bad.status, "rejected");
  assertEquals(last, { status: "fulfilled", value: 2 });
});

test("WorkerSerializer.request(): each request gets a copy of its own, also in a batch", async () => {
  await using serializer = quick();
  await warm(serializer);
  const [same, other] = [{ list: [] }, { list: [] }];
  const answers = [same, other, same, same].map((request) =>
    serializer.request(request)
  );
  assertEquals(await Promise.all(answers), [1, 1, 1, 1]);
});

// ── inspect() ───────────────────────────────────────────────────────────────

Deno.test("WorkerSerializer.inspect() is plain data, that of an idle one, too", async () => {
  const make = () => Promise.reject(new Error("not needed"));
  const serializer = new WorkerSerializer<Kitchen>(make, { name: "oven" });
  const idle = { name: "oven", waiting: 0, running: 0, oldestSince: null };
  assertEquals(serializer.inspect(), { ...idle, closed: false });
  await serializer.close();
  assertEquals(JSON.parse(JSON.stringify(serializer.inspect())), {
    ...idle,
    closed: true,
  });
});

test("WorkerSerializer.inspect() dates the oldest request by the first look after it", async () => {
  const clock = { now: 1000 };
  using _ = replaceGlobals({
    Date: class extends Date {
      static override now = () => clock.now;
    },
  });
  await using serializer = kitchen();
  const look = (now: number) => {
    clock.now = now;
    const { running, waiting, oldestSince } = serializer.inspect();
    return [running, waiting, oldestSince];
  };
  const held = range(3).map(() => new Held("hold"));
  const ask = (n: number, priority = 0) =>
    serializer.request(held[n].order, { priority });
  assertEquals(look(1000), [0, 0, null]);
  const first = ask(0);
  assertEquals(look(2000), [1, 0, 2000]); // a worker is being started for it
  assertEquals(await held[0].said(), "begun");
  const second = ask(1, -1); // lower ones wait longest
  assertEquals(look(3000), [1, 1, 2000]);
  const third = ask(2);
  assertEquals(look(4000), [1, 2, 2000]);
  held[0].end();
  await first;
  assertEquals(look(5000), [1, 1, 3000]); // the second one still waits
  held[2].end();
  await third;
  assertEquals(look(6000), [1, 0, 3000]);
  held[1].end();
  await second;
  assertEquals(look(7000), [0, 0, null]);
  held.forEach((handler) => handler.close());
});

test("WorkerSerializer.inspect() counts a handler that runs on after its caller has gone, and no request that never runs", async () => {
  await using serializer = kitchen({ grace: Infinity });
  const held = range(2).map(() => new Held("hold"));
  const controller = new AbortController();
  const { signal } = controller;
  const requests = held.map(({ order }) =>
    follow(serializer.request(order, { signal }))
  );
  assertEquals(await held[0].said(), "begun");
  const { oldestSince } = serializer.inspect();
  assert(oldestSince !== null);
  controller.abort();
  await flush();
  assertEquals(requests.map(({ state }) => state), ["rejected", "rejected"]);
  const { running, waiting, oldestSince: since } = serializer.inspect();
  assertEquals([running, waiting, since], [1, 0, oldestSince]);
  held[0].end();
  assertEquals(await serializer.request(count), 1); // its turn is over
  assertEquals(serializer.inspect().oldestSince, null);
  held.forEach((handler) => handler.close());
});

// ── Wrong use ───────────────────────────────────────────────────────────────

Deno.test("serve() refuses to serve where there is no worker", () => {
  const definition = { open: () => 1, handle: () => 2 };
  assertThrows(() => serve(definition), Error, "this is not a worker");
});

Deno.test("serve() refuses to serve twice", async () => {
  const definition = { open: () => 1, handle: () => 2 };
  const [port] = fakePorts();
  assertEquals(serve(definition, { port }), definition);
  assertThrows(() => serve(definition, { port }), Error, "serves already");
  await flush();
  assertEquals(port.posted.length, 1);
});

Deno.test({
  name: "serve() leaves alone what queues say through the same port",
  ignore: isWorkerd, // it cannot transfer a port
  fn: async () => {
    const [near, far] = fakePorts();
    serve({ open: () => 1, handle: (one, n: number) => one + n }, {
      port: near,
    });
    const controller = new AbortController();
    const { signal } = controller;
    const options = { signal, onError: () => {} };
    const sent = follow(sendTo(new Queue(), far, options));
    await flush();
    const { port1, port2 } = new MessageChannel();
    far.postMessage(["@sauce/queues/worker", port2], [port2]);
    const answer = new Promise((resolve) => {
      port1.onmessage = ({ data }) => data[0] === "open" || resolve(data);
    });
    port1.postMessage(2);
    // In an array, if the handler was slow.
    assertEquals([await answer].flat().at(-1), 3);
    port1.close();
    controller.abort("enough");
    await flush();
    assertEquals(sent.error, "enough");
  },
});

Deno.test("serve() refuses a definition that is none", () => {
  // deno-lint-ignore no-explicit-any
  const wrong = serve as any;
  for (const definition of [undefined, {}, { open: () => 1 }]) {
    assertThrows(() => wrong(definition), TypeError, "handle must be");
  }
  const handle = () => 1;
  assertThrows(() => wrong({ handle }), TypeError, "open must be");
});

Deno.test("WorkerSerializer refuses wrong options", () => {
  // deno-lint-ignore no-explicit-any
  const make = (...args: any[]) => new (WorkerSerializer as any)(...args);
  assertThrows(() => make(), TypeError, "where must be");
  assertThrows(() => make("", 1), TypeError, "options must be an object");
  const wrong: [string, unknown, typeof TypeError | typeof RangeError][] = [
    ["concurrency", 0, RangeError],
    ["concurrency", "1", TypeError],
    ["maxWaiting", -1, RangeError],
    ["grace", NaN, RangeError],
    ["startTimeout", -1, RangeError],
    ["name", 1, TypeError],
  ];
  for (const [option, value, type] of wrong) {
    assertThrows(() => make("", { [option]: value }), type, option);
  }
});

test("WorkerSerializer.request() refuses wrong options", async () => {
  await using serializer = kitchen();
  await assertRejects(
    () => serializer.request(count, { priority: NaN }),
    RangeError,
    "priority must be a number",
  );
  await assertRejects(
    () => serializer.request(count, { signal: {} as AbortSignal }),
    TypeError,
    "signal must be an AbortSignal",
  );
});

Deno.test({
  name: "WorkerSerializer says so where a runtime has no workers",
  ignore: !isWorkerd,
  fn: async () => {
    const serializer = new WorkerSerializer<Kitchen>("kitchen.js");
    await assertRejects(
      () => serializer.request(count),
      WorkerDiedError,
      "this runtime has no workers",
    );
    await serializer.close();
  },
});
