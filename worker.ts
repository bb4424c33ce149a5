/**
 * An executor: a serializer whose resource lives in a worker, so that a call
 * that blocks does not stop this thread.
 *
 * In the worker, `database.worker.ts`:
 *
 * ```ts ignore
 * import { serve } from "@sauce/queues/worker";
 * import { DatabaseSync } from "node:sqlite";
 *
 * const database = serve({
 *   open: () => new DatabaseSync("shop.db"),
 *   handle: (db, sql: string) => db.prepare(sql).all(), // takes as long as it takes
 * });
 * export type Database = typeof database;
 * ```
 *
 * Outside:
 *
 * ```ts ignore
 * import { WorkerSerializer } from "@sauce/queues/worker";
 * import type { Database } from "./database.worker.ts";
 *
 * await using database = new WorkerSerializer<Database>(
 *   new URL("./database.worker.ts", import.meta.url),
 * );
 * const rows = await database.request("SELECT * FROM dishes");
 * ```
 *
 * `docs/threads.md` says when a thread helps, `docs/protocol.md` has the messages.
 *
 * @module
 */

import { isFatal, isPromiseLike, LazySignal } from "./_context.ts";
import {
  checkCount,
  checkFunction,
  checkString,
  describe,
  invalid,
  report,
  show,
} from "./_errors.ts";
import { Lanes } from "./_lanes.ts";
import {
  type Abortable,
  hasAborted,
  type Link,
  type List,
  Watch,
} from "./_line.ts";
import { type PortLike, transferListOf, Wire } from "./_port.ts";
import {
  awaitLock,
  hasLimits,
  holdLock,
  makeWorker,
  ownPort,
  type WorkerLike,
} from "./_threads.ts";
import { after } from "./_timers.ts";
import { pack, type Packed, unpack } from "./_transit.ts";
import { QueueClosedError, QueueFullError } from "./queue.ts";
import {
  type HandlerContext,
  type RequestOptions,
  Serializer,
  type SerializerOptions,
  type SerializerSnapshot,
} from "./serializer.ts";

export type { PortLike } from "./_port.ts";
export type { WorkerLike } from "./_threads.ts";
export { transfer } from "./_port.ts";

/** What a worker serves: the part of a Serializer's options that is about the resource. */
export interface WorkerDefinition<Resource, Request, Response> extends
  Pick<
    SerializerOptions<Resource, Request, Response>,
    "open" | "close" | "isFatal"
  > {
  /** Answers a request. Its turn lasts until what it returns has settled. */
  handle(
    resource: Resource,
    request: Request,
    context: HandlerContext,
  ): Response | PromiseLike<Response>;
}

/** Any definition, whatever its types. */
export interface AnyDefinition {
  /** Makes the resource. */
  open(): unknown;
  /** Answers a request. */
  handle(resource: never, request: never, context: HandlerContext): unknown;
}

/** What the handler of a definition takes. */
export type RequestOf<D extends AnyDefinition> = Parameters<
  D["handle"]
> extends [unknown?] ? void
  : D["handle"] extends
    (resource: never, request: infer Request, ...rest: never[]) => unknown
    ? Request
  : never;

/** What {@linkcode WorkerSerializer.request} takes: a request, unless the handler needs none, and options. */
export type RequestArguments<D extends AnyDefinition> = undefined extends
  RequestOf<D> ? [request?: RequestOf<D>, options?: RequestOptions]
  : [request: RequestOf<D>, options?: RequestOptions];

/** What the handler of a definition answers. */
export type ResponseOf<D extends AnyDefinition> = Awaited<
  ReturnType<D["handle"]>
>;

/** Options for {@linkcode serve}. */
export interface ServeOptions {
  /** The worker's port to the outside; found by itself, if it is left out. */
  port?: PortLike;
}

/** Options for a {@linkcode WorkerSerializer}. */
export interface WorkerSerializerOptions {
  /**
   * How many workers there are at most, each with a resource of its own. An
   * integer from 1, or `Infinity`.
   *
   * @default {1}
   */
  concurrency?: number;
  /**
   * How many requests may wait; further ones reject with a
   * {@linkcode QueueFullError}. An integer from 0, or `Infinity`.
   *
   * @default {Infinity}
   */
  maxWaiting?: number;
  /**
   * How long a handler may go on after its caller has given up, in
   * milliseconds. Then its worker is terminated, without closing its resource,
   * and replaced. `Infinity`: it is never.
   *
   * @default {5000}
   */
  grace?: number;
  /**
   * How long a worker may take to load and to call {@linkcode serve}, in
   * milliseconds, or `Infinity`.
   *
   * @default {30000}
   */
  startTimeout?: number;
  /**
   * What error messages call it, and debuggers its workers.
   *
   * @default {"worker"}
   */
  name?: string;
}

/** Thrown to those whose request was lost with its worker, or who needed one that could not be started. */
export class WorkerDiedError extends Error {
  /** The request. */
  readonly value: unknown;
  /**
   * Whether the request has been carried out: `false` if it had not begun and
   * can be made again; `true` if its handler had ended, and only what came of it
   * is lost; `undefined` if it may have been, in part or as a whole.
   */
  readonly carriedOut: boolean | undefined;

  /** Takes a `cause`, like any error, the request as `value`, and what is known of it. */
  constructor(
    message: string,
    options: ErrorOptions & { value?: unknown; carriedOut?: boolean },
  ) {
    super(message, options);
    this.name = "WorkerDiedError";
    this.value = options.value;
    this.carriedOut = options.carriedOut;
  }
}

// The messages, and why there is one batch at a time: see docs/protocol.md and
// docs/decisions/0008-batches-that-may-have-started.md.

const PROTOCOL = "@sauce/queues/worker";
const VERSION = 1;

/** What a worker says through its own scope: what it speaks, and the lock that it holds. */
type Ready = [typeof PROTOCOL, version: number, lock: string | undefined];

/** What is answered: the port for all that follows, and the memory of the {@linkcode Marks}. */
type Connect = [
  typeof PROTOCOL,
  port: MessagePort,
  marks: Uint8Array | undefined,
];

/**
 * What comes to the worker through that port: requests, as a batch or, if it is
 * one and can do so, by itself; that a caller has gone; that this is the end.
 */
type ToWorker =
  | ["run", ...requests: unknown[]]
  | ["cancel", batch: number, index: number, reason: Packed]
  | ["close"];

/**
 * What comes back: that the resource has been opened; the next answers, or
 * errors where `failed` has their index, and how many requests go back; or an
 * answer by itself; that the resource has been closed after a fatal error; what
 * `isFatal` threw; or that this was the end.
 */
type FromWorker =
  | ["open"]
  | ["answers", left: number, note: Note, failed: number[], ...unknown[]]
  | ["shut", error?: Packed]
  | ["report", error: Packed]
  | ["closed", error?: Packed];

