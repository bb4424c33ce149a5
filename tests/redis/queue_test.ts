// RedisQueue by each client, on a real server.
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { QueueClosedError, QueueFullError } from "../../queue.ts";
import {
  type DeadLetter,
  type Lease,
  type RedisClient,
  RedisError,
  RedisQueue,
  type RedisQueueOptions,
  type RedisState,
} from "../../redis.ts";
import {
  catchReports,
  flush,
  follow,
  probedController,
  range,
} from "../_helpers.ts";
import {
  type CLIENTS,
  insist,
  ONE_CLIENT,
  Proxy,
  RedisServer,
  testByEachClient,
  type TestClient,
  until,
} from "./_server.ts";

/** What a test has. */
class Place {
  readonly server: RedisServer;
  readonly connect: (typeof CLIENTS)[string];
  readonly #clients: TestClient[] = [];
  readonly #queues: RedisQueue<unknown>[] = [];
  /** A client to look at the server with. */
  run!: TestClient["run"];

  constructor(server: RedisServer, connect: (typeof CLIENTS)[string]) {
    this.server = server;
    this.connect = connect;
  }

  /** A queue, as another process would have it: with a client of its own. */
  async queue<T = number>(
    options?: RedisQueueOptions<T>,
    port: number = this.server.port,
  ): Promise<RedisQueue<T>> {
    return this.over(await this.client(port), options);
  }

  async client(port: number = this.server.port): Promise<RedisClient> {
    const client = await this.connect(port);
    this.#clients.push(client);
    return client.client;
  }

  over<T = number>(
    client: RedisClient,
    options: RedisQueueOptions<T> = {},
  ): RedisQueue<T> {
    const queue = new RedisQueue<T>(client, "orders", options);
    this.#queues.push(queue as RedisQueue<unknown>);
    return queue;
  }

  /** An entry that is made by hand. */
  async add(...fields: string[]): Promise<string> {
    return String(await this.run("XADD", "orders", "*", ...fields));
  }

  /** Somebody has taken the next values, and died with them, an hour ago. */
  async takeAndDie(count = 1): Promise<void> {
    await this.run("XGROUP", "CREATE", "orders", "queue", "0", "MKSTREAM")
      .catch(() => {});
    const read = "XREADGROUP GROUP queue dead COUNT".split(" ");
    await this.run(...read, `${count}`, "STREAMS", "orders", ">");
    const look = `XPENDING orders queue - + ${count} dead`.split(" ");
    const taken = await this.run(...look) as [string][];
    const claim = "XCLAIM orders queue dead 0".split(" ");
    const old = "IDLE 3600000 JUSTID".split(" ");
    await this.run(...claim, ...taken.map(([entry]) => entry), ...old);
  }

