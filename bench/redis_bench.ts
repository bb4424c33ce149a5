// How fast redisLink and RedisQueue are on a Redis that this program starts: the
// link beside the bare client with the same commands in the same batches, the
// queue beside BullMQ. Not one of the groups of run.mjs, since it needs a server.
//
//   deno run -A bench/redis_bench.ts [ROUNDS]     prints medians, ratios to the baseline
//
// It needs Debian's redis-server. Node 24 and Bun run it as well.

import { Queue as BullQueue, Worker as BullWorker } from "bullmq";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { createClient } from "redis";
import { encodeEvent, type LinkEvent } from "../link.ts";
import { redisLink, RedisQueue } from "../redis.ts";

const HOST = "127.0.0.1";
const ROUNDS = Number(process.argv[2] ?? 5);
const EVENTS = 30_000;
const BATCH = 64;
const IN_FLIGHT = 4; // batches
const JOBS = 3000;
const READERS = 50;

const folder = mkdtempSync(join(tmpdir(), "redis-bench-"));
const server = await start();
const clients: { destroy(): void }[] = [];

/** A round; resolves with how long it took, in ms, and latencies, if it has some. */
type Bench = () => Promise<{ ms: number; latencies?: number[] }>;

const event = (data: number): LinkEvent => ({
  id: `bench-${data}`,
  type: "order",
  source: "front-of-house",
  time: 1_700_000_000_000,
  data: { number: data, dish: "soup", table: 7 },
});

const link: Record<string, Bench> = {
  "the bare client": async () => {
    const [writer, reader] = [await connect(), await connect()];
    await writer.sendCommand(["FLUSHALL"]);
    let seen = 0;
    let last = "0-0";
    const since = performance.now();
    const reading = (async () => {
      while (seen < EVENTS) {
        const command = `XREAD COUNT 256 BLOCK 2000 STREAMS bench ${last}`;
        const reply = await reader.sendCommand(command.split(" "));
        const entries = (reply as unknown as Record<
          string,
          [string, [string, string]][]
        >).bench;
        for (const [id, [, text]] of entries) {
          last = id;
          JSON.parse(text);
          seen++;
        }
      }
    })();
    await inBatches((from) =>
      Promise.all(
        Array.from({ length: BATCH }, (_, i) =>
          writer.sendCommand([
            ..."XADD bench MAXLEN ~ 50000 * event".split(" "),
            encodeEvent(event(from + i)),
          ])),
      )
    );
    await reading;
    return { ms: performance.now() - since };
  },
  "redisLink": async () => {
    const [writer, reader] = [await connect(), await connect()];
    await writer.sendCommand(["FLUSHALL"]);
    const out = redisLink(writer, { maxLength: 50_000 });
    const into = redisLink(reader);
    let seen = 0;
    let done = () => {};
    const all = new Promise<void>((resolve) => done = resolve);
    await into.receive("bench", () => {
      if (++seen === EVENTS) done();
    });
    const since = performance.now();
    await inBatches((from) =>
      out.send(
        "bench",
        Array.from({ length: BATCH }, (_, i) => event(from + i)),
      )
    );
    await all;
    const ms = performance.now() - since;
    await Promise.all([out.close(), into.close()]);
    return { ms };
  },
};

const LATENCIES = 2000;

const latency: Record<string, Bench> = {
  "the bare client": async () => {
    const [writer, reader] = [await connect(), await connect()];
    await writer.sendCommand(["FLUSHALL"]);
    const latencies: number[] = [];
    let last = "0-0";
    const begin = performance.now();
    for (let n = 0; n < LATENCIES; n++) {
      const command = `XREAD COUNT 256 BLOCK 2000 STREAMS bench ${last}`;
      const read = reader.sendCommand(command.split(" "));
      const since = performance.now();
      const written = writer.sendCommand([
        ..."XADD bench MAXLEN ~ 50000 * event".split(" "),
        encodeEvent(event(n)),
      ]);
      const reply = await read as unknown as Record<
        string,
        [string, [string, string]][]
      >;
      for (const [id, [, text]] of reply.bench) {
        last = id;
        JSON.parse(text);
      }
      latencies.push(performance.now() - since);
      await written;
    }
    return { ms: performance.now() - begin, latencies };
  },
  "redisLink": async () => {
    const [writer, reader] = [await connect(), await connect()];
    await writer.sendCommand(["FLUSHALL"]);
    const [out, into] = [redisLink(writer), redisLink(reader)];
    const latencies: number[] = [];
    let arrived = () => {};
    await into.receive("bench", () => arrived());
    const begin = performance.now();
    for (let n = 0; n < LATENCIES; n++) {
      const here = new Promise<void>((resolve) => arrived = resolve);
      const since = performance.now();
      const sent = out.send("bench", [event(n)]);
      await here;
      latencies.push(performance.now() - since);
      await sent;
    }
    const ms = performance.now() - begin;
    await Promise.all([out.close(), into.close()]);
    return { ms, latencies };
  },
};

