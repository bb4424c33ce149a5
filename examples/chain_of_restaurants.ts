/**
 * A chain of restaurants: front of house, kitchens and a bookkeeper, each in a
 * process of its own, on one Redis. A kitchen burns down in the middle, and every
 * order is served nevertheless.
 *
 *     deno task demo:chain [--orders N] [--kitchens N]
 *
 * It needs Debian's `redis-server`, and starts one of its own.
 *
 * Two durable queues carry the work: orders to the kitchens, slips to the
 * bookkeeper. What everybody may hear crosses a bus: what was served, and the end
 * of the day.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createClient } from "redis";
import { Bus } from "../mod.ts";
import { redisLink, RedisQueue } from "../redis.ts";

interface Order {
  number: number;
  dish: string;
  portions: number;
}

/** What a kitchen writes for the bookkeeper. */
interface Slip {
  kitchen: string;
  order: Order;
}

/** What everybody may hear. */
interface Announcements {
  served: Slip;
  /** Front of house takes no more orders; so many there were. */
  closed: { orders: number; portions: number };
  /** The bookkeeper is done: go home. */
  cashed: undefined;
}

const HOST = "127.0.0.1";
const DISHES = ["soup", "steak", "sorbet"];
const { values: options, positionals: [role = "head office", name = ""] } =
  parseArgs({
    allowPositionals: true,
    options: {
      orders: { type: "string", default: "300" },
      kitchens: { type: "string", default: "3" },
      port: { type: "string", default: "" },
    },
  });

const roles: Record<string, () => Promise<void>> = {
  "head office": headOffice,
  "front of house": frontOfHouse,
  kitchen,
  bookkeeper,
};
await roles[role]();

/** What everybody has: a place at the server, in a restaurant of the chain. */
async function enter() {
  const client = createClient({
    socket: { host: HOST, port: Number(options.port) },
  });
  client.on("error", (error) => console.error(role, name, String(error)));
  await client.connect();
  const leaseTime = 1000; // a second after its last sign of life, a kitchen is given up
  const orders = new RedisQueue<Order>(client, "orders", { leaseTime });
  const slips = new RedisQueue<Slip>(client, "slips", { leaseTime });
  const bus = new Bus<Announcements>({ name });
  const link = redisLink(client);
  await bus.connect(link);
  const leave = async () => {
    await Promise.all([orders.close(), slips.close(), bus.close()]);
    await link.close();
    client.destroy();
  };
  return { orders, slips, bus, [Symbol.asyncDispose]: leave };
}

async function frontOfHouse() {
  await using place = await enter();
  let portions = 0;
  const count = Number(options.orders);
  for (let number = 0; number < count; number++) {
    const dish = DISHES[number % DISHES.length];
    const order = { number, dish, portions: 1 + number % 5 };
    await place.orders.send(order); // the server has it now
    portions += order.portions;
  }
  await place.bus.publish("closed", { orders: count, portions });
  console.log(`front of house: ${count} orders, ${portions} portions`);
}

async function kitchen() {
  await using place = await enter();
  const evening = new AbortController();
  place.bus.on("cashed", () => evening.abort());
  console.log(`${name}: open`); // nobody may call it a day before it listens
  const cook = async () => {
    for (;;) {
      using lease = await place.orders.receive({ signal: evening.signal });
      const order = lease.value;
      await new Promise((done) => setTimeout(done, 2)); // the secret sauce
      const slip = { kitchen: name, order };
      await place.slips.send(slip); // first: who dies between the two cooks again
      await lease.done();
      await place.bus.publish("served", slip);
    }
  };
  await Promise.all([until(evening, cook()), until(evening, cook())]);
}

/** Resolves once `work` has been ended by the end of the day. */
async function until(evening: AbortController, work: Promise<void>) {
  try {
    await work;
  } catch (error) {
    if (!evening.signal.aborted) throw error;
  }
}

