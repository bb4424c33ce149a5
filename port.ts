/**
 * A queue across a `MessagePort`: what is sent to a queue in one thread is
 * received from a queue in another.
 *
 * ```ts
 * import { receiveFrom, sendTo } from "@sauce/queues/port";
 * import { Queue } from "@sauce/queues/queue";
 * import { assertEquals } from "@std/assert";
 *
 * const { port1, port2 } = new MessageChannel(); // port2 would go to a worker
 *
 * const orders = new Queue<string>();
 * const sent = sendTo(orders, port1);
 * const received = receiveFrom<string>(port2, { capacity: 2 });
 *
 * await orders.send("soup"); // waits while the other side has two unread
 * await orders.send("steak");
 * orders.close();
 *
 * const served: string[] = [];
 * for await (const dish of received) served.push(dish);
 * assertEquals(served, ["soup", "steak"]);
 * await sent; // everything has arrived
 * port1.close();
 * ```
 *
 * Each value is delivered at most once: those on their way are lost with the
 * thread that they are on their way to. `docs/protocol.md` has the messages.
 *
 * @module
 */

import {
  checkCount,
  checkFunction,
  checkString,
  describe,
  invalid,
  report,
} from "./_errors.ts";
import { randomId } from "./_id.ts";
import { hasAborted, Watch } from "./_line.ts";
import { outline, type PortLike, transferListOf, Wire } from "./_port.ts";
import { taps } from "./_tap.ts";
import { isPacked, pack, type Packed, unpack } from "./_transit.ts";
import { Queue, QueueClosedError } from "./queue.ts";

export type { PortLike } from "./_port.ts";
export { transfer } from "./_port.ts";

/** Options for both ends. */
export interface PortOptions {
  /** Ends the connection, and lets the other end know the reason. */
  signal?: AbortSignal;
  /**
   * Which of several queues that share a port: both ends give the same name.
   *
   * @default {""}
   */
  channel?: string;
  /**
   * Called with each message that is refused, because it is not of this
   * protocol or makes no sense, and with each value that cannot be sent, or
   * finds a queue that somebody else has filled. By default the error goes to the
   * runtime's handler for uncaught errors.
   */
  onError?: (error: PortMessageError) => void;
}

/** Options for {@linkcode sendTo}. */
export interface SendToOptions<T> extends PortOptions {
  /** What is to be moved along with a value, not copied; {@linkcode transfer} is for single ones. */
  transfer?: (value: T) => readonly object[];
}

/** Options for {@linkcode receiveFrom}. */
export interface ReceiveFromOptions extends PortOptions {
  /**
   * How many values may be here, or on their way, that nobody has received yet.
   * An integer from 1, or `Infinity`. With few, each end waits for the other: to
   * send small values at full speed takes some thousand.
   *
   * @default {1024}
   */
  capacity?: number;
}

/** Told to those who wait for a port whose other end is gone, or busy with another queue. */
export class PortClosedError extends Error {
  /** Takes a `cause`, like any error. */
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "PortClosedError";
  }
}

/** Given to `onError`: a message was refused, or a value could not be sent or received. */
export class PortMessageError extends Error {
  /** The message, or the value. */
  readonly value: unknown;

  /** Takes a `cause`, like any error, and the `value`. */
  constructor(message: string, options: ErrorOptions & { value: unknown }) {
    super(message, options);
    this.name = "PortMessageError";
    this.value = options.value;
  }
}

// The messages, and the states of both ends: see docs/protocol.md.

const PROTOCOL = "@sauce/queues/port";
const VERSION = 1;

/** How many values a message has at most: more make it no cheaper, and the other thread waits for them. */
const MOST = 1024;

/** With so many, a message waits for no more. */
const ENOUGH = 256;

/**
 * For so many turns of the microtask queue a message with fewer waits for more.
 * Who awaits each `send` takes some turns to the next one; a turn costs a
 * hundredth of a message, or less.
 */
const PATIENCE = 8;

/**
 * How long who has met nobody waits for the next one, when one has gone. In ms:
 * what that one says first is on its way, but the other thread may be held up.
 */
const LEAVING = 100;

