/**
 * A bus that reaches into other processes: other tabs, threads and machines.
 *
 * ```ts
 * import { Bus } from "@sauce/queues/bus";
 * import { portLink } from "@sauce/queues/link";
 * import { assertEquals } from "@std/assert";
 *
 * interface Events {
 *   order: { dish: string };
 * }
 * const { port1, port2 } = new MessageChannel(); // port2 would go to a worker
 *
 * const front = new Bus<Events>({ name: "front of house" });
 * await using toKitchen = portLink(port1);
 * await using _ = await front.connect(toKitchen);
 *
 * const kitchen = new Bus<Events>({ name: "kitchen" });
 * await using toFront = portLink(port2);
 * await using __ = await kitchen.connect(toFront);
 *
 * const next = kitchen.once("order");
 * await front.publish("order", { dish: "soup" }, { source: "table 7" });
 * const { data, source } = await next;
 * assertEquals([data, source], [{ dish: "soup" }, "table 7"]);
 * ```
 *
 * {@linkcode portLink} is for two threads, {@linkcode broadcastLink} for tabs and
 * threads of one origin. Both deliver at most once: what is on its way when
 * either end goes away is lost, which the next event tells. `docs/distributed.md`
 * says what is promised, and how to write a {@linkcode Link} of your own.
 *
 * @module
 */

import {
  encodeEvent,
  fromCloudEvent,
  MAX_SIZE,
  MIN_SIZE,
  parseJson,
} from "./_cloudevents.ts";
import {
  checkCount,
  checkFunction,
  checkString,
  describe,
  invalid,
  report,
} from "./_errors.ts";
import type {
  Link,
  LinkCapabilities,
  LinkReceiveOptions,
  LinkState,
  Sink,
} from "./_link.ts";
import { outline, type PortLike, Wire } from "./_port.ts";
import type { BusEvent } from "./bus.ts";

export { decodeEvent, encodeEvent, type LinkEvent } from "./_cloudevents.ts";
export type {
  Delivery,
  Link,
  LinkCapabilities,
  LinkReceiveOptions,
  LinkState,
  Sink,
} from "./_link.ts";
export type { PortLike } from "./_port.ts";

/** Options for {@linkcode portLink} and {@linkcode broadcastLink}. */
export interface PortLinkOptions {
  /**
   * How many characters of JSON a message may have, on its way in and out: an
   * integer from 1, or `Infinity`. An event that has more by itself is refused.
   *
   * @default {1048576}
   */
  maxSize?: number;
}

/** Thrown by a link that was closed, or whose other end is gone. */
export class LinkClosedError extends Error {
  /** Takes a `cause`, like any error. */
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "LinkClosedError";
  }
}

/**
 * A link to whoever uses the other end of a port: another thread, say. The port
 * may be a `MessagePort`, a `Worker`, a worker's own scope, or their likes in
 * Node's `worker_threads`. It stays open: it is the caller's.
 *
 * - **Messages** are text, many events in one: CloudEvents 1.0 in JSON.
 * - **Hostile peers:** a message that is too large, or not what it must be, is
 *   refused, and told as `"bad"`.
 * - **Death:** if the other end is gone, the link is `"down"`. Not every runtime
 *   tells of that: see `docs/threads.md`.
 *
 * @throws {RangeError} If an option is out of range.
 * @throws {TypeError} If `port` is none, or an option has the wrong type.
 */
export function portLink(
  port: PortLike,
  options: PortLinkOptions = {},
): Link & AsyncDisposable {
  checkFunction("link by port", "port.postMessage", port?.postMessage);
  return new PortLink("link by port", () => port, options);
}

/**
 * A link to all who use the same `BroadcastChannel`: the tabs and workers of a
 * site, the threads of a process. Given a name, it makes a channel of its own
 * when it is first used, and closes it at the end; a channel stays open, it is
 * the caller's.
 *
 * What {@linkcode portLink} says of messages and hostile peers holds here, too.
 * Nobody is told when somebody else goes away, for there may be others.
 *
 * @throws {RangeError} If an option is out of range.
 * @throws {TypeError} If `channel` is neither, or an option has the wrong type.
 */
