import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { QueueClosedError, QueueFullError } from "../queue.ts";
import {
  type WorkerDefinition,
  WorkerDiedError,
  WorkerSerializer,
} from "../worker.ts";
import {
  catchReports,
  type Deferred,
  deferred,
  follow,
  probedController,
  range,
  ROUNDS,
  type Task,
} from "./_helpers.ts";
import { FakeThreads, type FakeWorker } from "./_threads.ts";

// Random schedules, with workers in this thread. If everything comes to rest
// after each step, and each worker has one request at a time, a model of plain
// arrays says what must have happened. With batches, and if steps meet in
// flight, only what must always hold is checked.

interface Options {
  concurrency: number;
  maxWaiting: number;
  sharesMemory: boolean;
}

interface Step {
  op: typeof OPERATIONS[number];
  priority: number;
  /** Which signal, if any: 0 and 1 are alive until the next abort, 2 has aborted. */
  signal: 0 | 1 | 2 | undefined;
  /** Which of the workers, handlers or closes under way. */
  which: number;
}

const OPERATIONS = [
  ...["request", "request", "request", "request", "ready", "ready"] as const,
  ...["notReady", "answer", "answer", "answer", "fail"] as const,
  ...["die", "closed", "closed", "stuck", "fatal", "abortSignal"] as const,
  ...["spoil", "pass"] as const,
  ...["close", "abort"] as const,
];

const LAST = OPERATIONS.length - 1;

/** After these, it may be that not all are tried at once. */
const TROUBLE: Step["op"][] = ["die", "notReady", "spoil", "pass"];

const GRACE = 10;

/** What both the real thing and the model show. */
interface View {
  /** How each request stands, in the order in which they were made. */
  results: string[];
  waiting: number;
  running: number;
  /** The requests whose handlers are under way, in workers that live. */
  handlers: number[];
  starting: number;
  closing: number;
  /** How many workers live. */
  alive: number;
  /** How many deaths nobody else has been told of. */
  reports: number;
  /** Whether the serializer is closed and everything is over. */
  done: boolean;
}

// ── The real thing ──────────────────────────────────────────────────────────

type Definition = WorkerDefinition<Worker, number, string>;

/** A worker, as its handlers see it. */
class Worker {
  readonly fake: FakeWorker;
  readonly ready: Deferred<Definition> = deferred<Definition>();
  serves = false;
  dead = false;
  busy = false;
  /** Whether its resource cannot be opened. */
  spoiled = false;

  constructor(threads: FakeThreads) {
    this.fake = threads.start(this.ready.promise);
  }

  get alive(): boolean {
    return !this.dead && !this.fake.terminated;
  }
}

class Real implements Disposable {
  readonly tasks: Task<string>[] = [];
  /** The requests that have begun, and those that have ended. */
  readonly begun: number[] = [];
  readonly ended = new Set<number>();
  /** What must not happen, and did. */
  readonly violations: string[] = [];
  readonly controllers = [probedController(), probedController()];
  readonly threads: FakeThreads;
  readonly workers: Worker[] = [];
  readonly #reports = catchReports();
  readonly #options: Options;
  readonly #handlers: (Deferred<string> & { id: number; worker: Worker })[] =
    [];
  readonly #closes: (Deferred<void> & { worker: Worker })[] = [];
  readonly #ends: Task<void>[] = [];
  /** Whether handlers end at once. */
  #quick = false;
  readonly #serializer: WorkerSerializer<Definition>;

