// What it costs to cross into another thread: a request and its answer, and a
// stream of values, beside bare `postMessage` and what people use today.

import { type Endpoint, type Remote, wrap } from "comlink";
import * as adapter from "comlink/dist/esm/node-adapter.mjs";
import { Wire } from "../_port.ts";
import { makeWorker, type WorkerLike } from "../_threads.ts";
import { receiveFrom } from "../port.ts";
import { WorkerSerializer } from "../worker.ts";
import { check, group } from "./group.ts";
import type { Exposed } from "./workers/exposed.ts";
import type { Served } from "./workers/served.ts";

const ONE_BY_ONE = 100;
const BURST = 10_000;
const VALUES = 50_000;
const IN_EACH = 1000;

type NodeEndpoint = (worker: WorkerLike) => Endpoint; // its types say otherwise

/** Adds one, in a worker. */
type PlusOne = (n: number) => Promise<number>;

const type = import.meta.url.endsWith(".ts") ? "ts" : "mjs";
const script = (name: string) =>
  new URL(`./workers/${name}.${type}`, import.meta.url);

/** A worker of the same kind for all, and what it says. */
function start(name: string): [worker: WorkerLike, hear: Hear] {
  const worker = makeWorker(script(name), name);
  const hear: Hear = { message: () => {} };
  new Wire("hear", worker, {
    message: (message) => hear.message(message),
    unreadable: () => {},
    died: (why, cause) => {
      throw cause ?? new Error(why);
    },
  });
  return [worker, hear];
}

interface Hear {
  message: (message: unknown) => void;
}

/** Each starts a worker that stays until the end. */
const contenders: Record<string, (() => Promise<PlusOne>) | undefined> = {
  // Answers come in the order of the questions, so that it needs no ids.
  "postMessage": () => {
    const [worker, hear] = start("raw");
    const asked: ((answer: number) => void)[] = [];
    let answered = 0;
    hear.message = (answer) => {
      asked[answered++](answer as number);
      if (answered === asked.length) asked.length = answered = 0;
    };
    return Promise.resolve((n) =>
      new Promise((resolve) => {
        asked.push(resolve);
        worker.postMessage(n);
      })
    );
  },
  "WorkerSerializer": () => {
    const serializer = new WorkerSerializer<Served>(script("served"));
    return Promise.resolve((n) => serializer.request(n));
  },
  "comlink": () => {
    const [worker] = start("exposed");
    const exposed: Remote<Exposed> = wrap(
      (adapter.default as unknown as NodeEndpoint)(worker),
    );
    return Promise.resolve((n) => exposed.plusOne(n));
  },
  "piscina": isNode()
    ? async () => {
      const { Piscina } = await import("piscina");
      const pool = new Piscina({
        filename: script("pooled").href,
        maxThreads: 1,
        minThreads: 1,
        concurrentTasksPerWorker: 1,
      });
      return (n) => pool.run(n);
    }
    : undefined,
};

function isNode(): boolean {
  const { process } = globalThis as {
    process?: { release?: { name: string } };
  };
  return process?.release?.name === "node" && !("Deno" in globalThis) &&
    !("Bun" in globalThis);
}

function benches(round: (plusOne: PlusOne) => Promise<number>, last: number) {
  return Object.fromEntries(
    Object.entries(contenders).map(([name, make]) => {
      let plusOne: PlusOne | undefined;
      return [
        name,
        make &&
        (async () => check(await round(plusOne ??= await make()), last)),
      ];
    }),
  );
}

group({
  name: "a thread's answers, one after another",
  round:
    `asks a worker ${ONE_BY_ONE} times, and awaits each answer before it asks again`,
  operations: ONE_BY_ONE,
  aims: [
    { bench: "WorkerSerializer", of: "postMessage", atMost: 1.15 },
    { bench: "WorkerSerializer", of: "comlink", atMost: 1 },
  ],
  benches: benches(async (plusOne) => {
    let n = 0;
    while (n < ONE_BY_ONE) n = await plusOne(n);
    return n;
  }, ONE_BY_ONE),
});

group({
  name: "a thread's answers, burst",
  round: `asks a worker ${BURST} times at once, then awaits all answers`,
  operations: BURST,
  aims: [{ bench: "WorkerSerializer", of: "comlink", atMost: 0.1 }],
  benches: benches(async (plusOne) => {
    const answers: Promise<number>[] = [];
    for (let i = 0; i < BURST; i++) answers.push(plusOne(i));
    return (await Promise.all(answers)).at(-1)!;
  }, BURST),
});

let source: [worker: WorkerLike, hear: Hear] | undefined;
let channels = 0;

/** Receives values that the worker posts, so many in each message. */
async function postedValues(inEach: number): Promise<void> {
  const [worker, hear] = source ??= start("source");
  let count = 0;
  await new Promise<void>((resolve) => {
    hear.message = (message) => {
      count += Array.isArray(message) ? message.length : 1;
      if (count === VALUES) resolve();
    };
    worker.postMessage({ count: VALUES, inEach });
  });
  hear.message = () => {};
}

/** Receives values that the worker sends through a queue of this capacity. */
async function sentValues(near: number, far?: number): Promise<void> {
  const [worker] = source ??= start("source");
  const channel = `${channels++}`;
  const received = receiveFrom<number>(worker, { channel, capacity: far });
  worker.postMessage({ count: VALUES, channel, capacity: near });
  let count = 0;
  for await (const batch of received.batches(Infinity)) count += batch.length;
  check(count, VALUES);
}

group({
  name: "a stream of values from a thread",
  round:
    `receives ${VALUES} numbers from a worker; \`arrays\`: ${IN_EACH} in each message, without a queue; \`rendezvous\`: from a queue without capacity, whose sender awaits each \`send\``,
  operations: VALUES,
  aims: [{ bench: "sendTo, receiveFrom", of: "postMessage", atMost: 0.1 }],
  benches: {
    "postMessage": () => postedValues(1),
    "postMessage, arrays": () => postedValues(IN_EACH),
    "sendTo, receiveFrom": () => sentValues(4096, 8192),
    "sendTo, receiveFrom, rendezvous": () => sentValues(0),
  },
});
