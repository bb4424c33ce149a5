// What a RedisQueue makes of a server that dies, a line that is cut, and worse.
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import {
  type Lease,
  RedisError,
  RedisQueue,
  type RedisState,
} from "../../redis.ts";
import { follow, range } from "../_helpers.ts";
import {
  Gate,
  insist,
  Proxy,
  RedisServer,
  Tally,
  testByEachClient,
  type TestClient,
  until,
} from "./_server.ts";

testByEachClient(
  "RedisQueue: kill -9 and a restart lose nothing with an append-only file",
  async (connect) => {
    await using server = await RedisServer.start({ durable: true });
    using own = await connect(server.port);
    const states: string[] = [];
    await using queue = new RedisQueue<number>(own.client, "orders", {
      leaseTime: 1000,
      timeout: 30_000,
      onState: ({ state }) => states.push(state),
    });
    for (const n of range(4)) await queue.send(n);
    const held = await queue.receive();
    assertEquals(await (await queue.receive()).done(), true);
    await server.kill();
    const later = follow(queue.receive());
    const [third] = [later];
    await server.start();
    await until("it comes", () => third.state === "resolved");
    assertEquals(third.value!.value, 2);
    await insist(() => third.value!.done());
    assertEquals(await insist(() => held.done()), true);
    const last = await queue.receive();
    assertEquals(last.value, 3);
    await insist(() => last.done());
    assertEquals(await own.run("XLEN", "orders"), 0);
    assert(!states.includes("gap"));
  },
);

testByEachClient(
  "RedisQueue: kill -9 and a restart without such a file are told as a gap",
  async (connect) => {
    await using server = await RedisServer.start();
    using own = await connect(server.port);
    const states: RedisState[] = [];
    await using queue = new RedisQueue<number>(own.client, "orders", {
      leaseTime: 300,
      timeout: 30_000,
      onState: (state) => states.push(state),
    });
    await queue.send(1);
    const held = await queue.receive();
    const waiting = follow(queue.receive());
    await server.kill();
    await until(
      "it is told",
      () => states.some(({ state }) => state === "down"),
    );
    await server.start();
    await until("it is told", () => states.at(-1)?.state === "up");
    await insist(() => queue.send(2));
    await until("it comes", () => waiting.state === "resolved");
    assertEquals(waiting.value!.value, 2);
    assertEquals(states.map(({ state }) => state), ["down", "gap", "up"]);
    assertEquals(await insist(() => held.done()), false);
    await waiting.value!.done();
  },
);

testByEachClient(
  "RedisQueue: a wrong password is refused at once",
  async (connect) => {
    await using server = await RedisServer.start({ password: "right" });
    using own = await connect(server.port, {
      password: "wrong",
      impatient: true,
    });
    await using queue = new RedisQueue<number>(own.client, "orders", {
      timeout: 35_000,
    });
    for (
      const attempt of [() => queue.receive(), () => queue.values().next()]
    ) {
      const error = await assertRejects(attempt, RedisError);
      assertStringIncludes(error.message, "WRONGPASS");
    }
    await assertRejects(() => queue.send(1), RedisError);
  },
);

testByEachClient(
  "RedisQueue: a server that is not there is refused in time",
  async (connect) => {
    await using server = await RedisServer.start();
    await server.kill();
    using own = await connect(server.port, { impatient: true });
    await using queue = new RedisQueue<number>(own.client, "orders", {
      timeout: 300,
    });
    const [received, next, sent, size] = await Promise.all([
      assertRejects(() => queue.receive(), RedisError),
      assertRejects(() => queue.values().next(), RedisError),
      assertRejects(() => queue.send(1), RedisError),
      assertRejects(() => queue.size(), RedisError),
    ]);
    for (const error of [received, next]) {
      assertStringIncludes(
        error.message,
        'Cannot receive from queue "orders": ',
      );
      assertStringIncludes(error.message, "ECONNREFUSED");
    }
    assertStringIncludes(sent.message, 'Cannot send to queue "orders": ');
    assertStringIncludes(size.message, 'Cannot count queue "orders": ');
  },
);

testByEachClient(
  "RedisQueue: a server that comes late is waited for",
  async (connect) => {
    await using server = await RedisServer.start();
    await server.kill();
    using own = await connect(server.port, { impatient: true });
    const states: string[] = [];
    await using queue = new RedisQueue<number>(own.client, "orders", {
      timeout: 30_000,
      onState: ({ state }) => states.push(state),
    });
    const received = follow(queue.receive());
    await until("it is down", () => states.length > 0);
    await server.start();
    await insist(() => queue.send(1));
    await until("it comes", () => received.state === "resolved");
    assertEquals(states, ["down", "up"]);
    assertEquals(await received.value!.done(), true);
  },
);

