// What callers set up for their own clients, and clients that are none.
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { Redis as IoRedis6 } from "ioredis";
import { Redis as IoRedis5 } from "ioredis-5";
import { Redis as IoValkey } from "iovalkey";
import {
  createClient,
  createClientPool,
  createCluster,
  createSentinel,
  RESP_TYPES,
} from "redis";
import type { LinkEvent } from "../../link.ts";
import { type RedisClient, redisLink, RedisQueue } from "../../redis.ts";
import { follow } from "../_helpers.ts";
import { NO_SERVER, RedisServer, until } from "./_server.ts";

const NOWHERE = { host: "127.0.0.1", port: 1 };

async function nodeRedis(port: number, options: object, socket: object = {}) {
  const client = createClient({ socket: { port, ...socket }, ...options });
  client.on("error", () => {});
  await client.connect();
  return { client, end: () => client.destroy() };
}

function ioredis(
  Redis: typeof IoRedis6 | typeof IoRedis5 | typeof IoValkey,
  options: object,
) {
  return (port: number) => {
    const client = new (Redis as typeof IoRedis6)({ port, ...options });
    client.on("error", () => {});
    return Promise.resolve({ client, end: () => client.disconnect() });
  };
}

const replies = (typeMapping: object) => ({ commandOptions: { typeMapping } });

/** Clients, each with something that changes commands, replies, or how long it waits. */
const clients: Record<
  string,
  (port: number) => Promise<{ client: RedisClient; end(): void }>
> = {
  "node-redis with maps": (port) =>
    nodeRedis(port, replies({ [RESP_TYPES.MAP]: Map })),
  "node-redis with lists for maps": (port) =>
    nodeRedis(port, replies({ [RESP_TYPES.MAP]: Array })),
  "node-redis with numbers as text": (port) =>
    nodeRedis(port, replies({ [RESP_TYPES.NUMBER]: String })),
  "node-redis with another database": (port) =>
    nodeRedis(port, { database: 3 }),
  "node-redis with little patience": (port) =>
    nodeRedis(port, {}, { socketTimeout: 450 }), // shorter than a read, longer than from one renewal to the next,
};
for (
  const [name, Redis] of Object.entries({
    "ioredis 6": IoRedis6,
    "ioredis 5": IoRedis5,
    iovalkey: IoValkey,
  })
) {
  Object.assign(clients, {
    [`${name} with another database`]: ioredis(Redis, { db: 3 }),
    [`${name} with little patience`]: ioredis(Redis, {
      commandTimeout: 200,
      socketTimeout: 200,
    }),
  });
}

for (const [name, connect] of Object.entries(clients)) {
  Deno.test({
    name: `RedisQueue and redisLink(), by ${name}`,
    ignore: NO_SERVER,
    async fn() {
      await using server = await RedisServer.start();
      const { client: own, end: endOwn } = await nodeRedis(server.port, {});
      const { client, end } = await connect(server.port);
      try {
        const reads = async () => {
          const info = await own.sendCommand(["INFO", "commandstats"]);
          return Number(/xreadgroup:calls=(\d+)/.exec(String(info))?.[1] ?? 0);
        };
        await useQueue(client, reads);
        await useLink(client);
      } finally {
        end();
        endOwn();
      }
    },
  });
}

async function useQueue(
  client: RedisClient,
  reads: () => Promise<number>,
): Promise<void> {
  const states: unknown[] = [];
  await using queue = new RedisQueue<string>(client, "orders", {
    leaseTime: 1000,
    onState: (state) => states.push(state),
  });
  await queue.send("soup");
  {
    await using _ = await queue.receive();
  }
  const again = await queue.receive();
  assertEquals([again.value, again.deliveries], ["soup", 2]);
  const waiting = follow(queue.receive());
  const before = await reads();
  await until("it has waited for long", async () => await reads() > before + 2);
  await queue.send("fish");
  await until("it comes", () => waiting.state === "resolved");
  assertEquals(waiting.value!.value, "fish");
  assertEquals([await queue.size(), await queue.pending()], [0, 2]);
  assertEquals(await again.done(), true);
  assertEquals(await waiting.value!.done(), true);
  assertEquals(states, []);
}

async function useLink(client: RedisClient): Promise<void> {
  const states: unknown[] = [];
  await using link = redisLink(client, { leaseTime: 500 });
  link.onState = (state) => states.push(state);
  const seen: [unknown[], unknown[]] = [[], []];
  await link.receive("orders", ({ data }) => void seen[0].push(data));
  await link.receive("orders", ({ data }) => void seen[1].push(data), {
    group: "kitchen",
  });
  const event = (data: number): LinkEvent => ({
    id: `${data}`,
    type: "order",
    source: "test",
    time: 1,
    data,
  });
  await link.send("orders", [event(1)]);
  await link.send("orders", [event(2), event(3)]);
  await until("they come", () => seen.flat().length === 6);
  assertEquals(seen, [[1, 2, 3], [1, 2, 3]]);
  assertEquals(states, []);
}

Deno.test("clients of more than one server are refused", () => {
  const clients: Record<string, unknown> = {
    cluster: createCluster({ rootNodes: [{ socket: NOWHERE }] }),
    sentinel: createSentinel({ name: "x", sentinelRootNodes: [NOWHERE] }),
    pool: createClientPool({ socket: NOWHERE }),
    "cluster of ioredis": { call() {}, duplicate() {}, isCluster: true },
  };
  for (const client of Object.values(clients) as never[]) {
    for (
      const make of [
        () => new RedisQueue(client, "orders"),
        () => redisLink(client),
      ]
    ) {
      const error = assertThrows(make, TypeError);
      assertStringIncludes(error.message, "client must be");
      assertStringIncludes(error.message, "of one server");
    }
  }
});
