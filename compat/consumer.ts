// A program that uses the package as it is installed: each entry point, with
// types and at run time. Throws if something is not as it should be.
import { Bus, Queue, select, Serializer } from "@sauce/queues";
import { type BusEvent, LinkError, SubscriberError } from "@sauce/queues/bus";
import { inspector } from "@sauce/queues/inspector";
import { type Link, portLink } from "@sauce/queues/link";
import { receiveFrom, sendTo } from "@sauce/queues/port";
import { merge, QueueClosedError } from "@sauce/queues/queue";
import { type RedisClient, redisLink, RedisQueue } from "@sauce/queues/redis";
import { ReentrantRequestError } from "@sauce/queues/serializer";
import { logTo, Recorder } from "@sauce/queues/trace";
import { type serve, WorkerSerializer } from "@sauce/queues/worker";

function equal<T>(actual: T, expected: NoInfer<T>): void {
  if (actual !== expected) throw new Error(`Not ${expected}, but ${actual}`);
}

const orders = new Queue<string>({ capacity: 2 });
await orders.send("soup");
// @ts-expect-error an order is a string
if (orders.closed) orders.send(1);
for await (const order of orders) {
  equal(order, "soup");
  break;
}
await orders.send("steak");
const { key, value } = await select({ orders });
equal(key, "orders");
equal(value, "steak");
orders.close();
for await (const { value } of merge({ orders })) equal(value, "none");
const error: unknown = await orders.receive().catch((error) => error);
equal(error instanceof QueueClosedError, true);

const oven = new Serializer({
  open: () => ({ dishes: 0 }),
  handle: (oven, dish: string) => `${dish}, dish ${++oven.dishes}`,
});
const answer: string = await oven.request("pie");
equal(answer, "pie, dish 1");
// @ts-expect-error a dish is a string
if (oven.closed) oven.request(1);
const refusal = await oven.run(() => oven.request("bread").catch((e) => e));
equal(refusal instanceof ReentrantRequestError, true);
await oven.close();

const lines: string[] = [];
const errors: SubscriberError[] = [];
const bus = new Bus<{ order: string; shutdown: undefined }>({
  onError: (error) => errors.push(error),
});
const recorder = new Recorder(bus);
const log = logTo(bus, (line) => lines.push(line));
const events = bus.subscribe(["order", "shutdown"]);
bus.on("order", (order) => {
  throw new Error(order.data);
});
const event: BusEvent<"order", string> = await bus.publish("order", "soup");
await bus.publish("shutdown");
// @ts-expect-error no such event
if (!bus) bus.publish("bell");
for await (const event of events) {
  if (event.type === "shutdown") break;
  const dish: string = event.data;
  equal(dish, "soup");
}
await bus.close();
equal(errors[0] instanceof SubscriberError, true);
equal(recorder.lineage(event)?.event.id, event.id);
equal(lines[0]?.startsWith("in type=order"), true);
log[Symbol.dispose]();
recorder[Symbol.dispose]();

// Handlers as they are typed where there is no host to type them.
type Answer = { status: number };
const inspect = inspector({ buses: [bus], serializers: { oven } }, {
  showData: ({ type }) => type,
}) as unknown as (request: unknown) => Answer;
const { Request } = globalThis as unknown as {
  Request: new (url: string) => unknown;
};
equal(inspect(new Request("http://localhost/inspect/")).status, 200);
// @ts-expect-error a bus, not its name
if (!bus) inspector("bus");

// A port as they are typed where there is no host to type them.
const { MessageChannel } = globalThis as unknown as {
  MessageChannel: new () => { port1: Port; port2: Port };
};
type Port = Parameters<typeof sendTo>[1] & { close(): void };
const { port1, port2 } = new MessageChannel();
const out = new Queue<number>();
const sent = sendTo(out, port1);
const arrived = receiveFrom<number>(port2, { capacity: 2 });
await out.send(7);
const seven: number = await arrived.receive();
equal(seven, 7);
out.close();
for await (const value of arrived) equal(value, 0);
await sent;
port1.close();

// Two buses over one port; a link of one's own has no more to say than this.
const doors = new MessageChannel();
const [near, far] = [portLink(doors.port1), portLink(doors.port2)];
const link: Link = {
  caps: near.caps,
  onState: () => {},
  send: (topic, batch) => near.send(topic, batch),
  receive: (topic, sink, options) => near.receive(topic, sink, options),
  close: () => near.close(),
};
const front = new Bus<{ order: string }>();
const kitchen = new Bus<{ order: string }>({
  onError: (error) => equal(error instanceof LinkError, false),
});
const connection = await front.connect(link, { types: "order" });
// @ts-expect-error no such event
if (!front) front.connect(link, { types: "bell" });
await kitchen.connect(far);
const ordered = kitchen.once("order");
await front.publish("order", "soup", { source: "table 7" });
equal((await ordered).source, "table 7");
await connection[Symbol.asyncDispose]();
await kitchen.close();
await link.close();
doors.port1.close();

type Database = ReturnType<typeof serve<object, string, number>>;
const database = new WorkerSerializer<Database>("file:///no/worker.js");
// @ts-expect-error a request is a string
if (database.closed) database.request(1);
if (database.closed) equal(await database.request("SELECT 1"), 1);
await database.close(); // no request, no worker

// A client that nobody has connected: nothing is sent by this.
const redis: RedisClient = {
  isOpen: false,
  isReady: false,
  sendCommand: (command: string[]) => Promise.reject(new Error(command[0])),
  duplicate: () => redis,
};
const jobs = new RedisQueue<{ dish: string }>(redis, "jobs");
// @ts-expect-error a job has a dish
if (jobs.closed) jobs.send("soup");
const refused: unknown = await jobs.send({ dish: "soup" }).catch((e) => e);
equal(String(refused).includes('Cannot send to queue "jobs"'), true);
await jobs.close();
await redisLink(redis).close();
