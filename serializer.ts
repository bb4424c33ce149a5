/**
 * A serializer guards a dangerous resource: requests reach its handler one
 * after another, and nobody else can touch it.
 *
 * The resource is born inside, in `open`, is given to the handler, and never
 * leaves. There is no lock to take, to forget or to hold for too long.
 *
 * ```ts
 * import { Serializer } from "@sauce/queues/serializer";
 * import { assertEquals } from "@std/assert";
 *
 * // An oven that spoils what is in it when the door is opened too early.
 * await using oven = new Serializer({
 *   open: () => ({ dishes: 0 }),
 *   async handle(oven, dish: string) {
 *     const before = oven.dishes;
 *     await Promise.resolve(); // others come in here, but they have to wait
 *     oven.dishes = before + 1;
 *     return `${dish}, dish ${oven.dishes}`;
 *   },
 * });
 *
 * assertEquals(
 *   await Promise.all([oven.request("pie"), oven.request("bread")]),
 *   ["pie, dish 1", "bread, dish 2"],
 * );
 * ```
 *
 * @module
 */

import {
  innermost,
  isFatal,
  isPromiseLike,
  isWithin,
  LazySignal,
  Stay,
  within,
} from "./_context.ts";
import {
  checkCount,
  checkFunction,
  checkObject,
  checkOneOf,
  checkString,
  invalid,
  report,
} from "./_errors.ts";
import { Lanes } from "./_lanes.ts";
import {
  type Abortable,
  hasAborted,
  type Link,
  type List,
  Watch,
} from "./_line.ts";
import { look, losesTasks, type Member, watchOver } from "./_vigil.ts";
import { QueueClosedError, QueueFullError } from "./queue.ts";

/** What a handler is told about the request that it runs. */
export interface HandlerContext {
  /**
   * Fires when the caller gives up, or the serializer is aborted. Made when
   * first looked at.
   */
  readonly signal: AbortSignal;
}

/** Options for a {@linkcode Serializer}. */
export interface SerializerOptions<Resource, Request, Response> {
  /** Makes the resource: on the first request, and again after it was lost. */
  open(): Resource | PromiseLike<Resource>;
  /** Answers a request of {@linkcode Serializer.request}. Its turn lasts until what it returns has settled. */
  handle?(
    resource: Resource,
    request: Request,
    context: HandlerContext,
  ): Response | PromiseLike<Response>;
  /**
   * Releases the resource. By default its `Symbol.asyncDispose` or
   * `Symbol.dispose` is called, if it has one.
   */
  close?(resource: Resource): void | PromiseLike<void>;
  /**
   * Whether the resource is of no more use after this error of a handler. Then
   * it is closed, and opened anew for the next request. No answer means no; one
   * that is no boolean, such as a promise, does too, and is reported as an error.
   *
   * @default {() => false}
   */
  isFatal?(error: unknown): boolean;
  /**
   * How many copies of the resource there are, each with one handler at a time.
   * An integer from 1, or `Infinity`.
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
   * `"detect"`: a handler that asks its own serializer, directly or through
   * others, is refused with a {@linkcode ReentrantRequestError} as long as it
   * runs. Where the runtime gives no `AsyncLocalStorage`, only until its first
   * `await`; after that it waits for itself for ever. That is so in pages, on
   * Node before 20.16 (or 22.3), and on Cloudflare's workers before
   * compatibility date 2026-08-04 without the flag `nodejs_compat`. `"trust"`:
   * it is never refused; saves the price of finding out.
   *
   * @default {"detect"}
   */
  reentrancy?: "detect" | "trust";
  /**
   * What error messages call it.
   *
   * @default {"serializer"}
   */
  name?: string;
}

/** Options for a request. */
export interface RequestOptions {
  /**
   * Gives up: the request rejects with `signal.reason`. If it waits, it is
   * never run; if it runs, the handler's `context.signal` fires, and its turn
   * lasts until it has ended.
   */
  signal?: AbortSignal;
  /**
   * Higher ones are served first, equal ones in the order in which they came;
   * lower ones wait as long as higher ones come. Any number but `NaN`.
   *
   * @default {0}
   */
  priority?: number;
}