/**
 * How it went: all handlers were quick, or one was slow; the resource could not
 * be opened; it is being closed after a fatal error.
 */
type Note = "quick" | "slow" | "unopened" | "broken";

/** So long may a batch take, until the rest of it goes back. */
const SLICE = 1; // ms

/** A handler that takes longer makes its worker get one request at a time again. */
const SLOW = 5; // ms

/** A batch has one request for so many that were quick, in a row. */
const CAUTION = 16;

const MOST = 1024; // requests in a batch

/** So often is looked whether a handler was cut off. */
const WATCH = 1000; // ms

/** So long may a worker take to be terminated, until nobody waits for that any more. */
const LEAVING = 5000; // ms

function isOurs(message: unknown): message is unknown[] {
  return Array.isArray(message) && message[0] === PROTOCOL;
}

/** Whether a request or an answer that is alone needs no array around it. */
function canGoBare(value: unknown): boolean {
  // Deno makes null of an undefined that is alone.
  return value !== undefined && !Array.isArray(value);
}

/**
 * How the requests of a batch stand, in memory that both threads share. So a
 * request that has not begun can be called off, though the handler before it
 * blocks. Where no memory is shared, every one of them may be the one that runs.
 */
class Marks {
  static readonly #WAITS = 0;
  static readonly #RUNS = 1;
  static readonly #HAS_ENDED = 2;
  static readonly #CALLED_OFF = 3;
  /** Pages have none, unless they are isolated. */
  readonly memory: Uint8Array | undefined;

  constructor(memory: Uint8Array | undefined) {
    this.memory = memory;
  }

  static make(): Marks {
    return new Marks(
      typeof SharedArrayBuffer === "undefined"
        ? undefined
        : new Uint8Array(new SharedArrayBuffer(MOST)),
    );
  }

  /** Outside: a batch of `size` begins. */
  reset(size: number): void {
    this.memory?.fill(Marks.#WAITS, 0, size);
  }

  /** Outside: whether the request will not be run, as it has not begun. */
  callOff(index: number): boolean {
    return this.memory !== undefined &&
      this.#change(this.memory, index, Marks.#CALLED_OFF);
  }

  /** Outside: whether the request is known to have been run to its end. */
  hasEnded(index: number): boolean {
    return this.memory !== undefined &&
      Atomics.load(this.memory, index) === Marks.#HAS_ENDED;
  }

  /** Outside: whether the request may be the one that runs. */
  mayRun(index: number): boolean {
    return this.memory === undefined ||
      Atomics.load(this.memory, index) === Marks.#RUNS;
  }

  /** In the worker: whether the request is known not to be run. */
  isCalledOff(index: number): boolean {
    return this.memory !== undefined &&
      Atomics.load(this.memory, index) === Marks.#CALLED_OFF;
  }

  /** In the worker: whether the request is to be run; it begins then. */
  begin(index: number): boolean {
    return this.memory === undefined ||
      this.#change(this.memory, index, Marks.#RUNS);
  }

  /** In the worker: the request has been run, if it has begun. */
  end(index: number): void {
    if (this.memory === undefined) return;
    if (Atomics.load(this.memory, index) !== Marks.#RUNS) return; // never begun
    Atomics.store(this.memory, index, Marks.#HAS_ENDED);
  }

  #change(memory: Uint8Array, index: number, to: number): boolean {
    const { compareExchange } = Atomics;
    return compareExchange(memory, index, Marks.#WAITS, to) === Marks.#WAITS;
  }
}

// ── In the worker ───────────────────────────────────────────────────────────

/**
 * Serves requests in a worker, for the {@linkcode WorkerSerializer} outside that
 * has started it. To be called once.
 *
 * The resource is opened with the first request, requests run one after
 * another, and everything else is as with a `Serializer`: see there. What
 * `handle` returns is copied, as `structuredClone` does it, but for what is
 * marked by {@linkcode transfer}.
 *
 * @returns The definition; outside, its type is all that is needed of it.
 * @throws {Error} If this is no worker, or one that serves already.
 * @throws {TypeError} If the definition is incomplete.
 */
export function serve<Resource, Request, Response>(
  definition: WorkerDefinition<Resource, Request, Response>,
  options: ServeOptions = {},
): WorkerDefinition<Resource, Request, Response> {
  checkFunction("serve", "handle", Object(definition).handle);
  checkFunction("serve", "open", definition.open);
  for (const option of ["close", "isFatal"] as const) {
    const found = definition[option];
    if (found !== undefined) checkFunction("serve", option, found);
  }
  const port = options.port ?? ownPort();
  if (port === undefined) {
    throw new Error(
      "Cannot serve: this is not a worker; call it in the script of one, or give its `port`",
    );
  }
  if (serving.has(port)) {
    throw new Error("Cannot serve: this worker serves already");
  }
  serving.add(port);
  new Server(definition, port, options.port === undefined && hasLimits());
  return definition;
}

/** The ports that are being served. */
const serving = new WeakSet<PortLike>();

/** A request in hand, and what its handler is told about it. */
class Job implements HandlerContext {
  readonly request: unknown;
  /** Its place in the batch. */
  readonly index: number;
  #signal: LazySignal | undefined;

  constructor(request: unknown, index: number) {
    this.request = request;
    this.index = index;
  }

  get signal(): AbortSignal {
    return (this.#signal ??= new LazySignal()).signal;
  }

  /** Whether nobody waits for the answer any more. */
  get cancelled(): boolean {
    return this.#signal !== undefined && this.#signal.aborted;
  }

  /** The caller has given up. */
  cancel(reason: unknown): void {
    (this.#signal ??= new LazySignal()).abort(reason);
  }
}

/** Runs what is asked from outside. */
class Server<Resource, Request, Response> {
  readonly #definition: WorkerDefinition<Resource, Request, Response>;
  #serializer: Serializer<Resource, Job, Response>;
  #resource: "shut" | "opening" | "open" | "unopened" | "broken" = "shut";
  #wire: Wire;
  #marks = new Marks(undefined);
  /** How many batches have come, and the requests of the last one. */
  #batch = 0;
  #jobs: Job[] = [];
  /** How many of these have started, and how many have not been handed back. */
  #started = 0;
  #kept = 0;
  /** Answers that have not been sent, and which of them are errors. */
  #answers: unknown[] = [];
  #failed: number[] = [];
  #slow = false;
  /** Whether its memory is limited; then, whether a hook has been called, and not returned. */
  readonly #isLimited: boolean;
  #isInside = false;
  #isWatching = false;

  constructor(
    definition: WorkerDefinition<Resource, Request, Response>,
    scope: PortLike,
    isLimited: boolean,
  ) {
    this.#definition = definition;
    this.#isLimited = isLimited;
    this.#serializer = this.#makeSerializer();
    this.#wire = this.#listen(scope, (message) => {
      if (!isOurs(message)) return;
      this.#wire.end();
      const [_, port, marks] = message as Connect;
      this.#marks = new Marks(marks);
      this.#wire = this.#listen(port, (message) => this.#hear(message));
    });
    holdLock(scope).then((lock) => {
      this.#wire.post([PROTOCOL, VERSION, lock] satisfies Ready);
    });
  }

  /** Guards one life of the resource: a fatal error ends it. */
  #makeSerializer(): Serializer<Resource, Job, Response> {
    return new Serializer({
      open: async () => {
        this.#resource = "opening";
        const resource = await this.#call(() => this.#definition.open());
        this.#resource = "open";
        this.#say(["open"]);
        return resource;
      },
      handle: (resource, job: Job) =>
        // Called off while the resource was being opened?
        job.cancelled || !this.#marks.begin(job.index)
          ? undefined as Response // which nobody waits for
          : this.#call(() =>
            this.#definition.handle(resource, job.request as Request, job)
          ),
      close: this.#definition.close &&
        ((resource) => this.#definition.close!(resource)),
      reentrancy: "trust", // its handlers cannot reach it
    });
  }

  /** Calls a hook; notices if that is cut off. */
  #call<T>(hook: () => T): T {
    if (!this.#isLimited) return hook();
    this.#isInside = true;
    if (!this.#isWatching) this.#watch();
    try {
      return hook();
    } finally {
      this.#isInside = false;
    }
  }

  /** Deno cuts off what runs out of memory, and says so only if it was a timer that called it. */
  #watch(): void {
    this.#isWatching = true;
    setTimeout(() => {
      this.#isWatching = false;
      if (this.#isInside) throw new Error("it ran out of memory");
      if (this.#jobs.length > 0) this.#watch();
    }, WATCH);
  }

  #listen(port: PortLike, message: (message: unknown) => void): Wire {
    return new Wire("serve", port, {
      message,
      unreadable: () => {
        throw new Error("Cannot serve: a message cannot be read here");
      },
      died: () => {},
    });
  }

  #say(message: FromWorker, transfer?: object[]): void {
    this.#wire.post(message, transfer);
  }

  #hear(message: unknown): void {
    if (!Array.isArray(message)) return void this.#run([new Job(message, 0)]);
    const said = message as ToWorker;
    switch (said[0]) {
      case "run":
        this.#run(said.slice(1).map((request, i) => new Job(request, i)));
        break;
      case "cancel":
        if (said[1] === this.#batch) {
          this.#jobs[said[2]]?.cancel(unpack(said[3])); // unless it has ended
        }
        break;
      case "close":
        this.#close();
    }
  }

  /** Runs a batch; what has not started when it has taken long enough goes back. */
  async #run(jobs: Job[]): Promise<void> {
    this.#batch++;
    this.#jobs = jobs;
    this.#started = 0;
    this.#kept = jobs.length;
    this.#slow = false;
    if (this.#resource === "unopened") this.#resource = "shut";
    // For a handler that waits; one that blocks is noticed when it ends.
    const timer = this.#kept > 1
      ? setTimeout(() => {
        this.#send(this.#handBack());
      }, SLICE)
      : undefined;
    const began = performance.now();
    for (let before = began; this.#started < this.#kept;) {
      const job = jobs[this.#started++];
      try {
        this.#answer(
          job.cancelled || this.#marks.isCalledOff(job.index)
            ? undefined
            : await this.#serializer.request(job),
        );
      } catch (error) {
        this.#judge(error);
        this.#failed.push(this.#answers.length);
        this.#answer(pack(error));
      }
      const now = performance.now();
      if (now - before > SLOW) this.#slow = true;
      before = now;
      // Without a resource, others may be better off elsewhere.
      if (now - began > SLICE || this.#resource !== "open") break;
    }
    if (timer !== undefined) clearTimeout(timer);
    this.#send(this.#handBack());
    this.#jobs = [];
    if (this.#resource === "broken") this.#shut();
  }

  /** What an error of a request says about the resource. */
  #judge(error: unknown): void {
    if (this.#resource === "opening") this.#resource = "unopened";
    else if (
      isFatal(this.#definition, error, (error) => {
        this.#say(["report", pack(error)]);
      })
    ) this.#resource = "broken";
  }

  /** Closes the resource after a fatal error; the next request opens it anew. */
  async #shut(): Promise<void> {
    const error = await this.#closeResource();
    this.#serializer = this.#makeSerializer();
    this.#resource = "shut";
    this.#say(["shut", error]);
  }

  #answer(answer: unknown): void {
    this.#marks.end(this.#started - 1);
    this.#answers.push(answer);
    // What can change is copied now, before the next handler does that.
    if (this.#started < this.#kept && !isPrimitive(answer)) this.#send(0);
  }

  /** How many requests go back. */
  #handBack(): number {
    const left = this.#kept - this.#started;
    this.#kept = this.#started;
    return left;
  }

