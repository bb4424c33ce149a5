import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { QueueClosedError, QueueFullError } from "../queue.ts";
import { Serializer } from "../serializer.ts";
import {
  type Deferred,
  deferred,
  flush,
  follow,
  probedController,
  range,
  ROUNDS,
  type Task,
} from "./_helpers.ts";

// Random schedules. If everything comes to rest after each step, a model of
// plain arrays says what must have happened. If not, steps meet in flight, and
// only what must always hold is checked.

interface Options {
  concurrency: number;
  maxWaiting: number;
  reentrancy: "detect" | "trust";
}

interface Step {
  op: typeof OPERATIONS[number];
  priority: number;
  /** Which signal, if any: 0 and 1 are alive until the next abort, 2 has aborted. */
  signal: 0 | 1 | 2 | undefined;
  /** Which of the opens, handlers or closes under way. */
  which: number;
}

const OPERATIONS = [
  ...["request", "request", "request", "request", "run"] as const,
  ...["opened", "opened", "notOpened", "answer", "answer"] as const,
  ...["fail", "fatal", "closed", "abortSignal"] as const,
  ...["close", "abort"] as const,
];

const LAST = OPERATIONS.length - 1;

/** What both the real thing and the model show. */
interface View {
  /** How each request stands, in the order in which they were made. */
  results: string[];
  waiting: number;
  running: number;
  /** The requests whose handlers are under way. */
  handlers: number[];
  opening: number;
  closing: number;
  /** Whether the serializer is closed and everything is over. */
  done: boolean;
}

// ── The real thing ──────────────────────────────────────────────────────────

class Real {
  readonly tasks: Task<unknown>[] = [];
  readonly started: number[] = [];
  /** What must not happen, and did. (A handler that throws fails its request only.) */
  readonly violations: string[] = [];
  opened = 0;
  closed = 0;
  readonly controllers = [probedController(), probedController()];
  readonly #opens: Deferred<{ busy: boolean }>[] = [];
  readonly #handlers: (Deferred<string> & { id: number })[] = [];
  readonly #closes: Deferred<void>[] = [];
  readonly #ends: Task<void>[] = [];
  readonly #signals = new Map<number, AbortSignal>();
  readonly #serializer: Serializer<{ busy: boolean }, number, string>;

  constructor(options: Options) {
    const handle = async (copy: { busy: boolean }, id: number) => {
      if (copy.busy) this.violations.push("two handlers at once");
      if (this.#signals.get(id)?.aborted) {
        this.violations.push("a handler of one who has gone");
      }
      copy.busy = true;
      this.started.push(id);
      const handler = { ...deferred<string>(), id };
      this.#handlers.push(handler);
      try {
        return await handler.promise;
      } finally {
        copy.busy = false;
      }
    };
    this.#serializer = new Serializer({
      ...options,
      handle,
      open: () => push(this.#opens, deferred<{ busy: boolean }>()).promise,
      close: ({ busy }) => {
        if (busy) this.violations.push("closed under a handler");
        this.closed++;
        return push(this.#closes, deferred()).promise;
      },
      isFatal: (error) => error === "fatal",
    });
    this.#handle = handle;
  }

  readonly #handle: (copy: { busy: boolean }, id: number) => Promise<string>;

