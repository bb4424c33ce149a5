import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  PortClosedError,
  type PortLike,
  PortMessageError,
  receiveFrom,
  sendTo,
  transfer,
} from "../port.ts";
import { Queue, QueueClosedError } from "../queue.ts";
import { taps } from "../_tap.ts";
import {
  catchReports,
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
  isWorkerd,
  nodePorts,
  realPorts,
  tellsOfClose,
  tellsOfEnd,
  WORKERS,
} from "./_ports.ts";
import {
  WorkerDiedError,
  type WorkerLike,
  WorkerSerializer,
} from "../worker.ts";
import type { Both } from "./workers/both.ts";

const PROTOCOL = "@sauce/queues/port";

const KINDS: Record<string, () => [PortLike, PortLike]> = {
  "a pair within a thread": fakePorts,
  "ports by Node's shape": nodePorts,
  "a MessageChannel": realPorts,
};

/** Makes messages from this end unreadable at the other one. */
function garble(
  port: PortLike,
  garbles: (message: Record<string, unknown>) => boolean,
): void {
  (port as FakePort).garbles = (message) => garbles(Object(message));
}

/** Closes ports that are real, so that nothing keeps the process alive. */
function closeAll(ports: PortLike[]): void {
  for (const port of ports) (port as Partial<MessagePort>).close?.();
}

/** Lets a turn of the event loop pass. */
function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

async function readOut<T>(queue: Queue<T>): Promise<T[]> {
  const values: T[] = [];
  for await (const value of queue) values.push(value);
  return values;
}

/** A queue at each end of a pair of ports. */
function connect(
  options: Parameters<typeof receiveFrom>[1] = {},
  sending: Parameters<typeof sendTo>[2] = {},
  capacity = 0,
) {
  const [near, far] = fakePorts();
  const queue = new Queue<unknown>({ capacity });
  const received = receiveFrom<unknown>(far, options);
  const sent = follow(sendTo(queue, near, sending));
  return { near, far, queue, received, sent };
}

for (const [name, ports] of Object.entries(KINDS)) {
  Deno.test(`sendTo() and receiveFrom() carry values, in order, and the end, through ${name}`, async () => {
    const [near, far] = ports();
    const queue = new Queue<number>({ capacity: 4 });
    const sent = sendTo(queue, near);
    const received = receiveFrom<number>(far, { capacity: 3 });
    const all = readOut(received);
    for (const i of range(100)) await queue.send(i);
    queue.close();
    await sent;
    assertEquals(await all, range(100));
    closeAll([near, far]);
  });

  for (const met of [false, true]) {
    Deno.test(`sendTo(): one that was aborted leaves the next one alone, ${met ? "closes the queue of its receiver alone" : "also if nobody had received from it"}, through ${name}`, async () => {
      const [near, far] = ports();
      const queue = new Queue<string>();
      const first = met ? receiveFrom<string>(far) : undefined;
      for (const when of ["once it has settled", "at once"]) {
        const stop = new AbortController();
        const sent = sendTo(queue, near, { signal: stop.signal });
        if (met && when === "once it has settled") {
          await queue.send("soup");
          assertEquals(await first!.receive(), "soup");
        }
        stop.abort("enough");
        if (met || when === "once it has settled") {
          assertEquals(await sent.catch((reason) => reason), "enough");
        } else sent.catch(() => {});
        if (met) break;
      }
      const sent = sendTo(queue, near);
      if (met) {
        assertEquals(await first!.receive().catch((e) => e), "enough");
      }
      const received = receiveFrom<string>(far);
      await queue.send("steak");
      assertEquals(await received.receive(), "steak");
      queue.close();
      await sent;
      closeAll([near, far]);
    });
  }

  for (const first of ["sender", "receiver"] as const) {
    Deno.test(`sendTo() and receiveFrom() find each other, the ${first} first, through ${name}`, async () => {
      const [near, far] = ports();
      const queue = new Queue<string>();
      let received: Queue<string> | undefined;
      const receive = () => received = receiveFrom<string>(far);
      if (first === "receiver") receive();
      const sent = sendTo(queue, near);
      const sending = queue.send("soup");
      await flush();
      if (first === "sender") receive();
      await sending;
      assertEquals(await received!.receive(), "soup");
      queue.close();
      await sent;
      closeAll([near, far]);
    });
  }
}

Deno.test("sendTo() carries every value, and every reason", async () => {
  const values = [undefined, null, 0, -0, NaN, false, "", 1n, [undefined]];
  for (const reason of [undefined, null, "why", { dish: "soup" }]) {
    const { queue, received, sent } = connect();
    const sending = values.map((value) => queue.send(value));
    await Promise.all(sending);
    queue.close(reason);
    for (const value of values) {
      assert(
        Object.is(value, await received.receive()) || Array.isArray(value),
      );
    }
    const end = follow(received.receive());
    await flush();
    assertEquals([end.state, end.error], ["rejected", reason]);
    assertEquals(sent.state, "resolved");
  }
});

Deno.test("sendTo() carries an error with its class, its name, its cause and its fields", async () => {
  class OvenError extends RangeError {
    readonly degrees = 400;
    readonly retry = () => {};
  }
  const { queue, received } = connect();
  const error = new OvenError("too hot", { cause: new TypeError("no fan") });
  queue.close(error);
  const got = await assertRejects(() => received.receive(), RangeError);
  assertEquals([got.name, got.message], ["OvenError", "too hot"]);
  assertEquals(got.stack, error.stack);
  assertInstanceOf(got.cause, TypeError);
  const { degrees, retry } = got as unknown as Record<string, unknown>;
  assertEquals(degrees, 400);
  assertEquals(retry, "[a function, which cannot be sent to another thread]");
});

/** What arrives of a reason. */
async function carried(reason: unknown): Promise<unknown> {
  const { queue, received } = connect();
  queue.close(reason);
  return await received.receive().catch((error) => error);
}

const NOT_SENT = "which cannot be sent to another thread]";

Deno.test("sendTo() names the parts of a reason that cannot be sent, and sends the others", async () => {
  const status = Symbol("status");
  class OvenError extends Error {
    override name = "OvenError";
    readonly degrees = 400;
  }
  const response = { status: 404, retry() {}, inner: new OvenError("hot") };
  const error = Object.assign(
    new AggregateError(["a", () => {}, [new OvenError("too hot")]], "all"),
    { response, [status]: 7 },
  );
  const got = await carried(error) as typeof error & Record<string, unknown>;
  assertInstanceOf(got, AggregateError);
  const [a, b, [c]] = got.errors;
  assertEquals([a, b], ["a", `[a function, ${NOT_SENT}`]);
  assertEquals([c.name, c.message, c.degrees], ["OvenError", "too hot", 400]);
  assertEquals(got.response.status, 404);
  assertEquals(got.response.retry as unknown, `[a function, ${NOT_SENT}`);
  assertEquals(String(got.response.inner), "OvenError: hot");
  assertEquals(got["Symbol(status)"], 7);
});

Deno.test("sendTo() sends errors whose parts cannot be read, or are none", async () => {
  class MuteError extends RangeError {
    override get message(): string {
      throw "no message";
    }
  }
  const mute = await carried(new MuteError());
  assertInstanceOf(mute, RangeError);
  assertStringIncludes(mute.message, "getter that throws");
  const odd = Object.assign(new TypeError("odd"), { name: Symbol("name") });
  const got = await carried(odd);
  assertInstanceOf(got, TypeError);
  assertEquals([got.name, got.message], ["Symbol(name)", "odd"]);
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  for (const thing of [proxy, [proxy], { proxy }]) {
    assertStringIncludes(JSON.stringify(await carried(thing)), NOT_SENT);
  }
});

Deno.test("sendTo() sends errors that lie deep, or in each other many times, within bounds", async () => {
  let chain = new Error("0");
  for (const i of range(3000)) chain = new Error(`${i + 1}`, { cause: chain });
  let depth = 0;
  let link = await carried(chain);
  for (; link instanceof Error; link = link.cause) depth++;
  assertEquals([depth, link], [
    99,
    `[an object that lies too deep, ${NOT_SENT}`,
  ]);

  let twofold: object = new Error("0");
  for (const i of range(30)) {
    twofold = Object.assign(new Error(`${i}`), {
      cause: twofold,
      error: twofold,
    });
  }
  assertInstanceOf(await carried(twofold), Error);

  const many = new AggregateError(range(5000).map((i) => new Error(`${i}`)));
  const all = await carried(many) as AggregateError;
  assertEquals(
    all.errors.map(({ message }) => message),
    range(5000).map(String),
  );
  const more = new AggregateError(range(20_000).map((i) => new Error(`${i}`)));
  const none = await carried(more) as AggregateError;
  assertEquals(none.errors as unknown, `[an array of too much, ${NOT_SENT}`);
});

Deno.test("receiveFrom() tells of a value for which its owner has left no room", async () => {
  const errors: PortMessageError[] = [];
  const { queue, received, sent } = connect({
    capacity: 2,
    onError: (error) => void errors.push(error),
  });
  await flush();
  received.trySend(99);
  await Promise.all([queue.send(1), queue.send(2)]);
  queue.close();
  await flush();
  assertEquals(await readOut(received), [99, 1]);
  assertEquals(errors.map(({ value }) => value), [2]);
  assertStringIncludes(errors[0].message, "Cannot receive value from port");
  await flush();
  assertEquals(sent.state, "resolved");
});

Deno.test("receiveFrom() tells of no value that is lost because onError has closed its queue", async () => {
  const lost: unknown[] = [];
  const { near, queue, received } = connect(
    {
      capacity: 3,
      onError: ({ value }) => {
        lost.push(value);
        received.close();
      },
    },
    {},
    3,
  );
  await flush();
  received.trySend(97);
  received.trySend(98);
  for (const i of range(3)) queue.trySend(i);
  await flush();
  assertEquals(near.posted.at(-2)?.values, range(3)); // before its end
  assertEquals([lost, received.drain()], [[1], [97, 98, 0]]);
});

Deno.test("receiveFrom() gives credit without end once", async () => {
  const { far, queue, received } = connect({ capacity: Infinity });
  for (const i of range(9)) {
    await queue.send(i);
    assertEquals(await received.receive(), i);
  }
  await flush();
  assertEquals(far.kinds(), ["invite", "credit"]);
});

Deno.test("receiveFrom() does not take an error of its own thread for the other end's", async () => {
  // In Deno, `parentPort` tells of what this thread itself has thrown.
  const { terminate: _, ...parentPort } = fakeWorker();
  const received = receiveFrom(parentPort);
  parentPort.tell("error", new Error("ours"));
  parentPort.tell("exit", 0);
  await assertRejects(
    () => received.receive(),
    PortClosedError,
    "it ended, with exit code 0",
  );
});

