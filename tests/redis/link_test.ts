// redisLink() by each client, on a real server.
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { Bus } from "../../bus.ts";
import {
  encodeEvent,
  type Link,
  type LinkEvent,
  type LinkState,
  type Sink,
} from "../../link.ts";
import { QueueClosedError } from "../../queue.ts";
import {
  RedisError,
  redisLink,
  type RedisLinkOptions,
  RedisQueue,
} from "../../redis.ts";
import { follow, range, replaceGlobals } from "../_helpers.ts";
import { linkConformance, type Medium } from "../link_conformance.ts";
import {
  CLIENTS,
  Gate,
  insist,
  NO_SERVER,
  ONE_CLIENT,
  Proxy,
  RedisServer,
  Tally,
  testByEachClient,
  type TestClient,
  until,
} from "./_server.ts";

const ALL = {
  durable: true,
  acks: true,
  groups: true,
  backpressure: true,
  confirms: true,
};

/** A server, and links to it. */
class Place implements AsyncDisposable {
  readonly server: RedisServer;
  readonly #connect: (typeof CLIENTS)[string];
  readonly #clients: TestClient[] = [];
  readonly #links: Link[] = [];
  readonly #ways = new Map<Link, { client: TestClient; proxy: Proxy }>();
  run!: TestClient["run"];

  static async make(
    connect: (typeof CLIENTS)[string],
    options?: Parameters<typeof RedisServer.start>[0],
  ): Promise<Place> {
    const place = new Place(await RedisServer.start(options), connect);
    const own = await connect(place.server.port);
    place.#clients.push(own);
    place.run = own.run;
    return place;
  }

  private constructor(
    server: RedisServer,
    connect: (typeof CLIENTS)[string],
  ) {
    this.server = server;
    this.#connect = connect;
  }

  /** A link, as another process would have it; and what it tells. */
  async link(
    options: RedisLinkOptions = {},
  ): Promise<Link & AsyncDisposable & { states: LinkState[] }> {
    const proxy = await Proxy.to(this.server);
    const client = await this.#connect(proxy.port);
    this.#clients.push(client);
    const link = redisLink(client.client, options);
    this.#links.push(link);
    this.#ways.set(link, { client, proxy });
    const states: LinkState[] = [];
    link.onState = (state) => void states.push(state);
    return Object.assign(link, { states });
  }

  proxy(link: Link): Proxy {
    return this.#ways.get(link)!.proxy;
  }

  /** Ends reads that wait, as if their time were over. */
  async endReads(): Promise<void> {
    const clients = String(await this.run("CLIENT", "LIST"));
    for (const [, id] of clients.matchAll(/^id=(\d+) .* flags=\w*b/gm)) {
      await this.run("CLIENT", "UNBLOCK", id);
    }
  }

  /** Cuts a link off, for good. */
  cutOff(link: Link): void {
    const proxy = this.proxy(link);
    proxy.closed = true;
    proxy.cut();
  }