  constructor(options: Options) {
    this.#options = options;
    this.threads = new FakeThreads(options);
    this.#serializer = new WorkerSerializer(() => {
      this.workers.push(new Worker(this.threads));
      if (this.#quick) this.#ready(this.workers.at(-1)!);
      return this.workers.at(-1)!.fake;
    }, { ...options, grace: GRACE });
  }

  /** Lets all workers start and become so quick that they get requests in batches. */
  async warm(): Promise<void> {
    this.#quick = true;
    const { concurrency } = this.#options;
    for (let i = 0; i < 8; i++) {
      const asked = range(Math.min(16 * concurrency, this.#room)).map(() =>
        this.#serializer.request(-1)
      );
      await this.threads.pass();
      await Promise.all(asked);
    }
    this.#quick = false;
  }

  /** How many requests are taken at once. */
  get #room(): number {
    return this.#options.concurrency + this.#options.maxWaiting;
  }

  #ready(worker: Worker): void {
    worker.serves = true;
    worker.ready.resolve({
      open: () => {
        if (worker.spoiled) throw "cold";
        return worker;
      },
      isFatal: (error) => String(error).startsWith("fatal"),
      handle: (worker, id) => this.#handle(worker, id),
      close: (worker) => {
        if (worker.busy) this.violations.push("closed under a handler");
        const close = { ...deferred(), worker };
        this.#closes.push(close);
        return close.promise;
      },
    });
  }

  #handle(worker: Worker, id: number): string | Promise<string> {
    if (id === -1) return "warm";
    if (worker.busy) this.violations.push("two handlers at once");
    if (this.begun.includes(id)) this.violations.push("begun twice");
    if (this.#options.sharesMemory) {
      // One that is dead, but not terminated yet, still runs here: it is no thread.
      if (worker.fake.terminated) {
        this.violations.push("begun by a dead worker");
      }
      if (this.tasks[id].state !== "pending") {
        this.violations.push("begun for one who has gone");
      }
    }
    this.begun.push(id);
    worker.busy = true;
    const handler = { ...deferred<string>(), id, worker };
    this.#handlers.push(handler);
    return handler.promise;
  }

  /** Those of workers that live. */
  #alive<T extends { worker: Worker }>(things: T[]): T[] {
    return things.filter(({ worker }) => worker.alive);
  }

  perform({ op, priority, signal: index, which }: Step): void {
    const starting = this.workers.filter(({ serves, alive }) =>
      !serves && alive
    );
    switch (op) {
      case "request": {
        const id = this.tasks.length;
        const signal = index === undefined
          ? undefined
          : this.controllers[index]?.signal ?? AbortSignal.abort("before");
        const asked = this.#serializer.request(id, { priority, signal });
        this.tasks.push(follow(asked));
        return;
      }
      case "ready":
        if (starting[which]) this.#ready(starting[which]);
        return;
      case "notReady":
        return this.#kill(starting[which]);
      case "die":
        return this.#kill(
          this.workers.filter(({ serves, alive }) => serves && alive)[which],
        );
      case "answer":
      case "fail":
      case "fatal":
        return this.#end(op, which);
      case "closed":
      case "stuck": {
        const close = this.#alive(this.#closes)[which];
        if (close === undefined) return;
        this.#closes.splice(this.#closes.indexOf(close), 1);
        if (op === "closed") close.resolve();
        else close.reject(op);
        return;
      }
      case "spoil": {
        const worker = this.workers.filter(({ alive }) => alive)[which];
        if (worker) worker.spoiled = !worker.spoiled;
        return;
      }
      case "abortSignal":
        if (index !== 0 && index !== 1) return;
        this.controllers[index].abort("bye");
        this.controllers[index] = probedController();
        return;
      case "pass":
        return;
      case "close":
      case "abort":
        return void this.#ends.push(follow(this.#serializer[op](op)));
    }
  }

  #kill(worker: Worker | undefined): void {
    if (worker === undefined) return;
    worker.dead = true;
    worker.fake.die(new Error("dead"));
  }

  #end(op: "answer" | "fail" | "fatal", which: number): void {
    const handler = this.#alive(this.#handlers)[which];
    if (handler === undefined) return;
    this.#handlers.splice(this.#handlers.indexOf(handler), 1);
    handler.worker.busy = false;
    this.ended.add(handler.id);
    if (op === "answer") handler.resolve(`answer ${handler.id}`);
    else handler.reject(`${op} ${handler.id}`);
  }

  /** Lets workers that have been terminated go on until they have nothing to do. */
  async haunt(): Promise<void> {
    while (this.#handlers.length > 0) {
      for (const { worker, resolve } of this.#handlers.splice(0)) {
        worker.busy = false;
        resolve("too late");
      }
      await this.threads.pass(1);
    }
  }

  view(): View {
    const { waiting, running } = this.#serializer;
    const closes = this.#alive(this.#closes).length;
    return {
      results: this.tasks.map(({ state, value, error }) =>
        state === "pending" ? state : outcome(error) ?? value!
      ),
      waiting,
      running,
      handlers: this.#alive(this.#handlers).map(({ id }) => id),
      starting: this.workers.filter(({ serves, alive }) => !serves && alive)
        .length,
      closing: closes,
      alive: this.workers.filter(({ alive }) => alive).length,
      reports: this.#reports.errors.length,
      done: this.#ends.length > 0 &&
        this.#ends.every(({ state }) => state !== "pending"),
    };
  }

  [Symbol.dispose](): void {
    this.threads[Symbol.dispose]();
    this.#reports[Symbol.dispose]();
  }
}