/** The state of a serializer, as plain data. */
export interface SerializerSnapshot {
  /** Its name. */
  readonly name: string;
  /** Whether new requests are refused. */
  readonly closed: boolean;
  /** How many requests wait for their turn. */
  readonly waiting: number;
  /** How many requests have their turn now. */
  readonly running: number;
  /**
   * Since when, at least, its oldest request has been there, in milliseconds
   * since the epoch; `null` if there is none. Requests read no clock: they are
   * dated by the first call of {@linkcode Serializer.inspect} after them, so
   * this is as exact as the calls are frequent.
   */
  readonly oldestSince: number | null;
}

/**
 * Thrown to a handler that asks its own serializer. With one copy it would wait
 * for itself; with several, those who have one could all wait for each other.
 */
export class ReentrantRequestError extends Error {
  /** Takes a `cause`, like any error. */
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "ReentrantRequestError";
  }
}

// The way of a request:
//
//   request ──▶ refused              aborted, closed, re-entrant, too many waiting
//           ──▶ a free copy          idle, or to be opened; then nobody waits
//           ──▶ the line             until a copy is handed over, or its signal aborts
//
// A turn, run by its caller in the caller's own async context (there is no loop):
//
//   copy in hand ──▶ open, if need be ──▶ handle ──▶ answer ──▶ copy to the next in line
//
// States of a copy: shut ──▶ opening ──▶ open ──▶ shut (broken, or at the end)
// States of all:    accepting ──close()──▶ closing ──▶ closed
//                       └────abort()──▶ aborted ──▶ closed
// Invariants:       a copy belongs to one turn (which runs, or waits for its
//                   closing), or is idle and open, or is being closed for good;
//                   one that was lost with its turn belongs to that turn for
//                   ever; requests wait only while no copy is free.

/**
 * Runs requests one after another against a resource that only its handlers
 * can reach.
 *
 * - **Exclusion:** as many handlers run at once as there are copies of the
 *   resource, by default one. A turn lasts until its handler has ended, even if
 *   its caller has given up.
 * - **Order:** by `priority`, then as they came.
 * - **Errors:** what a handler throws rejects its own request only; the next
 *   one runs. If `open` throws, its request rejects and the next one tries
 *   again. But while another copy is open, or being opened, requests wait for
 *   that one, and a further copy is tried only after 1, then 2, 4, 8… of them
 *   have come or been served; once one can be opened, that begins anew.
 * - **Context:** each handler runs in its caller's async context. On
 *   Cloudflare's workers, where that can end without a word, the turn then goes
 *   to the next, with a resource opened anew.
 * - **Closing:** `close` answers those waiting first, `abort` rejects them.
 *
 * Nothing happens before the first request.
 */