  async end(): Promise<void> {
    await Promise.all(this.#queues.map((queue) => queue.close()));
    for (const client of this.#clients) client[Symbol.dispose]();
  }
}

/** One test for each client. */
function test(
  name: string,
  body: (place: Place) => Promise<void>,
  options?: Parameters<typeof RedisServer.start>[0],
  clients?: typeof CLIENTS,
): void {
  testByEachClient(name, async (connect) => {
    await using server = await RedisServer.start(options);
    const place = new Place(server, connect);
    using own = await connect(server.port, options);
    place.run = own.run;
    try {
      await body(place);
    } finally {
      await place.end();
    }
  }, clients);
}

/** Receives values until there are so many, each done. */
async function take<T>(queue: RedisQueue<T>, count: number): Promise<T[]> {
  const values: T[] = [];
  if (count === 0) return values;
  for await (const lease of queue) {
    values.push(lease.value);
    await lease.done();
    if (values.length === count) break;
  }
  return values;
}

/** What a queue has told. */
function listeners<T>() {
  const states: RedisState[] = [];
  const letters: DeadLetter<T>[] = [];
  return {
    states,
    letters,
    onState: (state: RedisState) => void states.push(state),
    onDeadLetter: (letter: DeadLetter<T>) => void letters.push(letter),
  };
}

test("RedisQueue hands values over in order, and counts them", async (place) => {
  const queue = await place.queue();
  assertEquals([await queue.size(), await queue.pending()], [0, 0]);
  for (const n of range(5)) await queue.send(n);
  await Promise.all(range(5).map((n) => queue.send(n + 5)));
  assertEquals([await queue.size(), await queue.pending()], [10, 0]);
  const first = await queue.receive();
  assertEquals([first.value, first.deliveries, queue.held], [0, 1, 1]);
  assertEquals([await queue.size(), await queue.pending()], [9, 1]);
  assertEquals(await first.done(), true);
  assertEquals([await queue.size(), await queue.pending()], [9, 0]);
  assertEquals(await take(queue, 9), range(9).map((n) => n + 1));
  assertEquals(await place.run("XLEN", "orders"), 0);
  assertEquals(queue.held, 0);
});

test("RedisQueue carries every value, and text as it is", async (place) => {
  const values = [
    undefined,
    null,
    0,
    false,
    "",
    [],
    { "": null, dish: "crème 🍮\0\r\n$5" },
    NaN,
    Infinity,
    -Infinity,
    -0,
    1e21,
    JSON.parse('{"__proto__": {"dish": "soup"}}'),
    "x".repeat(400_000),
  ];
  const queue = await place.queue<unknown>();
  for (const value of values) await queue.send(value);
  assertEquals(await take(queue, values.length), values);
});

test("RedisQueue.send() refuses what it cannot encode", async (place) => {
  const queue = await place.queue<unknown>();
  const bytes = [new Uint8Array(2), new ArrayBuffer(2)];
  for (const value of [() => {}, Symbol("no"), 1n, ...bytes]) {
    await assertRejects(() => queue.send(value), TypeError);
  }
  const own = await place.queue<number>({
    encode: (value) => value === 7 ? 7 as never : `<${value}>`,
    decode: (text) => Number(text.slice(1, -1)),
  });
  await assertRejects(() => own.send(7), TypeError, "must be a string, got 7");
  await own.send(8);
  assertEquals(await take(own, 1), [8]);
});

test("Lease: left without done(), a value goes back at once, to whoever waits", async (place) => {
  const [one, other] = [await place.queue(), await place.queue()];
  await one.send(7);
  const lease = await one.receive();
  const waiting = follow(other.receive());
  await until("it waits", async () => (await blocked(place)) === 1);
  lease[Symbol.dispose]();
  await until("it comes", () => waiting.state === "resolved");
  assertEquals(waiting.value!.deliveries, 2);
  assertEquals(await waiting.value!.done(), true);
});

/** How many connections wait in a read. */
async function blocked(place: Place): Promise<number> {
  const info = String(await place.run("INFO", "clients"));
  return Number(/blocked_clients:(\d+)/.exec(info)![1]);
}

test("Lease.done() and disposal, in any order and number", async (place) => {
  const queue = await place.queue();
  for (const n of range(5)) await queue.send(n);
  const [done, twice, back, both, unawaited] = await Promise.all(
    range(5).map(() => queue.receive()),
  );
  assertEquals(await done.done(), true);
  await done[Symbol.asyncDispose]();
  assertEquals(
    await Promise.all([twice.done(), twice.done()]),
    [true, true],
    "asked for once",
  );
  await back[Symbol.asyncDispose]();
  assertEquals(await back.done(), false, "it is back in the queue");
  await both[Symbol.asyncDispose]();
  await both[Symbol.asyncDispose]();
  const ended = unawaited.done();
  unawaited[Symbol.dispose]();
  assertEquals(await ended, true);
  assertEquals(queue.held, 0);
  assertEquals((await take(queue, 2)).sort(), [2, 3]);
  assertEquals([await queue.size(), await queue.pending()], [0, 0]);
});

test("RedisQueue moves a value to the dead letters after so many deliveries", async (place) => {
  const told = listeners<string>();
  const queue = await place.queue<string>({ maxDeliveries: 3, ...told });
  await queue.send("poison");
  await queue.send("soup");
  const seen: [string, number][] = [];
  let id = "";
  for await (using lease of queue) {
    seen.push([lease.value, lease.deliveries]);
    if (lease.value === "poison") id = lease.id;
    else await lease.done();
    if (seen.length === 4) break;
  }
  assertEquals(seen, [
    ["poison", 1],
    ["soup", 1],
    ["poison", 2],
    ["poison", 3],
  ]);
  await until("it is told", () => told.letters.length === 1);
  const letters = await queue.deadLetters();
  assertEquals(letters, told.letters.map((letter) => ({ ...letter })));
  const [{ time, entry, ...letter }] = letters;
  assert(Math.abs(time - Date.now()) < 3_600_000);
  assertEquals(letter, {
    id,
    reason: "it has been given back 3 times",
    deliveries: 3,
    text: '"poison"',
    value: "poison",
  });
  assertEquals([await queue.size(), await queue.pending()], [0, 0]);

  assertEquals(await queue.revive(letters[0]), true);
  assertEquals(await queue.revive(letters[0]), false);
  assertEquals(await queue.deadLetters(), []);
  const revived = await queue.receive();
  assertEquals([revived.id, revived.deliveries], [id, 1]);
  assertEquals(await revived.done(), true);
  assert(entry.includes("-"));
});

test("RedisQueue keeps so many dead letters, and counts those it drops", async (place) => {
  const queue = await place.queue({ maxDeliveries: 1, maxDeadLetters: 2 });
  for (const n of range(5)) {
    await queue.send(n);
    await using _ = await queue.receive();
  }
  assertEquals((await queue.deadLetters()).map(({ value }) => value), [3, 4]);
  assertEquals((await queue.deadLetters(1)).map(({ value }) => value), [3]);
  assertEquals(queue.dropped, 3);
});

test("RedisQueue moves what it cannot read to the dead letters, and goes on", async (place) => {
  const told = listeners<number>();
  const queue = await place.queue<number>(told);
  const many = range(3000).flatMap((n) => [`field ${n}`, "x"]);
  const strange = [
    await place.add("text", "{"),
    await place.add("dish", "soup"),
    await place.add(...many),
    await place.add("id", "mine", "text", "[", "deliveries", "-1e999"),
    await place.add("text", "]", "reason", "none", "deliveries", "x"),
  ];
  await queue.send(7);
  assertEquals(await take(queue, 1), [7]);
  await until("all are told", () => told.letters.length === 5);
  assertEquals(
    told.letters.map(({ id }) => id),
    strange.with(3, "mine"),
  );
  const letters = await queue.deadLetters();
  assertEquals(letters, told.letters.map((letter) => ({ ...letter })));
  for (const letter of letters) {
    assertStringIncludes(letter.reason, "it cannot be read: ");
    assertEquals("value" in letter, false);
  }
  assertEquals(letters[0].text, "{");
  assertStringIncludes(letters[1].reason, 'it has no field "text"');
  assertEquals([await queue.size(), await queue.pending()], [0, 0]);
});

test("RedisQueue: `decode` can refuse, and what it refuses is dead", async (place) => {
  const queue = await place.queue<number>({
    decode: (text) => {
      if (text === "13") throw new RangeError("unlucky");
      return Number(text);
    },
  });
  for (const n of [12, 13, 14]) await queue.send(n);
  assertEquals(await take(queue, 2), [12, 14]);
  await until("it is dead", async () => (await queue.deadLetters()).length > 0);
  const [{ reason }] = await queue.deadLetters();
  assertEquals(reason, "it cannot be read: RangeError: unlucky");
});

test("RedisQueue takes over what a dead holder had", async (place) => {
  const queue = await place.queue();
  for (const n of range(3)) await queue.send(n);
  await place.takeAndDie(2);
  const deliveries: Record<number, number> = {};
  for await (const lease of queue) {
    deliveries[lease.value] = lease.deliveries;
    await lease.done();
    if (Object.keys(deliveries).length === 3) break;
  }
  assertEquals(deliveries, { 0: 2, 1: 2, 2: 1 });
  assertEquals([await queue.size(), await queue.pending()], [0, 0]);
});

test("RedisQueue: a value that kills each holder ends as a dead letter", async (place) => {
  const told = listeners<number>();
  const queue = await place.queue({ maxDeliveries: 1, ...told });
  await queue.send(13);
  await place.takeAndDie();
  await queue.send(7);
  const received = take(queue, 2); // one of them will not come
  await until("it is dead", () => told.letters.length === 1);
  await queue.send(8);
  assertEquals(await received, [7, 8]);
  assertEquals(told.letters[0].value, 13);
  assertEquals(told.letters[0].deliveries, 1);
  assertEquals(told.letters[0].reason, "it has been delivered 1 times");
});

test("RedisQueue keeps the lease of a holder that takes its time", async (place) => {
  const [one, other] = [
    await place.queue({ leaseTime: 900 }),
    await place.queue({ leaseTime: 900 }),
  ];
  await one.send(7);
  const lease = await one.receive();
  const waiting = follow(other.receive());
  let renewals = 0;
  let before = 0;
  await until("it is renewed often", async () => {
    const [pending] = await place.run(
      ..."XPENDING orders queue - + 1".split(" "),
    ) as [string, string, number, number][];
    const idle = Number(pending[2]);
    if (idle < before) renewals++;
    before = idle;
    return renewals > 3; // longer than the lease
  });
  assertEquals(waiting.state, "pending");
  assertEquals(lease.signal.aborted, false);
  assertEquals(await lease.done(), true);
});

test("Lease.signal aborts when a stalled holder has lost it", async (place) => {
  await using proxy = await Proxy.to(place.server);
  const stalled = await place.queue(
    { leaseTime: 200, timeout: 1000 },
    proxy.port,
  );
  const other = await place.queue({ leaseTime: 200 });
  await stalled.send(7);
  const lease = await stalled.receive();
  proxy.swallow = true;
  proxy.cut(); // nothing of it reaches the server in time
  const again = await other.receive();
  assertEquals([again.value, again.deliveries], [7, 2]);
  await until("it knows", () => lease.signal.aborted);
  assert(lease.signal.reason instanceof RedisError);
  assertStringIncludes(lease.signal.reason.message, `Cannot keep ${lease.id}`);
  assertEquals(stalled.held, 0);
  lease[Symbol.dispose](); // does not take it from the other one
  assertEquals(await again.done(), true);
  proxy.swallow = false;
  proxy.cut();
});

test("Lease.done() of a holder that has lost it says that it was done", async (place) => {
  const [one, other] = [await place.queue(), await place.queue()];
  await one.send(7);
  const lease = await one.receive();
  const claim = "XCLAIM orders queue dead 0".split(" ");
  const [[entry]] = await place.run(
    ..."XPENDING orders queue - + 1".split(" "),
  ) as [string][];
  await place.run(...claim, entry); // somebody takes it over
  assertEquals(await lease.done(), true, "the first who is done is right");
  assertEquals([await other.size(), await other.pending()], [0, 0]);
});

test("Lease: given back too late, a value stays with whoever has it by now", async (place) => {
  const queue = await place.queue({ maxDeliveries: 1 });
  await queue.send(7);
  const lease = await queue.receive();
  const look = "XPENDING orders queue - + 1".split(" ");
  const [[entry]] = await place.run(...look) as [string][];
  await place.run(..."XCLAIM orders queue other 0".split(" "), entry);
  await lease[Symbol.asyncDispose]();
  const [[still, holder]] = await place.run(...look) as [string, string][];
  assertEquals([still, holder], [entry, "other"]);
  assertEquals(await queue.deadLetters(), []);
});

test("RedisQueue does not take over from itself, nor count that", async (place) => {
  const queue = await place.queue({ leaseTime: 1000 });
  await queue.send(7);
  const lease = await queue.receive();
  await queue.send(8);
  await place.takeAndDie();
  const waiting = follow(queue.receive());
  follow(queue.receive()); // so that two are looked for
  const look = "XPENDING orders queue - + 1".split(" ");
  const [[entry, me]] = await place.run(...look) as [[string, string]];
  const late = `XCLAIM orders queue ${me} 0 ${entry} IDLE 9999 JUSTID`;
  await until("it has looked for what is late", async () => {
    await place.run(...late.split(" ")); // as if it had been stalled
    return waiting.state === "resolved";
  });
  assertEquals([waiting.value!.value, waiting.value!.deliveries], [8, 2]);
  assertEquals([lease.signal.aborted, queue.held], [false, 2]);
  const [[, , , times]] = await place.run(...look) as [unknown[]];
  assertEquals(Number(times), 1);
  assertEquals(await lease.done(), true);
  assertEquals(await waiting.value!.done(), true);
});

/** A client that does something with each command's reply before it is told; some commands it refuses. */
function hooked(
  client: RedisClient,
  hook: (command: string[], reply: unknown) => unknown,
  refuses: (command: string[]) => boolean = () => false,
): RedisClient {
  const pass = async (command: string[], send: () => Promise<unknown>) => {
    if (refuses(command)) throw new Error("refused by the test");
    const reply = await send();
    await hook(command, reply);
    return reply;
  };
  const duplicate = (options: object) => client.duplicate(options);
  return "call" in client
    ? {
      status: "ready",
      duplicate,
      call: (...command) => pass(command, () => client.call(...command)),
    }
    : {
      isOpen: true,
      isReady: true,
      duplicate,
      sendCommand: (command) =>
        pass(command, () => client.sendCommand(command)),
    };
}

test(
  "Lease: one renewal that fails is not the end of it",
  async (place) => {
    let renewals = 0;
    const isRenewal = (command: string[]) =>
      command[1]?.includes("JUSTID") ?? false;
    const client = hooked(
      await place.client(),
      () => {},
      (command) => isRenewal(command) && ++renewals === 4, // its first time is over by then
    );
    const queue = place.over(client, { leaseTime: 1500 });
    await queue.send(7);
    const lease = await queue.receive();
    const { signal } = lease;
    await until("it is renewed again", () => renewals === 6);
    assertEquals([signal.aborted, queue.held], [false, 1]);
    assertEquals(await lease.done(), true);
  },
  {},
  ONE_CLIENT,
);

test("Lease: a done() that fails can be called again, or the value goes back", async (place) => {
  let refuse = true;
  const client = hooked(
    await place.client(),
    () => {},
    (command) => refuse && (command[1]?.includes("local done") ?? false),
  );
  const queue = place.over(client);
  await queue.send(7);
  await queue.send(8);
  const [first, second] = [await queue.receive(), await queue.receive()];
  await assertRejects(() => first.done(), RedisError, "refused by the test");
  const failed = assertRejects(() => second.done(), RedisError);
  await second[Symbol.asyncDispose](); // while it is under way
  await failed;
  refuse = false;
  assertEquals(await first.done(), true);
  const again = await queue.receive();
  assertEquals([again.value, again.deliveries], [8, 2]);
  assertEquals(await again.done(), true);
  assertEquals(queue.held, 0);
});

test("RedisQueue: what it takes over for one who has left, keeps its count", async (place) => {
  const leaving = new AbortController();
  const client = hooked(await place.client(), async (command, reply) => {
    if (!command[1]?.includes("XCLAIM") || !Array.isArray(reply)) return;
    if (reply.length > 1) leaving.abort();
    await flush();
  });
  const queue = place.over(client);
  await queue.send(7);
  await place.takeAndDie();
  const gone = follow(queue.receive({ signal: leaving.signal }));
  await until("it has left", () => gone.state === "rejected");
  const lease = await queue.receive();
  assertEquals([lease.value, lease.deliveries], [7, 2]);
  assertEquals(await lease.done(), true);
});

test("RedisQueue fetches nothing for those who leave while it takes over", async (place) => {
  const leaving = new AbortController();
  const client = hooked(await place.client(), async (command) => {
    if (!command[1]?.includes("XCLAIM")) return;
    leaving.abort();
    await flush();
  });
  const queue = place.over(client);
  await queue.send(7);
  await queue.send(8);
  const all = async () =>
    (await place.run("XRANGE", "orders", "-", "+") as [string][])
      .map(([id]) => id);
  const before = await all();
  const [gone, stays] = [
    follow(queue.receive({ signal: leaving.signal })),
    follow(queue.receive()),
  ];
  await until("there is one", () => stays.state === "resolved");
  assertEquals([gone.state, stays.value!.value], ["rejected", 7]);
  assertEquals([await queue.size(), await queue.pending()], [1, 1]);
  assertEquals(await all(), before, "nothing has moved");
});

test("RedisQueue.close() gives back what was taken over, even if nothing else was received", async (place) => {
  const [one, other] = [await place.queue(), await place.queue()];
  await other.send(7);
  await place.takeAndDie();
  assertEquals((await one.receive()).deliveries, 2);
  await one.close();
  assertEquals([await other.size(), await other.pending()], [1, 0]);
  const again = await other.receive();
  assertEquals([again.value, again.deliveries], [7, 3]);
  await again.done();
});

test("RedisQueue.close() gives back what is held also if its last read has failed", async (place) => {
  await using proxy = await Proxy.to(place.server);
  const queue = await place.queue({ timeout: 500 }, proxy.port);
  const other = await place.queue();
  await other.send(7);
  await queue.receive();
  proxy.closed = true;
  proxy.cut();
  await assertRejects(() => queue.receive(), RedisError);
  proxy.closed = false;
  await until(
    "it can be reached",
    () => queue.size().then(() => true, () => false),
  );
  await queue.close();
  assertEquals([await other.size(), await other.pending()], [1, 0]);
});

test("Lease: the end of one that was lost is not the end of the next one", async (place) => {
  await using proxy = await Proxy.to(place.server);
  const queue = await place.queue(
    { leaseTime: 400, timeout: 1000 },
    proxy.port,
  );
  await queue.send(7);
  const lost = await queue.receive();
  const { signal } = lost;
  proxy.closed = true;
  proxy.cut();
  await until("it is lost", () => signal.aborted);
  proxy.closed = false;
  let again: Lease<number> | undefined;
  await until("it comes again", async () => {
    again = await queue.receive().catch(() => undefined);
    return again !== undefined;
  });
  assertEquals([again!.value, queue.held], [7, 1]);
  lost[Symbol.dispose]();
  assertEquals(queue.held, 1, "the next one is still renewed");
  assertEquals(await again!.done(), true);
  assertEquals(queue.held, 0);
});

test("Lease.signal aborts in time when the server is silent, however long one would wait for it", async (place) => {
  await using proxy = await Proxy.to(place.server);
  const queue = await place.queue(
    { leaseTime: 200, timeout: Infinity },
    proxy.port,
  );
  await queue.send(7);
  const { signal } = await queue.receive();
  proxy.swallow = true;
  await until("it is lost", () => signal.aborted);
  assertStringIncludes(signal.reason.message, "it was not renewed in time");
  assertEquals(queue.held, 0);
  proxy.swallow = false;
  proxy.cut();
  await queue.close();
});

test("RedisQueue.close() lets what has left arrive, and what is done be done", async (place) => {
  const client = await place.client();
  const queue = place.over<number>(client);
  await queue.send(1);
  const lease = await queue.receive();
  const done = lease.done();
  const sent = queue.send(2);
  await null; // it leaves at the end of this turn
  await null;
  await queue.close();
  assertEquals(await done, true);
  await sent;
  assertEquals(await place.run("XLEN", "orders"), 1);
});

test("RedisQueue loses nothing when the server is out of memory", async (place) => {
  const queue = await place.queue({ leaseTime: 100 });
  await queue.send(1);
  const lease = await queue.receive();
  await place.run("CONFIG", "SET", "maxmemory", "1");
  const full = await assertRejects(() => queue.send(2), RedisError);
  assertStringIncludes(full.message, "OOM");
  await lease[Symbol.asyncDispose]();
  assertEquals(await place.run("XLEN", "orders"), 1);
  await place.run("CONFIG", "SET", "maxmemory", "0");
  const again = await queue.receive();
  assertEquals([again.value, again.deliveries > 1], [1, true]);
  await again.done();
});

test("RedisQueue loses nothing when dead letters find no place", async (place) => {
  const queue = await place.queue({ leaseTime: 100, maxDeliveries: 1 });
  await place.run("SET", "{orders}:dead", "no stream");
  await queue.send(1);
  {
    await using _ = await queue.receive();
  }
  assertEquals([await queue.size(), await queue.pending()], [0, 1]);
  await place.run("DEL", "{orders}:dead");
  const waiting = follow(queue.receive());
  await until("it is dead", async () => (await queue.deadLetters()).length > 0);
  assertEquals((await queue.deadLetters())[0].value, 1);
  assertEquals(waiting.state, "pending");
});

test("RedisQueue fetches no more than is waited for", async (place) => {
  const queue = await place.queue();
  for (const n of range(20)) await queue.send(n);
  const leases = await Promise.all(range(3).map(() => queue.receive()));
  assertEquals([await queue.size(), await queue.pending()], [17, 3]);
  assertEquals(leases.map(({ value }) => value), [0, 1, 2]);
  for (const lease of leases) await lease.done();
  assertEquals([await queue.size(), await queue.pending()], [17, 0]);
});

test("RedisQueue gives each value to one of many readers", async (place) => {
  const queues = [await place.queue(), await place.queue()];
  const seen: number[] = [];
  const all = range(500);
  const readers = queues.flatMap((queue) =>
    range(5).map(async () => {
      for await (using lease of queue) {
        seen.push(lease.value);
        await lease.done();
      }
    })
  );
  await Promise.all(all.map((n) => queues[n % 2].send(n)));
  await until("all are seen", () => seen.length >= all.length);
  await Promise.all(queues.map((queue) => queue.close()));
  await Promise.all(readers);
  assertEquals(seen.sort((a, b) => a - b), all);
  assertEquals(await place.run("XLEN", "orders"), 0);
});

test("RedisQueue.send() refuses once the queue is full, and cuts nothing", async (place) => {
  const queue = await place.queue({ capacity: 3 });
  for (const n of range(3)) await queue.send(n);
  const full = await assertRejects(() => queue.send(3), QueueFullError);
  assertEquals(full.value, 3);
  assertStringIncludes(full.message, "it holds 3 values");
  const lease = await queue.receive();
  await assertRejects(() => queue.send(3), QueueFullError);
  await lease.done();
  const outcomes = await Promise.allSettled(
    [4, 5, 6].map((n) => queue.send(n)),
  );
  assertEquals(
    outcomes.map(({ status }) => status),
    ["fulfilled", "rejected", "rejected"],
  );
  assertEquals(await take(queue, 3), [1, 2, 4]);
  const unbounded = await place.queue({ capacity: Infinity });
  await unbounded.send(8);
  assertEquals(await take(unbounded, 1), [8]);
});

test("RedisQueue.send() refuses while too many are on their way", async (place) => {
  await using proxy = await Proxy.to(place.server);
  const queue = await place.queue({ maxWaiting: 2, timeout: 300 }, proxy.port);
  await insist(() => queue.send(0));
  proxy.swallow = true;
  const { signal } = new AbortController();
  const outcomes = await Promise.allSettled(
    [1, 2, 3].map((n) => queue.send(n, { signal })),
  );
  assertEquals(
    outcomes.map((outcome) =>
      outcome.status === "rejected" ? outcome.reason.name : outcome.status
    ),
    ["RedisError", "RedisError", "QueueFullError"],
  );
  const [{ reason }] = outcomes as PromiseRejectedResult[];
  assertStringIncludes(
    reason.message,
    'Cannot send to queue "orders": RedisError: no answer in 300 ms',
  );
  proxy.swallow = false;
  proxy.cut();
});

test("RedisQueue: an aborted signal wins, and leaves nothing behind", async (place) => {
  const queue = await place.queue();
  const { signal } = AbortSignal.abort("no") && {
    signal: AbortSignal.abort("no"),
  };
  for (
    const attempt of [
      () => queue.send(1, { signal }),
      () => queue.receive({ signal }),
      () => queue.values({ signal }).next(),
    ]
  ) {
    assertEquals(await attempt().catch((reason) => reason), "no");
  }
  const controller = probedController();
  const late = follow(queue.send(1, { signal: controller.signal }));
  const waiting = follow(queue.receive({ signal: controller.signal }));
  const reading = follow(queue.values({ signal: controller.signal }).next());
  controller.abort("too late");
  await until(
    "all have left",
    () => [late, waiting, reading].every(({ error }) => error === "too late"),
  );
  assertEquals([controller.listening, controller.added], [0, 1]);
  await queue.send(2);
  assertEquals(await take(queue, 1), [2]);
  assertEquals(await place.run("XLEN", "orders"), 0);
});

test("RedisQueue.receive(): a value for one who has left goes to the next", async (place) => {
  const queue = await place.queue();
  for (const n of range(30)) {
    const controller = new AbortController();
    const gone = queue.receive({ signal: controller.signal });
    const sent = queue.send(n);
    if (n % 3 === 0) await sent;
    controller.abort();
    const lease = await gone.catch(() => undefined);
    await sent;
    const got = lease ?? await queue.receive();
    assertEquals([got.value, got.deliveries], [n, 1]);
    await got.done();
  }
});

test("RedisQueue.receiveMany() waits for one, and takes what else is there", async (place) => {
  const queue = await place.queue();
  const waiting = follow(queue.receiveMany(9));
  await until("it waits", async () => await blocked(place) === 1);
  await queue.send(0);
  await until("it comes", () => waiting.state === "resolved");
  const all = [waiting.value!];
  for (const n of range(5)) await queue.send(n + 1);
  await place.add("text", "{"); // for the dead letters
  await queue.send(6);
  all.push(await queue.receiveMany(1), await queue.receiveMany(3));
  assertEquals([await queue.size(), await queue.pending()], [3, 5]);
  all.push(await queue.receiveMany(Infinity));
  assertEquals(
    all.map((leases) => leases.map(({ value }) => value)),
    [[0], [1], [2, 3, 4], [5, 6]],
  );
  assertEquals(queue.held, 7);
  const [back, ...others] = all.flat();
  await back[Symbol.asyncDispose]();
  for (const lease of others) assertEquals(await lease.done(), true);
  const [again, ...none] = await queue.receiveMany(9);
  assertEquals([again.value, again.deliveries, none.length], [0, 2, 0]);
  assertEquals(await again.done(), true);
  assertEquals(queue.held, 0);
  assertEquals([await queue.size(), await queue.pending()], [0, 0]);
  assertEquals((await queue.deadLetters()).map(({ text }) => text), ["{"]);
});

test("RedisQueue.receiveMany() that leaves, or is refused, takes nothing", async (place) => {
  const queue = await place.queue();
  await queue.send(1);
  await assertRejects(() => queue.receiveMany(0), RangeError, "max must be");
  const signal = AbortSignal.abort("no");
  const no = await queue.receiveMany(2, { signal }).catch((reason) => reason);
  assertEquals(no, "no");
  assertEquals([await queue.size(), await queue.pending()], [1, 0]);
  assertEquals(await take(queue, 1), [1]);
  const controller = new AbortController();
  const leaves = follow(queue.receiveMany(2, controller));
  const stays = follow(queue.receiveMany(2));
  controller.abort("too late");
  await until("it has left", () => leaves.error === "too late");
  await queue.close();
  await until("it is refused", () => stays.state === "rejected");
  assert(stays.error instanceof QueueClosedError);
});

test("RedisQueue.receiveMany() keeps what has come when the rest cannot be had", async (place) => {
  let refuse = true;
  const client = hooked(
    await place.client(),
    () => {},
    ([name]) => refuse && name === "XREADGROUP",
  );
  const queue = place.over(client);
  for (const n of range(3)) await queue.send(n);
  const [first, ...none] = await queue.receiveMany(9);
  assertEquals([first.value, none.length, queue.held], [0, 0, 1]);
  refuse = false;
  const rest = await queue.receiveMany(9);
  assertEquals(rest.map(({ value }) => value), [1, 2]);
});

test("RedisQueue.close() gives back what receiveMany() was about to have", async (place) => {
  const client = hooked(await place.client(), async ([name]) => {
    if (name === "XREADGROUP") await queue.close();
  });
  const queue: RedisQueue<number> = place.over(client);
  const other = await place.queue();
  for (const n of range(3)) await queue.send(n);
  const leases = await queue.receiveMany(9);
  assertEquals(leases.map(({ signal }) => signal.aborted), [true]);
  assertEquals([await other.size(), await other.pending()], [3, 0]);
  assertEquals(queue.held, 0);
});

test("RedisQueue.values() ends by break, return and close", async (place) => {
  const queue = await place.queue();
  const loop = queue.values();
  const parked = [loop.next(), loop.next()];
  assertEquals(await loop.return!("end"), { value: "end", done: true });
  for (const step of parked) {
    assertEquals(await step, { value: undefined, done: true });
  }
  assertEquals(await loop.next(), { value: undefined, done: true });
  await queue.send(1);
  assertEquals(await take(queue, 1), [1], "others go on");
  const ended = queue.values();
  const next = ended.next();
  const refused = assertRejects(() => queue.receive(), QueueClosedError);
  await queue.close();
  assertEquals(await next, { value: undefined, done: true });
  await refused;
  await assertRejects(() => queue.receive(), QueueClosedError);
  const unsent = await assertRejects(() => queue.send(3), QueueClosedError);
  assertEquals(unsent.value, 3);
  assertEquals(await queue.values().next(), { value: undefined, done: true });
});

test("RedisQueue.close() gives back what is held, and refuses what has not left", async (place) => {
  const [one, other] = [await place.queue(), await place.queue()];
  for (const n of range(3)) await one.send(n);
  const leases = [await one.receive(), await one.receive()];
  const { signal } = leases[0];
  const unsent = follow(one.send(9));
  assertEquals(one.closed, false);
  const closed = one.close();
  assertEquals(one.closed, true);
  assertEquals(one.close(), closed);
  await closed;
  assert(unsent.error instanceof QueueClosedError);
  assertEquals(one.held, 0);
  assertEquals([signal.aborted, leases[1].signal.aborted], [true, true]);
  assertEquals(await leases[0].done(), false);
  leases[1][Symbol.dispose]();
  const back = await Promise.all(range(3).map(() => other.receive()));
  assertEquals(
    back.map(({ value, deliveries }) => [value, deliveries]).sort(),
    [[0, 2], [1, 2], [2, 1]],
  );
  for (const lease of back) await lease.done();
  assertEquals(await other.pending(), 0);
});

test("RedisQueue.close() leaves no connection of its own", async (place) => {
  const client = await place.client();
  const connections = async () =>
    String(await place.run("CLIENT", "LIST")).trim().split("\n").length;
  const before = await connections();
  const queue = place.over(client);
  await queue.send(1);
  assertEquals(await connections(), before, "none to send");
  await take(queue, 1);
  assertEquals(await connections(), before + 1);
  await queue.close();
  await until("it is gone", async () => await connections() === before);
});

test("RedisQueue forgets consumers that are long gone", async (place) => {
  const queue = await place.queue({ leaseTime: 20 });
  await place.run("XGROUP", "CREATE", "orders", "queue", "0", "MKSTREAM");
  await place.run("XGROUP", "CREATECONSUMER", "orders", "queue", "old");
  const waiting = queue.receive();
  await until("there is one", async () => {
    const consumers = await place.run("XINFO", "CONSUMERS", "orders", "queue");
    return !JSON.stringify(consumers).includes('"old"');
  });
  await queue.send(1);
  await (await waiting).done();
});

test("RedisQueue forgets no consumer that still has something", async (place) => {
  const queue = await place.queue({ leaseTime: 20 });
  await queue.send(1);
  await queue.send(2);
  await place.takeAndDie(2);
  const info = "XINFO CONSUMERS orders queue".split(" ");
  await until("it is long gone", async () => {
    const told = JSON.stringify(await place.run(...info));
    return Number(/"idle",(\d+)|"idle":(\d+)/.exec(told)?.slice(1).join("")) >
      500;
  });
  assertEquals(await take(queue, 1), [1]);
  assertEquals(await take(queue, 1), [2]);
});

test("RedisQueue tells of pending values that somebody has deleted", async (place) => {
  const told = listeners<number>();
  const queue = await place.queue(told);
  for (const n of range(4)) await queue.send(n);
  await place.takeAndDie(3);
  await place.run("XTRIM", "orders", "MAXLEN", "1");
  assertEquals(await queue.size(), 0, "there are more pending than there are");
  const received = take(queue, 2);
  await until("it is told", () => told.states.length > 0);
  await queue.send(4);
  assertEquals(await received, [3, 4]);
  let lost = 0;
  for (const { state, reason, lost: some } of told.states) {
    assertEquals(state, "gap");
    assertEquals(reason, "somebody has deleted what was being handled");
    lost += some!;
  }
  assertEquals(lost, 3);
  assertEquals(await queue.pending(), 0);
});

test("RedisQueue: FLUSHALL in the middle is a gap, and things go on", async (place) => {
  const told = listeners<number>();
  const queue = await place.queue(told);
  await queue.send(1);
  await queue.send(2);
  const held = await queue.receive();
  const { signal } = held;
  await place.run("FLUSHALL");
  assertEquals(await held.done(), false);
  assertEquals(signal.aborted, false, "it was done before anybody looked");
  const received = take(queue, 2);
  await until("it is told", () => told.states.length > 0);
  await queue.send(3);
  await place.run("FLUSHALL");
  await until("it is told again", () => told.states.length > 1);
  await Promise.all([queue.send(4), queue.send(5)]);
  const values = await received;
  assert(values.every((n) => [3, 4, 5].includes(n)));
  const gap = { state: "gap", reason: "the server has forgotten the queue" };
  assertEquals(told.states, [gap, gap] as RedisState[]);
});

test("RedisQueue: FLUSHALL ends the leases that are held", async (place) => {
  const queue = await place.queue({ leaseTime: 600 });
  await queue.send(1);
  const lease = await queue.receive();
  const { signal } = lease;
  await place.run("FLUSHALL");
  await until("it is lost", () => signal.aborted);
  assertStringIncludes(signal.reason.message, "or is gone");
  assertEquals(queue.held, 0);
  assertEquals(await lease.done(), false);
});

test("RedisQueue reads from the start when only the group is lost", async (place) => {
  const queue = await place.queue({ leaseTime: 300 });
  await queue.send(1);
  assertEquals(await take(queue, 1), [1]);
  await place.run("XGROUP", "DESTROY", "orders", "queue");
  await queue.send(2);
  await queue.send(3);
  assertEquals(await take(queue, 2), [2, 3]);
});

test("RedisQueue: a key of another type is refused, not waited for", async (place) => {
  const queue = await place.queue();
  await place.run("SET", "orders", "1");
  for (
    const attempt of [
      () => queue.send(1),
      () => queue.receive(),
      () => queue.values().next(),
      () => queue.size(),
    ]
  ) {
    const error = await assertRejects(attempt, RedisError);
    assertStringIncludes(error.message, "WRONGTYPE");
    assertStringIncludes(error.message, 'queue "orders": ');
    assert(error.cause instanceof Error);
  }
});

test("RedisQueue: what listeners throw is reported, and stops nothing", async (place) => {
  using reports = catchReports();
  const thrower = () => {
    throw new Error("mine");
  };
  const queue = await place.queue({
    leaseTime: 300,
    maxDeliveries: 1,
    onDeadLetter: thrower,
    onState: thrower,
  });
  await queue.send(1);
  {
    await using _ = await queue.receive();
  }
  await until("the letter is told", () => reports.errors.length === 1);
  const received = take(queue, 1);
  await place.run("FLUSHALL");
  await until("the gap is told", () => reports.errors.length === 2);
  await queue.send(2);
  assertEquals(await received, [2]);
});

Deno.test("new RedisQueue() touches nothing, and checks what it gets", () => {
  const untouched = new globalThis.Proxy({}, {
    get: (_, name) => {
      if (name === "isReady") return true;
      if (name === "isCluster") return undefined;
      if (name === "call") return undefined;
      if (name === "sendCommand" || name === "duplicate") {
        return () => {
          throw new Error("touched");
        };
      }
    },
  }) as RedisClient;
  const queue = new RedisQueue(untouched, "orders");
  assertEquals([queue.closed, queue.held, queue.name], [false, 0, "orders"]);
  for (
    const client of [
      undefined,
      {},
      { call() {} },
      { sendCommand() {}, duplicate() {} }, // a cluster of node-redis
      { call() {}, duplicate() {}, isCluster: true },
    ]
  ) {
    const error = assertThrows(
      () => new RedisQueue(client as never, "orders"),
      TypeError,
    );
    assertStringIncludes(error.message, "client must be");
  }
  assertThrows(() => new RedisQueue(untouched, 7 as never), TypeError);
  for (
    const name of [
      "capacity",
      "leaseTime",
      "maxDeliveries",
      "maxDeadLetters",
      "maxWaiting",
      "timeout",
    ]
  ) {
    for (const [found, Kind] of [[0, RangeError], ["1", TypeError]] as const) {
      assertThrows(
        () => new RedisQueue(untouched, "orders", { [name]: found }),
        Kind,
        `${name} must be`,
      );
    }
  }
  for (const leaseTime of [Infinity, 2 ** 31]) { // longer than a timer
    assertThrows(
      () => new RedisQueue(untouched, "orders", { leaseTime }),
      RangeError,
      "leaseTime must be an integer up to 2147483647",
    );
  }
  for (const name of ["encode", "decode", "onDeadLetter", "onState"]) {
    assertThrows(
      () => new RedisQueue(untouched, "orders", { [name]: 1 }),
      TypeError,
      `${name} must be a function`,
    );
  }
});

Deno.test("RedisQueue.close() of one that was never used sends nothing", async () => {
  const client = {
    isOpen: true,
    isReady: true,
    sendCommand: () => Promise.reject(new Error("sent")),
    duplicate: () => {
      throw new Error("duplicated");
    },
  };
  await using queue = new RedisQueue(client, "orders");
  await queue.close();
  const lease: Promise<Lease<unknown>> = queue.receive();
  await assertRejects(() => lease, QueueClosedError);
});