  /** As if its process had died: its client waits for nothing any more. */
  kill(link: Link): void {
    this.cutOff(link);
    this.#ways.get(link)!.client[Symbol.dispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#links.map((link) => link.close()));
    for (const client of this.#clients) client[Symbol.dispose]();
    for (const { proxy } of this.#ways.values()) {
      await proxy[Symbol.asyncDispose]();
    }
    await this.server[Symbol.asyncDispose]();
  }
}

/** Closes the link at the end of a block. */
function closing(link: Link): Link & AsyncDisposable {
  return Object.assign(link, { [Symbol.asyncDispose]: () => link.close() });
}

for (const [name, connect] of Object.entries(CLIENTS)) {
  if (NO_SERVER) {
    Deno.test({ name: `redisLink() by ${name}`, ignore: true, fn() {} });
    continue;
  }
  linkConformance(`redisLink() by ${name}`, async (): Promise<Medium> => {
    const place = await Place.make(connect);
    return {
      link: () => place.link({ leaseTime: 1000, timeout: 30_000 }), // a machine may be busy
      async garble(topic) {
        await place.run("XADD", `bus:${topic}`, "*", "event", "{oops");
        await place.run("XADD", `bus:${topic}`, "*", "dish", "soup");
      },
      kill: (link) => place.kill(link),
      dispose: () => place[Symbol.asyncDispose](),
    };
  }, { caps: ALL, garbles: true, kills: true });
}

/** One test for each client. */
function test(
  name: string,
  body: (place: Place) => Promise<void>,
  options?: Parameters<typeof RedisServer.start>[0],
  clients?: typeof CLIENTS,
): void {
  testByEachClient(name, async (connect) => {
    await using place = await Place.make(connect, options);
    await body(place);
  }, clients);
}

/** Events that carry the numbers. */
function events(...numbers: number[]): LinkEvent<string, number>[] {
  return numbers.map((data) => ({
    id: `event-${data}`,
    type: "order",
    source: "test",
    time: 1,
    data,
  }));
}

/** Receives the numbers that events carry. */
async function collect(
  link: Link,
  options?: Parameters<Link["receive"]>[2],
): Promise<number[]> {
  const seen: number[] = [];
  await link.receive("orders", ({ data }) => {
    seen.push(data as number);
  }, options);
  return seen;
}

test("redisLink() keeps its place when it is cut off", async (place) => {
  const [sender, receiver] = [await place.link(), await place.link()];
  const seen = await collect(receiver);
  const proxy = place.proxy(receiver);
  for (const n of range(20)) {
    if (n % 5 === 0) {
      proxy.closed = true;
      proxy.cut();
    }
    await sender.send("orders", events(n));
    if (n % 5 === 3) {
      proxy.closed = false;
      await until("all have come", () => seen.length === n + 1);
    }
  }
  proxy.closed = false;
  await until("all have come", () => seen.length === 20);
  assertEquals(seen, range(20));
  assertEquals(
    receiver.states.map(({ state }) => state),
    range(4).flatMap(() => ["down", "up"]),
  );
});

/** A receiver that has the first event, and takes no other until it is opened; the server keeps 100. */
async function slowReceiver(place: Place, group?: string) {
  const sender = await place.link({ maxLength: 100 });
  const receiver = await place.link({ leaseTime: 1000 }); // a group looks twice as often for what was cut
  const seen: number[] = [];
  let open = () => {};
  const gate = new Promise<void>((resolve) => open = resolve);
  await receiver.receive("orders", ({ data }) => {
    seen.push(data as number);
    return gate;
  }, { maxInFlight: 1, group });
  await sender.send("orders", events(0));
  await until("the first is there", () => seen.length === 1);
  return { sender, receiver, seen, open };
}

test("redisLink() tells a slow receiver exactly what it has lost", async (place) => {
  const { sender, receiver, seen, open } = await slowReceiver(place);
  const COUNT = 2000;
  await sender.send("orders", events(...range(COUNT).map((n) => n + 1)));
  open();
  await until("the last is there", () => seen.at(-1) === COUNT);
  const gaps = receiver.states.filter(({ state }) => state === "gap");
  const lost = gaps.reduce((sum, { lost }) => sum + lost!, 0);
  assert(lost > 1500);
  assertEquals(seen.length + lost, COUNT + 1);
  assertEquals(gaps.length, 1);
});

test("redisLink() tells a group what was cut before it was read", async (place) => {
  const { sender, receiver, seen, open } = await slowReceiver(place, "kitchen");
  await sender.send("orders", events(...range(2000).map((n) => n + 1)));
  open();
  await until("the last is there", () => seen.at(-1) === 2000);
  const lost = () =>
    receiver.states.reduce((sum, { lost = 0 }) => sum + lost, 0);
  await until("the gap is told", () => seen.length + lost() >= 2001);
  assertEquals(seen.length + lost(), 2001);
});

test("redisLink() tells of a gap before the events that come after it", async (place) => {
  const [sender, receiver] = [await place.link(), await place.link()];
  const told: unknown[] = [];
  receiver.onState = ({ state }) => void told.push(state);
  await receiver.receive("orders", ({ data }) => void told.push(data));
  await sender.send("orders", events(0, 1));
  await until("they come", () => told.length === 2);
  const proxy = place.proxy(receiver);
  proxy.hold(); // once it hears of the end, there is a server again
  await place.server.kill();
  await place.server.start();
  await insist(() => sender.send("orders", events(2)));
  proxy.release();
  await until("it comes", () => told.includes(2));
  await sender.send("orders", events(3));
  await until("it comes", () => told.includes(3));
  const order = told.filter((it) => it !== "up");
  assertEquals(order, [0, 1, "down", "gap", 2, 3]);
});

for (const group of [undefined, "kitchen"]) {
  const who = group === undefined ? "all" : "a group";
  const options = group === undefined ? {} : { group };

  test(`redisLink() to ${who}: FLUSHALL is a gap, and things go on`, async (place) => {
    const [sender, receiver] = [await place.link(), await place.link()];
    const seen = await collect(receiver, options);
    await sender.send("orders", events(0, 1));
    await until("they come", () => seen.length === 2);
    await place.run("FLUSHALL");
    await place.endReads();
    await until("it is told", () => receiver.states.length > 0);
    await sender.send("orders", events(7));
    await until("it comes", () => seen.at(-1) === 7);
    assertEquals(seen, [0, 1, 7]);
    const told = receiver.states.map(({ state, reason }) => [state, reason]);
    const what = group === undefined ? "stream" : "group";
    assertEquals(told, [
      ["gap", `bus:orders: the server has forgotten the ${what}`],
    ]);
  });

  test(`redisLink() to ${who}: a restart without an append-only file is a gap`, async (place) => {
    const [sender, receiver] = [await place.link(), await place.link()];
    const seen = await collect(receiver, options);
    await sender.send("orders", events(0, 1, 2));
    await until("they come", () => seen.length === 3);
    await place.server.kill();
    await until("it is told", () => receiver.states.length === 1);
    await place.server.start();
    await until(
      "it is told",
      () => receiver.states.some(({ state }) => state === "gap"),
    );
    await insist(() => sender.send("orders", events(3)));
    await until("it comes", () => seen.includes(3));
    assertEquals(seen, [0, 1, 2, 3]);
    assertEquals(receiver.states[0].state, "down");
  });

  test(
    `redisLink() to ${who}: a restart with an append-only file loses nothing`,
    async (place) => {
      const [sender, receiver] = [
        await place.link(),
        await place.link({ leaseTime: 300 }),
      ];
      const seen = await collect(receiver, options);
      for (const n of range(30)) {
        if (n % 10 === 5) {
          await place.server.kill();
          await place.server.start();
        }
        await insist(() => sender.send("orders", events(n)));
      }
      await until("all come", () => new Set(seen).size === 30);
      assert(receiver.states.every(({ state }) => state !== "gap"));
    },
    { durable: true },
  );
}

test("redisLink(): a receiver that is silent loses what it has to others of its group", async (place) => {
  const [sender, stalled, other] = [
    await place.link(),
    await place.link(),
    await place.link({ leaseTime: 300 }),
  ];
  const group = "kitchen";
  let got = false;
  await stalled.receive("orders", () => {
    got = true;
    return new Promise(() => {}); // for ever
  }, { group });
  await sender.send("orders", events(1));
  await until("it has it", () => got);
  const attempts: number[] = [];
  await other.receive("orders", (_, { attempt }) => {
    attempts.push(attempt);
  }, { group });
  place.kill(stalled);
  await until("it is taken over", () => attempts.length === 1);
  assertEquals(attempts, [2]);
});

test("redisLink(): poison is a dead letter of its group", async (place) => {
  const [sender, receiver] = [
    await place.link(),
    await place.link({ maxDeliveries: 2 }),
  ];
  await receiver.receive("orders", () => Promise.reject(new Error("burnt")), {
    group: "kitchen",
  });
  await sender.send("orders", events(1));
  const key = "{bus:orders}:dead";
  await until("it is dead", async () => await place.run("XLEN", key) === 1);
  const letters = JSON.stringify(await place.run("XRANGE", key, "-", "+"));
  assert(letters.includes("burnt") && letters.includes("event-1"));
  assertEquals(receiver.states.map(({ state }) => state), ["bad"]);
  const pending = await place.run("XPENDING", "bus:orders", "kitchen");
  assertEquals((pending as unknown[])[0], 0);
});

test("redisLink.send() refuses while too much is on its way, and when there is no answer", async (place) => {
  const link = await place.link({ maxWaiting: 2, timeout: 300 });
  // By itself, any batch may go.
  await insist(() => link.send("orders", events(1, 2, 3)));
  const proxy = place.proxy(link);
  proxy.swallow = true;
  const first = follow(link.send("orders", events(4, 5)));
  await assertRejects(() => link.send("orders", events(6)), RedisError, "of 2");
  await until("it is refused", () => first.state === "rejected");
  assertEquals(link.states.map(({ state }) => state), ["down"]);
  proxy.swallow = false;
  proxy.cut();
  await insist(() => link.send("orders", events(7)));
  assertEquals(link.states.map(({ state }) => state), ["down", "up"]);
});

test("redisLink() refuses a server that is not there, and waits for none", async (place) => {
  const link = await place.link({ timeout: 300 });
  await place.server.kill();
  await assertRejects(() => link.send("orders", events(1)), RedisError);
  await assertRejects(() => link.receive("orders", () => {}), RedisError);
  await assertRejects(
    () => link.receive("orders", () => {}, { group: "kitchen" }),
    RedisError,
  );
  await link.close();
  await assertRejects(() => link.send("orders", events(1)), RedisError);
});

testByEachClient("redisLink() refuses a wrong password", async (connect) => {
  await using server = await RedisServer.start({ password: "right" });
  using wrong = await connect(server.port, {
    password: "wrong",
    impatient: true,
  });
  await using link = closing(redisLink(wrong.client));
  for (
    const attempt of [
      () => link.send("orders", events(1)),
      () => link.receive("orders", () => {}),
      () => link.receive("orders", () => {}, { group: "kitchen" }),
    ]
  ) {
    const error = await assertRejects(attempt, RedisError);
    assertMatch(error.message, /WRONGPASS|NOAUTH/);
  }
});

testByEachClient(
  "redisLink() gets by on a server that comes late",
  async (connect) => {
    await using server = await RedisServer.start();
    await server.kill();
    using early = await connect(server.port, { impatient: true });
    await using link = closing(redisLink(early.client, { timeout: 500 }));
    const seen: unknown[] = [];
    const receive = async () => {
      await link.receive("orders", ({ data }) => void seen.push(data));
    };
    await assertRejects(() => link.send("orders", events(1)), RedisError);
    await assertRejects(receive, RedisError);
    await server.start();
    await insist(receive);
    await insist(() => link.send("orders", events(2)));
    await until("it comes", () => seen.includes(2));
  },
);

test("redisLink.close() always returns", async (place) => {
  for (const how of ["quiet", "silent", "cut", "dead"]) {
    const link = await place.link({ timeout: 300 });
    for (const group of [undefined, "kitchen"]) {
      await insist(() =>
        link.receive("orders", () => new Promise(() => {}), {
          ...group === undefined ? {} : { group },
          from: "all",
        })
      );
    }
    await insist(() => link.send("orders", events(1)));
    const proxy = place.proxy(link);
    if (how === "silent") proxy.swallow = true;
    if (how === "cut") place.cutOff(link);
    if (how === "dead") await place.server.kill();
    const closed = follow(link.close());
    await until(`it is closed, ${how}`, () => closed.state === "resolved");
  }
});

/** A member of a group, who can be kept from going on. */
class Cook {
  readonly gate = new Gate();
  /** What it works at. */
  readonly hand = new Set<number>();
  readonly link: Link;