testByEachClient(
  "RedisQueue: a line that is cut again and again loses nothing",
  async (connect) => {
    await using server = await RedisServer.start();
    await using proxy = await Proxy.to(server);
    using own = await connect(proxy.port);
    await using queue = new RedisQueue<number>(own.client, "orders", {
      leaseTime: 200,
      maxDeliveries: Infinity,
      timeout: 5000,
    });
    const seen = new Set<number>();
    const reading = (async () => {
      for (;;) {
        using lease = await insist(() => queue.receive());
        if (lease.value < 0) return;
        await insist(() => lease.done());
        seen.add(lease.value);
      }
    })();
    for (const n of range(60)) {
      if (n % 10 === 9) proxy.cut();
      await insist(() => queue.send(n));
    }
    await until("all are seen", () => seen.size === 60);
    await insist(() => queue.send(-1));
    await reading;
  },
);

testByEachClient(
  "RedisQueue: replies that get lost are noticed, and what they had comes again",
  async (connect) => {
    await using server = await RedisServer.start();
    await using proxy = await Proxy.to(server);
    using own = await connect(proxy.port);
    using other = await connect(server.port);
    const states: string[] = [];
    await using queue = new RedisQueue<number>(own.client, "orders", {
      leaseTime: 200,
      timeout: 500,
      onState: ({ state }) => states.push(state),
    });
    await using sender = new RedisQueue<number>(other.client, "orders");
    await sender.send(1);
    const first = await queue.receive();
    await first.done();
    proxy.swallow = true; // nothing is cut: there is only silence
    const refused = assertRejects(() => queue.receive(), RedisError);
    await sender.send(2);
    await refused;
    assertEquals(states, ["down"]);
    proxy.swallow = false;
    proxy.cut(); // as the system would do, once it gives the connection up
    const again = await insist(() => queue.receive());
    assertEquals(again.value, 2);
    assert(again.deliveries >= 1);
    await insist(() => again.done());
  },
);

testByEachClient("RedisQueue.close() always returns", async (connect) => {
  await using server = await RedisServer.start();
  await using proxy = await Proxy.to(server);
  const all: Record<string, (queue: RedisQueue<number>) => Promise<void>> = {
    "at first": () => Promise.resolve(),
    "while it connects": (queue) => {
      follow(queue.receive());
      return Promise.resolve();
    },
    "while it waits": async (queue) => {
      await queue.send(1);
      await (await queue.receive()).done();
      follow(queue.receive());
      follow(queue.values().next());
    },
    "with leases": async (queue) => {
      await queue.send(1);
      await queue.receive();
    },
    "in silence": async (queue) => {
      await queue.send(1);
      await queue.receive();
      proxy.swallow = true;
      follow(queue.receive());
      follow(queue.send(2));
    },
    "without a server": async (queue) => {
      await server.kill();
      follow(queue.receive());
      follow(queue.send(1));
      await null;
    },
  };
  for (const [when, get] of Object.entries(all)) {
    proxy.swallow = false;
    using own = await connect(proxy.port);
    const queue = new RedisQueue<number>(own.client, "orders", {
      timeout: 500,
    });
    await get(queue);
    const closed = follow(queue.close());
    await until(`it has closed ${when}`, () => closed.state === "resolved");
    await queue.close();
    assertEquals(queue.held, 0);
  }
});

/** What a process has. */
interface Place {
  readonly queue: RedisQueue<number>;
  readonly proxy: Proxy;
  readonly client: TestClient;
}

/** Ten cooks of one process, who can be kept from going on. */
class Kitchen {
  readonly gate = new Gate();
  /** What they work at. */
  readonly hand = new Set<number>();
  readonly queue: RedisQueue<number>;
  readonly proxy: Proxy;
  readonly client: TestClient;
  readonly #cooks: Promise<void>[];

  constructor(
    { queue, proxy, client }: Place,
    handle: (lease: Lease<number>) => void,
  ) {
    this.queue = queue;
    this.proxy = proxy;
    this.client = client;
    this.#cooks = range(10).map(() => this.#cook(handle));
  }

  async #cook(handle: (lease: Lease<number>) => void): Promise<void> {
    while (!this.queue.closed) {
      try {
        using lease = await this.queue.receive();
        this.hand.add(lease.value);
        await this.gate.passed;
        this.hand.delete(lease.value);
        handle(lease);
        await lease.done();
      } catch {
        // the line is cut, or the queue has been closed
      }
    }
  }

  async close(): Promise<void> {
    await this.queue.close();
    this.gate.open();
    await Promise.all(this.#cooks);
  }
}