/** A worker by the shape of Node's, which tells of what the test says. */
function fakeWorker() {
  const heard = new Map<string, (detail: unknown) => void>();
  return {
    heard,
    tell: (type: string, detail: unknown) => heard.get(type)?.(detail),
    postMessage() {},
    on: (type: string, listener: (detail: unknown) => void) =>
      void heard.set(type, listener),
    off: (type: string) => void heard.delete(type),
    terminate() {},
  };
}

/** A sender that the test speaks for. */
function speaker(id: string, receiver?: string) {
  const say = (kind: string, fields: object = {}) => ({
    protocol: PROTOCOL,
    channel: "",
    kind,
    id,
    receiver,
    ...fields,
  });
  return {
    offer: say("offer", { version: 1 }),
    values: (from: number, ...values: unknown[]) =>
      say("values", { from, values }),
    close: (sent: number, fields: object = {}) =>
      say("close", { sent, ...fields }),
    say,
  };
}

Deno.test("receiveFrom() gives out what a worker of Node's has said before it failed, and is told of after that", async () => {
  const worker = fakeWorker();
  const said: { receiver?: string }[] = [];
  const port = {
    ...worker,
    postMessage: (message: object) => void said.push(message),
  };
  const received = receiveFrom<number>(port);
  const { offer, values } = speaker("s", said[0].receiver);
  worker.tell("message", offer);
  worker.tell("message", values(0, 1));
  worker.tell("error", new Error("no oven"));
  worker.tell("message", values(1, 2, 3));
  assertEquals(received.closed, false);
  worker.tell("exit", 1);
  assertEquals(received.drain(), [1, 2, 3]);
  const error = await assertRejects(() => received.receive(), PortClosedError);
  assertStringIncludes(error.message, "it failed with Error: no oven");
  assertEquals((error.cause as Error).message, "no oven");
  assertEquals(worker.heard.size, 0);
});

for (
  const [how, end] of Object.entries({
    "once nothing comes for a turn": undefined,
    "by its `close`": "close",
    "though it goes on talking": "talk",
  })
) {
  Deno.test(`receiveFrom() gives out what a web Worker has said before it failed, and is told of after that, ${how}`, async () => {
    const timers: (() => void)[] = [];
    using _ = replaceGlobals({
      setTimeout: (run: () => void) => timers.push(run),
    });
    const turn = () => timers.shift()!();
    const [near, far] = fakePorts();
    const received = receiveFrom<number>(far, { capacity: Infinity });
    const { offer, values } = speaker("s", far.posted[0].receiver as string);
    let said = 0;
    const say = () => far.hear("message", { data: values(said, said++) });
    far.hear("message", { data: offer });
    say();
    far.hear("error", { message: "Error: no oven" });
    say();
    turn();
    say();
    turn();
    assertEquals(received.closed, false);
    if (end === "close") far.hear("close");
    else if (end === undefined) turn();
    else {
      while (timers.length > 0 && said < 10_000) {
        say();
        turn();
      }
      assert(said < 10_000, "for ever");
    }
    assertEquals(received.drain(), range(said));
    const error = await assertRejects(
      () => received.receive(),
      PortClosedError,
    );
    assertStringIncludes(error.message, "it failed with Error: no oven");
    assertEquals((error.cause as Error).message, "Error: no oven");
    assertEquals([near.listening, far.listening], [0, 0]);
  });
}

Deno.test("sendTo() and receiveFrom() listen once to a port, however many channels share it", async () => {
  const [near, far] = fakePorts();
  const pairs = range(20).map((i) => {
    const channel = `${i}`;
    const queue = new Queue<number>();
    const sent = sendTo(queue, near, { channel });
    return { queue, sent, received: receiveFrom<number>(far, { channel }) };
  });
  assertEquals([near.listening, far.listening], [4, 4]);
  for (const [i, { queue, received }] of pairs.entries()) {
    await queue.send(i);
    assertEquals(await received.receive(), i);
    queue.close();
  }
  await Promise.all(pairs.map(({ sent }) => sent));
  assertEquals([near.listening, far.listening], [0, 0]);
});

for (const capacity of [1, 2, 3, 7]) {
  Deno.test(`receiveFrom() never has more than ${capacity} values that nobody has received`, async () => {
    const { far, near, queue, received } = connect({ capacity });
    const accepted: number[] = [];
    for (const i of range(20)) queue.send(i).then(() => accepted.push(i));
    let taken = 0;
    for (const i of range(20)) {
      await flush();
      const sent = near.posted.flatMap(({ values }) => values ?? []);
      assert(sent.length - taken <= capacity, `${sent.length} - ${taken}`);
      assertEquals(accepted, sent);
      assertEquals(received.tryReceive(), { state: "ok", value: i });
      taken++;
    }
    await flush();
    assertEquals(accepted, range(20));
    assert(far.kinds().length <= 2 + 20 / Math.ceil(capacity / 2));
  });
}

for (
  const capacity of [Number.MAX_SAFE_INTEGER, 2 ** 53, Number.MAX_VALUE]
) {
  Deno.test(`receiveFrom() takes a capacity of ${capacity}`, async () => {
    const errors: unknown[] = [];
    const { queue, received, sent } = connect({ capacity }, {
      onError: (error) => void errors.push(error),
    });
    const sending = follow(queue.send("soup"));
    await flush();
    assertEquals([sending.state, errors], ["resolved", []]);
    queue.close();
    assertEquals(await readOut(received), ["soup"]);
    await flush();
    assertEquals(sent.state, "resolved");
  });
}

Deno.test("receiveFrom(): leaving a loop loses nothing, and its queue goes on, until it is disposed of", async () => {
  const { near, far, queue, received, sent } = connect({ capacity: 2 });
  const sending = range(8).map((i) => follow(queue.send(i)));
  for await (const value of received) if (value === 3) break;
  const batches = received.batches(2);
  assertEquals((await batches.next()).value, [4, 5]);
  await batches.return!();
  assertEquals(received.closed, false);
  assertEquals(await received.receive(), 6);
  received[Symbol.dispose]();
  await flush();
  assertEquals(received.drain(), [7]);
  assertEquals(
    sending.map(({ state }) => state),
    range(8).map(() => "resolved"),
  );
  assertInstanceOf(sent.error, QueueClosedError);
  assertEquals([near.listening, far.listening], [0, 0]);
});

Deno.test("sendTo() and receiveFrom() leave nothing at a port and a signal that thousands of connections share", async () => {
  const stop = probedController();
  const { signal } = stop;
  const [near, far] = fakePorts();
  for (const i of range(3000)) {
    const queue = new Queue<number>();
    const sent = follow(sendTo(queue, near, { signal }));
    const received = receiveFrom<number>(far, { signal });
    await queue.send(i);
    assertEquals(await received.receive(), i);
    if (i % 3 === 0) queue.close();
    else if (i % 3 === 1) received.close();
    else near.hear("close"), far.hear("close");
    await flush();
    assert(sent.state !== "pending");
    near.posted.length = far.posted.length = 0;
    assertEquals([near.listening, far.listening, stop.listening], [0, 0, 0]);
  }
});

Deno.test("sendTo() and receiveFrom() add one listener to a signal that many share", async () => {
  const stop = probedController();
  const { signal } = stop;
  const [near, far] = fakePorts();
  const ends = range(20).map((i) => {
    const options = { channel: `${i}`, signal };
    const queue = new Queue<number>();
    const sent = follow(sendTo(queue, near, options));
    return { queue, sent, received: receiveFrom<number>(far, options) };
  });
  for (const { queue, received } of ends) {
    for (const i of range(20)) {
      const value = received.receive({ signal });
      await queue.send(i, { signal });
      await value;
      assertEquals([stop.listening, stop.added], [1, 1]);
    }
  }
  stop.abort("enough");
  await flush();
  for (const { sent } of ends) assertEquals(sent.error, "enough");
  assertEquals([stop.listening, stop.added], [0, 1]);
});

Deno.test("sendTo() and receiveFrom() refuse what only looks like a signal, and do not touch the port", async () => {
  const [near, far] = fakePorts();
  for (const port of [near, far]) {
    port.start = port.addEventListener = () => {
      throw new Error("touched");
    };
  }
  const signal = { aborted: false } as AbortSignal;
  await assertRejects(
    () => sendTo(new Queue(), near, { signal }),
    TypeError,
    "signal must be an AbortSignal",
  );
  assertThrows(() => receiveFrom(far, { signal }), TypeError, "signal must be");
  assertEquals([near.listening, far.listening], [0, 0]);
  assertEquals([near.posted, far.posted], [[], []]);
});

Deno.test("receiveFrom() makes room however values are taken", async () => {
  for (const way of ["receive", "receiveMany", "drain", "batches"] as const) {
    const { queue, received } = connect({ capacity: 4 });
    for (const i of range(40)) queue.send(i).catch(() => {});
    const got: unknown[] = [];
    const batches = received.batches(3);
    while (got.length < 40) {
      await flush();
      if (way === "receive") got.push(await received.receive());
      if (way === "receiveMany") got.push(...await received.receiveMany(2));
      if (way === "drain") got.push(...received.drain());
      if (way === "batches") got.push(...(await batches.next()).value!);
    }
    assertEquals(got, range(40), way);
  }
});

for (
  const [how, send] of Object.entries({
    "at once": (queue: Queue<unknown>) => {
      for (const i of range(50)) queue.send(i);
    },
    "one after the other": async (queue: Queue<unknown>) => {
      for (const i of range(50)) await queue.send(i);
    },
    "some turns after the other": async (queue: Queue<unknown>) => {
      for (const i of range(50)) {
        await queue.send(i);
        for (const _ of range(4)) await null;
      }
    },
  })
) {
  for (const capacity of [0, 1, 100]) {
    Deno.test(`sendTo() sends what comes ${how} in one message (capacity ${capacity})`, async () => {
      const { near, queue, received } = connect({}, {}, capacity);
      await flush();
      near.kinds();
      await send(queue);
      await flush();
      assertEquals(near.kinds(), ["values"]);
      assertEquals(received.drain(), range(50));
    });
  }
}

Deno.test("sendTo() sends 1024 values in a message, at most", async () => {
  const { near, queue, received } = connect({ capacity: Infinity }, {}, 5000);
  await flush();
  for (const i of range(5000)) queue.trySend(i);
  await flush();
  const sizes = near.posted.flatMap(({ values }) =>
    Array.isArray(values) ? values.length : []
  );
  assertEquals(sizes, [1024, 1024, 1024, 1024, 904]);
  assertEquals(received.drain(), range(5000));
});

