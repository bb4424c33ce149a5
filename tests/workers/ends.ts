// A program that uses workers in the way it is told, and then has to end by itself.
import { transfer, WorkerSerializer } from "../../worker.ts";
import type { Kitchen, Order } from "./kitchen.ts";

const { process } = globalThis as unknown as {
  process: { argv: string[]; exitCode: number };
};

const count: Order = { do: "count" };

function serializer(name: string, options = {}): WorkerSerializer<Kitchen> {
  const type = import.meta.url.endsWith(".ts") ? "ts" : "js";
  return new WorkerSerializer<Kitchen>(
    new URL(`./${name}.${type}`, import.meta.url),
    { startTimeout: 100_000, grace: 1, ...options },
  );
}

/** A request whose handler loops for ever, once it has begun. */
async function loop(kitchen: WorkerSerializer<Kitchen>, signal?: AbortSignal) {
  const { port1, port2 } = new MessageChannel();
  const order: Order = transfer({ do: "block", port: port2 }, [port2]);
  const begun = new Promise((resolve) => port1.onmessage = resolve);
  const asked = kitchen.request(order, { signal });
  asked.catch(() => {});
  await begun;
  port1.close();
}

/** What the program does; each leaves a serializer that it has not closed, unless it says so. */
const WAYS: Record<string, () => Promise<unknown>> = {
  "asks": () => serializer("kitchen").request(count),
  "asks a pool": () => {
    const kitchen = serializer("kitchen", { concurrency: 3 });
    return Promise.all([1, 2, 3].map(() => kitchen.request(count)));
  },
  "closes": async () => {
    const kitchen = serializer("kitchen");
    await kitchen.request(count);
    await kitchen.close();
  },
  "aborts a loop": async () => {
    const kitchen = serializer("kitchen");
    await loop(kitchen);
    await kitchen.abort();
  },
  "gives up a loop": async () => {
    const stop = new AbortController();
    const kitchen = serializer("kitchen");
    await loop(kitchen, stop.signal);
    stop.abort();
    await kitchen.request(count); // of another worker
  },
  "gives up a start": async () => {
    const stop = new AbortController();
    const asked = serializer("silent").request(count, { signal: stop.signal });
    setTimeout(() => stop.abort(), 10);
    await asked.catch(() => {});
  },
  "gives up at once": async () => {
    const stop = new AbortController();
    const asked = serializer("silent").request(count, { signal: stop.signal });
    queueMicrotask(() => queueMicrotask(() => stop.abort()));
    await asked.catch(() => {});
  },
  "starts in vain": () =>
    serializer("silent", { startTimeout: 10 }).request(count).catch(() => {}),
  "names no script": () => serializer("missing").request(count).catch(() => {}),
  "names a script that throws": () =>
    serializer("throws").request(count).catch(() => {}),
  "ends the worker": () =>
    serializer("kitchen").request({ do: "exit" }).catch(() => {}),
  "ends the worker, and asks again": async () => {
    const kitchen = serializer("kitchen");
    await kitchen.request({ do: "exit" }).catch(() => {});
    await kitchen.request(count);
  },
  "sends and returns what cannot be sent": async () => {
    const kitchen = serializer("kitchen");
    const value = () => {};
    await kitchen.request({ do: "return", value }).catch(() => {});
    await kitchen.request({ do: "return a function" }).catch(() => {});
  },
  "breaks the resource": async () => {
    const kitchen = serializer("kitchen");
    await kitchen.request({ do: "throw", what: "fatal" }).catch(() => {});
  },
};

// Deno's own arguments begin elsewhere.
const way = WAYS[process.argv.at(-1)!];
if (way === undefined) console.log(JSON.stringify(Object.keys(WAYS)));
else {
  await way();
  console.log("done");
}
