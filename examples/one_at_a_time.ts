/**
 * A service that takes one call at a time, and refuses the others (429), as
 * some do for each customer. Twenty tasks call it at once: first as they are,
 * then through a serializer.
 *
 *     deno run --allow-net examples/one_at_a_time.ts
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Serializer } from "../mod.ts";

let calls = 0; // under way
const server = createServer((_, answer) => {
  answer.statusCode = ++calls > 1 ? 429 : 200;
  setTimeout(() => answer.end(String(--calls)), 5);
});
await new Promise<void>((up) => server.listen(0, "127.0.0.1", up));
const { port } = server.address() as AddressInfo;

async function call(task: number, signal?: AbortSignal): Promise<number> {
  const url = `http://127.0.0.1:${port}/${task}`;
  const response = await fetch(url, { signal });
  await response.text(); // the call lasts until its answer has been read
  return response.status;
}

/** Only those who are inside can call. */
const service = new Serializer({
  open: () => call,
  handle: (call, task: number, { signal }) => call(task, signal),
  maxWaiting: 50, // a queue of an hour helps nobody
});

const tasks = Array.from({ length: 20 }, (_, task) => task);
for (
  const [way, ask] of [
    ["bare", (task: number) => call(task)],
    ["serializer", (task: number) => service.request(task)],
  ] as const
) {
  const statuses = await Promise.all(tasks.map(ask));
  const refused = statuses.filter((status) => status === 429).length;
  console.log(`${way}: ${refused} of ${tasks.length} calls refused`);
}

await service.close();
server.close();