Deno.test("sendTo() does not wait for ever for more values", async () => {
  const { near, queue, received, sent } = connect({ capacity: Infinity });
  let stopped = false;
  const sending = (async () => {
    for (let i = 0; !stopped; i++) await queue.send(i);
  })();
  assertEquals(await received.receive(), 0);
  stopped = true;
  await sending;
  queue.close();
  await flush();
  assertEquals(sent.state, "resolved");
  assert(near.posted.length > 2);
});

Deno.test("sendTo() resolves when everything has arrived, read or not", async () => {
  const { queue, received, sent } = connect({ capacity: 2 });
  await queue.send(1);
  await queue.send(2);
  await flush();
  assertEquals(sent.state, "pending");
  queue.close();
  await flush();
  assertEquals(sent.state, "resolved");
  assertEquals([received.closed, received.drain()], [true, [1, 2]]);
});

Deno.test("sendTo() sends what is in a queue that is closed, then its end", async () => {
  const { queue, received, sent } = connect({ capacity: 1 }, {}, 5);
  for (const i of range(5)) queue.trySend(i);
  queue.close("done");
  await flush();
  assertEquals(sent.state, "pending");
  for (const i of range(5)) {
    assertEquals(await received.receive(), i);
    await flush();
  }
  assertEquals(sent.state, "resolved");
  assertEquals(follow(received.receive()).state, "pending");
});

Deno.test("sendTo() sends the end of a queue to a receiver that comes later", async () => {
  const [near, far] = fakePorts();
  const queue = new Queue<number>();
  queue.close("why");
  const sent = follow(sendTo(queue, near));
  await flush();
  const value = follow(receiveFrom(far).receive());
  await flush();
  assertEquals([value.state, value.error], ["rejected", "why"]);
  assertEquals(sent.state, "resolved");
});

Deno.test("receiveFrom(): closing its queue closes the one at the other end", async () => {
  for (const reason of [[], ["why"], [undefined]] as [unknown?][]) {
    const { near, far, queue, received, sent } = connect({ capacity: 2 });
    await queue.send(1);
    await queue.send(2);
    const waiting = follow(queue.send(3));
    await flush();
    received.close(...reason);
    await flush();
    assert(queue.closed);
    assertInstanceOf(waiting.error, QueueClosedError);
    assertEquals((waiting.error as QueueClosedError).value, 3);
    if (reason.length === 0) {
      assertInstanceOf(sent.error, QueueClosedError);
      assertStringIncludes(String(sent.error), "2 of the 2 values");
    } else assertEquals([sent.state, sent.error], ["rejected", reason[0]]);
    assertEquals(received.drain(), [1, 2]);
    assertEquals([near.listening, far.listening], [0, 0]);
  }
});

Deno.test("receiveFrom(): closing its queue while the sender's offer is on its way closes the other one", async () => {
  const { near, far, queue, received, sent } = connect();
  received.close("changed my mind");
  await queue.receive().catch(() => {}); // until it is closed
  assertEquals([sent.state, sent.error], ["rejected", "changed my mind"]);
  assert(queue.closed);
  assertEquals([near.listening, far.listening], [0, 0]);
});

for (const [name, ports] of Object.entries(KINDS)) {
  Deno.test(`receiveFrom(): one that was closed before a sender came leaves the next one alone, through ${name}`, async () => {
    const [near, far] = ports();
    for (const reason of [[], ["changed my mind"]]) {
      receiveFrom(far).close(...reason);
    }
    const received = receiveFrom<string>(far);
    const queue = new Queue<string>();
    const sent = sendTo(queue, near);
    await queue.send("soup");
    queue.close();
    assertEquals(await readOut(received), ["soup"]);
    await sent;
    closeAll([near, far]);
  });
}

/** Timers that run when the test says so; those that have been set. */
function heldTimers() {
  const timers: ({ run: () => void; ms: number } | undefined)[] = [];
  const globals = replaceGlobals({
    setTimeout: (run: () => void, ms: number) => timers.push({ run, ms }),
    clearTimeout: (id?: number) => id && (timers[id - 1] = undefined),
  });
  return Object.assign(globals, {
    set: () => timers.filter((timer) => timer !== undefined),
  });
}

Deno.test("sendTo() waits for no other receiver when one has gone that met nobody, if one is there", async () => {
  using timers = heldTimers();
  const [near, far] = fakePorts({ keeps: true });
  const first = receiveFrom<string>(far);
  const second = receiveFrom<string>(far);
  first.close("changed my mind");
  const queue = new Queue<string>();
  const sent = follow(sendTo(queue, near));
  await queue.send("soup");
  assertEquals(await second.receive(), "soup");
  assertEquals(timers.set(), []);
  queue.close();
  await flush();
  assertEquals(sent.state, "resolved");
});

Deno.test("sendTo() waits for no other receiver once one has given credit, whose invitation it has not heard", async () => {
  using timers = heldTimers();
  const [near, far] = fakePorts();
  const sent = follow(sendTo(new Queue(), near));
  const { id } = near.posted[0];
  const head = { protocol: PROTOCOL, channel: "" };
  far.postMessage({ ...head, kind: "end", receiver: "a", received: 0 });
  await flush();
  assertEquals(timers.set().length, 1);
  far.postMessage({ ...head, kind: "credit", receiver: "b", id, upTo: 1 });
  await flush();
  assertEquals([timers.set(), sent.state], [[], "pending"]);
});

Deno.test("sendTo() waits for no other receiver once one has invited it, also before that one gives credit", async () => {
  using timers = heldTimers();
  const [near, far] = fakePorts();
  const sent = follow(sendTo(new Queue(), near));
  const head = { protocol: PROTOCOL, channel: "" };
  far.postMessage({ ...head, kind: "end", receiver: "a", received: 0 });
  await flush();
  assertEquals(timers.set().length, 1);
  far.postMessage({ ...head, kind: "invite", receiver: "b", version: 1 });
  await flush();
  assertEquals([timers.set(), sent.state], [[], "pending"]);
});

Deno.test("sendTo(): of many receivers that met nobody, the last to go ends it", async () => {
  using timers = heldTimers();
  const [near, far] = fakePorts();
  const queue = new Queue<string>();
  const sent = follow(sendTo(queue, near));
  const say = (receiver: string, kind: string) =>
    far.postMessage({
      ...{ protocol: PROTOCOL, channel: "", kind, receiver, version: 1 },
      ...kind === "end" && {
        received: 0,
        reason: { kind: "value", value: receiver },
      },
    });
  for (const receiver of ["a", "b", "c"]) say(receiver, "invite");
  for (const receiver of ["b", "a", "unheard of"]) say(receiver, "end");
  await flush();
  assertEquals(timers.set(), []);
  say("c", "end");
  say("another", "end");
  await flush();
  assertEquals(timers.set().length, 1);
  timers.set()[0].run();
  await flush();
  assertEquals(sent.error, "another");
  assertEquals([near.listening, timers.set()], [0, []]);
});

for (const next of [true, false]) {
  Deno.test(
    `receiveFrom() gives the next sender time, when one has gone that met nobody (${
      next ? "it comes" : "it does not"
    })`,
    async () => {
      using timers = heldTimers();
      const [near, far] = fakePorts({ keeps: true });
      const stop = new AbortController();
      const { signal } = stop;
      const queue = new Queue<string>();
      follow(sendTo(queue, near, { signal }));
      stop.abort("enough");
      const received = receiveFrom<string>(far);
      await flush();
      assertEquals(timers.set().map(({ ms }) => ms), [100]);
      if (next) {
        const sent = follow(sendTo(queue, near));
        await queue.send("soup");
        assertEquals(timers.set(), []);
        assertEquals(await received.receive(), "soup");
        queue.close();
        await flush();
        assertEquals(sent.state, "resolved");
      } else {
        timers.set()[0].run();
        assertEquals([received.closed, far.listening], [true, 0]);
        const value = follow(received.receive());
        await flush();
        assertEquals(value.error, "enough");
      }
    },
  );
}

Deno.test("sendTo(): one that has ended leaves no offer behind that holds up the next receiver", async () => {
  using timers = heldTimers();
  const [near, far] = fakePorts();
  receiveFrom(far).close("changed my mind");
  const queue = new Queue<string>();
  const sent = follow(sendTo(queue, near));
  await flush();
  near.posted.length = 0;
  timers.set()[0].run();
  await flush();
  assertEquals(sent.error, "changed my mind");
  assertEquals(
    near.posted.map(({ kind, receiver }) => [kind, receiver]),
    range(2).map(() => ["close", undefined]), // once more, as it has a reason
  );
});

for (const next of [true, false]) {
  Deno.test(
    `sendTo() gives the next receiver time, when one has gone that met nobody (${
      next ? "it comes" : "it does not"
    })`,
    async () => {
      using timers = heldTimers();
      const { near, far, queue, received, sent } = connect();
      received.close("changed my mind");
      await flush();
      assertEquals(timers.set().map(({ ms }) => ms), [100]);
      const other = next ? receiveFrom(far) : undefined;
      await flush();
      assertEquals(timers.set().length, next ? 0 : 1);
      timers.set()[0]?.run();
      if (other === undefined) {
        assertEquals([queue.closed, near.listening], [true, 0]);
        await flush();
        assertEquals(sent.error, "changed my mind");
      } else {
        await queue.send("soup");
        assertEquals(await other.receive(), "soup");
        queue.close();
        await flush();
        assertEquals(sent.state, "resolved");
      }
    },
  );
}

Deno.test("sendTo(): an abort ends both, and leaves the queue as it is", async () => {
  const stop = probedController();
  const { near, far, queue, received, sent } = connect(
    { capacity: 1 },
    { signal: stop.signal },
  );
  await queue.send(1);
  const waiting = follow(queue.send(2));
  await flush();
  stop.abort("enough");
  await flush();
  assertEquals([sent.state, sent.error], ["rejected", "enough"]);
  assertEquals([queue.closed, waiting.state], [false, "pending"]);
  assertEquals(await received.receive(), 1);
  const end = follow(received.receive());
  await flush();
  assertEquals([end.state, end.error], ["rejected", "enough"]);
  assertEquals(await queue.receive(), 2);
  assertEquals([near.listening, far.listening, stop.listening], [0, 0, 0]);
});

Deno.test("sendTo(): an abort while it gathers values sends those that it has taken", async () => {
  const stop = new AbortController();
  const { queue, received, sent } = connect({}, { signal: stop.signal }, 9);
  await flush();
  await queue.send(1);
  await queue.send(2);
  stop.abort("enough");
  queue.trySend(3);
  await flush();
  assertEquals(sent.error, "enough");
  const got = [...received.drain(), ...queue.drain()];
  assertEquals(got, [1, 2, 3]);
  assert(queue.size === 0 && received.closed && !queue.closed);
});