  /** Sends the answers there are. */
  #send(left: number): void {
    const answers = this.#answers;
    const failed = this.#failed;
    this.#answers = [];
    if (failed.length > 0) this.#failed = [];
    try {
      const list = transferListOf(answers);
      const [answer] = answers;
      if (
        this.#jobs.length === 1 && failed.length === 0 &&
        this.#note === "quick" && canGoBare(answer)
      ) this.#wire.post(answer, list);
      else this.#say(["answers", left, this.#note, failed, ...answers], list);
    } catch (cause) {
      const last = answers.length - 1; // those before it are primitives, which can be sent
      const did = failed.includes(last) ? "threw" : "returned";
      const error = unsendable(`answer: what the handler ${did}`, cause);
      const sendInstead = (error: TypeError) => {
        answers[last] = pack(error);
        this.#say(["answers", left, this.#note, [...failed, last], ...answers]);
      };
      try {
        sendInstead(error);
      } catch { // because of what the cause holds
        sendInstead(new TypeError(error.message));
      }
    }
  }

  get #note(): Note {
    const resource = this.#resource;
    if (resource === "unopened" || resource === "broken") return resource;
    return this.#slow ? "slow" : "quick";
  }

  async #close(): Promise<void> {
    this.#say(["closed", await this.#closeResource()]);
  }

  /** Closes the resource, if there is one; resolves with what that threw. */
  async #closeResource(): Promise<Packed | undefined> {
    try {
      await this.#serializer.close();
    } catch (error) {
      return pack(error);
    }
  }
}

function isPrimitive(value: unknown): boolean {
  switch (typeof value) {
    case "object":
      return value === null;
    case "function":
    case "symbol":
      return false;
    default:
      return true;
  }
}

/** Whether something goes along with it that will not be here any more. */
function moves(request: unknown): boolean {
  return transferListOf([request]) !== undefined;
}

function unsendable(what: string, cause: unknown): TypeError {
  return new TypeError(
    `Cannot ${what} cannot be sent to another thread: ${describe(cause)}`,
    { cause },
  );
}