async function bookkeeper() {
  await using place = await enter();
  const evening = new AbortController();
  const served = new Map<number, Order>();
  let again = 0;
  let expected = Infinity;
  const count = () => {
    if (served.size === expected) evening.abort();
  };
  place.bus.on("closed", ({ data }) => { // perhaps after the last slip
    expected = data.orders;
    count();
  });
  console.log("bookkeeper: here"); // nobody may close before it listens
  const write = async () => {
    for await (using lease of place.slips.values(evening)) {
      const { order } = lease.value;
      if (served.has(order.number)) again++; // at least once: repeats happen
      served.set(order.number, order);
      await lease.done();
      count();
    }
  };
  await until(evening, write());
  const portions = [...served.values()].reduce(
    (sum, order) => sum + order.portions,
    0,
  );
  console.log(`bookkeeper: ${served.size} orders, ${portions} portions`);
  console.log(`bookkeeper: ${again} of them were served twice`);
  await place.bus.publish("cashed");
}

/** Opens the restaurants, burns one down, and compares the books. */
async function headOffice() {
  const folder = mkdtempSync(join(tmpdir(), "chain-"));
  const children: ChildProcess[] = [];
  try {
    options.port = String(await startRedis(folder, children));
    const said: string[] = [];
    const open = (role: string, name = "") => {
      const child = startRole(role, name);
      children.push(child);
      child.stdout!.setEncoding("utf8").on("data", (text: string) => {
        said.push(...text.trim().split("\n"));
        process.stdout.write(text);
      });
      return child;
    };
    await using place = await enter();
    const names = Array.from(
      { length: Number(options.kitchens) },
      (_, i) => `kitchen ${i + 1}`,
    );
    const served = new Map(names.map((name) => [name, 0]));
    const enough = Number(options.orders) / names.length / 4;
    let burning: ChildProcess | undefined;
    place.bus.on("served", ({ data }) => {
      const count = served.get(data.kitchen)! + 1;
      served.set(data.kitchen, count);
      if (data.kitchen !== names[0] || count < enough) return;
      if (burning?.kill("SIGKILL")) console.log(`${names[0]}: burns down`);
      burning = undefined;
    });
    const books = open("bookkeeper");
    await heard(books, "here");
    const kitchens = names.map((name) => open("kitchen", name));
    await Promise.all(kitchens.map((kitchen) => heard(kitchen, "open")));
    const [first, ...others] = kitchens;
    burning = names.length > 1 ? first : undefined;
    const front = open("front of house");
    await Promise.all([front, books, ...others].map(ended));
    for (const [name, count] of served) {
      console.log(`${name}: served ${count}`);
    }
    const totals = said.filter((line) => /orders, /.test(line))
      .map((line) => line.replace(/^.*: /, ""));
    const match = totals.length === 2 && totals[0] === totals[1];
    console.log(match ? "the totals match" : "THE TOTALS DIFFER");
    process.exitCode = match ? 0 : 1;
  } finally {
    for (const child of children) child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Starts this program once more, in another role. */
function startRole(role: string, name: string): ChildProcess {
  const file = fileURLToPath(import.meta.url);
  const flags = "Deno" in globalThis ? ["run", "-A"] : [];
  const { orders, port } = options;
  const rest = ["--orders", orders, "--port", port];
  return spawn(process.execPath, [...flags, file, role, name, ...rest], {
    stdio: ["ignore", "pipe", "inherit"],
  });
}

/** Resolves once a process has said something. */
function heard(child: ChildProcess, what: string): Promise<void> {
  return new Promise((resolve, reject) => {
    child.stdout!.on("data", (text: string) => {
      if (text.includes(what)) resolve();
    });
    child.once("exit", (code) => reject(new Error(`It ended with ${code}`)));
  });
}

/** Resolves once a process has ended well. */
function ended(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once("exit", (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(`${child.spawnargs} ended with ${code ?? signal}`));
    });
  });
}

/** Starts a Redis that writes down what it is told; resolves with its port. */
async function startRedis(
  folder: string,
  children: ChildProcess[],
): Promise<number> {
  const binary = "/usr/bin/redis-server";
  if (!existsSync(binary)) {
    throw new Error(`${binary} is missing: apt-get install redis-server`);
  }
  const port = await new Promise<number>((resolve) => {
    const server = createServer().listen(0, HOST, () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
  const redis = spawn(binary, [
    ...["--port", `${port}`, "--bind", HOST, "--dir", folder],
    ...["--appendonly", "yes", "--maxmemory-policy", "noeviction"],
  ], { stdio: ["ignore", "pipe", "inherit"] });
  children.push(redis);
  redis.stdout.setEncoding("utf8");
  await heard(redis, "Ready to accept connections");
  return port;
}