Deno.test("sendTo(): an abort while it waits for values ends it", async () => {
  const stop = new AbortController();
  const { queue, received, sent } = connect({}, { signal: stop.signal });
  await flush();
  stop.abort("enough");
  const value = follow(queue.receive()); // nobody else waits for it
  queue.send("mine");
  await flush();
  assertEquals(sent.error, "enough");
  assertEquals(value.value, "mine");
  assertEquals(follow(received.receive()).state, "pending");
  assert(received.closed);
});

Deno.test("receiveFrom(): an abort ends both", async () => {
  const stop = probedController();
  const { queue, received, sent } = connect({ signal: stop.signal });
  await queue.send(1);
  await flush();
  assertEquals(stop.listening, 1);
  stop.abort("enough");
  await flush();
  assertEquals([sent.state, sent.error], ["rejected", "enough"]);
  assertEquals([queue.closed, received.closed], [true, true]);
  assertEquals(await received.receive(), 1);
  const end = follow(received.receive());
  await flush();
  assertEquals(end.error, "enough");
  assertEquals(stop.listening, 0);
});

Deno.test("sendTo() and receiveFrom() leave the port alone when aborted before", async () => {
  const [near, far] = fakePorts();
  const signal = AbortSignal.abort("before");
  const queue = new Queue<number>();
  const sent = follow(sendTo(queue, near, { signal }));
  const received = receiveFrom(far, { signal });
  const value = follow(received.receive());
  await flush();
  assertEquals([sent.error, value.error], ["before", "before"]);
  assertEquals(queue.closed, false);
  assertEquals([near.listening, near.posted, far.listening, far.posted], [
    0,
    [],
    0,
    [],
  ]);
});

Deno.test("sendTo() and receiveFrom() leave no listener behind", async () => {
  const stop = probedController();
  const { signal } = stop;
  const { near, far, queue, received, sent } = connect({ signal }, { signal });
  assertEquals(stop.listening, 1);
  await queue.send(1);
  queue.close();
  assertEquals(await readOut(received), [1]);
  await flush();
  assertEquals(sent.state, "resolved");
  assertEquals([near.listening, far.listening, stop.listening], [0, 0, 0]);
});

for (
  const [event, fields, why] of [
    ["close", {}, "the port was closed"],
    ["error", { message: "Error: no oven" }, "Error: no oven"],
    ["error", {}, "could not be loaded"],
  ] as const
) {
  Deno.test(`sendTo() and receiveFrom() reject whoever waits when the other end dies: ${event}, ${why}`, async () => {
    const { near, far, queue, received, sent } = connect({ capacity: 1 });
    await queue.send("soup");
    const waiting = follow(queue.send("steak"));
    await flush();
    for (const port of [near, far]) {
      port.postMessage = () => {}; // into the void
      port.hear(event, fields);
    }
    if (event === "error") await turn(); // what comes before that, counts
    const got = received.receive();
    const end = follow(received.receive());
    await flush();
    assertInstanceOf(sent.error, PortClosedError);
    assertStringIncludes(String(sent.error), why);
    assertInstanceOf(waiting.error, QueueClosedError);
    assertEquals(await got, "soup");
    assertInstanceOf(end.error, PortClosedError);
    assertEquals([near.listening, far.listening], [0, 0]);
  });
}

/** Makes a port throw at whatever is posted. */
function shut(port: FakePort): void {
  port.postMessage = () => {
    throw new DOMException("it is gone", "InvalidStateError");
  };
}

Deno.test("sendTo() and receiveFrom() take a port that takes no messages for dead, from the start", async () => {
  const stop = probedController();
  const { signal } = stop;
  const ports = fakePorts();
  ports.forEach(shut);
  const queue = new Queue<string>();
  const error = await assertRejects(
    () => sendTo(queue, ports[0], { signal }),
    PortClosedError,
    "takes no messages",
  );
  assertEquals((error.cause as Error).name, "InvalidStateError");
  assert(queue.closed);
  const received = receiveFrom(ports[1], { signal });
  await assertRejects(() => received.receive(), PortClosedError);
  assertEquals(ports.map(({ listening }) => listening), [0, 0]);
  assertEquals(stop.listening, 0);
});

Deno.test("receiveFrom() gives out what has come when its port takes no messages any more", async () => {
  const { far, queue, received } = connect({ capacity: 2 });
  await Promise.all([queue.send("soup"), queue.send("steak")]);
  await flush();
  shut(far);
  assertEquals(await received.receive(), "soup"); // and would ask for more
  assertEquals(await received.receive(), "steak");
  await assertRejects(() => received.receive(), PortClosedError);
  assertEquals(far.listening, 0);
});

Deno.test("receiveFrom(): an abort reaches everyone, though a port takes no messages any more", async () => {
  const stop = probedController();
  const { signal } = stop;
  const ends = range(3).map(() => connect({ signal }));
  const others = ends.map(({ received }) => follow(received.receive()));
  await flush();
  shut(ends[0].far);
  stop.abort("enough");
  await flush();
  assertEquals(others.map(({ error }) => error), range(3).map(() => "enough"));
  assertEquals(stop.listening, 0);
});

for (const how of ["closed", "aborted"] as const) {
  Deno.test(`sendTo() ends when its queue is ${how} and its port takes no messages any more`, async () => {
    const stop = probedController();
    const { near, queue, sent } = connect({}, { signal: stop.signal });
    await queue.send("soup");
    await flush();
    shut(near);
    if (how === "closed") queue.close();
    else stop.abort("enough");
    await flush();
    assertEquals(sent.state, "rejected");
    if (how === "closed") assertInstanceOf(sent.error, PortClosedError);
    else assertEquals(sent.error, "enough");
    assertEquals(queue.closed, how === "closed");
    assertEquals([near.listening, stop.listening], [0, 0]);
  });
}

Deno.test("receiveFrom() tells of a worker that fails with whatever", () => {
  for (const thrown of [{ toString: 1, valueOf: 1 }, Symbol("s"), null, "no"]) {
    const worker = fakeWorker();
    const received = receiveFrom(worker);
    worker.tell("error", thrown);
    worker.tell("exit", 1);
    assert(received.closed);
    assertEquals(worker.heard.size, 0);
  }
});

Deno.test({
  name: "sendTo() and receiveFrom() are told that a MessagePort was closed",
  ignore: !tellsOfClose,
  fn: async () => {
    for (const closed of [0, 1]) {
      const ports = realPorts();
      const queue = new Queue<string>();
      const sent = sendTo(queue, ports[0]);
      const received = receiveFrom<string>(ports[1]);
      await queue.send("soup");
      assertEquals(await received.receive(), "soup");
      ports[closed].close();
      await assertRejects(() => sent, PortClosedError);
      await assertRejects(() => received.receive(), PortClosedError);
      await assertRejects(() => queue.send("steak"), QueueClosedError);
    }
  },
});

for (const [name, ports] of Object.entries({ fakePorts, nodePorts })) {
  for (const capacity of [1, 2, 7]) {
    Deno.test(`receiveFrom() tells of what cannot be read here, and of its room nothing is lost (capacity ${capacity}, ${name})`, async () => {
      const pair = ports();
      garble(
        pair[0],
        (message) =>
          (message.values as unknown[] | undefined)?.includes("bad") ?? false,
      );
      const errors: PortMessageError[] = [];
      const queue = new Queue<unknown>({ capacity: 100 });
      const sent = sendTo(queue, pair[0]);
      const received = receiveFrom<unknown>(pair[1], {
        capacity,
        onError: (error) => void errors.push(error),
      });
      for (const i of range(20)) {
        // What comes at once travels together, as far as there is room.
        for (const _ of range(i % 4)) queue.trySend("bad");
        await flush();
        queue.trySend(i);
        await flush();
        assertEquals(received.drain(), [i]);
      }
      queue.trySend("bad");
      queue.close();
      await sent;
      assertEquals([received.closed, received.size], [true, 0]);
      assert(errors.length > 10);
      for (const { message } of errors) {
        assertStringIncludes(message, "it cannot be read here");
      }
    });
  }
}

Deno.test("receiveFrom() counts what it could not read right before the end as received", async () => {
  const [near, far] = fakePorts();
  const received = receiveFrom(far, { onError: () => {} });
  const { offer, close } = speaker("s", far.posted[0].receiver as string);
  near.postMessage(offer);
  await flush();
  far.hear("messageerror");
  near.postMessage(close(2));
  await flush();
  assertEquals([received.closed, far.posted.at(-1)?.received], [true, 2]);
});

Deno.test("receiveFrom() that is turned away says so to that sender alone", async () => {
  const [near, far] = fakePorts();
  const received = receiveFrom(far);
  near.postMessage(
    speaker("s", far.posted[0].receiver as string).say("taken"),
  );
  await flush();
  assertEquals([received.closed, far.posted.at(-1)?.id], [true, "s"]);
});

Deno.test("receiveFrom() refuses the end of a sender that has met nobody and yet sent something", async () => {
  const errors: unknown[] = [];
  const [near, far] = fakePorts();
  const received = receiveFrom(far, {
    onError: (error) => void errors.push(error),
  });
  const { offer, close } = speaker("s");
  near.postMessage(offer);
  near.postMessage(close(1));
  await flush();
  assertEquals([errors.length, received.closed], [1, false]);
  received.close();
});

/** Makes the first message of a kind unreadable where it arrives. */
function garbleFirst(port: FakePort, kind: string): void {
  let garbled = false;
  port.garbles = (message) => {
    if (Object(message).kind !== kind || garbled) return false;
    return garbled = true;
  };
}

for (const how of ["closed", "aborted", "dead"] as const) {
  Deno.test(`receiveFrom() is closed by a reason that cannot be read here, of a sender that is ${how}`, async () => {
    const stop = new AbortController();
    const { near, far, queue, received, sent } = connect(
      { onError: () => {} },
      { signal: stop.signal },
    );
    garbleFirst(near, "close");
    await queue.send(1);
    await flush();
    if (how === "closed") queue.close("why");
    else if (how === "aborted") stop.abort("why");
    else near.hear("close");
    await flush();
    assertEquals(sent.state, how === "closed" ? "resolved" : "rejected");
    assertEquals(await received.receive(), 1);
    await assertRejects(() => received.receive(), Error, "cannot be read");
    assertEquals([near.listening, far.listening], [0, 0]);
  });
}

