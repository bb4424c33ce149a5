/**
 * A queue hands values from task to task: bounded, cancellable, with any number
 * of senders and receivers.
 *
 * ```ts
 * import { Queue } from "@sauce/queues/queue";
 * import { assertEquals } from "@std/assert";
 *
 * const orders = new Queue<string>({ capacity: 2 });
 *
 * async function frontOfHouse() {
 *   for (const dish of ["soup", "steak", "sorbet"]) {
 *     await orders.send(dish); // waits while two orders are in the queue
 *   }
 *   orders.close(); // what is in the queue can still be received
 * }
 *
 * const served: string[] = [];
 * async function kitchen() {
 *   for await (const dish of orders) served.push(dish);
 * }
 *
 * await Promise.all([frontOfHouse(), kitchen()]);
 * assertEquals(served, ["soup", "steak", "sorbet"]);
 * ```
 *
 * Everything stays in memory and is delivered at most once.
 *
 * @module
 */

import { type Buffer, Heap, Ring, Stack } from "./_buffer.ts";
import {
  checkCount,
  checkFunction,
  checkObject,
  checkOneOf,
  checkOverflow,
  invalid,
  report,
} from "./_errors.ts";
import {
  hasAborted,
  ITSELF,
  Line,
  type Owner,
  Waiter,
  Watch,
} from "./_line.ts";
import { type Tap, taps } from "./_tap.ts";

/**
 * What a full queue does with one more value.
 *
 * - `"wait"`: `send` waits until there is room.
 * - `"reject"`: `send` rejects with a {@linkcode QueueFullError}.
 * - `"drop-oldest"`: the value that has been in the queue longest makes room.
 * - `"drop-newest"`: the value just sent is dropped.
 */
export type Overflow = "wait" | "reject" | "drop-oldest" | "drop-newest";

/** Options for a {@linkcode Queue}. */
export interface QueueOptions<T> {
  /**
   * How many values the queue holds, an integer from 0. With 0 each `send`
   * waits for its receiver (a rendezvous); `Infinity` removes the bound.
   *
   * @default {0}
   */
  capacity?: number;
  /**
   * What happens to a value for which there is no room. Dropping needs
   * `capacity >= 1`.
   *
   * @default {"wait"}
   */
  overflow?: Overflow;
  /**
   * Which of the values in the queue is received first: the oldest, the newest,
   * or the smallest by a comparison like that of `Array.prototype.sort`, equals
   * in the order in which they came. All but `"fifo"` need `capacity >= 1`.
   *
   * A comparison that throws, or returns something else than a number, refuses
   * the value being sent. With `"drop-oldest"` each drop looks at all values.
   *
   * @default {"fifo"}
   */
  order?: "fifo" | "lifo" | ((a: T, b: T) => number);
  /** Called with each value that `overflow` drops; what it throws is reported, not thrown. */
  onDrop?: (value: T) => void;
}

/** Options for everything that waits. */
export interface WaitOptions {
  /** Gives up waiting: the method rejects with `signal.reason`, also if it has aborted before. */
  signal?: AbortSignal;
}

/**
 * What {@linkcode Queue.tryReceive} found:
 *
 * - `"ok"`: a value, any value, `undefined` too.
 * - `"empty"`: nothing now, but the queue is open.
 * - `"closed"`: nothing now or ever again.
 */
export type ReceiveResult<T> =
  | { state: "ok"; value: T }
  | { state: "empty" }
  | { state: "closed" };

/** Options for an error that hands back the value which was not sent. */
export interface UnsentOptions extends ErrorOptions {
  /** The value that was not sent. Left out: there was none. */
  value?: unknown;
}

/** Thrown to those who send to a closed queue, or receive from one that is closed and empty. */
export class QueueClosedError extends Error {
  /** The unsent value; there is no such property unless something was being sent. */
  declare readonly value?: unknown;

  /** Takes a `cause`, like any error, and the unsent `value`. */
  constructor(message: string, options: UnsentOptions = {}) {
    super(message, options);
    this.name = "QueueClosedError";
    if ("value" in options) this.value = options.value;
  }
}

/** Thrown to those who send to a full queue that was told to reject. */
export class QueueFullError extends Error {
  /** The unsent value. */
  declare readonly value?: unknown;

  /** Takes a `cause`, like any error, and the unsent `value`. */
  constructor(message: string, options: UnsentOptions = {}) {
    super(message, options);
    this.name = "QueueFullError";
    if ("value" in options) this.value = options.value;
  }
}