const UNREADABLE =
  "The queue at the other end was closed with a reason that cannot be read here";

/** What the sender says. */
type FromSender =
  | { kind: "offer"; version: number; id: string }
  | { kind: "taken"; id: string; receiver: string }
  | {
    kind: "values";
    id: string;
    receiver: string;
    from: number;
    values: unknown[];
  }
  | {
    kind: "close";
    id: string;
    receiver: string | undefined;
    sent: number;
    reason?: Packed;
  };

/** What the receiver says. */
type FromReceiver =
  | { kind: "invite"; receiver: string; version: number }
  | { kind: "refuse"; receiver: string; id: string; why: string }
  | { kind: "credit"; receiver: string; id: string; upTo: number }
  | { kind: "count"; receiver: string; id: string }
  | {
    kind: "end";
    receiver: string;
    id: string | undefined;
    received: number;
    reason?: Packed;
  };

/** Any message, before it is known to make sense. */
type Message = Record<string, unknown>;

/**
 * Sends all values of a queue through a port, to a {@linkcode receiveFrom} at
 * its other end, in another thread or in this one.
 *
 * - **Back-pressure:** a value is taken from the queue once the receiver has
 *   room for it. Values that come in quick succession travel in one message.
 * - **Closing:** once the queue is closed and empty, so will be the one at the
 *   other end, with the same reason, if any. If that one is closed by somebody
 *   else, this one is closed with the same reason, too.
 * - **Death:** if the other end is gone, the queue is closed with a
 *   {@linkcode PortClosedError}, so that nobody waits for it. Not every runtime
 *   tells of it: see `docs/threads.md`.
 * - **Values** are copied, as `structuredClone` does it, but for those parts
 *   that are to be transferred. That is some time after they were sent to the
 *   queue: do not change them any more. One that can't be copied goes to
 *   `onError`, and the next ones are sent.
 *
 * Resolves once the queue has been closed and the receiver has everything. The
 * port stays open: it is the caller's.
 *
 * **Cancellation:** rejects, and the receiver's queue is closed with
 * `signal.reason`, behind what has been sent. The queue here stays open, and
 * what is in it stays there.
 *
 * @throws {PortClosedError} If the other end is gone, or refuses: it receives
 * from another queue, or speaks another version of the protocol.
 * @throws {QueueClosedError} If the queue at the other end was closed there; if
 * that was with a reason, that reason is thrown instead.
 * @throws {TypeError} If something is no queue, no port, or no option.
 */
export function sendTo<T>(
  queue: Queue<T>,
  port: PortLike,
  options: SendToOptions<T> = {},
): Promise<void> {
  try {
    const { signal } = options;
    if (signal !== undefined && hasAborted(signal)) throw signal.reason;
    return new Promise((resolve, reject) => {
      new Sender(queue, options, { resolve, reject }).start(port, signal);
    });
  } catch (error) {
    return Promise.reject(error);
  }
}

/**
 * Makes a queue of the values that a {@linkcode sendTo} at the other end of a
 * port sends.
 *
 * - **Back-pressure:** there are never more than `capacity` values that nobody
 *   has received, here and on their way together.
 * - **Closing:** the queue closes when the other end's does, with the same
 *   reason, if any. Closing it by hand closes the other end's; values on their
 *   way are lost.
 * - **Death:** if the other end is gone, the queue closes with a
 *   {@linkcode PortClosedError}, behind the values that it had sent. Not every
 *   runtime tells of it: see `docs/threads.md`.
 * - **Values** that cannot be read here go to `onError`, together with the other
 *   values of their message, and the next ones are received.
 *
 * The port stays open: it is the caller's.
 *
 * **Cancellation:** an abort closes the queue with `signal.reason`, on both
 * sides. With a signal that has aborted before, the port is not touched.
 *
 * @throws {RangeError} If an option is out of range.
 * @throws {TypeError} If an option has the wrong type, or `port` is none.
 */
export function receiveFrom<T>(
  port: PortLike,
  options: ReceiveFromOptions = {},
): Queue<T> {
  const { capacity = 1024, signal } = options;
  checkCount("receive from port", "capacity", capacity, 1);
  const queue = new Queue<T>({ capacity });
  if (signal !== undefined && hasAborted(signal)) queue.close(signal.reason);
  else new Receiver(queue, options).start(port, signal);
  return queue;
}