Deno.test("receiveFrom() is closed by a reason that cannot be read here, of a sender that has met nobody", async () => {
  using timers = heldTimers();
  const [near, far] = fakePorts({ keeps: true });
  garbleFirst(near, "close");
  const stop = new AbortController();
  follow(sendTo(new Queue(), near, { signal: stop.signal }));
  stop.abort("why");
  const received = receiveFrom(far, { onError: () => {} });
  await flush();
  assertEquals(timers.set().length, 1);
  timers.set()[0].run();
  await assertRejects(() => received.receive(), Error, "cannot be read");
  assertEquals([near.listening, far.listening], [0, 0]);
});

for (const met of [true, false]) {
  Deno.test(`sendTo() rejects with a reason that cannot be read here, of a receiver that has met ${met ? "it" : "nobody"}`, async () => {
    using timers = heldTimers();
    const errors: PortMessageError[] = [];
    const { near, far, queue, received, sent } = connect({}, {
      onError: (error) => void errors.push(error),
    });
    garbleFirst(far, "end");
    if (met) await queue.send(1);
    received.close("why");
    await flush();
    assertEquals(timers.set().length, met ? 0 : 1);
    timers.set()[0]?.run();
    await flush();
    assertInstanceOf(sent.error, Error);
    assertStringIncludes(sent.error.message, "cannot be read");
    assertEquals([errors.length, queue.closed], [1, true]);
    assertEquals([near.listening, far.listening], [0, 0]);
  });
}

Deno.test("receiveFrom() refuses more values in a message than one may have, whatever its capacity", async () => {
  const errors: unknown[] = [];
  const [near, far] = fakePorts();
  const received = receiveFrom(far, {
    capacity: Infinity,
    onError: (error) => void errors.push(error),
  });
  const { offer, values } = speaker("s", far.posted[0].receiver as string);
  near.postMessage(offer);
  const many: unknown[] = [];
  many.length = 1025; // or some thousand millions, none of which takes memory
  near.postMessage({ ...values(0), values: many });
  near.postMessage(values(0, ...range(1024)));
  await flush();
  assertEquals([errors.length, received.drain()], [1, range(1024)]);
});

Deno.test("receiveFrom(): what cannot be read, and is another queue's, changes nothing", async () => {
  const [near, far] = fakePorts();
  near.garbles = (message) => Object(message).channel === "other";
  let errors = 0;
  const received = receiveFrom<number>(far, {
    capacity: 1,
    onError: () => errors++,
  });
  near.postMessage({ channel: "other" }); // before it knows any sender
  await flush();
  assertEquals([errors, far.kinds()], [1, ["invite"]]);
  const queue = new Queue<number>();
  const sent = follow(sendTo(queue, near));
  for (const i of range(9)) {
    const sending = queue.send(i);
    near.postMessage({ channel: "other" });
    await sending;
    near.postMessage({ channel: "other" });
    await flush();
    assertEquals(near.posted.at(-1)?.values, []);
    assertEquals(received.size, 1);
    assertEquals(received.drain(), [i]);
  }
  queue.close();
  await flush();
  assertEquals([sent.state, errors], ["resolved", 19]);
});

Deno.test("sendTo() refuses a value that cannot be copied, and goes on", async () => {
  const errors: PortMessageError[] = [];
  const onError = (error: PortMessageError) => void errors.push(error);
  const { queue, received, sent } = connect({}, { onError });
  const bad = () => {};
  await Promise.all(["soup", bad, "steak"].map((value) => queue.send(value)));
  queue.close();
  assertEquals(await readOut(received), ["soup", "steak"]);
  await flush();
  assertEquals(sent.state, "resolved");
  assertEquals(errors.map(({ value }) => value), [bad]);
  assertStringIncludes(errors[0].message, "Cannot send value through port");
});

for (const way of ["transfer()", "the option"]) {
  const name =
    `sendTo() moves what is to be transferred beside a value that cannot be copied, by ${way}`;
  // workerd copies what is to be moved
  Deno.test({
    name,
    ignore: isWorkerd,
    fn: async () => {
      const ports = realPorts();
      const errors: PortMessageError[] = [];
      type Value = { picture?: ArrayBuffer; draw?(): void };
      const queue = new Queue<Value>({ capacity: 9 });
      const values: Value[] = range(4).map((i) =>
        i % 2 === 0 ? { picture: new ArrayBuffer(4) } : { draw() {} }
      );
      const listOf = ({ picture }: Value) => picture ? [picture] : [];
      for (const value of values) {
        if (way === "transfer()") transfer(value, listOf(value));
        queue.trySend(value);
      }
      queue.close();
      const sent = sendTo(queue, ports[0], {
        onError: (error) => void errors.push(error),
        transfer: way === "the option" ? listOf : undefined,
      });
      const received = await readOut(receiveFrom<Value>(ports[1]));
      await sent;
      assertEquals(
        received.map(({ picture }) => picture?.byteLength),
        [4, 4],
      );
      assertEquals(errors.map(({ value }) => value), [values[1], values[3]]);
      closeAll(ports);
    },
  });

  Deno.test(`sendTo() moves what is to be transferred, by ${way}`, async () => {
    const { queue, received } = connect({}, {
      transfer: way === "the option"
        ? (value) => [(value as Uint8Array).buffer as ArrayBuffer]
        : undefined,
    });
    const pictures = range(3).map((i) => new Uint8Array([i, i, i]));
    for (const picture of pictures) {
      if (way === "the option") queue.send(picture);
      else queue.send(transfer(picture, [picture.buffer]));
    }
    for (const i of range(3)) {
      assertEquals(await received.receive(), new Uint8Array([i, i, i]));
    }
    assertEquals(pictures.map(({ byteLength }) => byteLength), [0, 0, 0]);
  });
}

Deno.test("sendTo() moves what is to be transferred by transfer() and by the option at once", async () => {
  const errors: PortMessageError[] = [];
  const { queue, received } = connect({}, {
    onError: (error) => void errors.push(error),
    transfer: (value) => [(value as Uint8Array).buffer as ArrayBuffer],
  });
  const picture = new Uint8Array([1, 2]);
  await queue.send(transfer(picture, [picture.buffer]));
  await flush();
  assertEquals(errors, []);
  assertEquals(received.drain(), [new Uint8Array([1, 2])]);
  assertEquals(picture.byteLength, 0);
});

Deno.test("sendTo() tells of a value whose transfer list cannot be had, and goes on", async () => {
  const errors: PortMessageError[] = [];
  const { queue, received, sent } = connect({}, {
    onError: (error) => void errors.push(error),
    transfer: (value) => {
      if (value === "bad") throw Object.create(null);
      return [];
    },
  });
  for (const value of ["soup", "bad", "steak"]) queue.send(value);
  assertEquals([await received.receive(), await received.receive()], [
    "soup",
    "steak",
  ]);
  queue.close();
  await flush();
  assertEquals(sent.state, "resolved");
  assertEquals(errors.map(({ value }) => value), ["bad"]);
});

Deno.test({
  name:
    "sendTo(): a value that cannot be copied loses what it was to move in Deno alone, and no other value does",
  ignore: isWorkerd,
  fn: async () => {
    const ports = realPorts();
    const errors: PortMessageError[] = [];
    const queue = new Queue<object>({ capacity: 9 });
    const pictures = range(3).map(() => new ArrayBuffer(4));
    const values = pictures.map((picture, i) =>
      transfer(i === 1 ? { picture, draw() {} } : { picture }, [picture])
    );
    for (const value of values) queue.trySend(value);
    queue.close();
    const sent = sendTo(queue, ports[0], {
      onError: (error) => void errors.push(error),
    });
    const received = await readOut(receiveFrom<object>(ports[1]));
    await sent;
    const picture = new ArrayBuffer(4);
    assertEquals(received, [{ picture }, { picture }]);
    assertEquals(errors.map(({ value }) => value), [values[1]]);
    assertEquals(
      pictures.map(({ byteLength }) => byteLength),
      [0, isDeno ? 0 : 4, 0],
    );
    closeAll(ports);
  },
});

Deno.test("sendTo() sends what can be copied in few messages, however many others cannot", async () => {
  const errors: PortMessageError[] = [];
  const onError = (error: PortMessageError) => void errors.push(error);
  const { near, queue, received } = connect({}, { onError }, 1000);
  await flush();
  near.kinds();
  const bad = () => {};
  const values = range(1000).map((i) => i === 333 || i === 334 ? bad : i);
  for (const value of values) queue.trySend(value);
  await flush();
  assertEquals(received.drain(), values.filter((value) => value !== bad));
  assertEquals(errors.map(({ value }) => value), [bad, bad]);
  const { length } = near.kinds();
  assert(length < 25, `${length} messages`);
});

Deno.test("sendTo() sends a copy each time it sends the same object", async () => {
  const { queue, received } = connect();
  const dish = { spoons: 0 };
  for (const _ of range(3)) queue.send(dish);
  const copies = await Promise.all(
    range(3).map(() => received.receive()),
  ) as typeof dish[];
  copies[0].spoons++;
  assertEquals(copies.map(({ spoons }) => spoons), [1, 0, 0]);
});

Deno.test("transfer() takes an object and a list", () => {
  const buffer = new ArrayBuffer(1);
  assertStrictEquals(transfer(buffer, [buffer]), buffer);
  // deno-lint-ignore no-explicit-any
  const wrong = transfer as any;
  assertThrows(() => wrong(1, []), TypeError, "value must be an object, got 1");
  assertThrows(() => wrong({}, buffer), TypeError, "list must be an array");
});

Deno.test("sendTo() and receiveFrom() share a port by channel, and in both directions", async () => {
  const ports = fakePorts();
  const queues = range(4).map(() => new Queue<string>());
  const received = range(4).map((i) =>
    receiveFrom<string>(ports[i % 2], { channel: i < 2 ? "a" : "b" })
  );
  const sent = range(4).map((i) =>
    sendTo(queues[i], ports[1 - i % 2], { channel: i < 2 ? "a" : "b" })
  );
  for (const i of range(4)) {
    await queues[i].send(`value ${i}`);
    assertEquals(await received[i].receive(), `value ${i}`);
    queues[i].close();
  }
  await Promise.all(sent);
  assertEquals(ports.map(({ listening }) => listening), [0, 0]);
});

Deno.test("receiveFrom() receives from one sender at a time, and refuses the second", async () => {
  const { near, queue, received, sent } = connect();
  await flush();
  const second = new Queue<string>();
  const refused = follow(sendTo(second, near));
  await flush();
  assertInstanceOf(refused.error, PortClosedError);
  assertStringIncludes(String(refused.error), "a `channel` of its own");
  assert(second.closed);
  await queue.send("soup");
  assertEquals(await received.receive(), "soup");
  assertEquals(sent.state, "pending");
});

