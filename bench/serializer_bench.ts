// What it costs to let one task at a time near something, with a serializer and
// with what people use today, beside a bare chain of promises.

import { newQueue } from "@henrygd/queue";
import AsyncLock from "async-lock";
import { Mutex } from "async-mutex";
import { Sema } from "async-sema";
import fastq from "fastq";
import pLimit from "p-limit";
import PQueue from "p-queue";
import { Serializer } from "../serializer.ts";
import { type Aim, check, group } from "./group.ts";

const REQUESTS = 1000;

type Ask = (request: number) => Promise<number>;
/** Answers with how often it was asked; what is dangerous about it is that it counts. */
type Handler = (request: number) => number | Promise<number>;
/** Makes all requests; resolves with the last answer. */
type Round = (ask: Ask) => Promise<number>;

const handlers = {
  synchronous(): Handler {
    let count = 0;
    return () => count++;
  },
  asynchronous(): Handler {
    let count = 0;
    return async () => {
      const before = count;
      await null; // others would come in here
      return count = before + 1;
    };
  },
};

/** Each lets one request at a time through to its handler. */
const contenders: Record<string, (handler: Handler) => Ask> = {
  "bare chain": (handler) => {
    let tail: Promise<unknown> = Promise.resolve();
    return (request) => {
      const answer = tail.then(() => handler(request));
      tail = answer;
      return answer;
    };
  },
  "trust": (handler) => serializer(handler, "trust"),
  "detect": (handler) => serializer(handler, "detect"),
  "async-mutex": (handler) => {
    const mutex = new Mutex();
    return (request) => mutex.runExclusive(() => handler(request));
  },
  "p-queue": (handler) => {
    const queue = new PQueue({ concurrency: 1 });
    return (request) => queue.add(() => handler(request));
  },
  "p-limit": (handler) => {
    const limit = pLimit(1);
    return (request) => limit(handler, request);
  },
  "fastq": (handler) => {
    const queue = fastq.promise(
      (request: number) => promised(handler, request),
      1,
    );
    return (request) => queue.push(request);
  },
  "async-sema": (handler) => {
    const sema = new Sema(1);
    return async (request) => {
      await sema.acquire();
      try {
        return await handler(request);
      } finally {
        sema.release();
      }
    };
  },
  "async-lock": (handler) => {
    const lock = new AsyncLock();
    return (request) => lock.acquire("key", () => handler(request));
  },
  "@henrygd/queue": (handler) => {
    const queue = newQueue(1);
    return (request) => queue.add(() => promised(handler, request));
  },
};

/** For those that take nothing but promises. */
function promised(handler: Handler, request: number): Promise<number> {
  const answer = handler(request);
  return typeof answer === "number" ? Promise.resolve(answer) : answer;
}

function serializer(handler: Handler, reentrancy: "detect" | "trust"): Ask {
  const serializer = new Serializer({
    open: () => handler,
    handle: (handler, request: number) => handler(request),
    reentrancy,
  });
  return (request) => serializer.request(request);
}

const { detect, ...others } = contenders;
const { "bare chain": bare, trust: _, ...peers } = others;
const detectsPeers = ["p-queue", "p-limit", "async-mutex"];

/** Who is measured with whom. */
// `detect` keeps apart: on Node 20, once anybody has entered an
// `AsyncLocalStorage`, every promise of the process is dearer for good.
const fields = [
  {
    field: "",
    contenders: others,
    aims: (atMost: number): Aim[] => [
      { bench: "trust", of: "bare chain", atMost },
      ...ahead("trust", Object.keys(peers)),
    ],
  },
  {
    field: ", detect",
    contenders: {
      "bare chain": bare,
      detect,
      ...Object.fromEntries(detectsPeers.map((name) => [name, peers[name]])),
    },
    aims: () => ahead("detect", detectsPeers),
  },
];

function ahead(bench: string, peers: string[]): Aim[] {
  return peers.map((of) => ({ bench, of, atMost: 1 }));
}

/** Throws unless the handler was asked once for each request, and one at a time. */
class Count {
  #last: number | undefined;

  check(last: number): void {
    if (this.#last !== undefined) check(last - this.#last, REQUESTS);
    this.#last = last;
  }
}

/** What a round does, and how many times the cost of the bare chain it may have. */
const shapes: [name: string, does: string, atMost: number, round: Round][] = [
  [
    "one after another",
    `asks ${REQUESTS} times, and awaits each answer before it asks again`,
    1.3,
    async (ask) => {
      let last = 0;
      for (let i = 0; i < REQUESTS; i++) last = await ask(i);
      return last;
    },
  ],
  [
    "burst",
    `asks ${REQUESTS} times at once, then awaits all answers`,
    2,
    async (ask) => {
      const answers: Promise<number>[] = [];
      for (let i = 0; i < REQUESTS; i++) answers.push(ask(i));
      return (await Promise.all(answers)).at(-1)!;
    },
  ],
];

for (const { field, contenders, aims } of fields) {
  for (const [kind, makeHandler] of Object.entries(handlers)) {
    for (const [shape, does, atMost, round] of shapes) {
      const benches = Object.entries(contenders).map(([name, make]) => {
        const ask = make(makeHandler());
        const count = new Count();
        return [name, async () => count.check(await round(ask))] as const;
      });
      group({
        name: `${shape}, ${kind}${field}`,
        round: does,
        operations: REQUESTS,
        aims: aims(atMost),
        benches: Object.fromEntries(benches),
      });
    }
  }
}
