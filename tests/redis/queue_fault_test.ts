// What a RedisQueue makes of a server that dies, a line that is cut, and worse.
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { RedisError, RedisQueue, type RedisState } from "../../redis.ts";
import { follow, range } from "../_helpers.ts";
import { Proxy, RedisServer, testByEachClient, until } from "./_server.ts";

/** Tries again until it succeeds. */
async function insist<R>(attempt: () => Promise<R>): Promise<R> {
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
    }
  }
}

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
      timeout: 200,
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
      timeout: 300,
    });
    await get(queue);
    const closed = follow(queue.close());
    await until(`it has closed ${when}`, () => closed.state === "resolved");
    await queue.close();
    assertEquals(queue.held, 0);
  }
});

testByEachClient(
  "RedisQueue: 10,000 values, eight faults, and none is lost",
  async (connect) => {
    await using server = await RedisServer.start({ durable: true });
    await using proxy = await Proxy.to(server);
    const COUNT = 10_000;
    const options = { leaseTime: 500, maxDeliveries: Infinity, timeout: 2000 };
    using front = await connect(proxy.port);
    const queues: RedisQueue<number>[] = [];
    const orders = new RedisQueue<number>(front.client, "orders", options);
    queues.push(orders);
    const handled = new Map<number, number>();
    let left = COUNT;
    const kitchens: Promise<void>[] = [];
    const clients: Disposable[] = [];
    /** A kitchen with ten cooks; returns how to stop it with all that it holds. */
    const kitchen = async (port: number) => {
      const client = await connect(port);
      clients.push(client);
      const queue = new RedisQueue<number>(client.client, "orders", options);
      queues.push(queue);
      for (let cook = 0; cook < 10; cook++) {
        kitchens.push((async () => {
          while (!queue.closed) {
            try {
              using lease = await queue.receive();
              const times = handled.get(lease.value) ?? 0;
              handled.set(lease.value, times + 1);
              if (times === 0) left--;
              await lease.done();
            } catch {
              // the line is cut, or the queue has been closed
            }
          }
        })());
      }
      return queue;
    };
    const [dying] = await Promise.all([
      kitchen(server.port),
      kitchen(proxy.port),
      kitchen(server.port),
    ]);
    /** What happens once so many are handled. */
    const faults: [number, () => unknown][] = [
      [500, () => proxy.cut()],
      [1500, async () => {
        await server.kill();
        await server.start();
      }],
      [3000, async () => {
        proxy.swallow = true;
        const { swallowed } = proxy;
        await until("a reply is lost", () => proxy.swallowed > swallowed);
        proxy.swallow = false;
        proxy.cut();
      }],
      [4000, () => front.run("CLIENT", "KILL", "TYPE", "normal")],
      [4500, () => dying.close()],
      [5500, async () => {
        await server.kill();
        await server.start();
      }],
      [7000, () => proxy.cut()],
      [8500, () => proxy.cut()],
    ];
    const happening = (async () => {
      for (const [count, happen] of faults) {
        await until("so many are handled", () => COUNT - left >= count);
        await happen();
      }
    })();
    let repeats = 0;
    const sending = range(10).map(async (sender) => {
      for (let n = sender; n < COUNT; n += 10) {
        await insist(() =>
          orders.send(n).catch((error) => {
            repeats++; // it may have been stored
            throw error;
          })
        );
      }
    });
    await Promise.all([happening, ...sending]);
    await until("all are handled", () => left === 0);
    await Promise.all(queues.map((queue) => queue.close()));
    await Promise.all(kitchens);
    for (const client of clients) client[Symbol.dispose]();
    assertEquals(handled.size, COUNT);
    const again = [...handled.values()].filter((times) => times > 1).length;
    console.log(`${again} of ${COUNT} handled again, ${repeats} sent again`);
  },
);