Deno.test("sendTo() can be followed by another one on the same channel", async () => {
  const ports = fakePorts();
  for (const dish of ["soup", "steak"]) {
    const queue = new Queue<string>();
    const received = receiveFrom<string>(ports[1]);
    const sent = sendTo(queue, ports[0]);
    await queue.send(dish);
    queue.close();
    await sent;
    assertEquals(await readOut(received), [dish]);
  }
});

Deno.test("receiveFrom() refuses another version of the protocol", async () => {
  const errors: PortMessageError[] = [];
  const [near, far] = fakePorts();
  const received = receiveFrom(far, {
    onError: (error) => void errors.push(error),
  });
  const offer = { protocol: PROTOCOL, channel: "", kind: "offer" };
  near.postMessage({ ...offer, version: 2, id: "newer" });
  await flush();
  assertEquals(far.posted.at(-1)?.kind, "refuse");
  assertStringIncludes(String(far.posted.at(-1)?.why), "version 2");
  assertEquals(errors.length, 1);
  const queue = new Queue<string>();
  const sent = sendTo(queue, near); // one of ours is still welcome
  await queue.send("soup");
  assertEquals(await received.receive(), "soup");
  queue.close();
  await sent;
});

/** What a packed error may have instead of what it must have. */
const BAD_REASONS = (() => {
  const error = {
    kind: "error",
    type: "Error",
    name: "Error",
    message: "",
    stack: "",
    fields: [] as unknown[],
  };
  const circle = { kind: "list", items: [] as unknown[] };
  circle.items.push(circle);
  let twofold: unknown = { kind: "list", items: [] };
  for (const _ of range(20)) {
    twofold = { kind: "list", items: [twofold, twofold] };
  }
  const value = { kind: "value", value: 1 };
  return [
    circle,
    twofold,
    { kind: "lost" },
    { kind: "object" },
    ...["type", "name", "message", "stack", "fields"].map((part) => ({
      ...error,
      [part]: { toString: 1, valueOf: 1 },
    })),
    { ...error, fields: [{ key: 1, value, enumerable: true }] },
    { ...error, fields: [{ key: "a", value, enumerable: 1 }] },
    { ...error, fields: [{ key: "a", value: 1, enumerable: true }] },
  ];
})();

Deno.test("receiveFrom() refuses messages that are not its own, or malformed, and changes nothing", async () => {
  const errors: PortMessageError[] = [];
  const onError = (error: PortMessageError) => void errors.push(error);
  const { near, far, queue, received, sent } = connect({
    capacity: 2,
    onError,
  });
  await queue.send(1);
  await flush();
  const head = {
    protocol: PROTOCOL,
    channel: "",
    id: near.posted[0].id,
    receiver: far.posted[0].receiver,
  };
  const bad = [
    undefined,
    null,
    "hello",
    [1],
    { kind: "values" },
    { ...head, protocol: "another", kind: "values", from: 1, values: [7] },
    { ...head },
    { ...head, kind: 1 },
    { ...head, channel: undefined, kind: "values", values: [7] },
    { ...head, kind: "unheard" },
    { ...head, kind: "values" },
    { ...head, kind: "values", values: "abc" },
    { ...head, kind: "values", from: 1, values: "a" },
    { ...head, kind: "values", from: 1, values: { length: 1 } },
    { ...head, kind: "values", from: 1, values: [1, 2] }, // beyond the credit
    { ...head, kind: "values", from: 2, values: [1] },
    { ...head, kind: "values", from: 0, values: [1] }, // come already
    { ...head, kind: "values", values: [1] },
    { ...head, kind: "close" },
    { ...head, kind: "close", sent: 0 }, // fewer than have come
    { ...head, kind: "close", sent: 3 }, // beyond the credit
    { ...head, kind: "close", sent: 1, receiver: 7 },
    { ...head, kind: "close", sent: 0, receiver: undefined }, // but has met
    { ...head, kind: "close", sent: 1, receiver: undefined },
    { ...head, kind: "close", sent: 1, reason: "not packed" },
    { ...head, kind: "close", sent: 1, reason: { kind: "error" } },
    { ...head, kind: "offer", version: 1, id: 7 },
    { ...head, kind: "offer", version: { toString: 1, valueOf: 1 } },
    { ...head, kind: "values", values: [], id: undefined },
    { ...head, kind: "values", values: [], receiver: undefined },
    { ...head, kind: "close", sent: 1, id: undefined },
    { ...head, kind: "taken", receiver: 1 },
    ...BAD_REASONS.map((reason) => ({
      ...head,
      kind: "close",
      sent: 1,
      reason,
    })),
  ];
  const others = [{ id: "another" }, { receiver: "another" }].flatMap((ids) => [
    { ...head, ...ids, kind: "values", from: 1, values: [7] },
    { ...head, ...ids, kind: "close", sent: 1 },
    { ...head, ...ids, kind: "taken" },
  ]);
  for (const message of [...bad, ...others]) near.postMessage(message);
  await flush();
  assertEquals(errors.map(({ value }) => value), bad);
  assertEquals(received.closed, false);
  far.hear("messageerror");
  assertEquals(errors.length, bad.length + 1);
  await queue.send(2);
  queue.close();
  assertEquals(await readOut(received), [1, 2]);
  await flush();
  assertEquals(sent.state, "resolved");
});

Deno.test("sendTo() refuses messages that are not its own, or malformed, and changes nothing", async () => {
  const errors: PortMessageError[] = [];
  const onError = (error: PortMessageError) => void errors.push(error);
  const { near, far, queue, sent } = connect({ capacity: 2 }, { onError });
  await queue.send(1);
  await flush();
  const head = {
    protocol: PROTOCOL,
    channel: "",
    id: near.posted[0].id,
    receiver: far.posted[0].receiver,
  };
  const bad = [
    1,
    { ...head, protocol: "another", kind: "credit", upTo: 9 },
    { ...head, kind: "credit" },
    { ...head, kind: "credit", upTo: NaN },
    { ...head, kind: "credit", upTo: -1 },
    { ...head, kind: "credit", upTo: -Infinity },
    { ...head, kind: "credit", upTo: "9" },
    { ...head, kind: "credit", upTo: 9, channel: 0 },
    { ...head, kind: "credit", upTo: 1 }, // takes credit back
    { ...head, kind: "credit", upTo: 0 },
    { ...head, kind: "credit", upTo: 9, id: undefined },
    { ...head, kind: "count", id: undefined },
    { ...head, kind: "end", id: 7, received: 0 },
    { ...head, kind: "end", id: undefined, received: 1 },
    { ...head, kind: "refuse", id: undefined, why: "" },
    { ...head, kind: "end" },
    { ...head, kind: "end", received: 1, reason: 7 },
    { ...head, kind: "?" },
    { ...head, kind: "credit", upTo: 2.5 },
    { ...head, kind: "credit", upTo: 9, receiver: undefined },
    { ...head, kind: "invite", version: {} },
    { ...head, kind: "refuse" },
    { ...head, kind: "refuse", why: { toString: 1, valueOf: 1 } },
    { ...head, kind: "end", received: -5 },
    { ...head, kind: "end", received: 1e9 },
    { ...head, kind: "end", received: 0.5 },
    ...BAD_REASONS.map((reason) => ({
      ...head,
      kind: "end",
      received: 1,
      reason,
    })),
  ];
  for (const message of bad) far.postMessage(message);
  for (const ids of [{ id: "another" }, { receiver: "another" }]) {
    far.postMessage({ ...head, ...ids, kind: "end", received: 1 });
    far.postMessage({ ...head, ...ids, kind: "credit", upTo: 9 });
    far.postMessage({ ...head, ...ids, kind: "refuse", why: "why" });
    far.postMessage({ ...head, ...ids, kind: "count" });
  }
  far.postMessage({ ...head, kind: "credit", upTo: 2 }); // once more
  far.postMessage({ ...head, kind: "refuse", why: "why" }); // it has met already
  far.postMessage({ ...head, kind: "invite", version: 1 }); // likewise
  near.posted.length = 0;
  await flush();
  assertEquals(errors.map(({ value }) => value), bad);
  assertEquals(near.posted.map(({ kind, receiver }) => [kind, receiver]), [
    ["taken", "another"],
  ]);
  for (const i of range(3)) follow(queue.send(i)); // credit is for two
  await flush();
  assertEquals(near.posted.at(-1)?.values, [0]);
  assertEquals([queue.closed, sent.state], [false, "pending"]);
});

Deno.test("sendTo() that has met nobody is bound by no message for another, nor by credit for nothing", async () => {
  const errors: unknown[] = [];
  const [near, far] = fakePorts();
  const queue = new Queue<number>();
  const sent = follow(
    sendTo(queue, near, { onError: (error) => void errors.push(error) }),
  );
  const { id } = near.posted[0];
  const head = { protocol: PROTOCOL, channel: "", receiver: "r" };
  far.postMessage({ ...head, kind: "credit", id, upTo: 0 });
  far.postMessage({ ...head, kind: "credit", id: "another", upTo: 9 });
  far.postMessage({ ...head, kind: "refuse", id: "another", why: "why" });
  far.postMessage({ ...head, kind: "end", id: "another", received: 9 });
  await flush();
  assertEquals([sent.state, errors.length], ["pending", 1]);
  const received = receiveFrom<number>(far);
  await queue.send(1);
  assertEquals(await received.receive(), 1);
  queue.close();
  await flush();
  assertEquals(sent.state, "resolved");
});

Deno.test("sendTo() rejects if its receiver ends before it has all that was sent", async () => {
  const [near, far] = fakePorts();
  const queue = new Queue<number>({ capacity: 2 });
  const sent = follow(sendTo(queue, near));
  const { id } = near.posted[0];
  const say = (kind: string, fields: object) =>
    far.postMessage({
      ...{ protocol: PROTOCOL, channel: "", receiver: "r", id, kind },
      ...fields,
    });
  say("credit", { upTo: 2 });
  for (const i of range(2)) queue.trySend(i);
  queue.close();
  await flush();
  assertEquals(near.posted.at(-1)?.kind, "close");
  say("end", { received: 1 });
  await flush();
  assertStringIncludes(String(sent.error), "it has got 1 of the 2 values");
  assertEquals(near.listening, 0);
});

Deno.test("sendTo() leaves in its queue what it has not taken when the other end dies", async () => {
  const { near, queue, sent } = connect({}, {}, 9);
  await flush();
  queue.trySend(1);
  for (const _ of range(2)) await undefined; // it gathers
  queue.trySend(2);
  queue.trySend(3);
  near.kinds();
  near.hear("close");
  await flush();
  assertInstanceOf(sent.error, PortClosedError);
  assertEquals([queue.closed, queue.drain()], [true, [2, 3]]);
  assertEquals(near.kinds(), ["close", "close"]); // and nothing behind them
});