function outcome(error: unknown): string | undefined {
  if (error instanceof WorkerDiedError) {
    return `died ${error.carriedOut ?? "perhaps"}`;
  }
  if (error instanceof QueueClosedError || error instanceof QueueFullError) {
    return error.name;
  }
  return error as string | undefined;
}

// ── The model ───────────────────────────────────────────────────────────────

interface Asked {
  id: number;
  priority: number;
  signal: number | undefined;
}

interface Hand {
  state: "starting" | "idle" | "busy" | "shutting" | "closing";
  resource: "untried" | "open" | "shut";
  spoiled: boolean;
  /** How many requests there had been when it was started. */
  since: number;
  /** What it runs. */
  asked?: Asked;
  /** When its time of grace ends. */
  end: number;
}

class Model {
  readonly #options: Options;
  readonly #results: string[] = [];
  #hands: Hand[] = []; // in the order in which they were started
  readonly #handlers: Hand[] = []; // in the order in which they began
  readonly #closes: Hand[] = [];
  #line: Asked[] = [];
  #admitted = 0;
  #now = 0;
  #reports = 0;
  #pause = 0;
  #nextPause = 0;
  #closing: "no" | "close" | "abort" = "no";

  constructor(options: Options) {
    this.#options = options;
  }

  perform({ op, priority, signal, which }: Step): void {
    switch (op) {
      case "request":
        this.#ask({ id: this.#results.length, priority, signal });
        break;
      case "ready": {
        const hand = this.#starting[which];
        if (hand) hand.state = "idle";
        break;
      }
      case "notReady":
        this.#failToStart(this.#starting[which]);
        break;
      case "die": {
        const ready = this.#hands.filter(({ state }) => state !== "starting");
        const hand = ready[which];
        if (hand === undefined) break;
        const isMissed = hand.state === "busy" && this.#isPending(hand.asked!);
        if (!isMissed && this.#closing === "no") this.#reports++;
        this.#die(hand);
        break;
      }
      case "answer":
      case "fail":
      case "fatal": {
        const hand = this.#handlers.splice(which, 1)[0];
        if (hand === undefined) break;
        this.#settle(hand.asked!, `${op} ${hand.asked!.id}`);
        hand.state = "idle";
        hand.end = Infinity;
        if (op === "fatal") {
          Object.assign(hand, { state: "shutting", resource: "shut" });
          this.#closes.push(hand);
          if (this.#closing === "abort") this.#hurry(hand);
        } else this.#shortenPause();
        break;
      }
      case "closed":
      case "stuck": {
        const hand = this.#closes[which];
        if (hand === undefined) break;
        if (op === "stuck" && this.#closing === "no") this.#reports++;
        if (hand.state === "shutting") {
          this.#closes.splice(which, 1);
          Object.assign(hand, { state: "idle", end: Infinity });
        } else this.#remove(hand);
        break;
      }
      case "spoil": {
        const hand = this.#hands[which];
        if (hand) hand.spoiled = !hand.spoiled;
        break;
      }
      case "abortSignal":
        if (signal !== 0 && signal !== 1) break;
        for (const asked of this.#all) {
          if (asked.signal === signal) this.#giveUp(asked, "bye");
          if (asked.signal === signal) asked.signal = undefined;
        }
        break;
      case "pass":
        this.#now += GRACE;
        for (const hand of [...this.#hands]) {
          if (hand.end <= this.#now) this.#die(hand);
        }
        break;
      case "abort":
        for (const asked of this.#all) this.#giveUp(asked, "abort");
        for (const hand of this.#closes) this.#hurry(hand);
        this.#closing = "abort";
        break;
      case "close":
        if (this.#closing === "no") this.#closing = "close";
    }
    this.#dispatch();
  }

  view(): View {
    const pending = this.#pending;
    return {
      results: [...this.#results],
      waiting: Math.max(0, pending - this.#free),
      running: this.#deserted + Math.min(pending, this.#free),
      handlers: this.#handlers.map(({ asked }) => asked!.id),
      starting: this.#starting.length,
      closing: this.#closes.length,
      alive: this.#hands.length,
      reports: this.#reports,
      done: this.#closing !== "no" && this.#hands.length === 0,
    };
  }

  get #live(): Hand[] {
    return this.#hands.filter(({ state, resource }) =>
      ["starting", "idle", "busy"].includes(state) && resource !== "shut"
    );
  }

  get #mayTry(): boolean {
    return this.#pause === 0 || this.#live.length === 0;
  }

  /** How many workers there are, or could be, for those who wait. */
  get #free(): number {
    const { concurrency } = this.#options;
    const places = this.#nextPause === 0
      ? concurrency
      : Math.min(concurrency, this.#live.length + Number(this.#mayTry));
    return places - this.#deserted;
  }

  #shortenPause(): void {
    this.#pause = Math.max(0, this.#pause - 1);
  }

  #fail(): void {
    if (this.#nextPause === 0) [this.#pause, this.#nextPause] = [1, 2];
  }

  get #starting(): Hand[] {
    return this.#hands.filter(({ state }) => state === "starting");
  }

  get #all(): Asked[] {
    return [...this.#line, ...this.#handlers.map(({ asked }) => asked!)];
  }

  get #pending(): number {
    return this.#results.filter((result) => result === "pending").length;
  }

  get #deserted(): number {
    return this.#handlers.filter(({ asked }) => !this.#isPending(asked!))
      .length;
  }

  #ask(asked: Asked): void {
    const { maxWaiting } = this.#options;
    this.#results.push("pending");
    if (asked.signal === 2) return this.#settle(asked, "before");
    if (this.#closing !== "no") return this.#settle(asked, "QueueClosedError");
    this.#shortenPause();
    if (this.#pending - this.#free > maxWaiting) {
      return this.#settle(asked, "QueueFullError");
    }
    this.#admitted++;
    this.#line.push(asked);
    this.#line.sort((a, b) => b.priority - a.priority); // is stable
  }

  #dispatch(): void {
    while (this.#giveOut());
    this.#wind();
  }

  /** Gives to all that are free; whether that may have freed others. */
  #giveOut(): boolean {
    const given: Hand[] = [];
    const give = (hand: Hand) => {
      hand.state = "busy";
      hand.asked = this.#line.shift()!;
      if (hand.resource === "shut") hand.resource = "untried";
      given.push(hand);
    };
    for (const merit of ["open", "untried"]) {
      for (const hand of this.#hands) {
        const { state, resource } = hand;
        if (this.#line.length === 0) break;
        if (state === "idle" && resource === merit) give(hand);
      }
    }
    while (this.#starting.length < this.#line.length && this.#mayTry) {
      const shut = this.#hands.find(({ state, resource }) =>
        state === "idle" && resource === "shut"
      );
      if (!shut && this.#hands.length >= this.#options.concurrency) break;
      this.#pause = this.#nextPause;
      this.#nextPause *= 2;
      if (shut) give(shut);
      else {
        this.#hands.push({
          state: "starting",
          resource: "untried",
          spoiled: false,
          since: this.#admitted,
          end: Infinity,
        });
      }
    }
    const cold = given.filter(({ resource, spoiled }) =>
      resource !== "open" && spoiled
    );
    for (const hand of given) {
      if (cold.includes(hand)) continue;
      this.#handlers.push(hand);
      if (hand.resource === "open" || this.#nextPause === 0) {
        hand.resource = "open";
        continue;
      }
      hand.resource = "open";
      [this.#pause, this.#nextPause] = [0, 1];
    }
    for (const hand of cold) {
      this.#settle(hand.asked!, "cold");
      Object.assign(hand, { state: "idle", resource: "shut" });
      this.#fail();
    }
    return given.length > 0;
  }

  #wind(): void {
    if (this.#closing === "no" || this.#line.length > 0) return;
    for (const hand of [...this.#hands]) {
      if (hand.state === "idle" && hand.resource === "open") {
        hand.state = "closing";
        this.#closes.push(hand);
        if (this.#closing === "abort") this.#hurry(hand);
      } else if (hand.state === "starting" || hand.state === "idle") {
        this.#remove(hand);
      }
    }
  }

  #failToStart(hand: Hand | undefined): void {
    if (hand === undefined) return;
    this.#remove(hand);
    this.#fail();
    const told = this.#hands.length > 0
      ? this.#line.slice(0, this.#starting.length < this.#line.length ? 1 : 0)
      : this.#line.filter(({ id }) => this.#isBefore(id, hand.since));
    for (const asked of told) this.#giveUp(asked, "died false");
  }

  /** Whether a request was among the first `since` that were admitted. */
  #isBefore(id: number, since: number): boolean {
    const refused = ["before", "QueueClosedError", "QueueFullError"];
    const admitted = this.#results.slice(0, id)
      .filter((result) => !refused.includes(result));
    return admitted.length < since;
  }

  #die(hand: Hand): void {
    if (hand.resource === "untried") this.#fail();
    if (hand.state === "busy") this.#settle(hand.asked!, "died perhaps");
    this.#remove(hand);
  }

  #remove(hand: Hand | undefined): void {
    if (hand === undefined) return;
    for (const list of [this.#hands, this.#handlers, this.#closes]) {
      if (list.includes(hand)) list.splice(list.indexOf(hand), 1);
    }
  }

  /** The caller goes. */
  #giveUp(asked: Asked, result: string): void {
    this.#line = this.#line.filter((each) => each !== asked);
    this.#settle(asked, result);
    const hand = this.#handlers.find((hand) => hand.asked === asked);
    if (hand) this.#hurry(hand);
  }