const queue: Record<string, Bench> = {
  "bullmq": async () => {
    const client = await connect();
    await client.sendCommand(["FLUSHALL"]);
    const connection = { host: HOST, port: server.port };
    const orders = new BullQueue("orders", { connection });
    await orders.waitUntilReady();
    let seen = 0;
    let done = () => {};
    const all = new Promise<void>((resolve) => done = resolve);
    const since = performance.now();
    const worker = new BullWorker("orders", () => {
      if (++seen === JOBS) done();
      return Promise.resolve();
    }, {
      connection,
      concurrency: READERS,
      removeOnComplete: { count: 0 },
    });
    await Promise.all(
      Array.from({ length: JOBS }, (_, n) => orders.add("order", { n })),
    );
    await all;
    await worker.close(); // waits for the last jobs to be done with
    const ms = performance.now() - since;
    await orders.close();
    return { ms };
  },
  "RedisQueue": async () => {
    const client = await connect();
    await client.sendCommand(["FLUSHALL"]);
    const orders = new RedisQueue<{ n: number }>(client, "orders");
    let seen = 0;
    const since = performance.now();
    const stop = new AbortController();
    const readers = Array.from({ length: READERS }, async () => {
      try {
        for (;;) {
          const lease = await orders.receive({ signal: stop.signal });
          await lease.done();
          if (++seen === JOBS) stop.abort();
        }
      } catch (error) {
        if (!stop.signal.aborted) throw error;
      }
    });
    await Promise.all(
      Array.from({ length: JOBS }, (_, n) => orders.send({ n })),
    );
    await Promise.all(readers);
    const ms = performance.now() - since;
    await orders.close();
    return { ms };
  },
};

try {
  await run(
    `${EVENTS} events, ${IN_FLIGHT} batches of ${BATCH} on their way`,
    link,
    EVENTS,
  );
  await run(`${LATENCIES} events, one after another`, latency, LATENCIES);
  await run(`${JOBS} values, ${READERS} readers, added and done`, queue, JOBS);
} finally {
  server.child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
}
process.exit();

/** Runs benches in turns; prints medians. */
async function run(
  name: string,
  benches: Record<string, Bench>,
  operations: number,
): Promise<void> {
  console.log(`\n${name}`);
  const samples: Record<string, number[]> = {};
  const latencies: Record<string, number[]> = {};
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [bench, once] of Object.entries(benches)) {
      const outcome = await once();
      for (const client of clients.splice(0)) client.destroy();
      if (round === 0) continue; // warm-up
      (samples[bench] ??= []).push(operations / outcome.ms);
      (latencies[bench] ??= []).push(...outcome.latencies ?? []);
    }
  }
  const [baseline] = Object.keys(benches);
  for (const bench of Object.keys(benches)) {
    const rate = quantile(samples[bench], 0.5);
    const ratio = rate / quantile(samples[baseline], 0.5);
    const spread = [0, 1].map((q) => quantile(samples[bench], q).toFixed(1));
    let line = `${bench.padEnd(16)} ${rate.toFixed(1).padStart(7)} k/s` +
      ` [${spread.join("-")}] ${ratio.toFixed(2)}x`;
    if (latencies[bench].length > 0) {
      const [p50, p99] = [0.5, 0.99].map((q) =>
        (quantile(latencies[bench], q) * 1000).toFixed(0)
      );
      line += `, p50 ${p50} us, p99 ${p99} us`;
    }
    console.log(line);
  }
}

function quantile(numbers: number[], q: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
}

/** Sends all events in batches, of which so many are on their way. */
async function inBatches(send: (from: number) => Promise<unknown>) {
  let next = 0;
  await Promise.all(Array.from({ length: IN_FLIGHT }, async () => {
    while (next < EVENTS) {
      const from = next;
      next += BATCH;
      await send(from);
    }
  }));
}

async function connect() {
  const client = createClient({ socket: { host: HOST, port: server.port } });
  client.on("error", () => {});
  await client.connect();
  clients.push(client);
  return client;
}

async function start(): Promise<{ port: number; child: ChildProcess }> {
  const port = await new Promise<number>((resolve) => {
    const listener = createServer().listen(0, HOST, () => {
      const { port } = listener.address() as { port: number };
      listener.close(() => resolve(port));
    });
  });
  const child = spawn("/usr/bin/redis-server", [
    ...["--port", `${port}`, "--bind", HOST, "--dir", folder, "--save", ""],
  ], { stdio: ["ignore", "pipe", "inherit"] });
  await new Promise<void>((resolve, reject) => {
    child.on("error", reject);
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      if (text.includes("Ready to accept connections")) resolve();
    });
  });
  return { port, child };
}