Deno.test("sendTo() says nothing behind its last word when the other end dies while it waits for values", async () => {
  const { near, sent } = connect();
  await flush();
  near.kinds();
  near.hear("close");
  await flush();
  assertInstanceOf(sent.error, PortClosedError);
  assertEquals(near.kinds(), ["close", "close"]);
});

Deno.test("sendTo() leaves nothing at its queue, however it ends", async () => {
  const { into } = taps;
  let tapping = 0;
  taps.into = (queue, tap) => {
    const stop = into(queue, tap);
    if (tap.taken === undefined) tapping++;
    return () => {
      if (tap.taken === undefined) tapping--;
      stop();
    };
  };
  try {
    for (const how of ["abort", "abort before", "close", "die", "end"]) {
      const stop = new AbortController();
      const [near, far] = fakePorts();
      const queue = new Queue<number>();
      const sent = follow(sendTo(queue, near, { signal: stop.signal }));
      assertEquals(tapping, 1);
      const received = how === "abort before" ? undefined : receiveFrom(far);
      await flush();
      if (how.startsWith("abort")) stop.abort("enough");
      if (how === "close") queue.close();
      if (how === "die") near.hear("close");
      if (how === "end") received!.close();
      await flush();
      assertEquals([sent.state !== "pending", tapping], [true, 0]);
    }
  } finally {
    taps.into = into;
  }
});

Deno.test("sendTo() and receiveFrom() are told no more, once they are over, within one message", async () => {
  const [near, far] = fakePorts();
  let told = 0;
  const first = receiveFrom(far, {
    channel: "a",
    onError: () => second.close(),
  });
  const second = receiveFrom(far, { channel: "b", onError: () => told++ });
  near.postMessage("hello");
  await flush();
  assertEquals([told, second.closed, first.closed], [0, true, false]);
});

Deno.test("receiveFrom() is told from the next message on, if it comes while one is told", async () => {
  const [near, far] = fakePorts();
  const told: string[] = [];
  const open = (name: string): void => {
    const opened = receiveFrom(far, {
      channel: name,
      onError: () => {
        told.push(name);
        opened.close();
        if (told.length < 9) open(`${name}'`);
      },
    });
  };
  open("a");
  open("b");
  for (const count of [2, 4, 6]) {
    near.postMessage("hello");
    await flush();
    assertEquals(told.length, count);
  }
  assertEquals(told, ["a", "b", "a'", "b'", "a''", "b''"]);
});

Deno.test("receiveFrom(): of a worker that failed and lives on, the next one is told of its own end", async () => {
  const timers: (() => void)[] = [];
  using _ = replaceGlobals({
    setTimeout: (run: () => void) => timers.push(run),
  });
  const turn = () => timers.splice(0).forEach((run) => run());
  const [, far] = fakePorts();
  const fail = (message: string) => far.hear("error", { message });
  const first = receiveFrom(far);
  fail("no oven");
  fail("no fire");
  fail("no cook");
  timers.shift()!();
  assert(first.closed);
  const second = receiveFrom(far);
  turn();
  assertEquals([second.closed, timers.length], [false, 0]);
  fail("no guest");
  turn();
  assert(second.closed);
  const third = receiveFrom(far);
  far.hear("close");
  assert(third.closed);
  const ends = { "no oven": first, "no guest": second, "was closed": third };
  for (const [why, received] of Object.entries(ends)) {
    await assertRejects(() => received.receive(), PortClosedError, why);
  }
});

Deno.test("sendTo() gathers no more values than it has credit for", async () => {
  const { near, queue, received } = connect({ capacity: 2 }, {}, 9);
  await flush();
  near.kinds();
  queue.trySend(1);
  for (const _ of range(2)) await undefined; // it gathers
  for (const i of [2, 3, 4]) queue.trySend(i);
  await flush();
  assertEquals(near.posted.map(({ values }) => values), [[1, 2]]);
  assertEquals([queue.size, received.drain()], [2, [1, 2]]);
});

Deno.test("sendTo() waits for no more values once it has 256", async () => {
  const { near, queue, received } = connect({ capacity: Infinity });
  await flush();
  near.posted.length = 0;
  for (const i of range(600)) await queue.send(i);
  await flush();
  const sizes = near.posted.map(({ values }) => (values as unknown[]).length);
  assertEquals(sizes, [256, 256, 88]);
  assertEquals(received.drain(), range(600));
});

Deno.test("sendTo() sends objects that come again in no more messages than they need", async () => {
  const { near, queue } = connect({}, {}, 9);
  await flush();
  near.kinds();
  const [soup, steak] = [{ soup: 1 }, { steak: 1 }];
  for (const dish of [soup, steak, soup, steak]) queue.trySend(dish);
  await flush();
  assertEquals(near.posted.map(({ values }) => values), [
    [soup, steak],
    [soup, steak],
  ]);
});

Deno.test("sendTo() moves what transfer() names beside what the option names", async () => {
  type Dish = { a: ArrayBuffer; b: ArrayBuffer };
  const { queue, received } = connect({}, {
    transfer: (value) => (value as Dish).b ? [(value as Dish).b] : [],
  });
  const dish = { a: new ArrayBuffer(1), b: new ArrayBuffer(2) };
  await queue.send(transfer(dish, [dish.a]));
  const { a } = { a: new ArrayBuffer(3) };
  await queue.send(transfer({ a }, [a]));
  await flush();
  assertEquals(received.size, 2);
  assertEquals([dish.a, dish.b, a].map(({ byteLength }) => byteLength), [
    0,
    0,
    0,
  ]);
});

Deno.test("sendTo() keeps the order of values with transfer lists and without", async () => {
  const { queue, received } = connect({}, {}, 9);
  await flush();
  const buffer = () => {
    const made = new ArrayBuffer(1);
    return transfer(made, [made]);
  };
  for (const value of [1, buffer(), 2, 3, buffer()]) queue.trySend(value);
  await flush();
  const got = received.drain().map((value) => typeof value);
  assertEquals(got, ["number", "object", "number", "number", "object"]);
});

Deno.test("sendTo() takes a reason whose class is unknown for an Error", async () => {
  for (const type of ["toString", "__proto__", "constructor", "?"]) {
    const { near, far, sent } = connect();
    await flush();
    far.postMessage({
      protocol: PROTOCOL,
      channel: "",
      kind: "end",
      id: near.posted[0].id,
      receiver: far.posted[0].receiver,
      received: 0,
      reason: {
        kind: "error",
        type,
        name: "OvenError",
        message: "too hot",
        stack: "",
        fields: [],
      },
    });
    await flush();
    assertInstanceOf(sent.error, Error);
    assertEquals(String(sent.error), "OvenError: too hot");
  }
});

Deno.test("receiveFrom() and sendTo() ignore what an executor and a link say on the same port", async () => {
  using reports = catchReports();
  const { near, far, queue, received } = connect();
  for (const port of [near, far]) {
    port.postMessage(["@sauce/queues/worker", 1, undefined]);
    port.postMessage({ protocol: "@sauce/queues/link", version: 1 });
  }
  await queue.send("soup");
  assertEquals(await received.receive(), "soup");
  assertEquals(reports.errors, []);
});

Deno.test("sendTo() sends to one receiver at a time, and turns the second away", async () => {
  for (const when of ["at once", "later"]) {
    const [near, far] = fakePorts();
    const queue = new Queue<number>();
    const sent = follow(sendTo(queue, near));
    const received = receiveFrom<number>(far);
    if (when === "later") await flush();
    const second = follow(receiveFrom<number>(far).receive());
    for (const i of range(3)) await queue.send(i);
    queue.close();
    assertEquals(await readOut(received), range(3));
    await flush();
    assertInstanceOf(second.error, PortClosedError);
    assertStringIncludes(String(second.error), "a `channel` of its own");
    assertEquals(sent.state, "resolved");
    assertEquals([near.listening, far.listening], [0, 0]);
  }
});

Deno.test("receiveFrom() reports a refused message that has no onError, and one whose onError throws", async () => {
  using reports = catchReports();
  const throwing = () => {
    throw "from onError";
  };
  for (const onError of [undefined, throwing]) {
    const [near, far] = fakePorts();
    receiveFrom(far, { onError });
    near.postMessage("hello");
    await flush();
  }
  assertInstanceOf(reports.errors[0], PortMessageError);
  assertEquals(
    reports.errors[0].message,
    'Cannot read message from port: it is not of the protocol @sauce/queues/port, got "hello"',
  );
  assertEquals(reports.errors.slice(1), ["from onError"]);
});

Deno.test("receiveFrom() shows what it refuses in brief", async () => {
  const errors: string[] = [];
  const [near, far] = fakePorts();
  receiveFrom(far, { onError: ({ message }) => void errors.push(message) });
  const long = "x".repeat(51);
  const shown = new Map<unknown, string>([
    ["x".repeat(50), `"${"x".repeat(50)}"`],
    [long, `"${"x".repeat(50)}"…`],
    [{ a: 1, b: 2, c: 3, d: 4, e: 5, f: 6 }, "an object with a, b, c, d, e"],
    [{}, "an object with nothing in it"],
    [{ "a b": 1, [long]: 2 }, `an object with "a b", "${"x".repeat(50)}"…`],
  ]);
  for (const message of shown.keys()) near.postMessage(message);
  await flush();
  assertEquals(
    errors.map((message) => message.split(", got ")[1]),
    [...shown.values()],
  );
});

Deno.test("sendTo() ends with what the order of its queue throws", async () => {
  const [near, far] = fakePorts();
  let broken = false;
  const queue = new Queue<number>({
    capacity: 9,
    order: (a, b) => {
      if (broken) throw "cannot compare";
      return a - b;
    },
  });
  const received = receiveFrom<number>(far, { capacity: 1 });
  const sent = follow(sendTo(queue, near));
  for (const i of range(5)) await queue.send(i);
  await flush();
  broken = true;
  assertEquals(await received.receive(), 0);
  await flush();
  assertEquals([sent.state, sent.error], ["rejected", "cannot compare"]);
  assertEquals(queue.closed, false);
  assert(received.closed);
});

Deno.test("sendTo() ends with what the order of its closed queue throws, and takes no value to learn why", async () => {
  const [near, far] = fakePorts();
  let broken = false;
  const queue = new Queue<number>({
    capacity: 9,
    order: (a, b) => {
      if (!broken) return a - b;
      broken = false;
      throw "cannot compare";
    },
  });
  for (const i of [5, 3, 1, 2, 4]) queue.trySend(i);
  queue.close();
  broken = true;
  const sent = follow(sendTo(queue, near));
  const received = receiveFrom<number>(far, { capacity: 2 });
  await flush();
  assertEquals([sent.state, sent.error], ["rejected", "cannot compare"]);
  assert(received.closed);
  assertEquals(received.size + queue.size, 5);
  assertEquals([near.listening, far.listening], [0, 0]);
});