export function broadcastLink(
  channel: PortLike | string,
  options: PortLinkOptions = {},
): Link & AsyncDisposable {
  const action = "link by broadcast channel";
  if (typeof channel !== "string") {
    checkFunction(action, "channel.postMessage", channel?.postMessage);
    return new PortLink(action, () => channel, options);
  }
  const open = () => {
    const { BroadcastChannel } = globalThis as {
      BroadcastChannel?: new (name: string) => Channel;
    };
    if (typeof BroadcastChannel === "function") {
      return new BroadcastChannel(channel);
    }
    throw new TypeError(
      `Cannot ${action} ${JSON.stringify(channel)}: this runtime has no ` +
        "BroadcastChannel; use a link over a port, or over a server",
    );
  };
  return new PortLink(action, open, options, (channel) => channel.close());
}

/** What is needed of a `BroadcastChannel` of our own. */
interface Channel extends PortLike {
  close(): void;
}

const PROTOCOL = "@sauce/queues/link";
const VERSION = 1;

/** What goes through a port. */
interface Message {
  protocol: typeof PROTOCOL;
  version: typeof VERSION;
  topic: string;
  /** A batch of CloudEvents, in JSON. */
  events: string;
}

/** Who receives a topic. */
interface Receiver {
  readonly sink: Sink;
  received: number;
}

/**
 * A link over anything that messages are posted to.
 *
 *     idle ──send(), receive()──▶ open ──the other end is gone──▶ dead
 *       └──────close()──────▶ closed ◀──close()── (any)
 */
class PortLink<Port extends PortLike> implements Link, AsyncDisposable {
  readonly caps: LinkCapabilities = Object.freeze({
    durable: false,
    acks: false,
    groups: false,
    backpressure: false,
    confirms: false,
  });
  onState: (state: LinkState) => void = () => {};
  readonly #action: string;
  readonly #open: () => Port;
  readonly #shut: ((port: Port) => void) | undefined;
  readonly #maxSize: number;
  readonly #receivers = new Map<string, Set<Receiver>>();
  #port: Port | undefined;
  #wire: Wire | undefined; // while it listens
  #end: { readonly why: string; readonly cause?: unknown } | undefined; // of its use

  constructor(
    action: string,
    open: () => Port,
    { maxSize = MAX_SIZE }: PortLinkOptions,
    shut?: (port: Port) => void,
  ) {
    checkCount(action, "maxSize", maxSize, 1);
    this.#action = action;
    this.#open = open;
    this.#shut = shut;
    this.#maxSize = maxSize;
  }