// ── Outside ─────────────────────────────────────────────────────────────────

// The way of a request:
//
//   request ──▶ refused             aborted, closed, too many waiting
//           ──▶ the line            until the end of this turn, and while all workers are busy
//           ──▶ a worker's hand     in a batch; it may have started
//           ──▶ back to the line    if the worker says that it has not, or dies before it does
//           ──▶ its answer, or a WorkerDiedError
//
// States of a hand:     starting ──▶ ready ──▶ closing ──▶ gone   (gone from each of them)
//                                    │   ▲
//                     a fatal error  ▼   │  its resource is closed
//                                   shutting
// Its resource:         untried ──▶ open ──▶ shut   (which the next request makes untried)
//                          └───────────────────▲
// Live:                 a hand that is starting or ready, whose resource is not shut
// Invariant:            beside a live one, a hand is started, or one that is shut is
//                       given a request, only while there is no pause

/**
 * A serializer whose resource and handler live in a worker.
 *
 * - **Exclusion, order:** each worker runs one handler at a time; requests are
 *   served by `priority`, then as they came.
 * - **Errors:** what a handler throws rejects its own request, with its class,
 *   message, cause and fields; its stack goes on with that of the caller.
 * - **Death:** if a worker dies, for whatever reason, the request that it ran
 *   rejects with a {@linkcode WorkerDiedError} that says why, and is not run
 *   again. Those that had not begun go to a fresh worker, in their old order,
 *   unless something was to be moved with them: that is gone, and they reject.
 *   (A worker that has answered some requests, each within 5 ms, gets them in
 *   batches, of a sixteenth of that number, and answers what is quick at the end
 *   of its batch. If it dies, those whose answer is lost reject as well; on pages
 *   that are not isolated, and share no memory with their workers, so does the
 *   whole batch, since nobody knows what had begun.)
 * - **Start:** a worker that can't be started rejects the requests that waited
 *   when it was tried, and the next one tries again; while other workers are
 *   there, the first in line alone, unless as many others are starting as wait.
 *   One that dies before it has begun anything rejects the request that it was
 *   given, and so does one whose `open` fails.
 * - **Back-off:** after a worker that could not be started, or whose `open`
 *   failed, requests wait for the others, as long as one of them is starting or
 *   has its resource; a further try is made only after 1, then 2, 4, 8… requests
 *   have come or been served. Once one succeeds, that begins anew.
 * - **Copies:** requests and answers are copied, as `structuredClone` does it,
 *   but for what is marked by {@linkcode transfer}. A request is copied when it
 *   goes to the worker: leave it alone until it is answered. Objects within
 *   several requests of a batch may be one object in the worker, too.
 * - **Closing:** `close` answers those waiting first, `abort` rejects them.
 *
 * Nothing happens before the first request. Idle workers do not keep a process
 * of Node or Bun alive, nor one of Deno if their script is a file.
 */