Deno.test("sendTo(): an abort while it waits for the receiver's last word lets go of the port", async () => {
  const stop = probedController();
  const [near, far] = fakePorts();
  const queue = new Queue<number>();
  queue.close();
  const sent = follow(sendTo(queue, near, { signal: stop.signal }));
  await flush();
  const { id } = near.posted[0];
  far.postMessage({
    protocol: PROTOCOL,
    channel: "",
    kind: "credit",
    id,
    receiver: "r",
    upTo: 5,
  });
  await flush();
  assertEquals([near.kinds().at(-1), sent.state], ["close", "pending"]);
  stop.abort("enough");
  await flush();
  assertEquals([sent.state, sent.error], ["rejected", "enough"]);
  assertEquals([near.listening, stop.listening, near.posted], [0, 0, []]);
});

Deno.test("sendTo() and receiveFrom() refuse wrong options", async () => {
  const [near, far] = fakePorts();
  const queue = new Queue<number>();
  // deno-lint-ignore no-explicit-any
  const [send, receive] = [sendTo, receiveFrom] as any[];
  const sending: [unknown[], string][] = [
    [[{}, near], "queue must be a Queue"],
    [[queue, {}], "port must be a MessagePort, a Worker or alike"],
    [[queue, undefined], "got undefined"],
    [[queue, { postMessage() {} }], "port must be"],
    [[queue, { addEventListener() {} }], "port must be"],
    [[queue, near, { channel: 1 }], "channel must be a string"],
    [[queue, near, { onError: 1 }], "onError must be a function"],
    [[queue, near, { transfer: [] }], "transfer must be a function"],
    [[queue, near, { signal: 1 }], "signal must be an AbortSignal"],
  ];
  for (const [args, message] of sending) {
    await assertRejects(() => send(...args), TypeError, message);
  }
  for (const capacity of [0, -1, 0.5, NaN]) {
    assertThrows(() => receive(far, { capacity }), RangeError, "capacity");
  }
  assertThrows(() => receive({}), TypeError, "port must be");
  const stop = probedController();
  const { signal } = stop;
  await assertRejects(() => send(queue, {}, { signal }), TypeError);
  assertThrows(() => receive({}, { signal }), TypeError);
  assertEquals([near.listening, far.listening, stop.listening], [0, 0, 0]);
});

Deno.test("sendTo() sends what it has when the order of its queue throws", async () => {
  const [near, far] = fakePorts();
  let comparisons = Infinity;
  const queue = new Queue<number>({
    capacity: 9,
    order: (a, b) => {
      if (comparisons-- > 0) return a - b;
      throw "cannot compare";
    },
  });
  const received = receiveFrom<number>(far);
  const sent = follow(sendTo(queue, near));
  await flush();
  queue.trySend(1); // handed over at once
  await null;
  queue.trySend(2);
  queue.trySend(3);
  queue.trySend(4);
  comparisons = 0;
  await flush();
  assertEquals([sent.state, sent.error], ["rejected", "cannot compare"]);
  assertEquals(received.drain(), [1]);
  assert(received.closed && !queue.closed);
  comparisons = Infinity;
  assertEquals(queue.drain(), [2, 3, 4]);
});

Deno.test({
  name: "sendTo() carries a stream of values through a MessageChannel",
  fn: async () => {
    const ports = realPorts();
    const queue = Queue.from(range(10_000), { capacity: 1000 });
    const sent = sendTo(queue, ports[0]);
    const received = receiveFrom<number>(ports[1]);
    let sum = 0;
    for await (const batch of received.batches(Infinity)) {
      for (const value of batch) sum += value;
    }
    await sent;
    assertEquals(sum, 49_995_000);
    closeAll(ports);
  },
});

// ── Threads ─────────────────────────────────────────────────────────────────

for (const [name, make] of Object.entries(WORKERS)) {
  const ignore = isWorkerd || make === undefined;

  Deno.test({
    name:
      `sendTo() and receiveFrom() carry values to and from the scope of ${name}`,
    ignore,
    fn: async () => {
      const worker = make!("doubler");
      const queue = Queue.from(range(1000).map((i) => i + 14), { capacity: 9 });
      const sent = sendTo(queue, worker, { channel: "in" });
      const received = receiveFrom<number>(worker, { channel: "out" });
      const doubled = await readOut(received);
      await sent;
      assertEquals(doubled, range(1000).map((i) => 2 * i + 28));
      await worker.terminate();
    },
  });

  Deno.test({
    name: `sendTo() and receiveFrom() are told that ${name} has failed`,
    ignore,
    fn: async () => {
      const worker = make!("doubler");
      const queue = new Queue<number>();
      const sent = follow(sendTo(queue, worker, { channel: "in" }));
      const received = receiveFrom<number>(worker, { channel: "out" });
      const other = receiveFrom<number>(worker, { channel: "never" });
      await queue.send(13);
      // What it said comes first, then its end.
      await assertRejects(() => received.receive(), TypeError, "thirteen");
      const error = await assertRejects(() => other.receive(), PortClosedError);
      assertStringIncludes(error.message, "the worker is done for");
      await assertRejects(() => queue.send(1), QueueClosedError);
      assertInstanceOf(sent.error, PortClosedError);
      await worker.terminate();
    },
  });

  Deno.test({
    name: `receiveFrom() gives out all that ${name} has said before it failed`,
    ignore,
    fn: async () => {
      for (const _ of range(5)) {
        const worker = make!("last_words");
        const never = receiveFrom(worker, { channel: "never" });
        const received = receiveFrom(worker, { capacity: Infinity });
        let said = 0;
        for await (const _ of received) said++;
        assertEquals(said, 2000);
        await assertRejects(() => never.receive(), PortClosedError);
        await worker.terminate();
      }
    },
  });

  Deno.test({
    name: `sendTo() and receiveFrom() are told that ${name} was terminated`,
    ignore: ignore || !tellsOfEnd[name],
    fn: async () => {
      const worker = make!("doubler");
      const queue = new Queue<number>();
      const sent = follow(sendTo(queue, worker, { channel: "in" }));
      const received = receiveFrom<number>(worker, { channel: "out" });
      await queue.send(1);
      assertEquals(await received.receive(), 2);
      worker.terminate();
      await assertRejects(() => received.receive(), PortClosedError);
      await flush();
      assertInstanceOf(sent.error, PortClosedError);
      assert(queue.closed);
    },
  });

  /** An executor in such workers, and those that it has started. */
  const executor = () => {
    const workers: WorkerLike[] = [];
    const start = () => {
      workers.push(make!("both"));
      return workers.at(-1)!;
    };
    const serializer = new WorkerSerializer<Both>(start, {
      startTimeout: Infinity,
    });
    // An idle executor lets the process end, whoever else uses its worker.
    const alive = setInterval(() => {}, 1000);
    const end = async () => {
      await serializer.close();
      clearInterval(alive);
    };
    return { serializer, workers, end };
  };

  Deno.test({
    name:
      `WorkerSerializer.request() adds one listener to a signal that many share, with ${name}`,
    ignore,
    fn: async () => {
      const stop = probedController();
      const { signal } = stop;
      const { serializer, end } = executor();
      const queue = new Queue<number>();
      const reading = follow(queue.receive({ signal })); // as long as it waits
      await Promise.all(
        range(50).map(() => serializer.request(1, { signal })),
      );
      for (const _ of range(20)) await serializer.request(1, { signal });
      assertEquals([stop.listening, stop.added], [1, 1]);
      stop.abort("enough");
      await flush();
      assertEquals([reading.error, stop.listening], ["enough", 0]);
      await end();
    },
  });

  /** A queue to such a worker and one from it, and what they complain of. */
  const queues = (worker: WorkerLike) => {
    const errors: unknown[] = [];
    const onError = (error: unknown) => void errors.push(error);
    const queue = new Queue<number>();
    return {
      queue,
      sent: follow(sendTo(queue, worker, { channel: "in", onError })),
      received: receiveFrom<number>(worker, { channel: "out", onError }),
      errors,
    };
  };

  Deno.test({
    name: `sendTo(), receiveFrom() and an executor share the scope of ${name}`,
    ignore,
    fn: async () => {
      const { serializer, workers, end } = executor();
      assertEquals(await serializer.request(0), 1);
      const { queue, sent, received, errors } = queues(workers[0]);
      const doubled = readOut(received);
      const answers: Promise<number>[] = [];
      for (const i of range(100)) {
        answers.push(serializer.request(1000));
        await queue.send(i + 14);
      }
      queue.close();
      assertEquals(await doubled, range(100).map((i) => 2 * i + 28));
      assertEquals(
        await Promise.all(answers),
        range(100).map((i) => i + 1002),
      );
      assertEquals([sent.state, errors], ["resolved", []]);
      assertEquals(await serializer.request(0), 102); // the queue's end is not its own
      await end();
    },
  });

  Deno.test({
    name: `sendTo(), receiveFrom() and an executor are told that their ${
      name.slice(2)
    } has failed, and go on with the next one`,
    ignore,
    fn: async () => {
      using reports = catchReports(); // nobody asked the executor
      const { serializer, workers, end } = executor();
      assertEquals(await serializer.request(0), 1);
      const first = queues(workers[0]);
      await first.queue.send(20);
      assertEquals(await first.received.receive(), 40);
      const unread = receiveFrom(workers[0], { channel: "never" });
      await first.queue.send(13); // it fails
      await assertRejects(() => unread.receive(), PortClosedError);
      await assertRejects(() => first.queue.send(1), QueueClosedError);
      assertInstanceOf(first.sent.error, PortClosedError);

      await new Promise((resolve) => setTimeout(resolve)); // the executor knows a turn later
      assertEquals(await serializer.request(0), 1); // by a fresh one
      assertEquals(workers.length, 2);
      const second = queues(workers[1]);
      await second.queue.send(21);
      assertEquals(await second.received.receive(), 42);
      assertEquals([first.errors, second.errors], [[], []]);
      assertEquals(reports.errors.length, 1);
      assertInstanceOf(reports.errors[0], WorkerDiedError);
      await end();
      if (!tellsOfEnd[name]) return;
      await assertRejects(() => second.received.receive(), PortClosedError);
      await flush();
      assertInstanceOf(second.sent.error, PortClosedError);
    },
  });
}