  // deno-lint-ignore require-await
  async send(topic: string, batch: readonly BusEvent[]): Promise<void> {
    checkString(this.#action, "topic", topic);
    this.#use();
    let events = "";
    const post = () => {
      if (events === "") return;
      const message: Message = {
        protocol: PROTOCOL,
        version: VERSION,
        topic,
        events: `[${events}]`,
      };
      events = "";
      try {
        this.#use().postMessage(message);
      } catch (cause) { // it was closed here, be it by `onState`
        this.#die("its port takes no messages", cause);
        throw this.#refusal();
      }
    };
    for (const event of batch) {
      let text: string;
      try {
        text = encodeEvent(event, { maxSize: this.#maxSize - 2 });
      } catch (error) { // by the caller's `toJSON`, say
        this.#tell("bad", describe(error), event);
        continue;
      }
      if (events.length + text.length + 3 > this.#maxSize) post();
      events += events === "" ? text : `,${text}`;
    }
    post();
  }

  // deno-lint-ignore require-await
  async receive(
    topic: string,
    sink: Sink,
    { group, from = "new" }: LinkReceiveOptions = {},
  ): Promise<() => Promise<void>> {
    checkString(this.#action, "topic", topic);
    checkFunction(this.#action, "sink", sink);
    if (group !== undefined) {
      throw new TypeError(
        invalid(this.#action, "group", "left out: it has none", group),
      );
    }
    if (from !== "new") {
      throw new RangeError(
        invalid(this.#action, "from", '"new": it keeps nothing', from),
      );
    }
    this.#listen(this.#use());
    const receiver: Receiver = { sink, received: 0 };
    let receivers = this.#receivers.get(topic);
    if (receivers === undefined) {
      this.#receivers.set(topic, receivers = new Set());
    }
    receivers.add(receiver);
    return () => {
      receivers.delete(receiver);
      if (
        receivers.size === 0 && this.#receivers.get(topic) === receivers
      ) this.#receivers.delete(topic);
      if (this.#receivers.size === 0) this.#listenNoMore();
      return Promise.resolve();
    };
  }

  close(): Promise<void> {
    this.#end ??= { why: "the link was closed" };
    for (const receivers of this.#receivers.values()) receivers.clear();
    this.#receivers.clear();
    this.#listenNoMore();
    const port = this.#port;
    this.#port = undefined;
    if (port !== undefined) this.#shut?.(port);
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #use(): Port {
    if (this.#end !== undefined) throw this.#refusal();
    return this.#port ??= this.#open();
  }

  #refusal(): LinkClosedError {
    const { why, cause } = this.#end!;
    return new LinkClosedError(`Cannot ${this.#action}: ${why}`, { cause });
  }

  #listen(port: Port): void {
    this.#wire ??= new Wire(this.#action, port, {
      message: (message) => this.#hear(message),
      unreadable: () => this.#tell("bad", "a message cannot be read here"),
      died: (why, cause) => this.#die(why, cause),
      patient: true,
    });
  }

  #listenNoMore(): void {
    this.#wire?.end();
    this.#wire = undefined;
  }

  /** Its port is of no use any more. */
  #die(why: string, cause: unknown): void {
    if (this.#end !== undefined) return;
    this.#end = { why, cause };
    this.#listenNoMore();
    this.#tell("down", why);
  }

  #tell(state: LinkState["state"], reason: string, event?: BusEvent): void {
    try {
      this.onState({ state, reason, ...event !== undefined && { event } });
    } catch (error) {
      report(error);
    }
  }

  #hear(message: unknown): void {
    const { protocol, version, topic, events } = Object(message);
    if (protocol !== PROTOCOL) {
      if (isOfSister(message)) return;
      return this.#tell("bad", `not a message of a link: ${outline(message)}`);
    }
    if (version !== VERSION) {
      const why =
        `it speaks version ${VERSION} of the protocol, somebody else ` +
        "another one; let all use the same @sauce/queues";
      return this.#tell("bad", why);
    }
    const receivers = this.#receivers.get(topic);
    if (receivers === undefined) return; // for somebody else
    let batch: unknown;
    try {
      batch = parseJson(events, this.#maxSize);
    } catch (error) {
      return this.#tell("bad", describe(error));
    }
    // To refuse half a million things one by one would take seconds.
    const most = (events as string).length / MIN_SIZE;
    if (!Array.isArray(batch) || batch.length > most) {
      return this.#tell("bad", "a message holds no list of events");
    }
    for (const found of batch) {
      let event: BusEvent;
      try {
        event = fromCloudEvent(found);
      } catch (error) {
        this.#tell("bad", describe(error));
        continue;
      }
      for (const receiver of [...receivers]) {
        if (receivers.has(receiver)) this.#deliver(event, receiver);
      }
    }
  }

  /** A sink that fails stops nobody; that it does is told, since nothing comes again. */
  #deliver(event: BusEvent, receiver: Receiver): void {
    const fail = (error: unknown) =>
      this.#tell("bad", `a receiver failed: ${describe(error)}`);
    try {
      const ref = String(++receiver.received);
      receiver.sink(event, { ref, attempt: 1 })?.then(undefined, fail);
    } catch (error) {
      fail(error);
    }
  }
}

/** Whether a message is one of `port.ts` or `worker.ts`, which may share the port. */
function isOfSister(message: unknown): boolean {
  const protocol = Array.isArray(message)
    ? message[0]
    : Object(message).protocol;
  return typeof protocol === "string" && protocol.startsWith("@sauce/queues/");
}