export class Serializer<Resource, Request = never, Response = never>
  implements AsyncDisposable {
  readonly #options: SerializerOptions<Resource, Request, Response>;
  readonly #concurrency: number;
  readonly #maxWaiting: number;
  readonly #detect: boolean;
  readonly #name: string;
  readonly #handle: Work = (resource, request, context) =>
    this.#options.handle!(resource as Resource, request as Request, context);
  readonly #line = new Lanes<Turn>();
  #running = 0;
  readonly #idle: Copy[] = []; // open
  readonly #copies = new Set<Copy>(); // idle or in hand
  readonly #live = new Set<Copy>(); // those of them that are open, or about to be opened
  /** How many requests must still come or be served before a copy is opened beside a live one. */
  #pause = 0;
  #nextPause = 0; // until an open fails
  #closing: Closing | undefined;
  #nextLook: Look = { at: NaN }; // of those who have come since the last one

  /**
   * Makes a serializer; opens nothing yet.
   *
   * @throws {RangeError} If an option is out of range.
   * @throws {TypeError} If an option has the wrong type.
   */
  constructor(options: SerializerOptions<Resource, Request, Response>) {
    const action = "create serializer";
    checkObject(action, "options", options);
    const {
      concurrency = 1,
      maxWaiting = Infinity,
      reentrancy = "detect",
      name = "serializer",
    } = options;
    checkFunction(action, "open", options.open);
    for (const option of ["handle", "close", "isFatal"] as const) {
      const found = options[option];
      if (found !== undefined) checkFunction(action, option, found);
    }
    checkCount(action, "concurrency", concurrency, 1);
    checkCount(action, "maxWaiting", maxWaiting, 0);
    checkOneOf(action, "reentrancy", reentrancy, ["detect", "trust"]);
    checkString(action, "name", name);
    this.#options = options;
    this.#concurrency = concurrency;
    this.#maxWaiting = maxWaiting;
    this.#detect = reentrancy === "detect";
    this.#name = name;
  }

  /** How many requests wait for their turn. */
  get waiting(): number {
    return this.#line.size;
  }

  /** How many requests have their turn now. */
  get running(): number {
    return this.#running;
  }

  /** Whether new requests are refused. */
  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /** Looks at the serializer: plain data, ready for `JSON.stringify`. */
  inspect(): SerializerSnapshot {
    this.#nextLook.at = Date.now();
    this.#nextLook = { at: NaN };
    let oldest = Infinity;
    for (const turn of this.#line.firsts()) {
      oldest = Math.min(oldest, turn.look.at);
    }
    for (const { turn } of this.#copies) {
      if (turn !== undefined) oldest = Math.min(oldest, turn.look.at);
    }
    return {
      name: this.#name,
      closed: this.closed,
      waiting: this.waiting,
      running: this.running,
      oldestSince: oldest === Infinity ? null : oldest,
    };
  }

  /**
   * Asks the handler, and resolves with its answer.
   *
   * **Cancellation:** a waiting request leaves the line and is never run. A
   * running one rejects at once, its handler's `context.signal` fires, and the
   * next one waits until the handler has ended; what it then still throws is
   * shown to `isFatal` alone.
   *
   * @throws {QueueClosedError} If the serializer is closed.
   * @throws {QueueFullError} If `maxWaiting` others wait.
   * @throws {ReentrantRequestError} If a handler asks its own serializer.
   * @throws {TypeError} If an option has the wrong type.
   * @throws {RangeError} If `priority` is `NaN`.
   */
  request(request: Request, options?: RequestOptions): Promise<Response> {
    return this.#ask(this.#handle, request, options);
  }

  /**
   * Runs `task` as if it were the handler, and resolves with what it returns.
   * Everything else is as in {@linkcode Serializer.request}.
   */
  run<T>(
    task: (
      resource: Resource,
      context: HandlerContext,
    ) => T | PromiseLike<T>,
    options?: RequestOptions,
  ): Promise<T> {
    return this.#ask(RUN, task, options);
  }

  /**
   * Refuses new requests, answers those waiting, then closes the resource.
   * Resolves when that is done, which takes as long as its handlers and hooks
   * take, be it for ever. Called by one of its own handlers, it resolves at once,
   * since it can't wait for itself; as far as `reentrancy` lets it know.
   *
   * @throws What closing the resource threw; an `AggregateError` for several copies.
   */
  close(): Promise<void> {
    const closing = this.#closing ??= new Closing();
    for (const copy of this.#idle.splice(0)) this.#retire(copy);
    if (this.#copies.size === 0) closing.finish();
    const inside = this.#detect && isWithin(this, innermost());
    return inside ? Promise.resolve() : closing.done;
  }

  /**
   * Rejects all requests, those waiting and those running, with `reason` (by
   * default an `AbortError`); lets the running handlers know by their
   * `context.signal`; closes each resource once its handler has ended. Resolves
   * when that is done, as {@linkcode Serializer.close} does, but does not wait
   * for an `open` under way: what that still brings is closed when it comes.
   */
  abort(reason?: unknown): Promise<void> {
    if (reason === undefined) {
      reason = new DOMException(`${this.#name} was aborted`, "AbortError");
    }
    this.#closing ??= new Closing();
    for (let turn; (turn = this.#line.peek()) !== undefined;) {
      turn.abort(reason);
    }
    for (const copy of this.#copies) {
      copy.turn?.abort(reason);
      if (copy.state === "opening") this.#forget(copy);
    }
    return this.close();
  }

  /** Closes it as {@linkcode Serializer.close} does, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #ask<T>(
    work: Work,
    request: unknown,
    options: RequestOptions | undefined,
  ): Promise<T> {
    let turn: Turn;
    try {
      turn = this.#admit(work, request, options);
    } catch (error) {
      if (losesTasks()) look(this); // perhaps the next one finds a place
      return Promise.reject(error);
    }
    if (this.#hasFreeCopy) {
      this.#hand(this.#idle.pop() ?? this.#newCopy(), turn);
      this.#run(turn);
    } else {
      this.#line.add(turn);
      turn.asleep().then(this.#run);
    }
    if (!turn.over && losesTasks()) this.#watchOver(turn);
    return turn.answer() as Promise<T>;
  }

  #watchOver(turn: Turn): void {
    const member: Member = {
      get over() {
        return turn.over;
      },
      lose: () => this.#lose(turn),
    };
    watchOver(member, this);
  }

  /** Goes on without a turn that will not end; with another copy, if it has begun to use its own. */
  #lose(turn: Turn): void {
    const { copy } = turn;
    if (copy === undefined || copy.turn === turn) {
      turn.abort(
        new DOMException(
          `The caller of ${this.#name} was gone before its turn had ended`,
          "AbortError",
        ),
      );
    }
    if (copy === undefined) return;
    turn.copy = undefined;
    if (copy.turn === turn) this.#end(turn, copy);
    if (!turn.begun) return this.#pass(copy);
    this.#forget(copy);
    this.#pass(this.#newCopy());
    this.#openMore(); // perhaps it was the last one
  }

  /** Makes a turn for a request, or throws if it must be refused. */
  #admit(
    work: Work,
    request: unknown,
    { signal, priority = 0 }: RequestOptions = {},
  ): Turn {
    if (signal !== undefined && hasAborted(signal)) throw signal.reason;
    if (work === RUN) checkFunction("run", "task", request);
    else if (this.#options.handle === undefined) throw this.#unhandled();
    if (typeof priority !== "number" || Number.isNaN(priority)) {
      throw noPriority(priority);
    }
    if (this.#closing !== undefined) throw this.#closed(request);
    const parent = this.#detect ? innermost() : undefined;
    if (parent !== undefined && isWithin(this, parent)) {
      throw this.#reentrant();
    }
    if (this.#pause > 0) this.#shortenPause();
    if (this.#line.size >= this.#maxWaiting && !this.#hasFreeCopy) {
      throw this.#full(request);
    }
    const stay = this.#detect ? new Stay(this, parent) : undefined;
    const turn = new Turn(work, request, priority, stay, this.#nextLook);
    if (signal !== undefined) turn.watch(signal);
    return turn;
  }

  // Errors are made apart from where they are thrown: the way of a request that is
  // not refused has to stay short, or V8 does not inline it.

  #unhandled(): TypeError {
    return new TypeError(
      `Cannot request: ${this.#name} has no option \`handle\`; give it one, or use run()`,
    );
  }

  #closed(value: unknown): QueueClosedError {
    return new QueueClosedError(
      `Cannot request: ${this.#name} is closed; the request is in this error's \`value\``,
      { value },
    );
  }

  #full(value: unknown): QueueFullError {
    return new QueueFullError(
      `Cannot request: ${this.#line.size} requests wait for ${this.#name}; the request is in this error's \`value\``,
      { value },
    );
  }

  #reentrant(): ReentrantRequestError {
    return new ReentrantRequestError(
      `Cannot request: a handler of ${this.#name} asks ${this.#name}; if all who have a turn wait for another one, none ever comes; ` +
        "let it use the resource that it was given",
    );
  }

  get #hasFreeCopy(): boolean {
    if (this.#idle.length > 0) return true;
    return this.#copies.size < this.#concurrency && this.#mayOpen;
  }

  get #mayOpen(): boolean {
    return this.#pause === 0 || this.#live.size === 0;
  }

  /** A request has come or been served. */
  #shortenPause(): void {
    if (--this.#pause === 0) this.#openMore();
  }

  /** Opens copies for those in line, as many as may be. */
  #openMore(): void {
    while (this.#line.size > 0 && this.#hasFreeCopy) {
      this.#pass(this.#newCopy());
    }
  }

  #newCopy(): Copy {
    const copy: Copy = new Copy(
      (answer) => this.#succeed(copy, answer),
      (error) => this.#fail(copy, error),
    );
    this.#copies.add(copy);
    return copy;
  }

  /** Gives a request its turn. */
  #hand(copy: Copy, turn: Turn): void {
    if (copy.state !== "open") {
      this.#live.add(copy);
      this.#pause = this.#nextPause;
      this.#nextPause *= 2;
    }
    copy.turn = turn;
    turn.copy = copy;
    this.#running++;
  }

  /** Runs a turn; afterwards the copy goes on to the next. */
  readonly #run = (turn: Turn): void => {
    const { copy } = turn;
    if (copy === undefined) return; // lost before it came to that
    turn.begun = true;
    let answer: unknown;
    try {
      answer = this.#work(turn, copy);
      if (isPromiseLike(answer)) {
        settlingOnce(answer).then(copy.succeed, copy.fail);
        return;
      }
    } catch (error) {
      return this.#fail(copy, error);
    }
    this.#succeed(copy, answer);
  };

  #succeed(copy: Copy, answer: unknown): void {
    const { turn } = copy;
    if (turn === undefined) return this.#discard(copy);
    turn.resolve(answer);
    this.#end(turn, copy);
    this.#release(turn, copy);
  }

  #fail(copy: Copy, error: unknown): void {
    const { turn } = copy;
    if (turn === undefined) return this.#discard(copy);
    turn.reject(error);
    this.#end(turn, copy);
    const fatal = copy.state === "open" &&
      isFatal(this.#options, error, report);
    if (!fatal) return this.#release(turn, copy);
    this.#shut(copy)
      .catch((error) => this.#failToShut(copy, error))
      .then(() => {
        if (this.#copies.has(copy)) this.#release(turn, copy); // not lost meanwhile
      });
  }

  /** Calls the handler with the resource, unless the caller has gone. */
  #work(turn: Turn, copy: Copy): unknown {
    if (copy.state === "open" || turn.gone) return this.#call(turn, copy);
    const opening = this.#within(turn.stay, () => this.#open(copy));
    if (opening === undefined) return this.#call(turn, copy);
    return opening.then(() => this.#call(turn, copy));
  }

  #call(turn: Turn, { resource }: Copy): unknown {
    if (turn.gone) return undefined;
    const { work, request, stay } = turn;
    const context = new Context(turn);
    return stay === undefined
      ? work(resource, request, context) // without a closure: this path is hot
      : within(stay, () => work(resource, request, context));
  }

  /** Runs what may not ask this serializer. */
  #within<T>(stay: Stay | undefined, run: () => T): T {
    return stay === undefined ? run() : within(stay, run);
  }

  /** Opens a copy; returns what to wait for, if anything. */
  #open(copy: Copy): Promise<void> | undefined {
    const opened = (resource: unknown) => {
      copy.resource = resource;
      copy.state = "open";
      if (this.#nextPause === 0) return;
      this.#pause = 0;
      this.#nextPause = 1;
      this.#openMore();
    };
    const failed = (error: unknown) => {
      copy.state = "shut";
      if (this.#nextPause === 0) {
        this.#pause = 1;
        this.#nextPause = 2;
      }
      throw error;
    };
    copy.state = "opening";
    try {
      const resource = this.#options.open();
      if (isPromiseLike(resource)) {
        return Promise.resolve(resource).then(opened, failed);
      }
      opened(resource);
    } catch (error) {
      failed(error);
    }
  }

  #end(turn: Turn, copy: Copy): void {
    if (turn.stay !== undefined) turn.stay.over = true;
    copy.turn = undefined;
    this.#running--;
  }

  #release(turn: Turn, copy: Copy): void {
    turn.copy = undefined;
    this.#pass(copy);
    if (this.#pause > 0 && copy.state === "open") this.#shortenPause();
  }

  /** Closes the copy of a turn that was lost, and has ended after all. */
  #discard(copy: Copy): void {
    this.#shut(copy).catch(report);
  }

  /** Hands a copy to the next in line. */
  #pass(copy: Copy): void {
    if (copy.state !== "open") this.#live.delete(copy);
    const usable = copy.state === "open" || this.#mayOpen;
    const turn = usable ? this.#line.peek() : undefined;
    if (turn !== undefined) {
      turn.list!.remove(turn);
      this.#hand(copy, turn);
      turn.wake();
    } else if (copy.state !== "open") {
      this.#remove(copy);
    } else if (this.#closing !== undefined) {
      this.#retire(copy);
    } else {
      this.#idle.push(copy);
    }
  }

  /** Closes a copy for good. */
  async #retire(copy: Copy): Promise<void> {
    await this.#shut(copy).catch((error) => this.#failToShut(copy, error));
    this.#remove(copy);
  }

  #forget(copy: Copy): void {
    this.#copies.delete(copy);
    this.#live.delete(copy);
  }

  #remove(copy: Copy): void {
    this.#forget(copy);
    if (this.#copies.size === 0) this.#closing?.finish();
  }

  /** Gives an error to those who wait for the end, if it is their copy. */
  #failToShut(copy: Copy, error: unknown): void {
    if (this.#closing !== undefined && this.#copies.has(copy)) {
      this.#closing.errors.push(error);
    } else report(error);
  }

  /** Closes the resource of a copy, if it has one. */
  async #shut(copy: Copy): Promise<void> {
    if (copy.state !== "open") return;
    const stay = this.#detect ? new Stay(this, innermost()) : undefined;
    await null; // its last answer goes out first
    copy.state = "shut";
    this.#live.delete(copy);
    this.#openMore(); // perhaps it was the last one
    try {
      await this.#within(stay, () => this.#close(copy.resource as Resource));
    } finally {
      if (stay !== undefined) stay.over = true;
    }
  }

  #close(resource: Resource): unknown {
    if (this.#options.close !== undefined) return this.#options.close(resource);
    const disposable = resource as Partial<Disposable & AsyncDisposable> | null;
    const dispose = disposable?.[Symbol.asyncDispose] ??
      disposable?.[Symbol.dispose];
    return dispose?.call(resource);
  }
}

