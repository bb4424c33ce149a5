/**
 * A service that takes one call at a time, and refuses the others (429), as
 * some do for each customer. Twenty tasks call it at once: first as they are,
 * then through a serializer, at last with one that gives up in the middle of its
 * call.
 *
 *     deno run --allow-net examples/one_at_a_time.ts
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Serializer } from "../mod.ts";

let calls = 0; // under way
let onCall = () => {};
const server = createServer((_, answer) => {
  answer.statusCode = ++calls > 1 ? 429 : 200;
  setTimeout(() => answer.end(String(--calls)), 20); // also if nobody listens any more
  onCall();
});
await new Promise<void>((up) => server.listen(0, "127.0.0.1", up));
const { port } = server.address() as AddressInfo;

async function call(task: number): Promise<number> {
  const response = await fetch(`http://127.0.0.1:${port}/${task}`);
  await response.text(); // the call lasts until its answer has been read
  return response.status;
}

/** Only those who are inside can call. */
const service = new Serializer({
  open: () => call,
  // Without its `signal`: who gives up goes at once, the service is busy until it has answered.
  handle: (call, task: number) => call(task),
  maxWaiting: 50, // a queue of an hour helps nobody
});

function print(way: string, statuses: number[], calls: string): void {
  const refused = statuses.filter((status) => status === 429).length;
  console.log(`${way}: ${refused} of ${statuses.length} ${calls} refused`);
}

const tasks = Array.from({ length: 20 }, (_, task) => task);
print("bare", await Promise.all(tasks.map(call)), "calls");
const ask = (task: number) => service.request(task);
print("serializer", await Promise.all(tasks.map(ask)), "calls");

const { promise: called, resolve } = Promise.withResolvers<void>();
onCall = resolve;
const controller = new AbortController();
const hasty = service.request(20, controller).catch(() => {}); // its turn is first
const others = Promise.all(tasks.slice(1).map(ask));
await called;
controller.abort();
await hasty; // at once
print("serializer, one caller gives up", await others, "other calls");

await service.close();
server.close();
