// The options that people give their clients of Redis, and clients that are none.
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import {
  createClientPool,
  createCluster,
  createSentinel,
  RESP_TYPES,
} from "redis";
import type { LinkEvent } from "../../link.ts";
import { type RedisClient, redisLink, RedisQueue } from "../../redis.ts";
import { follow, range } from "../_helpers.ts";
import {
  CLIENTS,
  insist,
  RedisServer,
  testByEachClient,
  type TestClient,
  until,
} from "./_server.ts";

const { "node-redis 6": nodeRedis, ...likeIoredis } = CLIENTS;
const likeNodeRedis = { "node-redis 6": nodeRedis };
const replies = (typeMapping: object) => ({ commandOptions: { typeMapping } });

/** Options that change commands or replies, and which clients have them. */
const variants: [what: string, own: object, clients: typeof CLIENTS][] = [
  ["a password", { password: "right" }, CLIENTS],
  ["another database", { database: 3 }, likeNodeRedis],
  ["another database", { db: 3 }, likeIoredis],
  ["RESP 2", { RESP: 2 }, likeNodeRedis],
  ["maps", replies({ [RESP_TYPES.MAP]: Map }), likeNodeRedis],
  ["lists for maps", replies({ [RESP_TYPES.MAP]: Array }), likeNodeRedis],
  ["numbers as text", replies({ [RESP_TYPES.NUMBER]: String }), likeNodeRedis],
  ["numbers as text", { stringNumbers: true }, likeIoredis],
  ["no offline queue", { disableOfflineQueue: true }, likeNodeRedis],
  ["no offline queue", { enableOfflineQueue: false }, likeIoredis],
  ["pipelining", { enableAutoPipelining: true }, likeIoredis],
];

for (const [what, own, clients] of variants) {
  const { password } = own as { password?: string };
  testByEachClient(
    `RedisQueue and redisLink() with ${what}`,
    async (connect) => {
      await using server = await RedisServer.start({ password });
      using caller = await connect(server.port, { own });
      await carriesValues(caller);
      await carriesEvents(caller);
    },
    clients,
  );
}

/** Shorter than a read that waits, longer than from one renewal to the next: see `waitsForLong`. */
const PATIENCE = 900;

const impatient: [own: object, clients: typeof CLIENTS][] = [
  [{ commandTimeout: PATIENCE, socketTimeout: PATIENCE }, likeIoredis],
  [{ socket: { socketTimeout: PATIENCE } }, likeNodeRedis],
];

for (const [own, clients] of impatient) {
  testByEachClient(
    "RedisQueue and redisLink() with little patience",
    async (connect) => {
      await using server = await RedisServer.start();
      using caller = await connect(server.port, { own });
      using patient = await connect(server.port);
      await waitsForLong(caller, patient);
    },
    clients,
  );
}

testByEachClient(
  "RedisQueue and redisLink() refuse a keyPrefix",
  async (connect) => {
    await using server = await RedisServer.start();
    const own = { keyPrefix: "app:" };
    using caller = await connect(server.port, { own });
    for (
      const attempt of [
        () => new RedisQueue(caller.client, "orders"),
        () => redisLink(caller.client),
      ]
    ) {
      assertThrows(attempt, TypeError, 'keyPrefix must be none, got "app:"');
    }
  },
  likeIoredis,
);

Deno.test("RedisQueue and redisLink() refuse clients of more than one server", () => {
  const socket = { host: "127.0.0.1", port: 1 }; // where nobody is
  const clients: unknown[] = [
    createCluster({ rootNodes: [{ socket }] }),
    createSentinel({ name: "x", sentinelRootNodes: [socket] }),
    createClientPool({ socket }),
    { call() {}, duplicate() {}, isCluster: true }, // as ioredis has it
  ];
  for (const client of clients as RedisClient[]) {
    for (
      const attempt of [
        () => new RedisQueue(client, "orders"),
        () => redisLink(client),
      ]
    ) {
      const { message } = assertThrows(attempt, TypeError);
      assertStringIncludes(message, "client must be");
      assertStringIncludes(message, "of one server");
    }
  }
});