/** What is done with a request. */
type Work = (
  resource: unknown,
  request: unknown,
  context: HandlerContext,
) => unknown;

/** What is done with the task of `run`. */
const RUN: Work = (resource, task, context) =>
  (task as (resource: unknown, context: HandlerContext) => unknown)(
    resource,
    context,
  );

function noPriority(found: unknown): TypeError | RangeError {
  const Kind = typeof found === "number" ? RangeError : TypeError;
  return new Kind(invalid("request", "priority", "a number", found));
}

/** When somebody looked; `NaN` if nobody has yet. */
interface Look {
  at: number;
}

/** One copy of the resource. */
class Copy {
  state: "shut" | "opening" | "open" = "shut";
  resource: unknown = undefined; // while open
  /** Whose turn it is. */
  turn: Turn | undefined = undefined;
  /** Ends its turn with an answer. */
  readonly succeed: (answer: unknown) => void;
  /** Ends its turn with an error. */
  readonly fail: (error: unknown) => void;

  constructor(
    succeed: (answer: unknown) => void,
    fail: (error: unknown) => void,
  ) {
    this.succeed = succeed;
    this.fail = fail;
  }
}

/** A request: its caller waits for an answer, its handler runs when its turn comes. */
// `private`, not `#`: in V8 that would make a request a tenth dearer.
class Turn implements Abortable, Link<Turn> {
  list: List<Turn> | undefined = undefined; // while it stands in line
  previous: Turn | undefined = undefined;
  next: Turn | undefined = undefined;
  readonly work: Work;
  readonly request: unknown;
  readonly priority: number;
  /** Marks what its handler does, if that is to be told from what others do. */
  readonly stay: Stay | undefined;
  /** The first look after it came. */
  readonly look: Look;
  /** The copy in hand, from when the turn has come until it is handed on. */
  copy: Copy | undefined = undefined;
  /** Whether its copy may be in use. */
  begun = false;
  private watching: Watch | undefined = undefined;
  private lazySignal: LazySignal | undefined = undefined;
  private promise: Promise<unknown> | undefined = undefined;
  private onAnswer: ((answer: unknown) => void) | undefined = undefined;
  private onError: ((reason: unknown) => void) | undefined = undefined;
  private onTurn: ((turn: Turn) => void) | undefined = undefined;