testByEachClient(
  "RedisQueue: 10,000 values, eight faults, and none is lost",
  async (connect) => {
    await using server = await RedisServer.start({ durable: true });
    const ends: (() => unknown)[] = [];
    await using _ = {
      async [Symbol.asyncDispose]() {
        for (const end of ends.reverse()) await end();
      },
    };
    const states: string[] = [];
    const options = {
      leaseTime: 500,
      maxDeliveries: Infinity,
      timeout: 2000,
      onState: ({ state }: RedisState) => states.push(state),
    };
    const join = async (): Promise<Place> => {
      const proxy = await Proxy.to(server);
      ends.push(() => proxy[Symbol.asyncDispose]());
      const client = await connect(proxy.port);
      ends.push(() => client[Symbol.dispose]());
      const queue = new RedisQueue<number>(client.client, "orders", options);
      ends.push(() => queue.close());
      return { proxy, client, queue };
    };
    const front = await join();
    const served = new Tally();
    const ids = new Set<string>(); // of what has been served
    const twice = new Set<number>(); // sent
    const unknown: number[] = []; // repeats that nobody could tell
    const kitchens: Kitchen[] = [];
    for (const _ of range(4)) {
      kitchens.push(
        new Kitchen(await join(), ({ id, value }) => {
          if (served.has(value) && !ids.has(id) && !twice.has(value)) {
            unknown.push(value);
          }
          served.add(value);
          ids.add(id);
        }),
      );
    }
    let sent = 0;
    const send = async (count: number) => {
      const values = range(count).map(() => sent++);
      await Promise.all(
        values.map((n) =>
          insist(() =>
            front.queue.send(n).catch((error) => {
              twice.add(n); // it may be in the queue
              throw error;
            })
          )
        ),
      );
    };
    const restart = async () => {
      await server.kill();
      await server.start();
    };
    const holdUp = async (kitchen: Kitchen) => {
      kitchen.gate.shut();
      await until("it has something in hand", async () => {
        await send(1);
        return kitchen.hand.size > 0;
      });
    };
    let left: number[] = []; // by the kitchen that is silent
    const faults: Record<string, () => unknown> = {
      "lines are cut": () => {
        for (const { proxy } of [front, kitchens[0]]) proxy.cut();
      },
      "kill -9": restart,
      "replies to the sender and a kitchen are lost": () =>
        Promise.all(
          [front, kitchens[1]].map(({ proxy }) => proxy.loseReply()),
        ),
      "a kitchen dies with what it has in hand": async () => {
        await holdUp(kitchens[1]);
        kitchens[1].proxy.closed = true;
        kitchens[1].proxy.cut();
        kitchens[1].client[Symbol.dispose]();
        void kitchens[1].queue.close(); // in vain: nobody hears of it
      },
      "all lines are cut": () =>
        front.client.run("CLIENT", "KILL", "TYPE", "normal"),
      "a kitchen is silent, longer than its leases": async () => {
        const { proxy, hand, gate } = kitchens[2];
        await holdUp(kitchens[2]);
        proxy.hold();
        left = [...hand];
        await until(
          "others have it",
          () => left.every((order) => served.has(order)),
        );
        proxy.release();
        gate.open();
      },
      "a kitchen closes with what it has in hand": async () => {
        await holdUp(kitchens[3]);
        await kitchens[3].close();
      },
      "kill -9 again": restart,
    };
    const sendMany = async (batches: number) => {
      for (const _ of range(batches)) await send(50);
    };
    for (const fault of Object.values(faults)) {
      await sendMany(10);
      await Promise.all([fault(), sendMany(15)]);
    }
    await until("all are served", () => served.size === sent);
    await until("nothing is left", async () => {
      const counts = await insist(() =>
        Promise.all([front.queue.size(), front.queue.pending()])
      );
      return counts.every((count) => count === 0);
    });
    assertEquals(await front.queue.deadLetters(), []);
    await Promise.all(
      [front, ...kitchens].map((it) =>
        it instanceof Kitchen ? it.close() : it.queue.close()
      ),
    );
    assert(sent >= 10_000);
    assert(left.length > 0 && served.repeats >= left.length);
    assertEquals(unknown, []);
    assert(!states.includes("gap"));
    console.log(`${served.repeats} served again, ${twice.size} sent again`);
  },
);