// How a value travels, each arrow one synchronous step:
//
//   send ──▶ a waiting receiver        if one waits, then nothing is buffered
//        ──▶ the buffer                if there is room
//        ──▶ the line of senders       if it may wait: the buffer is full
//        ──▶ dropped and counted       if it may be dropped
//        ──▶ back to its sender        otherwise
//
//   receive ◀── the buffer, whose free place goes to the first waiting sender
//           ◀── the first waiting sender, if there is no buffer (capacity 0)
//
// States:     open ──close()──▶ closed     (nobody waits any more)
// Invariants: receivers wait only while there is nothing to be had;
//             senders wait only while the buffer is full.

/**
 * Lets the rest of this file into a queue. Set by the first one, not in a static
 * block: for that, bundlers would keep the class where nobody uses it.
 */
let exchangeOf: <T>(queue: Queue<T>) => Exchange<T>;

/** How often `select` and `merge` have taken a value. */
let selections = 0;

/**
 * A channel between tasks: values sent by some are received by others, each by
 * exactly one.
 *
 * - **Order:** values come out in the order in which they went in (or by
 *   `order`); waiting senders are served in the order in which they came, and
 *   so are waiting receivers.
 * - **Back-pressure:** `send` waits while the queue is full (or by `overflow`).
 * - **Hand-over:** is one step. A `receive` that rejects took nothing, a `send`
 *   that rejects left nothing behind.
 * - **Closing:** waiting senders are refused with a {@linkcode QueueClosedError}
 *   that carries their value. Receivers get what is in the queue, and are
 *   refused after that.
 * - **Context:** on Cloudflare's workers, where a request can end without a
 *   word, those who wait in it are out of the line about a second later; whoever
 *   is there after all is told by an `AbortError`. A value that a receiver gets
 *   before that is lost with it.
 * - **Any value:** `undefined` and `null` travel like all others. A promise is
 *   a value too, but `receive` can't return it: it resolves as that promise does.
 *
 * Names and behaviour follow `Channel` of `@std/async`, but that an aborted
 * signal wins over a value that could be had at once.
 */
export class Queue<T> implements AsyncIterable<T>, Disposable, AsyncDisposable {
  readonly #exchange: Exchange<T>;

  /**
   * Makes an open, empty queue.
   *
   * @throws {RangeError} If an option is out of range.
   * @throws {TypeError} If an option has the wrong type.
   */
  constructor(options: QueueOptions<T> = {}) {
    this.#exchange = new Exchange(options);
    if (exchangeOf !== undefined) return;
    exchangeOf = (queue) => queue.#exchange;
    taps.into = (queue, tap) => exchangeOf(queue as Queue<unknown>).tap(tap);
  }

