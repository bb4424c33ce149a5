// The options that people give their clients of Redis.
import { assertEquals, assertThrows } from "@std/assert";
import type { LinkEvent } from "../../link.ts";
import { redisLink, RedisQueue } from "../../redis.ts";
import { range } from "../_helpers.ts";
import {
  CLIENTS,
  insist,
  RedisServer,
  testByEachClient,
  type TestClient,
  until,
} from "./_server.ts";

const { "node-redis 6": nodeRedis, ...likeIoredis } = CLIENTS;

/** Which options, and which clients have them. */
const variants: [what: string, own: object, clients: typeof CLIENTS][] = [
  ["a password", { password: "right" }, CLIENTS],
  ["RESP 2", { RESP: 2 }, { "node-redis 6": nodeRedis }],
  ["no offline queue", { disableOfflineQueue: true }, {
    "node-redis 6": nodeRedis,
  }],
  ["no offline queue", { enableOfflineQueue: false }, likeIoredis],
  ["pipelining", { enableAutoPipelining: true }, likeIoredis],
  ["numbers as text", { stringNumbers: true }, likeIoredis],
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

/** Gives back, and takes over. */
async function carriesValues({ client, run }: TestClient): Promise<void> {
  const options = { leaseTime: 100 };
  await using queue = new RedisQueue<number>(client, "values", options);
  for (const n of [1, 2]) await queue.send(n);
  const first = await queue.receive();
  assertEquals([await queue.size(), await queue.pending()], [1, 1]);
  await first[Symbol.asyncDispose]();
  const someone = "XREADGROUP GROUP queue dead COUNT 1 STREAMS values >";
  await run(...someone.split(" ")); // and dies with it
  const seen: number[][] = [];
  for (const _ of range(2)) {
    const lease = await queue.receive();
    seen.push([lease.value, lease.deliveries]);
    assertEquals(await lease.done(), true);
  }
  assertEquals(seen.sort(), [[1, 2], [2, 2]]);
  assertEquals([await queue.size(), await queue.pending()], [0, 0]);
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
    const [one, two, three, four] = range(4).map((data) => ({
      id: `event-${data}`,
      type: "order",
      source: "test",
      time: 1,
      data,
    }));
    await link.send("events", [one]);
    await link.send("events", [two, three]);
    await until("they come", () => seen.length === 6);
    await run("CLIENT", "KILL", "TYPE", "normal");
    await insist(() => link.send("events", [four]));
    await until("it comes", () => seen.length === 8);
    assertEquals(seen.sort(), [0, 0, 1, 1, 2, 2, 3, 3]);
    assertEquals(states.includes("gap"), false);
  } finally {
    await link.close();
  }
}