export class WorkerSerializer<D extends AnyDefinition>
  implements AsyncDisposable {
  readonly #crew: Crew;
  readonly #concurrency: number;
  readonly #maxWaiting: number;
  readonly #line = new Lanes<Ask>();
  #hands: Hand[] = [];
  readonly #count: Count = {
    admitted: 0,
    unsettled: 0,
    nextLook: { at: NaN },
    left: () => {
      if (this.closed || this.#line.size === 0) this.#dispatch();
    },
  };
  #dispatching = false;
  /** How many requests must still come or be served before a worker is tried beside a live one. */
  #pause = 0;
  #nextPause = 0; // until a try fails
  #closing: Closing | undefined;

  /**
   * Makes a serializer; starts no worker yet.
   *
   * @param where The worker's script, which calls {@linkcode serve}; or a
   * function that starts such a worker anew each time.
   * @throws {RangeError} If an option is out of range.
   * @throws {TypeError} If an option has the wrong type.
   */
  constructor(
    where: URL | string | (() => WorkerLike | PromiseLike<WorkerLike>),
    options: WorkerSerializerOptions = {},
  ) {
    const action = "create worker serializer";
    if (typeof where !== "string" && !(where instanceof URL)) {
      if (typeof where !== "function") {
        throw new TypeError(
          invalid(action, "where", "a URL, a string or a function", where),
        );
      }
    }
    if (typeof options !== "object" || options === null) {
      throw new TypeError(invalid(action, "options", "an object", options));
    }
    const {
      concurrency = 1,
      maxWaiting = Infinity,
      grace = 5000,
      startTimeout = 30_000,
      name = "worker",
    } = options;
    checkCount(action, "concurrency", concurrency, 1);
    checkCount(action, "maxWaiting", maxWaiting, 0);
    checkCount(action, "grace", grace, 0);
    checkCount(action, "startTimeout", startTimeout, 0);
    checkString(action, "name", name);
    this.#concurrency = concurrency;
    this.#maxWaiting = maxWaiting;
    this.#crew = {
      name,
      grace,
      startTimeout,
      make: typeof where === "function" ? where : () => makeWorker(where, name),
      idle: () => {
        if (this.#line.size > 0 || this.closed) this.#dispatch();
      },
      opened: () => this.#opened(),
      failed: () => this.#failed(),
      served: (count) => {
        if (this.#pause > 0) this.#shortenPause(count);
      },
      shut: (error) => this.#blame(error),
      putBack: (asks) => this.#putBack(asks),
      died: (...death) => this.#bury(...death),
      gone: (hand) => this.#dismiss(hand),
    };
  }

  /**
   * How many requests wait, in line or in a batch that a worker has; those that
   * a worker is being started for do not.
   */
  get waiting(): number {
    return Math.max(0, this.#count.unsettled - this.#free);
  }

  /** How many requests have a worker, or one is being started for them; also those whose callers have gone. */
  get running(): number {
    return this.#deserted + Math.min(this.#count.unsettled, this.#free);
  }

  /** Whether new requests are refused. */
  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /** Looks at the serializer: plain data, ready for `JSON.stringify`. */
  inspect(): SerializerSnapshot {
    this.#count.nextLook.at = Date.now();
    this.#count.nextLook = { at: NaN };
    let oldest = Infinity;
    for (const ask of this.#line.firsts()) {
      oldest = Math.min(oldest, ask.look.at);
    }
    for (const hand of this.#hands) oldest = Math.min(oldest, hand.oldest);
    return {
      name: this.#crew.name,
      closed: this.closed,
      waiting: this.waiting,
      running: this.running,
      oldestSince: oldest === Infinity ? null : oldest,
    };
  }

  /**
   * Asks the handler in a worker, and resolves with its answer.
   *
   * **Cancellation:** a waiting request is never run. A running one rejects at
   * once, and its handler's `context.signal` fires. If the handler has not ended
   * after `grace`, its worker is terminated; until then, the next one waits.
   * (Pages that are not isolated share no memory with their workers. There, a
   * request that went to a worker in a batch may run all the same; and an abort
   * gives `grace` to what is left of the batch, whichever of it runs.)
   *
   * @throws {QueueClosedError} If the serializer is closed.
   * @throws {QueueFullError} If `maxWaiting` others wait.
   * @throws {WorkerDiedError} If its worker dies, or can't be started.
   * @throws {RangeError} If `priority` is not a number.
   * @throws {TypeError} If the request, or the answer, can't be copied.
   */
  // An async function, so that errors are made where V8 and JavaScriptCore know
  // who waits for them.
  async request(
    ...[request, options]: RequestArguments<D>
  ): Promise<ResponseOf<D>> {
    const ask = this.#admit(request, options);
    await ask.end();
    if (ask.failure !== undefined) throw ask.failure();
    return ask.answer as ResponseOf<D>;
  }

  /**
   * Refuses new requests, answers those waiting, then closes the resources and
   * ends the workers. Resolves when that is done, which takes as long as it takes.
   *
   * @throws What closing the resource threw; an `AggregateError` for several.
   */
  close(): Promise<void> {
    const closing = this.#closing ??= new Closing();
    this.#dispatch();
    return closing.done;
  }

  /**
   * Rejects all requests, those waiting and those running, with `reason` (by
   * default an `AbortError`); lets the running handlers know by their
   * `context.signal`; closes each resource once its handler has ended. A worker
   * that has not done that within `grace` is terminated. Resolves when no worker
   * is left.
   *
   * @throws What closing a resource threw, as {@linkcode WorkerSerializer.close} does.
   */
  abort(reason?: unknown): Promise<void> {
    if (reason === undefined) {
      reason = new DOMException(
        `${this.#crew.name} was aborted`,
        "AbortError",
      );
    }
    const closing = this.#closing ??= new Closing();
    closing.hurried = true;
    for (let ask; (ask = this.#line.peek()) !== undefined;) ask.abort(reason);
    for (const hand of this.#hands) {
      for (const ask of hand.asks) ask.abort(reason);
      hand.hurryClosing();
    }
    return this.close();
  }

  /** Closes it as {@linkcode WorkerSerializer.close} does, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** How many workers there are whose handlers nobody waits for. */
  get #deserted(): number {
    let deserted = 0;
    for (const hand of this.#hands) if (hand.deserted) deserted++;
    return deserted;
  }

  /** How many workers there are, or could be, for those who want an answer. */
  get #free(): number {
    return this.#places - this.#deserted;
  }

  /** How many workers there are, or could be. */
  get #places(): number {
    if (this.#nextPause === 0) return this.#concurrency;
    let places = this.#mayTry ? 1 : 0;
    for (const hand of this.#hands) if (hand.live) places++;
    return Math.min(places, this.#concurrency);
  }

  /** Whether a worker may be started, or one that is shut be given a request. */
  get #mayTry(): boolean {
    return this.#pause === 0 || !this.#hands.some(({ live }) => live);
  }

  /** So many requests have come or been served. */
  #shortenPause(count: number): void {
    this.#pause = Math.max(0, this.#pause - count);
    if (this.#pause === 0 && this.#line.size > 0) this.#dispatch();
  }

  /** A worker that was tried has its resource. */
  #opened(): void {
    if (this.#nextPause === 0) return;
    this.#pause = 0;
    this.#nextPause = 1;
    this.#dispatch();
  }

  /** One could not be started, or has none. */
  #failed(): void {
    if (this.#nextPause > 0) return; // since it was tried, there is a pause
    this.#pause = 1;
    this.#nextPause = 2;
  }

  /** Makes a request wait, or throws if it must be refused. */
  #admit(
    request: unknown,
    { signal, priority = 0 }: RequestOptions = {},
  ): Ask {
    if (signal !== undefined && hasAborted(signal)) throw signal.reason;
    if (typeof priority !== "number" || Number.isNaN(priority)) {
      throw new RangeError(
        invalid("request", "priority", "a number", priority),
      );
    }
    const { name } = this.#crew;
    if (this.#closing !== undefined) {
      throw new QueueClosedError(
        `Cannot request: ${name} is closed; the request is in this error's \`value\``,
        { value: request },
      );
    }
    if (this.#pause > 0) this.#shortenPause(1);
    if (
      this.#maxWaiting !== Infinity &&
      this.#count.unsettled + 1 - this.#free > this.#maxWaiting
    ) {
      throw new QueueFullError(
        `Cannot request: ${this.waiting} requests wait for ${name}; the request is in this error's \`value\``,
        { value: request },
      );
    }
    const ask = new Ask(request, priority, this.#count);
    if (signal !== undefined) ask.watch(signal);
    this.#count.admitted++;
    this.#count.unsettled++;
    this.#line.add(ask);
    this.#dispatch();
    return ask;
  }

  /** At the end of this turn, gives out what is in the line. */
  #dispatch(): void {
    if (this.#dispatching) return;
    this.#dispatching = true;
    queueMicrotask(this.#giveOut);
  }

  readonly #giveOut = (): void => {
    this.#dispatching = false;
    const line = this.#line;
    let idle = 0;
    let starting = 0;
    for (const hand of this.#hands) {
      if (hand.idle && hand.live) idle++;
      else if (hand.state === "starting") starting++;
    }
    for (const resource of BY_MERIT) {
      for (const hand of this.#hands) {
        if (!hand.idle || hand.resource !== resource) continue;
        if (line.peek() === undefined) break;
        this.#give(hand, line.size / idle--);
      }
    }
    while (line.peek() !== undefined && starting < line.size && this.#mayTry) {
      const shut = this.#hands.find(({ idle, live }) => idle && !live);
      if (shut === undefined && this.#hands.length >= this.#concurrency) break;
      this.#pause = this.#nextPause;
      this.#nextPause *= 2;
      if (shut === undefined) {
        starting++;
        this.#hands.push(new Hand(this.#crew, this.#count.admitted));
      } else this.#give(shut, 1);
    }
    const isEmpty = line.peek() === undefined;
    if (starting > 0) {
      for (const hand of this.#hands) hand.expect(!isEmpty);
    }
    if (isEmpty && this.#closing !== undefined) this.#wind(this.#closing);
  };

  /** Gives a worker a batch: its share, as far as it has been quick. */
  #give(hand: Hand, share: number): void {
    const most = Math.min(hand.streak / CAUTION, share, MOST);
    const asks: Ask[] = [];
    const objects = new Set<unknown>();
    do {
      const ask = this.#line.peek();
      if (ask === undefined) break;
      const { request } = ask;
      const isObject = !isPrimitive(request);
      const isAlone = isObject && moves(request);
      // Within a message one object stays one, and what cannot be sent takes
      // with it what others move.
      if (asks.length > 0 && (isAlone || objects.has(request))) break;
      if (isObject) objects.add(request);
      ask.list!.remove(ask);
      asks.push(ask);
      if (isAlone) break;
    } while (asks.length + 1 <= most);
    try {
      hand.run(asks);
    } catch (cause) { // one of them cannot be sent: now they go one by one
      hand.streak = 0;
      if (asks.length === 1) {
        asks[0].reject(() => unsendable("request: the request", cause));
      }
      this.#putBack(asks);
    }
  }

  /** Requests that have not been run go back to where they came from. */
  #putBack(asks: Ask[]): void {
    for (const ask of asks) ask.hand = undefined;
    this.#line.putBack(
      asks.filter(({ settled }) => !settled),
      (ask, other) => ask.number < other.number,
    );
    this.#dispatch();
  }

  /** Ends the workers, since there is nothing more to do for them. */
  #wind(closing: Closing): void {
    for (const hand of this.#hands) {
      hand.close();
      if (closing.hurried) hand.hurryClosing();
    }
    if (this.#hands.length === 0) closing.finish();
  }

  /** Tells those concerned that a worker has died; what it had not begun goes back. */
  #bury(hand: Hand, phase: Phase, why: string, cause: unknown): void {
    const { name } = this.#crew;
    const error = (tried: string, loss?: Loss) =>
      new WorkerDiedError(`Cannot ${tried}: ${why}`, {
        cause,
        value: loss?.ask.request,
        carriedOut: loss?.carriedOut,
      });
    if (hand.resource === "untried") this.#failed();
    if (phase === "starting") {
      for (const ask of this.#waitingFor(hand)) {
        ask.reject(() => error(`start ${name}`, { ask, carriedOut: false }));
      }
      return;
    }
    const { unbegun, lost } = hand.letGo();
    this.#putBack(unbegun);
    for (const loss of lost) {
      const { ask, carriedOut } = loss;
      const how = carriedOut === undefined
        ? ""
        : carriedOut
        ? ", which had been carried out"
        : ", which had not begun";
      ask.reject(() =>
        error(`answer: ${name} died with this request in hand${how}`, loss)
      );
    }
    if (lost.length > 0) return;
    const closing = this.#closing;
    if (closing === undefined) {
      if (cause !== undefined) report(error(`go on with ${name}`));
    } else if (
      cause !== undefined || (phase !== "ready" && !closing.hurried)
    ) closing.errors.push(error(`close ${name}`));
  }

  /** Those who wait for a worker that was starting; beside others, it is one of them at most. */
  #waitingFor(starting: Hand): Ask[] {
    const line = this.#line;
    const others = this.#hands.filter(({ state }) => state !== "gone");
    if (others.length > 0) {
      const starts = others.filter(({ state }) => state === "starting");
      const first = line.peek();
      return first === undefined || starts.length >= line.size ? [] : [first];
    }
    const asks: Ask[] = [];
    const later: Ask[] = [];
    for (let ask; (ask = line.peek()) !== undefined;) {
      ask.list!.remove(ask);
      (ask.number < starting.since ? asks : later).push(ask);
    }
    for (const ask of later) line.add(ask);
    return asks;
  }

  /** A worker is no more. */
  #dismiss(hand: Hand): void {
    this.#hands = this.#hands.filter((other) => other !== hand);
    this.#dispatch();
  }

  /** Gives an error to those who wait for the end, if somebody does. */
  #blame(error: unknown): void {
    if (this.#closing === undefined) report(error);
    else this.#closing.errors.push(error);
  }
}

/** The way to the end. */
class Closing {
  /** What closing the resources threw. */
  readonly errors: unknown[] = [];
  /** Whether it has to come after the time of grace. */
  hurried = false;
  /** Settles once no worker is left. */
  readonly done: Promise<void>;
  /** No worker is left. */
  finish!: () => void;

  constructor() {
    this.done = new Promise((resolve, reject) => {
      const { errors } = this;
      this.finish = () =>
        errors.length === 0 ? resolve() : reject(
          errors.length === 1
            ? errors[0]
            : new AggregateError(errors, "Cannot close several resources"),
        );
    });
  }
}

/** When somebody looked; `NaN` if nobody has yet. */
interface Look {
  at: number;
}

/** How many requests there have been, and how many of them have not been settled. */
interface Count {
  admitted: number;
  unsettled: number;
  /** Of those who have come since the last one. */
  nextLook: Look;
  /** One has left the line without having been served. */
  left(): void;
}

/** A request: its caller waits for an answer, in line or while a worker has it. */
class Ask implements Abortable, Link<Ask> {
  list: List<Ask> | undefined = undefined; // while it stands in line
  previous: Ask | undefined = undefined;
  next: Ask | undefined = undefined;
  readonly request: unknown;
  readonly priority: number;
  /** How many there were before it. */
  readonly number: number;
  /** The first look after it came. */
  readonly look: Look;
  /** The worker that has it. */
  hand: Hand | undefined = undefined;
  /** Whether its caller has an answer, or has gone. */
  settled = false;
  answer: unknown = undefined;
  /** Makes the error, if there is one, where the caller waits for it. */
  failure: (() => unknown) | undefined = undefined;
  private readonly count: Count;
  private onSettled: (() => void) | undefined = undefined;
  private watching: Watch | undefined = undefined;

  constructor(request: unknown, priority: number, count: Count) {
    this.request = request;
    this.priority = priority;
    this.count = count;
    this.number = count.admitted;
    this.look = count.nextLook;
  }

  /** Resolves once it is settled. */
  end(): Promise<void> {
    return new Promise((resolve) => this.onSettled = resolve);
  }

  /** Lets the caller go when `signal` aborts. */
  watch(signal: AbortSignal): void {
    this.watching = new Watch(signal, this);
  }

  /** Gives the caller its answer; only if it has not gone. */
  resolve(answer: unknown): void {
    this.answer = answer;
    this.settle();
  }

  /** Gives the caller the error that `failure` makes, unless it has gone. */
  reject(failure: () => unknown): void {
    if (this.settled) return;
    this.failure = failure;
    this.settle();
  }

  /** Lets the caller go, now. */
  abort(reason: unknown): void {
    this.reject(() => reason);
    if (this.hand !== undefined) this.hand.cancel(this, reason);
  }

  /** Whether its signal has aborted, but not called its listeners yet; aborts it if so. */
  lapse(): boolean {
    return this.watching !== undefined && this.watching.lapse();
  }

  private settle(): void {
    this.settled = true;
    this.count.unsettled--;
    if (this.watching !== undefined) this.watching.end();
    if (this.list !== undefined) {
      this.list.remove(this);
      this.count.left();
    }
    this.onSettled!();
  }
}

/** An error that is made where the caller waits, so that its stack shows both sides. */
function failure(packed: Packed): () => unknown {
  return () => {
    const { stack = "" } = new Error("here");
    return unpack(packed, stack.replace(/^Error: here\n/, ""));
  };
}

/** What a worker is about. */
type Phase = "starting" | "ready" | "shutting" | "closing" | "gone";

/** Whose resource is open is given requests before those who have none yet. */
const BY_MERIT = ["open", "untried"] as const;

/** Whom a hand works for. */
interface Crew {
  readonly name: string;
  readonly grace: number;
  readonly startTimeout: number;
  make(): WorkerLike | PromiseLike<WorkerLike>;
  /** It may be given requests. */
  idle(hand: Hand): void;
  /** Requests that it has not started go back to the line. */
  putBack(asks: Ask[]): void;
  /** One that was tried has its resource; or could not open it. */
  opened(): void;
  failed(): void;
  /** One that has its resource has answered so many requests. */
  served(count: number): void;
  /** Closing a resource failed. */
  shut(error: unknown): void;
  /** It has died, with what it had in hand, and is being terminated. */
  died(hand: Hand, phase: Phase, why: string, cause: unknown): void;
  /** It is no more, as intended or not. */
  gone(hand: Hand): void;
}

/** A request that is lost with its worker, and what is known of it. */
interface Loss {
  readonly ask: Ask;
  readonly carriedOut: boolean | undefined;
}

/** A worker, and the batch of requests that it has in hand. */
class Hand {
  state: Phase = "starting";
  /** Whether there is a resource, or will be with the next request, for all that is known. */
  resource: "untried" | "open" | "shut" = "untried";
  /** How many requests there had been when it was started. */
  readonly since: number;
  /** When it should have been ready. */
  readonly #late: number;
  /** How many requests it has answered in a row, each of them quickly. */
  streak = 0;
  readonly #crew: Crew;
  #worker: WorkerLike | undefined;
  /** To the worker's own scope; and the port for what follows. */
  #scope: Wire | undefined;
  #port: Port | undefined;
  #wire: Wire | undefined;
  /** How many batches it has been given, and the last one. */
  #batch = 0;
  #asks: Ask[] = [];
  #answered = 0; // of these
  readonly #marks = Marks.make();
  /** Ends the wait for its start, or for a handler whose caller has gone. */
  #endWait: (() => void) | undefined;
  /** The index of that handler's request; the end of the batch, if all have gone. */
  #hurried: number | undefined;
  /** Whether somebody waits for it, while it is starting. */
  #expected = true;

  constructor(crew: Crew, since: number) {
    this.#crew = crew;
    this.since = since;
    this.#late = performance.now() + crew.startTimeout;
    this.#awaitStart();
    this.#start();
  }

  /** Whether it may be given requests. */
  get idle(): boolean {
    return this.state === "ready" && !this.busy;
  }

  /** Whether a handler may be under way. */
  get busy(): boolean {
    return this.#answered < this.#asks.length;
  }

  /** Whether it is, or will be, of use to those who wait. */
  get live(): boolean {
    return this.resource !== "shut" &&
      (this.state === "ready" || this.state === "starting");
  }

  /**
   * Whether a handler is under way whose caller has gone; where no memory is
   * shared, whether one may be.
   */
  get deserted(): boolean {
    return this.#firstDeserted !== -1;
  }

  get #firstDeserted(): number {
    return this.#asks.findIndex(({ settled }, i) =>
      settled && i >= this.#answered && this.#marks.mayRun(i)
    );
  }

  /** The requests that it has not answered. */
  get asks(): Ask[] {
    return this.#asks.slice(this.#answered);
  }

  /** Since when its oldest request has been there that is waited for, or may be under way. */
  get oldest(): number {
    let oldest = Infinity;
    for (let i = this.#answered; i < this.#asks.length; i++) {
      const { settled, look } = this.#asks[i];
      if (settled && !this.#marks.mayRun(i)) continue;
      oldest = Math.min(oldest, look.at);
    }
    return oldest;
  }

  async #start(): Promise<void> {
    try {
      const made = this.#crew.make();
      // One that is there is listened to at once: it may die before the next microtask.
      const worker = isPromiseLike(made) ? await made : made;
      if (typeof worker?.terminate !== "function") {
        throw new TypeError(
          invalid("use worker", "it", "a Worker or alike", worker),
        );
      }
      this.#worker = worker;
      if (!this.#expected) worker.unref?.();
      // Never ended, even if it comes too late: an error without a listener
      // would be thrown here.
      this.#scope = new Wire("use worker", worker, {
        message: (message) => this.#connect(message),
        unreadable: () => this.#die("it said what cannot be read here"),
        // What it has said before may still be on its way.
        died: (why, cause) => after(0, () => this.#die(why, cause)),
      });
      if (this.state === "gone") this.#terminate().catch(report);
    } catch (cause) {
      this.#die(describe(cause), cause);
    }
  }

  /** It is ready: all that follows goes through a port that nobody else uses. */
  #connect(message: unknown): void {
    if (this.state !== "starting" || !isOurs(message)) return;
    const [_, version, lock] = message as Ready;
    if (version !== VERSION) {
      return this.#die(
        `it speaks version ${version} of the protocol, this thread version ${VERSION}; ` +
          "let both use the same @sauce/queues",
      );
    }
    if (lock !== undefined) awaitLock(lock, () => this.#die("it ended"));
    this.#stopWaiting();
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    this.#wire = new Wire("use worker", port1, {
      message: (message) => this.#hear(message),
      unreadable: () => this.#die("it said what cannot be read here"),
      died: () => {}, // seldom told, and never why
    });
    const answer: Connect = [PROTOCOL, port2, this.#marks.memory];
    try {
      this.#scope!.post(answer, [port2]);
    } catch (cause) {
      return this.#die(describe(cause), cause);
    }
    this.#port.unref?.(); // it is the worker that keeps the process alive while it is busy
    this.state = "ready";
    this.#rest();
  }

  #awaitStart(): void {
    const left = this.#late - performance.now();
    this.#endWait = after(Math.max(0, left), () => {
      this.#die(`it was not ready within ${this.#crew.startTimeout} ms`);
    });
  }

  /** Whether somebody waits for it; while it is starting for nobody, it keeps no process alive. */
  expect(expected: boolean): void {
    if (this.state !== "starting" || this.#expected === expected) return;
    this.#expected = expected;
    if (expected) {
      this.#worker?.ref?.();
      this.#awaitStart();
    } else {
      this.#worker?.unref?.();
      this.#stopWaiting();
    }
  }

  #say(message: ToWorker, transfer?: object[]): void {
    this.#wire!.post(message, transfer);
  }

  /** Gives it requests; throws if they cannot be sent. */
  run(asks: Ask[]): void {
    this.#marks.reset(asks.length);
    // Before they are sent: a getter of theirs may call one off.
    this.#asks = asks;
    this.#answered = 0;
    for (const ask of asks) ask.hand = this;
    try {
      this.#send(asks.map(({ request }) => request));
    } catch (error) {
      this.#stopWaiting();
      this.#asks = [];
      throw error;
    }
    this.#batch++;
    if (this.resource === "shut") this.resource = "untried";
    this.#worker!.ref?.();
    // Those called off meanwhile, where no memory is shared.
    for (const ask of asks) if (ask.settled) this.cancel(ask, ask.failure!());
  }

  #send(requests: unknown[]): void {
    const list = transferListOf(requests);
    const [request] = requests;
    if (requests.length === 1 && canGoBare(request)) {
      this.#wire!.post(request, list);
    } else this.#say(["run", ...requests], list);
  }

  /** The caller of one of its requests has gone. */
  cancel(ask: Ask, reason: unknown): void {
    const index = this.#asks.indexOf(ask);
    if (!this.#marks.callOff(index) && this.#marks.mayRun(index)) {
      this.#say(["cancel", this.#batch, index, pack(reason)]);
      this.hurry(index);
    } else this.#hurryAll();
  }

  /** Ends it in an orderly way, unless it is busy or about to end. */
  close(): void {
    if (this.idle && this.#batch > 0) {
      this.state = "closing";
      this.#worker!.ref?.();
      this.#say(["close"]);
    } else if (this.idle || this.state === "starting") {
      this.#quit(); // it has no resource
    }
  }

  /** Gives the closing of its resource, if it is under way, the time of grace. */
  hurryClosing(): void {
    if (this.state === "closing" || this.state === "shutting") this.hurry();
  }

  /** Gives a batch that nobody wants any more the time of grace: it may be stuck outside of a handler. */
  #hurryAll(): void {
    const { asks } = this;
    if (this.#hurried === undefined && asks.every(({ settled }) => settled)) {
      this.hurry(this.#asks.length);
    }
  }

  /**
   * Gives what it still does the time of grace, once: closing, the request at
   * `index`, or all of the batch, if `index` is the end of it.
   */
  hurry(index = 0): void {
    if (this.#hurried !== undefined && this.#marks.memory === undefined) return;
    if (this.#hurried === index) return;
    const { grace } = this.#crew;
    this.#stopWaiting();
    this.#hurried = index;
    this.#endWait = after(grace, () => {
      if (index < this.#asks.length && !this.#marks.mayRun(index)) {
        this.#hurried = undefined; // its answer is on its way
        return this.#hurryAll();
      }
      this.#die(
        `what it did had not ended ${grace} ms after nobody wanted it any more`,
      );
    });
  }

  #stopWaiting(): void {
    this.#hurried = undefined;
    if (this.#endWait === undefined) return;
    this.#endWait();
    this.#endWait = undefined;
  }

  async #quit(): Promise<void> {
    await this.#end();
    this.#crew.gone(this);
  }

  #die(why: string, cause?: unknown): void {
    if (this.state === "gone") return;
    const phase = this.state;
    const ended = this.#end();
    this.#crew.died(this, phase, why, cause);
    ended.then(() => this.#crew.gone(this)); // until then, its resource may be in use
  }

  /** Lets go of its batch once it is dead, or about to be: what it has not begun, it never will. */
  letGo(): { unbegun: Ask[]; lost: Loss[] } {
    const unbegun: Ask[] = [];
    const lost: Loss[] = [];
    for (let i = this.#answered; i < this.#asks.length; i++) {
      const ask = this.#asks[i];
      if (ask.settled) continue;
      if (!this.#marks.callOff(i)) {
        const carriedOut = this.#marks.hasEnded(i) || undefined;
        lost.push({ ask, carriedOut });
      } else if (this.#batch > 1 && !moves(ask.request)) unbegun.push(ask);
      // Otherwise it could go from one dead worker to the next, for ever; and
      // what was to be moved is here no more.
      else lost.push({ ask, carriedOut: false });
    }
    this.#asks = [];
    this.#answered = 0;
    return { unbegun, lost };
  }

  async #end(): Promise<void> {
    this.state = "gone";
    this.#stopWaiting();
    this.#wire?.end();
    this.#port?.close();
    await new Promise<void>((resolve) => {
      const stop = after(LEAVING, () => {
        resolve();
        const { name } = this.#crew;
        report(
          new Error(
            `Cannot end ${name}: terminate() has not settled within ${LEAVING} ms; it is left alone`,
          ),
        );
      });
      this.#terminate().catch(report).then(() => {
        stop();
        resolve();
      });
    });
  }

  async #terminate(): Promise<void> {
    await this.#worker?.terminate();
  }

  #hear(message: unknown): void {
    if (!Array.isArray(message)) return this.#receive([message]);
    const said = message as FromWorker;
    switch (said[0]) {
      case "open":
        this.resource = "open";
        return this.#crew.opened();
      case "answers": {
        const [_, left, note, failed] = said;
        return this.#receive(said.slice(4), left, note, failed);
      }
      case "report":
        return report(unpack(said[1]));
      case "shut":
        if (said[1] !== undefined) this.#crew.shut(unpack(said[1]));
        this.#stopWaiting();
        this.state = "ready";
        return this.#rest();
      case "closed":
        if (said[1] !== undefined) this.#crew.shut(unpack(said[1]));
        return void this.#quit();
      default:
        this.#die(`it said ${show(message[0])}, which makes no sense`);
    }
  }

  #receive(
    answers: unknown[],
    left = 0,
    note: Note = "quick",
    failed?: number[],
  ): void {
    const asks = this.#asks;
    this.streak = note !== "quick"
      ? 0
      : left > 0
      ? Math.min(this.streak, answers.length * CAUTION)
      : this.streak + answers.length;
    for (let i = 0; i < answers.length; i++) {
      const ask = asks[this.#answered++];
      ask.hand = undefined;
      if (failed?.includes(i)) ask.reject(failure(answers[i] as Packed));
      else if (!ask.settled) ask.resolve(answers[i]);
    }
    if (left > 0) this.#crew.putBack(asks.splice(asks.length - left));
    if (note === "unopened") this.#crew.failed();
    if (note === "unopened" || note === "broken") this.resource = "shut";
    else if (this.resource === "open") this.#crew.served(answers.length);
    if (!this.busy) {
      this.#stopWaiting();
      this.#asks = [];
      this.#answered = 0;
      if (note !== "broken") return this.#rest();
      this.state = "shutting";
      return this.#crew.idle(this);
    }
    // What was hurried has been answered, or has come back.
    if (asks[this.#hurried!]?.hand !== this) this.#stopWaiting();
    const deserted = this.#firstDeserted;
    if (deserted !== -1) this.hurry(deserted);
    else this.#hurryAll();
  }

  #rest(): void {
    this.#worker!.unref?.();
    this.#crew.idle(this);
  }
}

/** A `MessagePort`, which some runtimes let keep the process alive. */
type Port = MessagePort & Pick<WorkerLike, "unref">;