  perform({ op, priority, signal: index, which }: Step): void {
    const id = this.tasks.length;
    switch (op) {
      case "request":
      case "run": {
        const signal = index === undefined
          ? undefined
          : this.controllers[index]?.signal ?? AbortSignal.abort("before");
        if (signal) this.#signals.set(id, signal);
        const options = { priority, signal };
        const asked = op === "request"
          ? this.#serializer.request(id, options)
          : this.#serializer.run((copy) => this.#handle(copy, id), options);
        this.tasks.push(follow(asked));
        return;
      }
      case "opened":
        if (this.#opens[which]) this.opened++;
        return take(this.#opens, which)?.resolve({ busy: false });
      case "notOpened":
        return take(this.#opens, which)?.reject("not opened");
      case "answer":
        return take(this.#handlers, which)?.resolve("answered");
      case "fail":
      case "fatal":
        return take(this.#handlers, which)?.reject(op);
      case "closed":
        return take(this.#closes, which)?.resolve();
      case "abortSignal":
        if (index !== 0 && index !== 1) return;
        this.controllers[index].abort("bye");
        this.controllers[index] = probedController();
        return;
      case "close":
      case "abort":
        return void this.#ends.push(follow(this.#serializer[op](op)));
    }
  }

  view(): View {
    const { waiting, running } = this.#serializer;
    return {
      results: this.tasks.map(({ state, value, error }) =>
        state === "pending" ? state : String(
          error instanceof QueueClosedError || error instanceof QueueFullError
            ? error.name
            : error ?? value,
        )
      ),
      waiting,
      running,
      handlers: this.#handlers.map(({ id }) => id),
      opening: this.#opens.length,
      closing: this.#closes.length,
      done: this.#ends.length > 0 &&
        this.#ends.every(({ state }) => state === "resolved"),
    };
  }
}

function push<T>(array: T[], value: T): T {
  array.push(value);
  return value;
}

function take<T>(array: T[], which: number): T | undefined {
  return array.splice(which, 1)[0];
}

// ── The model ───────────────────────────────────────────────────────────────

interface Copy {
  open: boolean;
}

interface Asked {
  id: number;
  priority: number;
  signal: number | undefined;
  copy?: Copy;
}

class Model {
  readonly #options: Options;
  readonly #results: string[] = [];
  readonly #copies = new Set<Copy>();
  #idle: Copy[] = [];
  #pause = 0; // requests to come or be served before a copy is tried beside a live one
  #nextPause = 0;
  #line: Asked[] = [];
  #running: Asked[] = []; // whose handler or open has not ended
  readonly #opens: Asked[] = [];
  readonly #handlers: Asked[] = [];
  readonly #closes: (() => unknown)[] = []; // and what comes after each
  #closing = false;

  constructor(options: Options) {
    this.#options = options;
  }

  perform({ op, priority, signal, which }: Step): void {
    switch (op) {
      case "request":
      case "run":
        return this.#ask({ id: this.#results.length, priority, signal });
      case "opened":
      case "notOpened": {
        const asked = take(this.#opens, which);
        if (asked === undefined) return;
        asked.copy!.open = op === "opened";
        if (op === "notOpened") {
          if (this.#nextPause === 0) [this.#pause, this.#nextPause] = [1, 2];
          this.#settle(asked, "not opened");
          return this.#release(asked);
        }
        if (this.#nextPause > 0) {
          [this.#pause, this.#nextPause] = [0, 1];
          this.#openMore();
        }
        if (!this.#isPending(asked)) return this.#release(asked);
        return void this.#handlers.push(asked);
      }
      case "answer":
      case "fail":
      case "fatal": {
        const asked = take(this.#handlers, which);
        if (asked === undefined) return;
        this.#settle(asked, op === "answer" ? "answered" : op);
        if (op !== "fatal") return this.#release(asked);
        this.#running = this.#running.filter((each) => each !== asked);
        asked.copy!.open = false;
        this.#closes.push(() => this.#pass(asked.copy!));
        return this.#openMore();
      }
      case "closed":
        return void take(this.#closes, which)?.();
      case "abortSignal":
        if (signal !== 0 && signal !== 1) return;
        for (const asked of [...this.#line, ...this.#running]) {
          if (asked.signal === signal) this.#giveUp(asked, "bye");
          if (asked.signal === signal) asked.signal = undefined;
        }
        return;
      case "abort":
        for (const asked of [...this.#line, ...this.#running]) {
          this.#giveUp(asked, "abort");
        }
        for (const { copy } of this.#opens) this.#copies.delete(copy!);
        return this.#close();
      case "close":
        return this.#close();
    }
  }

  view(): View {
    return {
      results: [...this.#results],
      waiting: this.#line.length,
      running: this.#running.length,
      handlers: this.#handlers.map(({ id }) => id),
      opening: this.#opens.length,
      closing: this.#closes.length,
      done: this.#closing && this.#copies.size === 0,
    };
  }

  #ask(asked: Asked): void {
    const { maxWaiting } = this.#options;
    this.#results.push("pending");
    if (asked.signal === 2) return this.#settle(asked, "before");
    if (this.#closing) return this.#settle(asked, "QueueClosedError");
    this.#shortenPause();
    const idle = this.#idle.pop();
    if (idle) return this.#start(asked, idle);
    if (this.#hasRoom) return this.#start(asked, this.#newCopy());
    if (this.#line.length >= maxWaiting) {
      return this.#settle(asked, "QueueFullError");
    }
    this.#line.push(asked);
    this.#line.sort((a, b) => b.priority - a.priority); // is stable
  }

  #start(asked: Asked, copy: Copy): void {
    asked.copy = copy;
    this.#running.push(asked);
    (copy.open ? this.#handlers : this.#opens).push(asked);
    if (copy.open) return;
    this.#pause = this.#nextPause;
    this.#nextPause *= 2;
  }

  #release(asked: Asked): void {
    const copy = asked.copy!;
    this.#running = this.#running.filter((each) => each !== asked);
    this.#pass(copy);
    if (copy.open) this.#shortenPause();
  }

  #pass(copy: Copy): void {
    const next = copy.open || this.#mayOpen ? this.#line.shift() : undefined;
    if (next) this.#start(next, copy);
    else if (!copy.open) this.#copies.delete(copy);
    else if (this.#closing) this.#retire(copy);
    else this.#idle.push(copy);
  }

  get #mayOpen(): boolean {
    const isLive = (copy: Copy) =>
      copy.open || this.#opens.some((asked) => asked.copy === copy);
    return this.#pause === 0 || ![...this.#copies].some(isLive);
  }

  get #hasRoom(): boolean {
    return this.#copies.size < this.#options.concurrency && this.#mayOpen;
  }

  #newCopy(): Copy {
    const copy = { open: false };
    this.#copies.add(copy);
    return copy;
  }

  #shortenPause(): void {
    if (this.#pause > 0 && --this.#pause === 0) this.#openMore();
  }

  #openMore(): void {
    while (this.#line.length > 0 && this.#hasRoom) {
      this.#start(this.#line.shift()!, this.#newCopy());
    }
  }

  #retire(copy: Copy): void {
    copy.open = false;
    this.#closes.push(() => this.#copies.delete(copy));
  }

  #close(): void {
    this.#closing = true;
    for (const copy of this.#idle.splice(0)) this.#retire(copy);
  }

  #giveUp(asked: Asked, reason: string): void {
    this.#line = this.#line.filter((each) => each !== asked);
    this.#settle(asked, reason);
  }

  #isPending({ id }: Asked): boolean {
    return this.#results[id] === "pending";
  }

  #settle(asked: Asked, result: string): void {
    if (this.#isPending(asked)) this.#results[asked.id] = result;
  }
}

// ── The tests ───────────────────────────────────────────────────────────────

const anyOptions: fc.Arbitrary<Options> = fc.record({
  concurrency: fc.constantFrom(1, 1, 2, 3),
  maxWaiting: fc.constantFrom(0, 1, 3, Infinity, Infinity),
  reentrancy: fc.constantFrom("detect", "trust"),
});

const anySteps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    // The last two end it, and come rarely.
    op: fc.oneof(
      {
        weight: 60,
        arbitrary: fc.constantFrom(...OPERATIONS.slice(0, LAST - 1)),
      },
      { weight: 1, arbitrary: fc.constantFrom(...OPERATIONS.slice(LAST - 1)) },
    ),
    priority: fc.constantFrom(0, 0, 0, 1, 1, -1, Infinity, -Infinity),
    signal: fc.constantFrom(undefined, undefined, 0, 0, 1, 2),
    which: fc.nat(2),
  }),
  { maxLength: 80, size: "max" },
);

/** Ends it by `op`, then all that is under way, until nothing is. */
async function end(real: Real, op: "close" | "abort"): Promise<void> {
  const step = { priority: 0, signal: undefined, which: 0 };
  real.perform({ ...step, op });
  for (let i = 0; i < 200; i++) {
    for (const op of ["opened", "answer", "closed"] as const) {
      real.perform({ ...step, op });
      await flush();
    }
  }
  const { results, ...rest } = real.view();
  assertEquals(rest, {
    ...{ waiting: 0, running: 0, handlers: [], opening: 0, closing: 0 },
    done: true,
  });
  assertEquals(results.filter((result) => result === "pending"), []);
  assertEquals(real.violations, []);
  assertEquals(real.closed, real.opened);
  assertEquals(real.controllers.map(({ listening }) => listening), [0, 0]);
}

const anyEnd = fc.constantFrom("close" as const, "abort" as const);

Deno.test("Serializer agrees with a model, whatever the schedule", async () => {
  await fc.assert(
    fc.asyncProperty(
      anyOptions,
      anySteps,
      anyEnd,
      async (options, steps, op) => {
        const real = new Real(options);
        const model = new Model(options);
        for (const step of steps) {
          real.perform(step);
          model.perform(step);
          await flush();
          assertEquals(real.view(), model.view());
        }
        await end(real, op);
      },
    ),
    { numRuns: ROUNDS },
  );
});

Deno.test("Serializer keeps its promises while steps meet in flight", async () => {
  await fc.assert(
    fc.asyncProperty(
      ...[anyOptions, anySteps, anyEnd, fc.infiniteStream(fc.nat(6))] as const,
      async (options, steps, op, pauses) => {
        const real = new Real(options);
        const priorities: number[] = [];
        for (const step of steps) {
          if (/request|run/.test(step.op)) priorities.push(step.priority);
          real.perform(step);
          for (const _ of range(pauses.next().value!)) await undefined;
          const { running, handlers } = real.view();
          assert(handlers.length <= running && running <= options.concurrency);
        }
        await end(real, op);
        if (options.concurrency > 1) return;
        for (const priority of priorities) { // FIFO within a priority
          const started = real.started.filter((id) =>
            priorities[id] === priority
          );
          assertEquals(started, started.toSorted((a, b) => a - b));
        }
      },
    ),
    { numRuns: ROUNDS },
  );
});