  static async join(link: Link, served: Tally): Promise<Cook> {
    const cook = new Cook(link);
    await link.receive("orders", async ({ data }) => {
      const order = data as number;
      cook.hand.add(order);
      await cook.gate.passed;
      cook.hand.delete(order);
      served.add(order);
    }, { group: "kitchen" });
    return cook;
  }

  private constructor(link: Link) {
    this.link = link;
  }
}

test(
  "redisLink(): 10,000 events, eight faults, none lost to anybody",
  async (place) => {
    const options = { timeout: 2000, maxLength: 50_000, leaseTime: 300 };
    const sender = await place.link(options);
    const readers: (Link & { states: LinkState[] })[] = [];
    const seen = [new Tally(), new Tally()];
    for (const tally of seen) {
      const link = await place.link(options);
      readers.push(link);
      await link.receive("orders", ({ data }) => tally.add(data as number));
    }
    const served = new Tally();
    const cooks: Cook[] = [];
    for (const _ of range(3)) {
      cooks.push(await Cook.join(await place.link(options), served));
    }
    let sent = 0;
    const send = async (count: number) => {
      const batch = events(...range(count).map(() => sent++));
      await insist(() => sender.send("orders", batch));
    };
    const restart = async () => {
      await place.server.kill();
      await place.server.start();
    };
    const holdUp = async (cook: Cook) => {
      cook.gate.shut();
      await until("it has something in hand", async () => {
        await send(1);
        return cook.hand.size > 0;
      });
    };
    let left: number[] = []; // by the cook who is silent
    const faults: Record<string, () => unknown> = {
      "lines are cut": () => {
        for (const link of [sender, readers[0]]) place.proxy(link).cut();
      },
      "kill -9": restart,
      "replies to the sender and a reader are lost": () =>
        Promise.all(
          [sender, readers[1]].map((link) => place.proxy(link).loseReply()),
        ),
      "a cook dies with what it has in hand": async () => {
        await holdUp(cooks[1]);
        place.kill(cooks[1].link);
      },
      "all lines are cut": () => place.run("CLIENT", "KILL", "TYPE", "normal"),
      "a cook is silent, longer than its lease": async () => {
        await holdUp(cooks[2]);
        const proxy = place.proxy(cooks[2].link);
        proxy.hold();
        left = [...cooks[2].hand];
        await until(
          "others have it",
          () => left.every((order) => served.has(order)),
        );
        proxy.release();
        cooks[2].gate.open();
      },
      "kill -9 again": restart,
      "a reply to a cook is lost": () => place.proxy(cooks[0].link).loseReply(),
    };
    const sendMany = async (batches: number) => {
      for (const _ of range(batches)) await send(50);
    };
    for (const fault of Object.values(faults)) {
      await sendMany(10);
      await Promise.all([fault(), sendMany(15)]);
    }
    const all = [...seen, served];
    await until("all have come", () => all.every(({ size }) => size === sent));
    assert(sent >= 10_000);
    assert(left.length > 0 && served.repeats >= left.length);
    console.log(`${all.map(({ repeats }) => repeats)} repeats`);
    const whole = [...readers, cooks[0].link, cooks[2].link] as typeof readers;
    const states = whole.flatMap(({ states }) => states);
    assertEquals(states.filter(({ state }) => state === "gap"), []);
  },
  { durable: true },
);

test("Bus.connect() over redisLink(): each event once, wherever it was published", async (place) => {
  const buses = range(3).map((n) =>
    new Bus<{ order: number; served: number }>({ name: `bus ${n}` })
  );
  const got = buses.map(() => [] as string[]);
  for (const [i, bus] of buses.entries()) {
    bus.on("*", ({ type, data }) => void got[i].push(`${type} ${data}`));
    await bus.connect(await place.link());
  }
  for (const n of range(30)) {
    await buses[n % 3].publish(n % 2 ? "served" : "order", n);
  }
  await until("all have all", () => got.every(({ length }) => length === 30));
  const expected = range(30).map((n) => `${n % 2 ? "served" : "order"} ${n}`);
  for (const some of got) assertEquals(some.sort(), expected.toSorted());
  for (const bus of buses) await bus.close();
});

test("redisLink() tells of a gap before what comes after it", async (place) => {
  const [sender, receiver] = [await place.link(), await place.link()];
  const happened: unknown[] = [];
  receiver.onState = ({ state }) => void happened.push(state);
  await receiver.receive("orders", ({ data }) => void happened.push(data));
  await sender.send("orders", events(0, 1));
  await until("they come", () => happened.length === 2);
  const proxy = place.proxy(receiver);
  proxy.closed = true;
  proxy.cut();
  await until("it is cut off", () => happened.length === 3);
  await place.run("FLUSHALL");
  await sender.send("orders", events(2)); // it would be read without a wait
  proxy.closed = false;
  await until("it comes", () => happened.includes(2));
  assertEquals(happened.slice(0, 5), [0, 1, "down", "gap", 2]);
});

test(
  "redisLink() tells of a gap although there is always something to read",
  async (place) => {
    const [sender, receiver] = [await place.link(), await place.link()];
    const seen = await collect(receiver);
    await sender.send("orders", events(0, 1, 2));
    await until("they come", () => seen.length === 3);
    await place.run("FLUSHALL");
    let count = 3;
    await until("it is told", async () => {
      await sender.send("orders", events(count));
      count++;
      await until("it comes", () => seen.length === count);
      return receiver.states.length > 0;
    });
    assertEquals(
      receiver.states.map(({ state, lost }) => [state, lost]),
      [["gap", undefined]],
    );
  },
  {},
  ONE_CLIENT,
);

test("redisLink() does not count as lost what a server has forgotten after it was read", async (place) => {
  const [sender, receiver] = [await place.link(), await place.link()];
  const seen = await collect(receiver);
  await sender.send("orders", events(...range(10)));
  await until("they come", () => seen.length === 10);
  const proxy = place.proxy(receiver);
  const cutOff = async (meanwhile: () => Promise<unknown>) => {
    const { length } = receiver.states;
    proxy.closed = true;
    proxy.cut();
    await until("it is cut off", () => receiver.states.length > length);
    await meanwhile();
    proxy.closed = false;
  };
  await cutOff(async () => {
    // As a server does that has not written the last three to its file.
    const all = await place.run("XRANGE", "bus:orders", "-", "+") as [string][];
    const ids = all.map(([id]) => id);
    await place.run("XDEL", "bus:orders", ...ids.slice(-3));
    const back = ["XSETID", "bus:orders", ids[6], "ENTRIESADDED", "7"];
    await place.run(...back);
    await sender.send("orders", events(10, 11));
  });
  await until("they come", () => seen.length === 12);
  await cutOff(() => sender.send("orders", events(12))); // it looks for gaps now
  await until("it comes", () => seen.length === 13);
  assertEquals(seen, range(13));
  const gaps = receiver.states.filter(({ state }) => state === "gap");
  assertEquals(gaps.map(({ lost }) => lost), [undefined]);
});

test("redisLink.close() waits until the server knows what is done", async (place) => {
  const [sender, receiver] = [await place.link(), await place.link()];
  const COUNT = 2000;
  let closed: Promise<void> | undefined;
  await sender.send("orders", events(...range(COUNT)));
  let seen = 0;
  await receiver.receive("orders", () => {
    if (++seen === 256) closed = receiver.close();
  }, { group: "kitchen", from: "all" });
  await until("it is closed", () => closed !== undefined);
  await closed;
  place.kill(receiver); // as if its client were closed now
  const pending = await place.run("XPENDING", "bus:orders", "kitchen");
  assertEquals((pending as unknown[])[0], 0);
});

test("redisLink.receive() that is under way when the link is closed is refused", async (place) => {
  const connections = async () =>
    String(await place.run("CLIENT", "LIST")).trim().split("\n").length;
  for (const options of [{}, { group: "kitchen" }]) {
    const link = await place.link();
    const before = await connections();
    const received = assertRejects(
      () => link.receive("orders", () => {}, options),
      RedisError,
      "the link has been closed",
    );
    await link.close();
    await received;
    await until(
      "no connection is left",
      async () => await connections() === before,
    );
  }
});

test("redisLink() keeps to maxInFlight while some are done and others are not", async (place) => {
  for (const group of [undefined, "kitchen"]) {
    const link = await place.link();
    const COUNT = 9;
    await link.send(`${group}`, events(...range(COUNT)));
    const ends: (() => void)[] = [];
    let [seen, most] = [0, 0];
    await link.receive(`${group}`, () => {
      seen++;
      return new Promise((end) => {
        most = Math.max(most, ends.push(end));
      });
    }, { ...group && { group }, maxInFlight: 3, from: "all" });
    for (const n of range(COUNT)) {
      await until("as many as may be", () => seen === Math.min(n + 3, COUNT));
      ends.shift()!();
    }
    assertEquals(most, 3);
  }
});

test("redisLink(): what a sink returns that is no promise is no failure", async (place) => {
  await using link = await place.link();
  const seen: [number, number][] = [];
  const sink = (
    { data }: Parameters<Sink>[0],
    { attempt }: Parameters<Sink>[1],
  ): unknown => seen.push([data as number, attempt]);
  await link.receive("orders", sink as Sink);
  await link.send("orders", events(1));
  await until("it comes", () => seen.length === 1);
  await link.send("orders", events(2));
  await until("it comes", () => seen.length === 2);
  assertEquals(seen, [[1, 1], [2, 1]]);
});

test("redisLink.send() of nothing says nothing", async (place) => {
  const link = await place.link({ timeout: 300 });
  place.cutOff(link);
  await assertRejects(() => link.send("orders", events(1)), RedisError);
  const circle: unknown[] = [];
  circle.push(circle);
  await link.send("orders", []);
  await link.send("orders", [{ ...events(1)[0], data: circle }] as never);
  assertEquals(link.states.map(({ state }) => state), ["down", "bad"]);
});

test("redisLink.receive() refuses a key of another type", async (place) => {
  const link = await place.link();
  await place.run("SET", "bus:orders", "no stream");
  for (const options of [{}, { group: "kitchen" }]) {
    await assertRejects(
      () => link.receive("orders", () => {}, options),
      RedisError,
      "WRONGTYPE",
    );
  }
  await assertRejects(
    () => link.send("orders", events(1)),
    RedisError,
    "WRONGTYPE",
  );
  assertEquals(link.states, []);
});

/** A server that gives one event and then is silent, or fails; and a clock that runs a hundred times as fast. */
function oddServer(failure?: string) {
  const { setTimeout } = globalThis;
  let silent = false;
  const sent: string[] = [];
  const reply = (command: string[]): unknown => {
    const name = command.join(" ");
    sent.push(name);
    if (silent) return new Promise(() => {});
    if (name.includes("XCLAIM")) return [0]; // none to be taken over
    if (name.includes("CREATE")) return 1;
    if (name.includes("XINFO")) {
      return name.includes("GROUPS") ? -1 : [0, 0, "0-0", []];
    }
    if (command[0] === "CLIENT") return 1;
    if (failure !== undefined) throw new Error(failure);
    const events = [["1-1", ["event", encodeEvent(anEvent), "text", "1"]]];
    silent = true;
    return [["key", events]];
  };
  const make = () => ({
    isOpen: true,
    isReady: true,
    sendCommand: (command: string[]) => Promise.resolve(command).then(reply),
    duplicate: make,
    connect: () => Promise.resolve(),
    on() {},
    destroy() {},
    disconnect() {},
  });
  const [anEvent] = events(1);
  const delays: number[] = [];
  const hurry = (then: () => void, ms: number) => {
    delays.push(ms);
    return setTimeout(then, ms / 100);
  };
  const connections = () => sent.filter((name) => name === "CLIENT ID").length;
  return {
    client: make(),
    sent,
    delays,
    connections,
    ...replaceGlobals({ setTimeout: hurry }),
  };
}

Deno.test("redisLink() notices a silent server, however long one would wait for it, asks it once, and closes", async () => {
  for (const group of [undefined, "kitchen"]) {
    using server = oddServer();
    const link = redisLink(server.client, { timeout: Infinity, leaseTime: 30 });
    let got = 0;
    await link.receive("orders", () => {
      got++;
      return new Promise(() => {});
    }, group === undefined ? {} : { group });
    await until("it has one", () => got === 1);
    await until("it tries again and again", () => server.connections() > 3);
    const renewals = server.sent.filter((name) => name.includes("JUSTID"));
    assertEquals(renewals.length, group === undefined ? 0 : 1);
    await link.close();
  }
});

Deno.test("a group that is gone again and again is made again, with longer and longer pauses", async () => {
  const gone = "NOGROUP No such key 'orders' or consumer group 'queue'";
  for (const what of ["queue", "link"]) {
    using server = oddServer(gone);
    const options = { timeout: 60_000, leaseTime: 60_000 };
    const queue = new RedisQueue(server.client, "orders", options);
    const link = redisLink(server.client, options);
    const states: unknown[] = [];
    link.onState = (state) => states.push(state);
    if (what === "queue") follow(queue.receive());
    else await link.receive("orders", () => {}, { group: "kitchen" });
    const pauses = () => server.delays.filter((ms) => ms > 5 && ms <= 2000);
    await until("it tries again and again", () => pauses().length > 8);
    pauses().slice(0, 9).forEach((pause, i) => {
      const longest = Math.min(50 * 2 ** i, 2000);
      assert(longest / 2 <= pause && pause <= longest, `${what}: ${pauses()}`);
    });
    await link.close();
    await queue.close();
    assert(states.every((state) => (state as LinkState).state === "gap"));
  }
});

Deno.test("RedisQueue notices a silent server, however long one would wait for it, and closes", async () => {
  using server = oddServer();
  const queue = new RedisQueue(server.client, "orders", { timeout: Infinity });
  assertEquals((await queue.receive()).value, 1);
  const refused = assertRejects(() => queue.receive(), QueueClosedError);
  await until("it tries again and again", () => server.connections() > 3);
  await queue.close();
  await refused;
});

Deno.test("RedisQueue.close() and redisLink.close() leave nobody waiting for a silent server, however long one would", async () => {
  using server = oddServer();
  const options = { timeout: Infinity };
  const queue = new RedisQueue(server.client, "orders", options);
  const link = redisLink(server.client, options);
  const lease = await queue.receive(); // from now on it is silent
  const waiting = [
    queue.send(2),
    queue.size(),
    queue.deadLetters(),
    lease.done(),
    link.send("orders", events(1)),
    link.receive("orders", () => {}),
    link.receive("orders", () => {}, { group: "kitchen" }),
  ].map((promise) => follow<unknown>(promise));
  for (const _ of range(9)) await null; // all have left
  await Promise.all([queue.close(), link.close()]);
  await until(
    "all are refused",
    () => waiting.every(({ state }) => state === "rejected"),
  );
  for (const { error } of waiting) assert(error instanceof RedisError);
  await assertRejects(() => lease.done(), RedisError);
  await assertRejects(() => queue.size(), RedisError);
});

Deno.test("redisLink() checks its options, and touches nothing", () => {
  const client = {
    isOpen: true,
    isReady: true,
    sendCommand: () => Promise.reject(new Error("sent")),
    duplicate: () => {
      throw new Error("duplicated");
    },
  };
  redisLink(client);
  assertThrows(() => redisLink({} as never), TypeError, "client must be");
  for (
    const name of [
      "maxLength",
      "maxWaiting",
      "maxSize",
      "maxDeliveries",
      "leaseTime",
      "timeout",
    ]
  ) {
    assertThrows(
      () => redisLink(client, { [name]: 0 }),
      RangeError,
      `${name} must be`,
    );
  }
  for (const leaseTime of [Infinity, 2 ** 31]) { // longer than a timer
    assertThrows(
      () => redisLink(client, { leaseTime }),
      RangeError,
      "leaseTime must be an integer up to 2147483647",
    );
  }
  assertThrows(() => redisLink(client, { prefix: 1 as never }), TypeError);
});