  constructor(
    work: Work,
    request: unknown,
    priority: number,
    stay: Stay | undefined,
    look: Look,
  ) {
    this.work = work;
    this.request = request;
    this.priority = priority;
    this.stay = stay;
    this.look = look;
  }

  /** Lets the caller sleep until {@linkcode Turn.wake}. */
  asleep(): Promise<Turn> {
    return new Promise((resolve) => this.onTurn = resolve);
  }

  /** The turn has come: its caller goes on, in its own async context. */
  wake(): void {
    this.onTurn!(this);
  }

  /** What the caller gets. */
  answer(): Promise<unknown> {
    return this.promise ??= new Promise((resolve, reject) => {
      this.onAnswer = resolve;
      this.onError = reject;
    });
  }

  /** Gives the caller its answer, unless it has gone. */
  resolve(answer: unknown): void {
    if (this.watching !== undefined) this.watching.end();
    if (this.onAnswer !== undefined) this.onAnswer(answer);
    else {
      const promise = Promise.resolve(answer); // which may look at the answer's `then`
      this.promise ??= promise;
    }
  }

  /** Gives the caller an error, unless it has gone. */
  reject(reason: unknown): void {
    if (this.watching !== undefined) this.watching.end();
    if (this.onError !== undefined) this.onError(reason);
    else this.promise ??= Promise.reject(reason);
  }