/** Gives back, and takes over. */
async function carriesValues({ client, run }: TestClient): Promise<void> {
  const states: unknown[] = [];
  await using queue = new RedisQueue<number>(client, "values", {
    onState: (state) => void states.push(state),
  });
  for (const n of [1, 2]) await queue.send(n);
  const first = await queue.receive();
  assertEquals([await queue.size(), await queue.pending()], [1, 1]);
  await first[Symbol.asyncDispose]();
  const read = "XREADGROUP GROUP queue dead COUNT 1 STREAMS values >";
  await run(...read.split(" ")); // somebody takes one
  const look = "XPENDING values queue - + 1".split(" ");
  const [[entry]] = await run(...look) as [string][];
  const old = `XCLAIM values queue dead 0 ${entry} IDLE 3600000 JUSTID`;
  await run(...old.split(" ")); // and has died with it an hour ago
  await using heir = new RedisQueue<number>(client, "values");
  const seen: number[][] = [];
  for (const _ of range(2)) {
    const lease = await heir.receive();
    seen.push([lease.value, lease.deliveries]);
    assertEquals(await lease.done(), true);
  }
  assertEquals(seen.sort(), [[1, 2], [2, 2]]);
  assertEquals([await queue.size(), await queue.pending()], [0, 0]);
  assertEquals(states, []);
}

function event(data: unknown): LinkEvent {
  return { id: `event-${data}`, type: "order", source: "test", time: 1, data };
}

/** Goes on where it was when lines are cut, and tells of no gap. */
async function carriesEvents({ client, run }: TestClient): Promise<void> {
  const link = redisLink(client);
  const states: string[] = [];
  link.onState = ({ state }) => void states.push(state);
  try {
    const seen: unknown[] = [];
    const sink = ({ data }: LinkEvent) => void seen.push(data);
    await link.receive("events", sink);
    await link.receive("events", sink, { group: "kitchen" });
    await link.send("events", [event(0)]);
    await link.send("events", [event(1), event(2)]);
    await until("they come", () => seen.length === 6);
    assertEquals(states, []);
    await run("CLIENT", "KILL", "TYPE", "normal");
    await insist(() => link.send("events", [event(3)]));
    await until("it comes", () => seen.length === 8);
    assertEquals(seen.sort(), [0, 0, 1, 1, 2, 2, 3, 3]);
    assertEquals(states.includes("gap"), false);
  } finally {
    await link.close();
  }
}

/** Has reads that wait for longer than the client would. */
async function waitsForLong(
  { client }: TestClient,
  { run }: TestClient,
): Promise<void> {
  const states: unknown[] = [];
  const onState = (state: unknown) => void states.push(state);
  // A read waits for half of it, and renewals keep the client's own connection busy.
  const leaseTime = 2000;
  await using queue = new RedisQueue<string>(client, "values", {
    leaseTime,
    onState,
  });
  await using link = redisLink(client, { leaseTime });
  link.onState = onState;
  const seen: unknown[] = [];
  const sink = ({ data }: LinkEvent) => void seen.push(data);
  await link.receive("events", sink);
  await link.receive("events", sink, { group: "kitchen" });
  await queue.send("soup");
  const held = await queue.receive();
  const waiting = follow(queue.receive());
  const reads = async () => {
    const info = String(await run("INFO", "commandstats"));
    return [/xread:calls=(\d+)/, /xreadgroup:calls=(\d+)/]
      .map((calls) => Number(calls.exec(info)?.[1] ?? 0));
  };
  const [toAll, toGroups] = await reads();
  await until("each read has waited to its end", async () => {
    const [one, others] = await reads();
    return one > toAll && others > toGroups + 2;
  });
  await queue.send("fish");
  await link.send("events", [event("fish")]);
  await until("they come", () => waiting.state === "resolved");
  await until("they come", () => seen.length === 2);
  assertEquals(waiting.value!.value, "fish");
  for (const lease of [held, waiting.value!]) {
    assertEquals(await lease.done(), true);
  }
  assertEquals(states, []);
}