  /** The time of grace begins, once. */
  #hurry(hand: Hand): void {
    if (hand.end === Infinity) hand.end = this.#now + GRACE;
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
  sharesMemory: fc.boolean(),
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

const anyEnd = fc.constantFrom("close" as const, "abort" as const);

/** Ends it by `op`, then all that is under way, until nothing is. */
async function end(real: Real, op: "close" | "abort"): Promise<void> {
  const step = { priority: 0, signal: undefined, which: 0 };
  real.perform({ ...step, op });
  for (let i = 0; i < 200 && !real.view().done; i++) {
    for (const op of ["ready", "answer", "closed"] as const) {
      real.perform({ ...step, op });
      await real.threads.pass();
    }
  }
  const { results, reports: _, ...rest } = real.view();
  assertEquals(rest, {
    ...{ waiting: 0, running: 0, handlers: [], starting: 0, closing: 0 },
    alive: 0,
    done: true,
  });
  assertEquals(results.filter((result) => result === "pending"), []);
  assertEquals(real.controllers.map(({ listening }) => listening), [0, 0]);
  await real.haunt();
  assertEquals(real.violations, []);
  assertEquals(real.threads.timing, 0);
}

Deno.test("WorkerSerializer agrees with a model, whatever the schedule", async () => {
  await fc.assert(
    fc.asyncProperty(
      anyOptions,
      anySteps,
      anyEnd,
      async (options, steps, op) => {
        using real = new Real(options);
        const model = new Model(options);
        for (const step of steps) {
          real.perform(step);
          model.perform(step);
          await real.threads.pass(step.op === "pass" ? GRACE : 0);
          const expected = JSON.stringify(model.view());
          for (let i = 0; i < 20; i++) { // many may fail, one after another
            if (JSON.stringify(real.view()) === expected) break;
            await real.threads.pass();
          }
          assertEquals(real.view(), model.view());
        }
        await end(real, op);
      },
    ),
    { numRuns: ROUNDS },
  );
});

/** What must hold at all times, batches or not. */
function check(real: Real, options: Options): void {
  const { results, running, alive } = real.view();
  assertEquals(real.violations, []);
  assert(alive <= options.concurrency, "too many workers");
  assert(running <= options.concurrency, "more run than can");
  results.forEach((result, id) => {
    const hasBegun = real.begun.includes(id);
    const hasEnded = real.ended.has(id);
    switch (result) {
      case `answer ${id}`:
      case `fail ${id}`:
      case `fatal ${id}`:
      case "died true":
        return assert(hasEnded, `${id} ${result}, but has not ended`);
      case "died perhaps":
        return assert(
          options.sharesMemory ? hasBegun && !hasEnded : true,
          `${id} ${result}, but that is known`,
        );
      case "died false":
      case "cold":
      case "QueueFullError":
      case "QueueClosedError":
      case "before":
        return assert(!hasBegun, `${id} ${result}, but has begun`);
    }
  });
}

/** At rest, and when batches have gone back: nobody waits for a worker that is free, or could be started. */
function checkRest(real: Real, { concurrency }: Options, calm: boolean): void {
  const view = real.view();
  const { results, handlers, starting, closing, alive } = view;
  const pending = results.flatMap((result, id) =>
    result === "pending" ? [id] : []
  );
  const waiting = pending.filter((id) => !handlers.includes(id));
  if (waiting.length === 0) return;
  if (!calm) { // there may be a pause, but somebody is there
    return assert(handlers.length + starting + closing > 0, "forgotten");
  }
  assertEquals(handlers.length + starting + closing, alive, "one is idle");
  assert(alive === concurrency || starting >= waiting.length, "not started");
  assertEquals(
    view.waiting,
    Math.max(0, pending.length - concurrency + deserted(view)),
  );
}

/** How many handlers nobody waits for. */
function deserted({ results, handlers }: View): number {
  return handlers.filter((id) => results[id] !== "pending").length;
}

for (const rest of [true, false]) {
  const how = rest ? "" : ", while steps meet in flight";
  Deno.test(`WorkerSerializer keeps its promises in batches${how}`, async () => {
    await fc.assert(
      fc.asyncProperty(
        ...[anyOptions, anySteps, anyEnd] as const,
        fc.infiniteStream(fc.nat(rest ? 0 : 6)),
        async (options, steps, op, pauses) => {
          using real = new Real(options);
          await real.warm();
          const priorities: number[] = [];
          let lives = true;
          let calm = true;
          for (const step of steps) {
            if (step.op === "request") priorities.push(step.priority);
            real.perform(step);
            if (rest) {
              await real.threads.pass(step.op === "pass" ? GRACE : 0);
            } else {
              if (step.op === "pass") await real.threads.pass(GRACE);
              for (const _ of range(pauses.next().value!)) await undefined;
            }
            if (step.op === "die" || step.op === "pass") lives = false;
            if (TROUBLE.includes(step.op)) calm = false;
            check(real, options);
            if (rest && step.op === "pass") checkRest(real, options, calm);
          }
          await end(real, op);
          check(real, options);
          if (options.concurrency > 1 || !lives) return;
          for (const priority of priorities) { // FIFO within a priority
            const begun = real.begun.filter((id) =>
              priorities[id] === priority
            );
            assertEquals(begun, begun.toSorted((a, b) => a - b));
          }
        },
      ),
      { numRuns: ROUNDS },
    );
  });
}