  /**
   * Makes a queue out of the values of `source`.
   *
   * - **Back-pressure:** a value is asked of the source once the one before it
   *   has been accepted.
   * - **Closing:** when the source ends, the queue closes; when it fails, the
   *   queue closes with its error. When somebody else closes the queue, the
   *   source is told to stop (by `return()`); a value that it was about to
   *   deliver is lost.
   *
   * **Cancellation:** an abort closes the queue with `signal.reason`. A source
   * whose signal has aborted before is not touched.
   *
   * @throws {TypeError} If `source` is not iterable, or an option has the wrong type.
   * @throws {RangeError} If an option is out of range.
   */
  static from<T>(
    source: Iterable<T> | AsyncIterable<T>,
    options: QueueOptions<T> & WaitOptions = {},
  ): Queue<T> {
    const queue = new Queue<T>(options);
    const { signal } = options;
    if (signal !== undefined && hasAborted(signal)) {
      queue.close(signal.reason);
      return queue;
    }
    const pump = new Pump(source);
    let watch: Watch | undefined;
    queue.#exchange.tap({
      closed: () => {
        watch?.end();
        pump.stop();
      },
    });
    if (signal?.aborted) queue.close(signal.reason); // by the source, just now
    else if (signal !== undefined) {
      watch = new Watch(signal, { abort: (reason) => queue.close(reason) });
    }
    if (!queue.closed) pump.run(queue);
    return queue;
  }

  /** How many values are in the queue now; those of waiting senders do not count. */
  get size(): number {
    return this.#exchange.buffer.size;
  }

  /** How many values it can hold. */
  get capacity(): number {
    return this.#exchange.capacity;
  }

  /** Whether it has been closed; it may still hold values. */
  get closed(): boolean {
    return this.#exchange.end !== undefined;
  }

  /** How many values the `overflow` policy has dropped since the start. */
  get dropped(): number {
    return this.#exchange.dropped;
  }

  /**
   * Sends a value; waits while the queue is full. Resolves once the value has
   * a receiver or a place in the queue, or was dropped by policy.
   *
   * **Cancellation:** the value is not sent; nobody else moves.
   *
   * @throws {QueueClosedError} If the queue is, or becomes, closed.
   * @throws {QueueFullError} If the queue is full and was told to reject.
   */
  send(value: T, options?: WaitOptions): Promise<void> {
    try {
      const signal = options?.signal;
      if (signal !== undefined && hasAborted(signal)) throw signal.reason;
      const exchange = this.#exchange;
      if (exchange.end !== undefined) throw unsent(value);
      if (exchange.offer(value)) return SENT;
      if (exchange.overflow === "reject") throw full(value, exchange.capacity);
      return exchange.wait(value, signal).promise();
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Sends a value if that needs no waiting.
   *
   * @returns Whether the queue took the value: for a receiver, into the queue,
   * or to drop it by policy. If not, the queue is full or closed.
   * @throws What `order` throws; then the queue did not take the value.
   */
  trySend(value: T): boolean {
    const exchange = this.#exchange;
    return exchange.end === undefined && exchange.offer(value);
  }

  /**
   * Receives the next value; waits until there is one.
   *
   * **Cancellation:** no value is taken; nobody else moves.
   *
   * @throws {QueueClosedError} If the queue is, or becomes, closed and empty;
   * if it was closed with a reason, that reason is thrown instead.
   */
  receive(options?: WaitOptions): Promise<T> {
    try {
      const signal = options?.signal;
      if (signal !== undefined && hasAborted(signal)) throw signal.reason;
      return receiveFrom(this.#exchange, signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Receives the next value if there is one now. */
  tryReceive(): ReceiveResult<T> {
    const exchange = this.#exchange;
    if (exchange.ready) return { state: "ok", value: exchange.take() };
    return exchange.end === undefined ? EMPTY : CLOSED;
  }

  /**
   * Waits for a value, then takes all that can be had at once, up to `max`.
   *
   * **Cancellation:** no value is taken.
   *
   * @param max An integer from 1, or `Infinity`.
   * @throws {QueueClosedError} As {@linkcode Queue.receive} does.
   * @throws {RangeError} If `max` is out of range.
   */
  receiveMany(max: number, options?: WaitOptions): Promise<T[]> {
    try {
      const signal = options?.signal;
      if (signal !== undefined && hasAborted(signal)) throw signal.reason;
      checkCount("receive many", "max", max, 1);
      return receiveFrom(new Batches(this.#exchange, max), signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Takes all that can be had now, the values of waiting senders too. */
  drain(): T[] {
    return this.#exchange.fill([], Infinity);
  }

  /**
   * Iterates over the values as they come, and takes them away from everyone
   * else. Ends when the queue is closed and empty; throws the reason if it was
   * closed with one. Leaving the loop leaves the queue open.
   *
   * **Cancellation:** the loop throws `signal.reason`; no value is taken.
   *
   * @throws {TypeError} If an option has the wrong type.
   */
  values(options?: WaitOptions): AsyncIterableIterator<T> {
    return new Reader(this.#exchange, options?.signal);
  }

  /**
   * Iterates like {@linkcode Queue.values}, over all the values that can be had
   * at once, from 1 up to `max`. Much faster than one by one.
   *
   * **Cancellation:** the loop throws `signal.reason`; no value is taken.
   *
   * @param max An integer from 1, or `Infinity`.
   * @throws {RangeError} If `max` is out of range.
   * @throws {TypeError} If an option has the wrong type.
   */
  batches(max: number, options?: WaitOptions): AsyncIterableIterator<T[]> {
    checkCount("make batches", "max", max, 1);
    return new Reader(new Batches(this.#exchange, max), options?.signal);
  }

  /** Iterates over the values, as {@linkcode Queue.values} does. */
  [Symbol.asyncIterator](): AsyncIterableIterator<T> {
    return new Reader(this.#exchange);
  }

  /**
   * Makes a stream of the values. It takes a value only when its reader asks
   * for one, and learns of the queue's end then: a plain end closes it, a reason
   * makes it fail. Cancelling it closes the queue, with the reason if there is one.
   */
  toReadableStream(): ReadableStream<T> {
    const exchange = this.#exchange;
    let pulling: Waiter | undefined;
    return new ReadableStream<T>({
      pull: (stream) => {
        if (exchange.ready) return stream.enqueue(exchange.take());
        const taker = new Pull(stream);
        pulling = exchange.park(taker, undefined);
        const pulled = pulling.promise<void>();
        if (exchange.end !== undefined) taker.end(pulling, exchange.end);
        return pulled;
      },
      cancel: (reason) => {
        pulling?.resolve(undefined);
        if (reason === undefined) this.close();
        else this.close(reason);
      },
    }, { highWaterMark: 0 });
  }

  /**
   * Makes a stream that sends what is written to it, and holds the writer back
   * while the queue is full. Closing it closes the queue; aborting it calls off
   * a write that waits, and closes the queue with the reason, or an `AbortError`
   * where there is none. (`pipeTo` with a signal aborts it after that write only,
   * as with any stream.)
   */
  toWritableStream(): WritableStream<T> {
    let stream: WritableStreamDefaultController;
    return new WritableStream<T>({
      start: (controller) => {
        stream = controller;
      },
      // an abort lets a write end first, so a waiting send has to be called off
      write: (value) => this.send(value, { signal: stream.signal }),
      close: () => this.close(),
      abort: (reason) =>
        this.close(
          reason ?? new DOMException("The stream was aborted", "AbortError"),
        ),
    });
  }

  /**
   * Closes the queue: refuses whoever sends, now and later. What is in the
   * queue can still be received. Does nothing if the queue is closed.
   *
   * @param reason What receivers are told once the queue is empty, instead of a
   * plain end; given is given, `undefined` too.
   */
  close(...reason: [reason?: unknown]): void {
    if (!this.closed) this.#exchange.close(new End(reason));
  }

  /** Closes the queue, at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Closes the queue, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return SENT;
  }
}

/** What {@linkcode select} and {@linkcode merge} take from a record of queues: a value and its key. */
// deno-lint-ignore no-explicit-any
export type Selected<Q extends Record<string, Queue<any>>> = {
  [K in Extract<keyof Q, string | number>]: {
    /** The key of the queue that the value was taken from, as a string. */
    key: `${K}`;
    /** The value. */
    value: Q[K] extends Queue<infer T> ? T : never;
  };
}[Extract<keyof Q, string | number>];

/**
 * Takes exactly one value from exactly one of several queues; waits until one
 * has a value.
 *
 * - **Order:** queues that have values take turns: the one that `select` and
 *   `merge` have left alone longest comes first, then the one named first.
 * - **Closing:** a queue that is closed and empty is passed over. If it was
 *   closed with a reason, that reason is thrown, whatever the others hold.
 *
 * ```ts
 * import { Queue, select } from "@sauce/queues/queue";
 * import { assertEquals } from "@std/assert";
 *
 * const orders = new Queue<string>({ capacity: 8 });
 * const shutdown = new Queue<Date>();
 *
 * await orders.send("soup");
 * const selected = await select({ orders, shutdown });
 * if (selected.key === "orders") assertEquals(selected.value.length, 4); // a string
 * ```
 *
 * **Cancellation:** no value is taken.
 *
 * @throws {QueueClosedError} If all queues are, or become, closed and empty.
 * @throws {RangeError} If there is no queue.
 * @throws {TypeError} If something else than a queue is given.
 */
// deno-lint-ignore no-explicit-any
export function select<Q extends Record<string, Queue<any>>>(
  queues: Q,
  options?: WaitOptions,
): Promise<Selected<Q>> {
  try {
    const signal = options?.signal;
    if (signal !== undefined && hasAborted(signal)) throw signal.reason;
    const merged = new Merged("select", queues);
    if (merged.size === 0) {
      throw new RangeError("Cannot select: give at least one queue, got none");
    }
    return receiveFrom(merged, signal) as Promise<Selected<Q>>;
  } catch (error) {
    return Promise.reject(error);
  }
}

/**
 * Iterates over the values of several queues as they come, as
 * {@linkcode select} takes them. Ends when all are closed and empty. Leaving the
 * loop leaves the queues open.
 *
 * **Cancellation:** the loop throws `signal.reason`; no value is taken.
 *
 * @throws {TypeError} If something else than a queue is given.
 */
// deno-lint-ignore no-explicit-any
export function merge<Q extends Record<string, Queue<any>>>(
  queues: Q,
  options?: WaitOptions,
): AsyncIterableIterator<Selected<Q>> {
  const merged = new Merged("merge", queues);
  return new Reader(merged, options?.signal) as AsyncIterableIterator<
    Selected<Q>
  >;
}

// "Pure" lets bundlers leave out what is not used.

/** What `send` returns when it need not wait. */
const SENT = /* @__PURE__ */ Promise.resolve();

const EMPTY: { readonly state: "empty" } = /* @__PURE__ */ Object.freeze({
  state: "empty",
});
const CLOSED: { readonly state: "closed" } = /* @__PURE__ */ Object.freeze({
  state: "closed",
});

/** How a queue ended: as intended, or with a reason. */
class End {
  /** Whether a reason was given, be it `undefined`. */
  readonly failed: boolean;
  #reason: unknown;

  constructor(reason: [unknown?]) {
    this.failed = reason.length > 0;
    this.#reason = reason[0];
  }

  /** What receivers are told. */
  get reason(): unknown {
    if (!this.failed) {
      this.#reason ??= new QueueClosedError(
        "Cannot receive from queue: it is closed and empty",
      );
    }
    return this.#reason;
  }
}

/** The end of a loop that its owner has left. */
const PLAIN_END = /* @__PURE__ */ new End([]);

/** Waits for a place for its value. */
type Sender<T> = Waiter<T>;

/** Waits for a value. */
type Receiver<T> = Waiter<undefined, Taker<T>>;

/** On whose behalf values are received: whatever happens to a receiver goes through here. */
interface Taker<T> extends Owner {
  /** Settles `receiver` with a value. */
  give(receiver: Waiter, value: T): void;
  /** Settles `receiver`: there will be no value. */
  end(receiver: Waiter, end: End): void;
}

/** The taker of `receive`, `receiveMany` and `select`. */
const CALLER: Taker<unknown> = {
  give: (receiver, value) => receiver.resolve(value),
  end: (receiver, end) => receiver.reject(end.reason),
  abort: (receiver, reason) => receiver.reject(reason),
};

/** The line of all queues at which nobody has waited yet. */
const NOBODY: Line<never> = /* @__PURE__ */ new Line();

/** Where values come from: one queue, or several. */
interface Source<T> {
  /** Whether {@linkcode Source.take} has a value now. */
  readonly ready: boolean;
  /** Takes a value; only while ready. If it throws, nothing was taken. */
  take(): T;
  /** Set once there will be no more values; looked at only while not ready. */
  readonly end: End | undefined;
  /** Waits on behalf of `taker`; only while neither ready nor ended. */
  park(taker: Taker<T>, signal: AbortSignal | undefined): Receiver<never>;
}

/**
 * Where values and those who wait for them meet: the queue without its
 * promises. Every method is one synchronous step.
 */
class Exchange<T> implements Source<T> {
  readonly capacity: number;
  readonly overflow: Overflow;
  readonly buffer: Buffer<T>;
  // Each gets a line of its own when the first one waits: many queues live without.
  senders: Line<Sender<T>> = NOBODY;
  receivers: Line<Receiver<T>> = NOBODY;
  end: End | undefined = undefined;
  dropped = 0;
  /** How often values have gone to receivers. */
  moves = 0;
  /** When `select` or `merge` took from here last; they prefer whom they have left alone longest. */
  selected = 0;
  /** Who is told of what happens here. */
  #taps: Set<Tap> | undefined = undefined;
  readonly #onDrop: ((value: never) => void) | undefined; // `never` keeps Queue<T> covariant

  constructor(options: QueueOptions<T>) {
    const { capacity, overflow, order, onDrop } = checked(options);
    this.capacity = capacity;
    this.overflow = overflow;
    this.buffer = order === "fifo"
      ? new Ring()
      : order === "lifo"
      ? new Stack()
      : new Heap(order);
    this.#onDrop = onDrop;
  }

  /** Accepts a value for a receiver, for the buffer or, by policy, for nobody; false if it can't now. */
  offer(value: T): boolean {
    const receiver = this.receivers.peek();
    if (receiver !== undefined) {
      this.moves++;
      receiver.owner.give(receiver, value);
    } else if (this.buffer.size < this.capacity) {
      this.buffer.push(value);
    } else if (this.overflow === "drop-oldest") {
      this.#drop(this.buffer.replaceOldest(value));
    } else if (this.overflow === "drop-newest") {
      this.#drop(value);
    } else {
      return false;
    }
    return true;
  }

  get ready(): boolean {
    return this.buffer.size > 0 || this.senders.peek() !== undefined;
  }

  take(): T {
    if (this.buffer.size === 0) {
      const sender = this.senders.first!; // looked at by `ready`
      this.moves++;
      sender.resolve(undefined);
      if (this.#taps !== undefined) this.#tellTaken(this.#taps);
      return sender.value;
    }
    const value = this.buffer.shift();
    this.moves++;
    if (this.senders.first !== undefined) this.#refill();
    if (this.#taps !== undefined) this.#tellTaken(this.#taps);
    return value;
  }

  /** `batch`, and behind it what can be taken now, up to `max` in all. */
  fill(batch: T[], max: number): T[] {
    try {
      while (batch.length < max && this.ready) {
        const values = this.#takeSome(max - batch.length);
        if (batch.length === 0) batch = values;
        else for (const value of values) batch.push(value);
      }
    } catch (error) { // by `order`; whoever asks next, with nothing in hand, meets it again
      if (batch.length === 0) throw error;
    }
    return batch;
  }

  #takeSome(max: number): T[] {
    if (this.buffer.size === 0) return [this.take()];
    const values = this.buffer.shiftSome(max);
    this.moves++;
    if (this.senders.first !== undefined) this.#refill();
    if (this.#taps !== undefined) this.#tellTaken(this.#taps);
    return values;
  }

  /** Waits for a place for `value`; only while there is none. */
  wait(value: T, signal: AbortSignal | undefined): Sender<T> {
    if (this.senders === NOBODY) this.senders = new Line();
    const sender = new Waiter(value, ITSELF);
    sender.join(this.senders, signal);
    return sender;
  }

  park(taker: Taker<T>, signal: AbortSignal | undefined): Receiver<T> {
    if (this.receivers === NOBODY) this.receivers = new Line();
    const receiver = new Waiter(undefined, taker);
    receiver.join(this.receivers, signal);
    return receiver;
  }

  close(end: End): void {
    this.end = end;
    for (let sender; (sender = this.senders.peek()) !== undefined;) {
      sender.reject(unsent(sender.value));
    }
    for (let receiver; (receiver = this.receivers.peek()) !== undefined;) {
      receiver.owner.end(receiver, end);
    }
    const taps = this.#taps;
    this.#taps = undefined;
    taps?.forEach((tap) => tap.closed?.(end.failed ? [end.reason] : []));
  }

  /** Tells `tap` of what happens here, until the function returned is called. */
  tap(tap: Tap): () => void {
    (this.#taps ??= new Set()).add(tap);
    return () => {
      this.#taps?.delete(tap);
      if (this.#taps?.size === 0) this.#taps = undefined;
    };
  }

  #tellTaken(taps: Set<Tap>): void {
    for (const tap of taps) tap.taken?.();
  }

  /** Lets waiting senders fill the free places. */
  #refill(): void {
    while (this.buffer.size < this.capacity) {
      const sender = this.senders.peek();
      if (sender === undefined) return;
      sender.leave(); // first: `order` is not ours, and may do anything
      try {
        this.buffer.push(sender.value);
        sender.resolve(undefined);
      } catch (error) { // `order` refuses the value
        sender.reject(error);
      }
    }
  }

  #drop(value: T): void {
    this.dropped++;
    const onDrop = this.#onDrop;
    try {
      onDrop?.(value as never);
    } catch (error) {
      report(error);
    }
  }
}

/** Takes a value, or waits for one. */
function receiveFrom<T>(source: Source<T>, signal?: AbortSignal): Promise<T> {
  if (source.ready) return Promise.resolve(source.take());
  if (source.end !== undefined) throw source.end.reason;
  return source.park(CALLER, signal).promise();
}

/** The iterator of `values`, `batches` and `merge`; the taker of its own calls of `next`. */
class Reader<T> implements AsyncIterableIterator<T>, Taker<T> {
  readonly #source: Source<T>;
  readonly #signal: AbortSignal | undefined;
  #ended = false;
  // Parked calls of `next`: the last one, and those before it, if any.
  #last: Receiver<never> | undefined = undefined;
  #earlier: Set<Receiver<never>> | undefined = undefined;

  constructor(source: Source<T>, signal?: AbortSignal) {
    if (signal !== undefined) hasAborted(signal); // refuses what is no signal
    this.#source = source;
    this.#signal = signal;
  }

  next(): Promise<IteratorResult<T>> {
    try {
      if (this.#ended) return Promise.resolve({ value: undefined, done: true });
      if (this.#signal?.aborted) throw this.#signal.reason;
      const source = this.#source;
      if (source.ready) {
        return Promise.resolve({ value: source.take(), done: false });
      }
      const { end } = source;
      if (end === undefined) return this.#park();
      if (end.failed) throw end.reason;
      this.#ended = true;
      return Promise.resolve({ value: undefined, done: true });
    } catch (error) {
      this.#ended = true;
      return Promise.reject(error);
    }
  }

  async return(value?: unknown): Promise<IteratorResult<T>> {
    this.#ended = true;
    for (const next of [...this.#earlier ?? [], this.#last]) {
      next?.owner.end(next, PLAIN_END);
    }
    return { value: await value, done: true };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  give(next: Waiter, value: T): void {
    this.#forget(next);
    next.resolve({ value, done: false });
  }

  end(next: Waiter, end: End): void {
    if (end.failed) return this.abort(next, end.reason);
    this.#ended = true;
    this.#forget(next);
    next.resolve({ value: undefined, done: true });
  }

  abort(next: Waiter, reason: unknown): void {
    this.#ended = true;
    this.#forget(next);
    next.reject(reason);
  }

  #park(): Promise<IteratorResult<T>> {
    const next = this.#source.park(this, this.#signal);
    if (this.#last !== undefined) {
      (this.#earlier ??= new Set()).add(this.#last);
    }
    this.#last = next;
    return next.promise();
  }

  #forget(next: unknown): void {
    if (next === this.#last) this.#last = undefined;
    else this.#earlier?.delete(next as Receiver<never>);
  }
}

/** The taker of a stream. */
class Pull<T> implements Taker<T> {
  readonly #stream: ReadableStreamDefaultController<T>;
  readonly abort: Owner["abort"] = CALLER.abort; // by no signal: there is none

  constructor(stream: ReadableStreamDefaultController<T>) {
    this.#stream = stream;
  }

  give(receiver: Waiter, value: T): void {
    receiver.resolve(undefined);
    this.#stream.enqueue(value);
  }

  end(receiver: Waiter, end: End): void {
    if (end.failed) return receiver.reject(end.reason);
    receiver.resolve(undefined);
    this.#stream.close();
  }
}

/** What a queue has, in batches. */
class Batches<T> implements Source<T[]> {
  readonly #exchange: Exchange<T>;
  readonly #max: number;

  constructor(exchange: Exchange<T>, max: number) {
    this.#exchange = exchange;
    this.#max = max;
  }

  get ready(): boolean {
    return this.#exchange.ready;
  }

  get end(): End | undefined {
    return this.#exchange.end;
  }

  take(): T[] {
    return this.#exchange.fill([], this.#max);
  }

  park(taker: Taker<T[]>, signal: AbortSignal | undefined): Receiver<never> {
    // The first value is handed over at once; what else comes in the same turn
    // is added at its end, so that a burst of sends makes one batch: unless
    // others have been served since, who would have later values than this one.
    const exchange = this.#exchange;
    let left = false;
    return exchange.park({
      give: (receiver, first) => {
        receiver.leave();
        const { moves } = exchange;
        queueMicrotask(() => {
          const more = exchange.moves === moves && !left && !signal?.aborted;
          taker.give(
            receiver,
            more ? exchange.fill([first], this.#max) : [first],
          );
        });
      },
      end: (receiver, end) => {
        if (receiver.waiting) taker.end(receiver, end);
        else left = true; // its reader, with the first value on its way
      },
      abort: (receiver, reason) => taker.abort(receiver, reason),
    }, signal);
  }
}

/** A value, and the key of its queue. */
interface Found {
  readonly key: string;
  readonly value: unknown;
}

/** A queue among several. */
interface Entry {
  readonly key: string;
  readonly exchange: Exchange<unknown>;
}

/** What several queues have. */
class Merged implements Source<Found> {
  readonly #entries: Entry[];

  constructor(verb: string, queues: Record<string, Queue<unknown>>) {
    checkObject(verb, "queues", queues, "a record of queues");
    this.#entries = Object.keys(queues).map((key) => {
      const queue = queues[key];
      if (queue instanceof Queue) return { key, exchange: exchangeOf(queue) };
      throw new TypeError(invalid(verb, key, "a Queue", queue));
    });
  }

  get size(): number {
    return this.#entries.length;
  }

  get ready(): boolean {
    return this.#failure === undefined && this.#next !== undefined;
  }

  /** Whose turn it is, of those that have a value. */
  get #next(): Entry | undefined {
    let next: Entry | undefined;
    for (const entry of this.#entries) {
      if (!entry.exchange.ready) continue;
      if (next && next.exchange.selected <= entry.exchange.selected) continue;
      next = entry;
    }
    return next;
  }

  get end(): End | undefined {
    let end = this.#failure;
    if (end !== undefined) return end;
    for (const { exchange } of this.#entries) {
      if (exchange.end === undefined) return undefined;
      end ??= exchange.end;
    }
    return end ?? PLAIN_END;
  }

  /** Why the first of the failed queues failed, once it is empty. */
  get #failure(): End | undefined {
    for (const { exchange } of this.#entries) {
      const { end } = exchange;
      if (end !== undefined && end.failed && !exchange.ready) return end;
    }
    return undefined;
  }

  take(): Found {
    const { key, exchange } = this.#next!; // looked at by `ready`
    const value = exchange.take();
    exchange.selected = ++selections;
    return { key, value };
  }

  park(taker: Taker<Found>, signal: AbortSignal | undefined): Receiver<never> {
    const stand = new Stand(taker);
    for (const entry of this.#entries) {
      if (entry.exchange.end === undefined) stand.join(entry, signal);
    }
    return stand.holder;
  }
}

/**
 * One who waits for several queues, with a place in the line of each. The first
 * place to be served or aborted speaks for the holder, or the last to be told
 * that there is nothing.
 */
class Stand implements Taker<Found> {
  readonly holder: Receiver<Found> = new Waiter(undefined, this);
  readonly #taker: Taker<Found>;
  readonly #places: Receiver<unknown>[] = [];

  constructor(taker: Taker<Found>) {
    this.#taker = taker;
  }

  join(entry: Entry, signal: AbortSignal | undefined): void {
    this.#places.push(entry.exchange.park(new Place(this, entry), signal));
  }

  get waiting(): boolean {
    return this.#places.some(({ waiting }) => waiting);
  }

  give(_: Waiter, found: Found): void {
    this.#leave();
    this.#taker.give(this.holder, found);
  }

  end(_: Waiter, end: End): void {
    this.#leave();
    this.#taker.end(this.holder, end);
  }

  abort(_: Waiter, reason: unknown): void {
    this.#leave();
    this.#taker.abort(this.holder, reason);
  }

  #leave(): void {
    for (const place of this.#places) place.leave();
  }
}

/** The taker in the line of one of several queues. */
class Place implements Taker<unknown> {
  readonly #stand: Stand;
  readonly #entry: Entry;

  constructor(stand: Stand, entry: Entry) {
    this.#stand = stand;
    this.#entry = entry;
  }

  give(place: Waiter, value: unknown): void {
    const { key, exchange } = this.#entry;
    exchange.selected = ++selections;
    this.#stand.give(place, { key, value });
  }

  end(place: Waiter, end: End): void {
    place.leave();
    if (end.failed || !this.#stand.waiting) this.#stand.end(place, end);
  }

  abort(place: Waiter, reason: unknown): void {
    this.#stand.abort(place, reason);
  }
}

/** Sends the values of an iterable to a queue, until one of the two ends. */
class Pump<T> {
  readonly #source: Iterator<T> | AsyncIterator<T>;
  #exhausted = false;

  constructor(source: Iterable<T> | AsyncIterable<T>) {
    const { [Symbol.asyncIterator]: async, [Symbol.iterator]: sync } = Object(
      source,
    );
    if (typeof (async ?? sync) !== "function") {
      throw new TypeError(
        invalid("create queue", "source", "iterable", source),
      );
    }
    this.#source = (async ?? sync).call(source);
  }

  async run(queue: Queue<T>): Promise<void> {
    try {
      for (let step; !(step = await this.#next()).done;) {
        await queue.send(step.value);
      }
      queue.close();
    } catch (error) {
      if (!queue.closed) queue.close(error);
      else if (this.#exhausted) report(error); // it failed when told to stop
    }
  }

  /** Tells the source that nobody wants its values any more. */
  async stop(): Promise<void> {
    await null; // it may be the source, running now, that has closed the queue
    try {
      if (!this.#exhausted) await this.#source.return?.();
    } catch (error) {
      report(error);
    }
  }

  async #next(): Promise<IteratorResult<T>> {
    try {
      const step = await this.#source.next();
      if (typeof step !== "object" || step === null) {
        throw new TypeError(
          invalid(
            "take a value",
            "what next() of the source returns",
            "an object",
            step,
          ),
        );
      }
      this.#exhausted = Boolean(step.done);
      return step;
    } catch (error) {
      this.#exhausted = true;
      throw error;
    }
  }
}

/** Why `value` could not be sent. */
function unsent(value: unknown): QueueClosedError {
  return new QueueClosedError(
    "Cannot send to queue: it is closed; the value is in this error's `value`",
    { value },
  );
}

function full(value: unknown, capacity: number): QueueFullError {
  return new QueueFullError(
    `Cannot send to queue: it is full (capacity ${capacity}); the value is in this error's \`value\``,
    { value },
  );
}

/** The options with their defaults. */
function checked<T>(options: QueueOptions<T>) {
  const action = "create queue";
  checkObject(action, "options", options);
  const { capacity = 0, overflow = "wait", order = "fifo", onDrop } = options;
  checkCount(action, "capacity", capacity, 0);
  if (overflow !== "wait") checkOverflow(action, overflow);
  if (order !== "fifo" && typeof order !== "function") {
    checkOneOf(action, "order", order, ["fifo", "lifo"], "a function");
  }
  if (onDrop !== undefined) checkFunction(action, "onDrop", onDrop);
  const dropping = overflow === "drop-oldest" || overflow === "drop-newest";
  if (capacity === 0 && (dropping || order !== "fifo")) {
    const option = dropping ? `overflow "${overflow}"` : "order";
    throw new RangeError(
      invalid(action, "capacity", `>= 1 for this ${option}`, capacity),
    );
  }
  return { capacity, overflow, order, onDrop };
}