  /** Lets the caller go when `signal` aborts. */
  watch(signal: AbortSignal): void {
    this.watching = new Watch(signal, this);
  }

  /** Lets the caller go, now. */
  abort(reason: unknown): void {
    if (this.list !== undefined) this.list.remove(this);
    this.reject(reason);
    this.signal.abort(reason);
  }

  /** Whether its signal has aborted, but not called its listeners yet; aborts it if so. */
  lapse(): boolean {
    return this.watching !== undefined && this.watching.lapse();
  }

  /** Whether it neither waits nor has a copy in hand. */
  get over(): boolean {
    return this.list === undefined && this.copy === undefined;
  }

  /** Whether the caller has gone; then the handler is not started any more. */
  get gone(): boolean {
    if (this.lapse()) return true;
    return this.lazySignal !== undefined && this.lazySignal.aborted;
  }

  /** Aborts once the caller has gone. */
  get signal(): LazySignal {
    return this.lazySignal ??= new LazySignal();
  }
}

class Context implements HandlerContext {
  readonly #turn: Turn;

  constructor(turn: Turn) {
    this.#turn = turn;
  }

  get signal(): AbortSignal {
    return this.#turn.signal.signal;
  }
}

/** A promise of the same, which calls back once, whatever `then` is. */
function settlingOnce(answer: PromiseLike<unknown>): PromiseLike<unknown> {
  const { then } = Promise.prototype;
  return answer instanceof Promise && answer.then === then
    ? answer
    : new Promise((resolve) => resolve(answer));
}

/** The way to the end. */
class Closing {
  /** What closing the copies threw. */
  readonly errors: unknown[] = [];
  #finished = false;
  #done: Promise<void> | undefined;
  #settle: (() => void) | undefined;

  /** Settles once every copy is closed. */
  get done(): Promise<void> {
    return this.#done ??= new Promise((resolve, reject) => {
      this.#settle = () =>
        this.errors.length === 0 ? resolve() : reject(
          this.errors.length === 1
            ? this.errors[0]
            : new AggregateError(this.errors, "Cannot close several copies"),
        );
      if (this.#finished) this.#settle();
    });
  }

  /** Every copy is closed. */
  finish(): void {
    if (this.#finished) return;
    this.#finished = true;
    if (this.#settle !== undefined) this.#settle();
    else this.errors.forEach(report); // nobody waits
  }
}
