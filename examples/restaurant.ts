/**
 * A restaurant. Front of house publishes orders; the kitchen makes the secret
 * sauce, in the one oven; the bookkeeper has written down what was served;
 * everyone goes home at shutdown, on Ctrl-C, or after eight hours.
 *
 *     deno task demo [FILE] [--ledger FILE] [--hours N] [--trace FOLDER] [--inspect]
 *
 * Each row of FILE is an order (CSV, .ndjson, .log; `-`: CSV by standard input).
 * Without FILE: flights between airports, "853 portions of ATL for ABE".
 * FOLDER gets two pictures: the way of the last order, and the last of the day.
 * With --inspect the restaurant takes its time, and can be looked at on a web page.
 */
import process from "node:process";
import { inspector } from "../inspector.ts";
import { Bus, type BusEvent, Queue, Serializer } from "../mod.ts";
import { Ledger } from "./ledger.ts";
import { serveHere } from "./node_http.ts";
import { readOptions } from "./options.ts";
import { type Order, orders } from "./orders.ts";
import { draw } from "./pictures.ts";
import { show, summary } from "./summary.ts";

const options = readOptions();
const bus = new Bus<{
  order: Order;
  served: Order;
  written: Order;
  shutdown: string;
  cleaned: undefined;
}>();
const pictures = options.trace === undefined
  ? undefined
  : draw(bus, options.trace);
const slips = new Queue<BusEvent<"served", Order>>({ capacity: 1024 }); // for the ledger
const count = { orders: 0, portions: 0, served: 0, skipped: 0, slips: 0 };
let snapshot = bus.inspect();
let last: BusEvent | undefined;

/** The one oven. Two dishes in it at once would spoil both. */
const oven = new Serializer({
  open: () => ({ dish: "" }),
  async handle(oven, { dish }: Order) {
    if (oven.dish !== "") throw new Error(`${dish} put on top of ${oven.dish}`);
    oven.dish = dish;
    await new Promise((done) => setImmediate(done)); // the secret sauce
    oven.dish = "";
  },
});

/** A database connection. Two tasks in one transaction would spoil both. */
const ledger = new Serializer({
  open: () => Ledger.open(options.ledger),
  handle: (ledger, served: Order[]) => ledger.write(served),
});

/** Publishes the orders of all guests, until there are no more or the bell rings. */
async function frontOfHouse() {
  const signal = AbortSignal.timeout(options.opening);
  using bell = bus.subscribe("shutdown", { name: "front of house" });
  using guests = Queue.from(orders(options.menu, skip), {
    capacity: 64,
    signal,
  });
  bus.once("shutdown").then(() => guests.close()); // also while nobody comes
  let why = "no more guests";
  try {
    for await (const order of guests) {
      if (bell.size > 0) break; // no orders after the bell
      last = await bus.publish("order", order, { source: "front of house" });
      if (options.inspect) await new Promise((next) => setTimeout(next, 20));
    }
  } catch (error) {
    why = signal.aborted ? "closing time" : "front of house has failed";
    if (!signal.aborted) throw error;
  } finally {
    ring(why);
  }
}

/** Two cooks, who share the line of orders and the oven. */
async function kitchen() {
  const source = "kitchen";
  using line = bus.subscribe(["order", "shutdown"], { name: source });
  async function cook() {
    for await (const event of line) {
      if (event.type === "shutdown") return void (snapshot = bus.inspect());
      await oven.request(event.data);
      await bus.publish("served", event.data, { source, cause: event });
    }
  }
  await Promise.all([cook(), cook()])
    .finally(() => bus.publish("cleaned", undefined, { source }));
}

/** Counts what was ordered, and makes a slip of what was served. */
async function bookkeeper() {
  using _ = slips; // closed when there are no more
  const name = "bookkeeper";
  const events = bus.subscribe(["order", "served", "cleaned"], { name });
  for await (const event of events) {
    if (event.type === "cleaned") break;
    if (event.type === "order") {
      count.orders++;
      count.portions += event.data.portions;
    } else {
      await slips.send(event);
      count.slips = Math.max(count.slips, slips.size);
    }
  }
}

/** Writes slips into the ledger, each time all that have come in. */
async function clerk() {
  using _ = slips; // refuses more if the ledger fails
  const source = "ledger";
  try {
    for await (const batch of slips.batches(256)) {
      await ledger.request(batch.map((slip) => slip.data));
      count.served += batch.length;
      for (const cause of batch) {
        await bus.publish("written", cause.data, { source, cause });
      }
      await new Promise((later) => setTimeout(later, 20)); // a batch now and then
    }
  } finally {
    ring("the ledger is closed");
  }
}

/** Shows what was written last; who has no time to look misses some. */
async function board() {
  const overflow = "drop-oldest";
  const name = "board";
  const latest = bus.subscribe("written", { name, capacity: 1, overflow });
  for await (const { data } of latest) {
    await show(`${count.served} written, now ${data.dish} for ${data.guest}`);
  }
}

function skip(line: number, why: string) {
  count.skipped++;
  console.error(`Line ${line} of ${options.menu} skipped: ${why}`);
}

/** Asks everyone to finish what was ordered, and to go home. */
function ring(why: string) {
  bus.publish("shutdown", why, { source: "manager" }).catch(() => {}); // gone
}

if (options.inspect) {
  const inspect = inspector({ buses: [bus], serializers: { oven, ledger } });
  console.log(`Inspect the restaurant at ${await serveHere(inspect)}`);
}
const stopped = Promise.withResolvers<void>();
for (const [signal, why] of [["SIGINT", "Ctrl-C"], ["SIGTERM", "SIGTERM"]]) {
  process.on(signal, () => { // `deno task` sends it twice
    ring(why);
    stopped.resolve();
  });
}
const bell = bus.once("shutdown");
const start = performance.now();
const staff = [frontOfHouse(), kitchen(), bookkeeper(), clerk()];
const closing = Promise.allSettled(staff).then(() => bus.close());
const ends = await Promise.allSettled([...staff, closing, board()]);
const seconds = (performance.now() - start) / 1000;
const errors = ends.flatMap((end) => "reason" in end ? [end.reason] : []);
const total = await ledger.run((ledger) => ledger.totals()).catch(() => {});
await ledger.close();
await pictures?.(last);
if (total) errors.push(...summary(count, total, seconds, snapshot, slips));
for (const error of errors) console.error(`Error: ${error.message}`);
console.log(`Kitchen is closed: ${(await bell).data}`);
if (options.inspect) await stopped.promise; // it can be looked at until then
process.exit(errors.length > 0 ? 1 : 0); // a guest at standard input must go too