/** What both ends have in common. */
abstract class End<Says extends { kind: string }> {
  readonly #action: string;
  readonly #channel: string;
  readonly #onError: (error: PortMessageError) => void;
  #wire: Wire | undefined;
  #watch: Watch | undefined;
  /** While it waits for the next other end: ends the wait. */
  #waiting: ReturnType<typeof setTimeout> | undefined;
  /** An end that is `ending` hears nothing any more, and has yet to say what it has in hand. */
  protected state: "open" | "ending" | "over" = "open";

  constructor(action: string, options: PortOptions) {
    const { channel = "", onError = report } = options;
    checkString(action, "channel", channel);
    checkFunction(action, "onError", onError);
    this.#action = action;
    this.#channel = channel;
    this.#onError = onError;
  }

  /** Begins, and ends when `signal` aborts. */
  start(port: PortLike, signal: AbortSignal | undefined): void {
    // First: to listen to a port may cost it what it has kept.
    if (signal !== undefined) this.#watch = new Watch(signal, this);
    try {
      this.#wire = new Wire(this.#action, port, {
        message: (data) => this.#hear(data),
        unreadable: () => this.misread(),
        died: (why, cause) => this.lose(why, cause),
        patient: true,
      });
    } catch (error) { // it is no port
      this.leave();
      throw error;
    }
    this.begin();
  }

  protected abstract begin(): void;
  /** Its signal has aborted. */
  abstract abort(reason: unknown): void;
  /** Acts on a message; false if it makes no sense. Those of its own kind are none of its business. */
  protected abstract receive(message: Message): boolean;
  protected abstract died(error: PortClosedError): void;

  /** Says something that any port can carry: one that does not is gone. */
  protected say(message: Says): void {
    try {
      this.post(message);
    } catch (cause) {
      this.lose("it takes no messages", cause);
    }
  }

  /**
   * Says its last word, which nobody can ask for again. With a reason it comes a
   * second time, for another end that could not read that: who has heard the
   * first one does not listen any more, or knows it by who said it.
   */
  protected sayLast(message: Says, reason: readonly [unknown?]): void {
    if (reason.length === 0) return this.say(message);
    for (const why of [reason[0], new Error(UNREADABLE)]) {
      this.say({ ...message, reason: pack(why) });
    }
  }

  /** Says something; throws if that, or what is to be transferred, cannot be sent. */
  protected post(message: Says, transfer?: object[]): void {
    this.#wire!.post(
      { protocol: PROTOCOL, channel: this.#channel, ...message },
      transfer,
    );
  }

  /** A message has come that cannot be read, of whatever kind. */
  protected misread(): void {
    this.refuse(undefined, "it cannot be read here");
  }

  /** Tells of a message that changes nothing. */
  protected refuse(message: unknown, why: string): void {
    this.tell(
      new PortMessageError(
        `Cannot read message from port: ${why}, got ${outline(message)}`,
        { value: message },
      ),
    );
  }

  protected tell(error: PortMessageError): void {
    try {
      this.#onError(error);
    } catch (error) {
      report(error);
    }
  }

  /**
   * The other end has gone without having met this one. Maybe that was before
   * this one came: then another one is there, and tells of itself in a moment.
   */
  protected awaitNext(otherwise: () => void): void {
    clearTimeout(this.#waiting);
    this.#waiting = setTimeout(otherwise, LEAVING);
  }

  /** Another one is there. */
  protected nextIsHere(): void {
    clearTimeout(this.#waiting);
  }

  /** Listens no more. */
  protected leave(state: "ending" | "over" = "over"): void {
    this.state = state;
    clearTimeout(this.#waiting);
    this.#watch?.end();
    this.#wire?.end();
  }

  /** Its port is of no more use to it. */
  protected lose(why: string, cause?: unknown): void {
    if (this.state !== "open") return;
    this.died(
      new PortClosedError(`Cannot ${this.#action}: ${why}`, { cause }),
    );
  }

  #hear(data: unknown): void {
    if (isOfOthers(data)) return;
    const { protocol, channel } = Object(data);
    if (protocol !== PROTOCOL || typeof channel !== "string") {
      return this.refuse(data, `it is not of the protocol ${PROTOCOL}`);
    }
    if (channel !== this.#channel) return; // for another queue on this port
    if (!this.receive(data as Message)) {
      this.refuse(data, "it makes no sense here");
    }
  }
}

/** Whether a message is one of `worker.ts` or `link.ts`, which may share the port. */
function isOfOthers(data: unknown): boolean {
  return Array.isArray(data)
    ? data[0] === "@sauce/queues/worker"
    : Object(data).protocol === "@sauce/queues/link";
}

/** Whether `found` counts values: an integer from `least`. */
function isCount(found: unknown, least: number): found is number {
  return Number.isInteger(found) && found as number >= least;
}

/** The sending end. */
class Sender<T> extends End<FromSender> {
  readonly #queue: Queue<T>;
  readonly #transfer: SendToOptions<T>["transfer"];
  readonly #caller: Settle;
  readonly #id = randomId();
  readonly #stop = new AbortController();
  /** Who receives the values: the first who has given credit. */
  #receiver: string | undefined;
  /** How many values it has sent, and may have sent, since the start. */
  #sent = 0;
  #upTo = 0;
  #closing = false; // has said so, and waits for the answer
  /** While it has no receiver: those that have come, and have not gone. */
  readonly #guests = new Set<string>();
  /** The last one that has gone, which may say so again. */
  #gone: string | undefined;
  #wake: (() => void) | undefined; // while it waits for credit
  #untap: (() => void) | undefined;

  constructor(
    queue: Queue<T>,
    options: SendToOptions<T>,
    caller: Settle,
  ) {
    const action = "send to port";
    if (!(queue instanceof Queue)) {
      throw new TypeError(invalid(action, "queue", "a Queue", queue));
    }
    if (options.transfer !== undefined) {
      checkFunction(action, "transfer", options.transfer);
    }
    super(action, options);
    this.#queue = queue;
    this.#transfer = options.transfer;
    this.#caller = caller;
  }

  protected override begin(): void {
    this.#untap = taps.into(this.#queue, { closed: () => this.#wake?.() });
    this.#offer();
    this.#pump();
  }

  #offer(): void {
    this.say({ kind: "offer", version: VERSION, id: this.#id });
  }

  /** Sends what the queue has, as far as there is credit, until it ends. */
  async #pump(): Promise<void> {
    const queue = this.#queue;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const room = Math.min(this.#upTo - this.#sent, MOST);
      if (room > 0) {
        let values: T[] = [];
        try {
          values = await queue.receiveMany(room, { signal });
          await this.#gather(values, Math.min(room, ENOUGH));
        } catch (error) {
          const ended = queue.closed && queue.size === 0;
          if (!ended && !signal.aborted) this.abort(error); // by its `order`
          break;
        } finally {
          this.#send(values);
        }
      } else if (this.#upTo > 0 && queue.closed && queue.size === 0) break;
      else await new Promise<void>((resolve) => this.#wake = resolve);
    }
    let reason: [unknown?] = signal.aborted ? [] : await this.#reason();
    if (this.state === "over") return;
    if (signal.aborted) reason = [signal.reason];
    this.#closing = true;
    this.#sayClose(reason);
    if (!signal.aborted) return;
    this.#leave();
    this.#caller.reject(signal.reason);
  }

  /** Adds what comes right behind `values`, up to `enough` in all. */
  async #gather(values: T[], enough: number): Promise<void> {
    const { signal } = this.#stop;
    for (let turn = 0; turn < PATIENCE && values.length < enough; turn++) {
      await null;
      if (signal.aborted) return;
      while (values.length < enough) {
        const next = this.#queue.tryReceive();
        if (next.state !== "ok") break;
        values.push(next.value);
        turn = 0;
      }
    }
  }

  /** Why the queue was closed, which is empty. */
  async #reason(): Promise<[unknown?]> {
    try {
      await this.#queue.values().next();
      return [];
    } catch (reason) {
      return [reason];
    }
  }

  #sayClose(reason: [unknown?]): void {
    this.sayLast({
      kind: "close",
      id: this.#id,
      receiver: this.#receiver, // without: for one whose credit may be on its way
      sent: this.#sent,
    }, reason);
  }

  /**
   * Sends values in as few messages as can be. What has a transfer list gets one
   * of its own: if a message cannot be sent, it may have lost what was to be
   * transferred with it. So does an object that comes again: within a message it
   * would arrive as one.
   */
  #send(values: T[]): void {
    // An array that has never had holes: V8 sends such a one several times as fast.
    let batch: T[] = [];
    const seen = new Set<T>();
    const end = () => {
      this.#postValues(batch);
      batch = [];
      seen.clear();
    };
    for (const value of values) {
      const isObject = typeof value === "object" && value !== null;
      let list: object[] | undefined;
      try {
        if (isObject || this.#transfer !== undefined) {
          list = this.#listOf(value);
        }
      } catch (cause) { // by the caller's `transfer`
        this.#unsent(value, cause);
        continue;
      }
      if (list !== undefined) {
        end();
        this.#postValues([value], list);
        continue;
      }
      if (isObject) {
        if (seen.has(value)) end();
        seen.add(value);
      }
      batch.push(value);
    }
    end();
  }

  /** What is to be transferred with a value, if anything. */
  #listOf(value: T): object[] | undefined {
    const marked = transferListOf([value]);
    const chosen = this.#transfer?.(value) ?? [];
    return chosen.length === 0
      ? marked
      : [...new Set([...chosen, ...marked ?? []])];
  }

  #postValues(values: T[], list?: object[]): void {
    // If it is over they are lost: the other end has gone while they were taken.
    if (this.state === "over" || values.length === 0) return;
    try {
      this.post(this.#values(values), list);
      this.#sent += values.length;
    } catch (cause) {
      if (values.length === 1) return this.#unsent(values[0], cause);
      const half = values.length >> 1;
      this.#postValues(values.slice(0, half));
      this.#postValues(values.slice(half));
    }
  }

  #values(values: T[]): FromSender {
    const [id, receiver] = [this.#id, this.#receiver!];
    return { kind: "values", id, receiver, from: this.#sent, values };
  }

  #unsent(value: T, cause: unknown): void {
    this.tell(
      new PortMessageError(
        `Cannot send value through port: ${describe(cause)}`,
        { value, cause },
      ),
    );
  }

  protected override receive(message: Message): boolean {
    if (SENDERS.has(message.kind)) return true;
    const { kind, id, receiver } = message;
    if (typeof receiver !== "string") return false;
    switch (kind as FromReceiver["kind"]) {
      case "invite":
        return this.#invited(receiver, message.version);
      case "refuse":
        return typeof id === "string" && this.#refused(id, message.why);
      case "credit":
        return typeof id === "string" &&
          this.#credit(id, receiver, message.upTo);
      case "count":
        return typeof id === "string" && this.#count(id, receiver);
      case "end":
        return (typeof id === "string" || id === undefined) &&
          this.#ended(id, receiver, message);
      default:
        return false;
    }
  }

  #invited(receiver: string, version: unknown): boolean {
    if (!isCount(version, 0)) return false;
    if (this.#receiver === undefined) {
      this.nextIsHere();
      this.#guests.add(receiver);
      this.#offer();
    } else if (this.#receiver !== receiver) this.#turnAway(receiver);
    return true;
  }

  /** Tells a receiver that there is one already. */
  #turnAway(receiver: string): void {
    this.say({ kind: "taken", id: this.#id, receiver });
  }

  #refused(id: string, why: unknown): boolean {
    if (typeof why !== "string") return false;
    if (id === this.#id && this.#receiver === undefined) this.lose(why);
    return true;
  }

  #credit(id: string, receiver: string, upTo: unknown): boolean {
    if (upTo !== Infinity && !isCount(upTo, 1)) return false;
    if (id !== this.#id) return true;
    if (this.#receiver === undefined) {
      this.#receiver = receiver;
      this.nextIsHere();
    }
    if (receiver !== this.#receiver) this.#turnAway(receiver);
    else if (upTo < this.#upTo) return false;
    else {
      this.#upTo = upTo;
      this.#wake?.();
    }
    return true;
  }

  /** Its receiver has missed something: lets it know how much has been sent. */
  #count(id: string, receiver: string): boolean {
    if (id === this.#id && receiver === this.#receiver) {
      this.say(this.#values([]));
    }
    return true;
  }

  #ended(
    id: string | undefined,
    receiver: string,
    { received, reason }: Message,
  ): boolean {
    if (!isCount(received, 0)) return false;
    if (reason !== undefined && !isPacked(reason)) return false;
    if (id === undefined && received > 0) return false;
    if (id === this.#id && received > this.#sent) return false;
    this.#guests.delete(receiver);
    if (id !== undefined && id !== this.#id) return true;
    if (this.#receiver === undefined) {
      const again = receiver === this.#gone;
      this.#gone = receiver;
      // Unless another one is there, whom its offer has reached, or will.
      if (again || this.#guests.size > 0) return true;
      this.awaitNext(() => this.#withdraw(this.#whyEnded(0, reason)));
    } else if (receiver === this.#receiver) {
      if (!this.#closing || received < this.#sent) {
        this.#fail(this.#whyEnded(received, reason));
        // One that came meanwhile may have taken its offer.
        if (!this.#closing) this.#sayClose([]);
      } else {
        this.#leave();
        this.#caller.resolve();
      }
    }
    return true;
  }

  #whyEnded(received: number, reason: Packed | undefined): unknown {
    return reason !== undefined ? unpack(reason) : new QueueClosedError(
      "Cannot send to port: the queue at its other end was closed; " +
        `it has got ${received} of the ${this.#sent} values that were sent`,
    );
  }

  protected override died(error: PortClosedError): void {
    this.#withdraw(error);
  }

  override abort(reason: unknown): void {
    if (this.#receiver !== undefined && !this.#closing) {
      this.leave("ending"); // once the pump has said what it has in hand
      this.#stop.abort(reason);
      this.#wake?.();
      return;
    }
    this.#leave();
    if (!this.#closing) this.#sayClose([reason]);
    this.#caller.reject(reason);
  }

  /** Fails, and lets whoever may have heard its offer know. */
  #withdraw(error: unknown): void {
    this.#fail(error);
    this.#sayClose([error]);
  }

  #fail(error: unknown): void {
    this.#leave();
    this.#queue.close(error);
    this.#caller.reject(error);
  }

  #leave(): void {
    this.leave();
    this.#untap?.();
    this.#stop.abort();
  }
}

/** What a sender may hear from other senders on its port. */
const SENDERS: ReadonlySet<unknown> = new Set<FromSender["kind"]>([
  "offer",
  "taken",
  "values",
  "close",
]);

/** What a receiver may hear from other receivers on its port. */
const RECEIVERS: ReadonlySet<unknown> = new Set<FromReceiver["kind"]>([
  "invite",
  "refuse",
  "credit",
  "count",
  "end",
]);

/** How a promise is settled. */
interface Settle {
  resolve(): void;
  reject(error: unknown): void;
}

/** The receiving end. */
class Receiver<T> extends End<FromReceiver> {
  readonly #queue: Queue<T>;
  readonly #id = randomId();
  /** Whose values it receives, once somebody has offered some. */
  #sender: string | undefined;
  /** How many values its sender has sent, and may have sent: what could not be read here counts, too. */
  #received = 0;
  #granted = 0;

  constructor(queue: Queue<T>, options: ReceiveFromOptions) {
    super("receive from port", options);
    this.#queue = queue;
  }

  protected override begin(): void {
    taps.into(this.#queue, {
      taken: () => this.#grant(),
      closed: (reason) => this.#end(reason),
    });
    this.say({ kind: "invite", receiver: this.#id, version: VERSION });
  }

  protected override receive(message: Message): boolean {
    if (RECEIVERS.has(message.kind)) return true;
    const { kind, id, receiver } = message;
    if (typeof id !== "string") return false;
    const mine = id === this.#sender;
    switch (kind as FromSender["kind"]) {
      case "offer":
        return this.#accept(id, message.version);
      case "taken":
        return typeof receiver === "string" && this.#taken(id, receiver);
      case "values":
        return typeof receiver === "string" &&
          Array.isArray(message.values) &&
          (!mine || receiver !== this.#id ||
            this.#take(message.from, message.values as T[]));
      case "close":
        return (typeof receiver === "string" || receiver === undefined) &&
          (!mine || this.#closed(receiver, message));
      default:
        return false;
    }
  }

  #accept(id: string, version: unknown): boolean {
    if (!isCount(version, 0)) return false;
    if (version !== VERSION) {
      const why = `it speaks version ${version} of the protocol, the other ` +
        `end version ${VERSION}; let both use the same @sauce/queues`;
      this.say({ kind: "refuse", receiver: this.#id, id, why });
      return false;
    }
    if (this.#sender !== undefined && this.#sender !== id) {
      const why = "the queue at its other end receives from another queue; " +
        "give each pair a `channel` of its own";
      this.say({ kind: "refuse", receiver: this.#id, id, why });
      return true;
    }
    this.nextIsHere();
    this.#sender = id;
    this.#grant();
    return true;
  }

  #taken(id: string, receiver: string): boolean {
    if (receiver !== this.#id || id !== (this.#sender ?? id)) return true;
    this.#sender = id; // no other one has lost it
    this.lose(
      "the queue at its other end sends to another queue; " +
        "give each pair a `channel` of its own",
    );
    return true;
  }

  #take(from: unknown, values: T[]): boolean {
    if (!isCount(from, this.#received)) return false;
    const received = from + values.length;
    if (received > this.#granted || values.length > MOST) return false;
    this.#received = received;
    for (const value of values) {
      if (!this.#queue.trySend(value)) this.#tellLost(value);
    }
    this.#grant();
    return true;
  }

  #tellLost(value: T): void {
    if (this.#queue.closed) return; // by its owner, who knows what that means
    this.tell(
      new PortMessageError(
        "Cannot receive value from port: its queue is full of what was sent to " +
          "it here; send to a queue of your own",
        { value },
      ),
    );
  }

  /** Lets the sender have more, once that is worth a message. */
  #grant(): void {
    if (this.#sender === undefined) return;
    const { capacity, size } = this.#queue;
    const upTo = this.#received - size + capacity;
    if (!(upTo - this.#granted >= capacity / 2)) return;
    this.#granted = upTo;
    this.say({ kind: "credit", receiver: this.#id, id: this.#sender, upTo });
  }

  /** Its sender is to tell how many values it has sent: some may have been in what could not be read. */
  protected override misread(): void {
    if (this.#sender !== undefined) {
      this.say({ kind: "count", receiver: this.#id, id: this.#sender });
    }
    super.misread();
  }

  #closed(receiver: string | undefined, { sent, reason }: Message): boolean {
    if (!isCount(sent, 0)) return false;
    if (reason !== undefined && !isPacked(reason)) return false;
    const end: [unknown?] = reason === undefined ? [] : [unpack(reason)];
    if (receiver === this.#id) {
      if (sent < this.#received || sent > this.#granted) return false;
      this.#received = sent;
      this.#queue.close(...end);
    } else if (receiver === undefined) {
      if (sent > 0 || this.#received > 0) return false;
      this.#forget();
      this.awaitNext(() => this.#queue.close(...end));
    } else if (this.#received === 0) this.#forget(); // it was another one's
    return true;
  }

  /** Its sender has gone, and has met somebody else or nobody. */
  #forget(): void {
    this.#sender = undefined;
    this.#granted = 0;
  }

  /** The queue was closed, by its sender or by its owner. */
  #end(reason: readonly [unknown?]): void {
    this.leave();
    this.sayLast({
      kind: "end",
      receiver: this.#id,
      id: this.#sender, // without: for one whose offer may be on its way
      received: this.#received,
    }, reason);
  }

  protected override died(error: PortClosedError): void {
    this.#queue.close(error);
  }

  override abort(reason: unknown): void {
    this.#queue.close(reason);
  }
}
