/**
 * A bus hands events from many publishers to many subscribers, each of which
 * has a queue of its own.
 *
 * ```ts
 * import { Bus } from "@sauce/queues/bus";
 * import { assertEquals } from "@std/assert";
 *
 * const bus = new Bus<{ order: string; shutdown: undefined }>();
 *
 * const served: string[] = [];
 * async function kitchen() {
 *   using orders = bus.subscribe(["order", "shutdown"]); // to the end of the block
 *   for await (const event of orders) {
 *     if (event.type === "shutdown") break;
 *     served.push(`${event.data} for ${event.source}`); // a string
 *   }
 * }
 *
 * const open = kitchen();
 * await bus.publish("order", "soup", { source: "table 1" });
 * await bus.publish("order", "steak", { source: "table 2" });
 * await bus.publish("shutdown");
 * await open;
 * assertEquals(served, ["soup for table 1", "steak for table 2"]);
 * ```
 *
 * Everything stays in memory and is delivered at most once.
 *
 * @module
 */

import type { Bridge, Ids, LinkSnapshot, Outbox, Shore } from "./_bridge.ts";
import { Ring } from "./_buffer.ts";
import {
  innermost,
  isPromiseLike,
  isWithin,
  LazySignal,
  Stay,
  stayWith,
  within,
} from "./_context.ts";
import {
  checkCount,
  checkFunction,
  checkObject,
  checkOverflow,
  checkString,
  describe,
  invalid,
  report,
  show,
} from "./_errors.ts";
import { randomId } from "./_id.ts";
import {
  hasAborted,
  ITSELF,
  type Link as Linked,
  List,
  type Owner,
  Waiter,
  Watch,
} from "./_line.ts";
import type {
  Delivery,
  Link,
  LinkCapabilities,
  LinkEvent,
  LinkReceiveOptions,
  LinkState,
  Sink,
} from "./_link.ts";
import { losesTasks, lost, type Member, watchOver } from "./_vigil.ts";
import {
  type Overflow,
  QueueClosedError,
  QueueFullError,
  type UnsentOptions,
} from "./queue.ts";

export type {
  Delivery,
  Link,
  LinkCapabilities,
  LinkReceiveOptions,
  LinkSnapshot,
  LinkState,
  Overflow,
  Sink,
};

/** What was published. It is frozen; its `data` is what the publisher gave. */
export interface BusEvent<Type extends string = string, Data = unknown> {
  /** Unlike that of any other event, of this or another process. */
  readonly id: string;
  /** What happened: "order". */
  readonly type: Type;
  /** Who published it: "front-of-house"; "unknown" if nobody said. */
  readonly source: string;
  /** When it was published, in milliseconds since the epoch. */
  readonly time: number;
  /** What the publisher gave. */
  readonly data: Data;
  /** The `id` of the event that led to this one. */
  readonly cause?: string;
  /** A W3C `traceparent`, carried untouched. */
  readonly trace?: string;
  /** Which bus it was published on, if it came over a link: it is unlike that of any other. */
  readonly origin?: string;
}

/** The events of one or several types, as a union that narrows by `type`; of all types for `"*"`. */
export type EventOf<Events extends object, Type extends string> = Type extends
  "*" ? {
    [T in keyof Events & string]: BusEvent<T, Events[T]>;
  }[keyof Events & string]
  : BusEvent<Type, Events[Type & keyof Events]>;

/**
 * What `publish` takes after the type: data, unless the event has none, and
 * options. For a `type` that is a union, TypeScript lets the data of any of its
 * members pass: narrow it first.
 */
export type PublishArguments<Data> =
  | [data: Data, options?: PublishOptions]
  | (undefined extends Data ? [data?: Data, options?: PublishOptions] : never);

/** Options for a {@linkcode Bus}. */
export interface BusOptions<Events extends object = Record<string, unknown>> {
  /**
   * What error messages call it.
   *
   * @default {"bus"}
   */
  name?: string;
  /**
   * How many of the last events of a type are kept for newcomers: integers from
   * 0, or `Infinity`. Whoever subscribes to it, also by `on` and `once`, gets
   * them first, in the order in which they were published, if its filter lets
   * them pass. They are dropped by policy if they are too many; where the policy
   * is no such, all of them are queued, whatever the capacity. None by default.
   */
  replay?: { readonly [T in keyof Events & string]?: number };
  /**
   * Told when a handler or a filter throws. By default the error is reported as
   * uncaught. Told of what is wrong with a link, too, by a
   * {@linkcode LinkError}; by default that is a warning on the console, since
   * somebody elsewhere may cause it.
   */
  onError?: (error: SubscriberError) => void;
  /**
   * Told of an event that nobody gets: no subscription listens to its type, or
   * no filter lets it pass. Not told of those that it publishes itself, as it is
   * called. What it throws is reported as uncaught.
   */
  onUnheard?: (event: EventOf<Events, "*">) => void;
}

/** Options for publishing. */
export interface PublishOptions {
  /**
   * Who publishes.
   *
   * @default {"unknown"}
   */
  source?: string;
  /** The event that led to this one. */
  cause?: BusEvent;
  /** A W3C `traceparent`, to be carried untouched. */
  trace?: string;
  /**
   * Gives up waiting: `publish` rejects with `signal.reason`. Subscriptions
   * that have the event in their queue keep it, those that are full don't get it.
   */
  signal?: AbortSignal;
}

/** Options for subscribing. */
export interface SubscribeOptions<Event extends BusEvent = BusEvent> {
  /**
   * What errors and {@linkcode Bus.inspect} call the subscription. By default
   * its types.
   */
  name?: string;
  /**
   * How many events may be in its queue, an integer from 1 or `Infinity`.
   *
   * @default {256}
   */
  capacity?: number;
  /**
   * What happens when its queue is full: its publishers `"wait"`, or are
   * refused (`"reject"`), or events are dropped and counted.
   *
   * @default {"wait"}
   */
  overflow?: Overflow;
  /** Unsubscribes. */
  signal?: AbortSignal;
  /**
   * Which events it gets. Called by `publish`; an event for which it throws is
   * not delivered. What it publishes itself comes before the event, whom it
   * subscribes gets what comes after that.
   */
  filter?: (event: Event) => boolean;
}

/** Options for {@linkcode Bus.on}. */
export interface HandleOptions<Event extends BusEvent = BusEvent>
  extends SubscribeOptions<Event> {
  /**
   * How many events are handled at a time, an integer from 1 or `Infinity`.
   *
   * @default {1}
   */
  concurrency?: number;
}

/** Options for {@linkcode Bus.connect}. */
export interface ConnectOptions<Type extends string = string> {
  /**
   * The types of the events that cross the link, in both directions.
   *
   * @default {"*"}
   */
  types?: Type | readonly Type[];
  /**
   * Which of the link's topics to use: that of those who are to be reached.
   *
   * @default {"bus"}
   */
  topic?: string;
  /** What errors and {@linkcode Bus.inspect} call it. By default `link` and the topic. */
  name?: string;
  /**
   * How many events may wait to be sent, and how many that have come may wait for
   * a place in the queues of subscriptions. An integer from 1, or `Infinity`.
   *
   * @default {1024}
   */
  capacity?: number;
  /**
   * What happens when so many wait to be sent: as with a subscription. But while
   * the link is down nobody waits for it: `"wait"` is `"drop-oldest"` then.
   *
   * @default {"wait"}
   */
  overflow?: Overflow;
  /**
   * How long disposal lets the link send what waits, and end, in milliseconds
   * from 0, or `Infinity`.
   *
   * @default {1000}
   */
  grace?: number;
}

/** What a handler is told besides the event. */
export interface EventContext {
  /** The name of its subscription. */
  readonly subscription: string;
  /** Fires when the bus is aborted or the subscription ends, with the reason if there is one. */
  readonly signal: AbortSignal;
}

/** The state of a bus, as plain data. */
export interface BusSnapshot {
  /** Its name. */
  readonly name: string;
  /** Whether it takes no more events. */
  readonly closed: boolean;
  /** How many events were published. */
  readonly published: number;
  /** Its subscriptions, the oldest first. */
  readonly subscriptions: readonly SubscriptionSnapshot[];
  /** Its links, the oldest first; absent if there are none. */
  readonly links?: readonly LinkSnapshot[];
}

/** The state of a subscription, as plain data. */
export interface SubscriptionSnapshot {
  /** Its number, which is its alone. */
  readonly id: number;
  /** Its name. */
  readonly name: string;
  /** What it listens to. */
  readonly types: readonly string[];
  /** How many events are in its queue. */
  readonly size: number;
  /** The largest `size` since the start. */
  readonly peak: number;
  /** How many events its queue can hold; `null` if there is no bound, as JSON has no infinity. */
  readonly capacity: number | null;
  /** How many publishers wait for it. */
  readonly waiting: number;
  /**
   * Since when it has held the first of those, in milliseconds since the epoch;
   * `null` if nobody waits.
   */
  readonly heldSince: number | null;
  /** How many events it has delivered. */
  readonly delivered: number;
  /** How many events its `overflow` policy has dropped. */
  readonly dropped: number;
  /** How many events its handler, or its filter, has failed on. */
  readonly failed: number;
}

/** One step on an event's way through a bus, as a {@linkcode BusObserver} is told of it. */
export interface BusStep {
  /** The event. */
  readonly event: BusEvent;
  /** The name of the subscription concerned; absent for `published` and `unheard`. */
  readonly subscription?: string;
  /** Its number, which is its alone: several subscriptions may share a name. */
  readonly subscriptionId?: number;
  /** When, by `performance.now`. What one `publish` does happens at one time. */
  readonly at: number;
  /** `failed`: what the handler or the filter threw. */
  readonly error?: unknown;
  /**
   * In milliseconds. `delivered`: since it was published (exactly, if somebody
   * observed that; else to the millisecond). `handled` and `failed`: how long
   * the handler took, if somebody observed its beginning.
   */
  readonly waited?: number;
  /** `queued`, `delivered` and `dropped`: how many events are in the subscription's queue after this step. */
  readonly depth?: number;
  /**
   * `dropped`: why. By the `overflow` policy; since the subscription or the bus
   * was ended before; or since its publisher gave up waiting.
   */
  readonly reason?: "overflow" | "ended" | "withdrawn";
  /**
   * Whether it is about a handler of `on`. After `delivered`, `handled` or
   * `failed` follows then; `failed` without it is about a filter, or a link.
   */
  readonly handler?: boolean;
  /** `published`: the very options that {@linkcode BusObserver.trace} was asked about. */
  readonly draft?: PublishOptions;
}

/**
 * Is told each step of every event, by {@linkcode Bus.observe}. Each method is
 * called synchronously, at the step. What it throws is reported as uncaught,
 * and changes nothing else.
 */
export interface BusObserver {
  /** It was published: once an event, before its `queued`. */
  published?(step: BusStep): void;
  /** It is in a subscription's queue, or in line for it. */
  queued?(step: BusStep): void;
  /** It will not be delivered to this subscription, which wanted it. */
  dropped?(step: BusStep): void;
  /** It was handed to the reader or the handler. */
  delivered?(step: BusStep): void;
  /** The handler of `on` has ended well. */
  handled?(step: BusStep): void;
  /**
   * A handler or a filter threw; or a link could not send the event, or has
   * trouble: then `error` is a {@linkcode LinkError}, and `event` is that of it.
   */
  failed?(step: BusStep): void;
  /** Nobody listens to it. */
  unheard?(step: BusStep): void;
  /**
   * Asked before an event is made, which may be refused yet. A string that it
   * returns becomes the event's `trace`, in place of that in `options`.
   */
  trace?(type: string, options: PublishOptions): string | undefined;
  /**
   * Stands around the call of a handler, after `delivered`: it has to call
   * `run`, which calls the handler up to its first `await`, in the async context
   * that `run` is called in.
   */
  around?(step: BusStep, run: () => void): void;
}

/** Says which handler failed, on which event, who had published that and why. */
export class SubscriberError extends Error {
  /** The event. */
  readonly event: BusEvent;
  /** The name of the subscription. */
  readonly subscription: string;

  /** Takes what the handler or filter threw as `cause`; `message` stands in for the usual one. */
  constructor(
    event: BusEvent,
    subscription: string,
    options?: ErrorOptions & { message?: string },
  ) {
    const cause = options?.cause;
    super(
      options?.message ??
        `Subscription ${show(subscription)} failed on event ${origin(event)}` +
          (event.cause === undefined ? "" : `, caused by ${causeOf(event)}`) +
          (cause === undefined ? "" : `: ${message(cause)}`),
      options,
    );
    this.name = "SubscriberError";
    this.event = event;
    this.subscription = subscription;
  }
}

/**
 * Says what is wrong with a link. Its `event` was never published: its type is
 * `link.down`, `link.gap` or `link.bad`, its data the `state`.
 */
export class LinkError extends SubscriberError {
  /** What the link, or the bus's end of it, has to tell. */
  readonly state: LinkState;

  /** Takes what led to it as `cause`, if anything did. */
  constructor(
    event: BusEvent,
    link: string,
    state: LinkState,
    options?: ErrorOptions & { message?: string },
  ) {
    super(event, link, options);
    this.name = "LinkError";
    this.state = state;
  }
}

/** Publishes with a fixed source, whatever the options say; made by {@linkcode Bus.as}. */
export interface Publisher<Events extends object> {
  /** The source. */
  readonly source: string;
  /** Publishes as {@linkcode Bus.publish} does. */
  publish<T extends keyof Events & string>(
    type: T,
    ...rest: PublishArguments<Events[T]>
  ): Promise<BusEvent<T, Events[T]>>;
  /** Publishes as {@linkcode Bus.tryPublish} does. */
  tryPublish<T extends keyof Events & string>(
    type: T,
    ...rest: PublishArguments<Events[T]>
  ): BusEvent<T, Events[T]> | undefined;
}

// The way of an event, in one synchronous step for all subscriptions:
//
//   publish ──▶ those who listen to its type, and whose filters let it pass
//           ──▶ nobody, if one of them refuses it
//           ──▶ into the queue of each, or in line for it, where the publisher
//               waits; and only then are observers told.
//
// In the second half of it no foreign code runs: no filter, no handler, no
// observer. So the order of events is the same in every queue, whoever waits,
// and whoever subscribes meanwhile gets an event like all others or not at all.
//
// The way of a delivery: readers and handlers take events out of the queue in
// turns of their own. While it is empty they sleep; what comes in wakes them.
//
// States of a bus: open ──close()──▶ closed   (handlers may still run)
//                    └────abort()──▶ aborted ◀──abort()── closed

/**
 * Hands events from publishers to subscribers, who need not know each other.
 *
 * - **Order:** every subscriber gets its events in the order in which `publish`
 *   was called, also when a handler publishes.
 * - **Back-pressure:** `publish` waits while a subscription that wants it is
 *   full; the others have the event at once.
 * - **Isolation:** a handler that throws stops nobody. Its error becomes a
 *   {@linkcode SubscriberError} that says who sent the event and why.
 * - **Newcomers:** get what is published after they have subscribed, and before
 *   that what is kept for them (`replay`).
 * - **Context:** handlers run in the async context in which `on` was called,
 *   never in that of a publisher.
 *   On Cloudflare's workers, where a request can end without a word, its
 *   subscriptions end soon after it.
 * - **Closing:** `close` lets what is queued be delivered, `abort` does not.
 */
export class Bus<Events extends object = Record<string, unknown>>
  implements AsyncDisposable {
  // Not `#`, since JSR takes private members out of the types that it hands on.
  /** For the type checker alone: a bus of other events will not do. */
  declare protected readonly events?: Events;
  readonly #name: string;
  readonly #onError: (error: SubscriberError) => void;
  readonly #onUnheard: ((event: never) => void) | undefined;
  readonly #history: History;
  readonly #routes = new Routes();
  readonly #served = new Set<Inbox>(); // those of `on`, until the last handler has ended
  readonly #observers = new Observers();
  readonly #alarm = new Alarm();
  readonly #bridges = new Set<Bridge>();
  // Of what has come over links, and what the origins of what goes over them
  // begin with; made when first needed.
  #ids: Ids | undefined;
  #origin: string | undefined;
  #connected = 0; // links, since the start
  #published = 0;
  #unheard: BusEvent[] = []; // which `onUnheard` is to be told
  #telling = false; // whether it is being told
  #state: "open" | "closed" | { readonly reason: unknown } = "open";

  /**
   * Makes an open bus without subscriptions.
   *
   * @throws {RangeError} If an option is out of range.
   * @throws {TypeError} If an option has the wrong type.
   */
  constructor(options: BusOptions<NoInfer<Events>> = {}) {
    const { name = "bus", replay = {}, onError = report, onUnheard } = options;
    checkString("create bus", "name", name);
    checkFunction("create bus", "onError", onError);
    if (onUnheard !== undefined) {
      checkFunction("create bus", "onUnheard", onUnheard);
    }
    this.#name = name;
    this.#onError = onError;
    this.#onUnheard = onUnheard;
    this.#history = new History(replay);
  }

  /**
   * Publishes an event. Resolves with it once every subscription that wants it
   * has a place for it.
   *
   * **Cancellation:** subscriptions that have the event keep it; those that are
   * full don't get it.
   *
   * @throws {QueueClosedError} If the bus is closed; if it is aborted while
   * `publish` waits, the reason of that is thrown.
   * @throws {QueueFullError} If a subscription with `overflow: "reject"` is
   * full, or a handler that publishes would wait for its own queue, as all
   * those do that may run beside it; then nobody gets the event. (Where the
   * runtime has no `AsyncLocalStorage`, as in pages, such a handler is recognized
   * before its first `await` only, and waits for itself after that.)
   */
  publish<T extends keyof Events & string>(
    type: T,
    ...rest: PublishArguments<Events[T]>
  ): Promise<BusEvent<T, Events[T]>> {
    return this.#publish(type, rest[0], rest[1]) as Promise<
      BusEvent<T, Events[T]>
    >;
  }

  /**
   * Publishes an event if that needs no waiting.
   *
   * @returns The event; or nothing, and nobody has got it, if a subscription
   * that wants it is full (and does not drop), or the bus is closed.
   */
  tryPublish<T extends keyof Events & string>(
    type: T,
    ...rest: PublishArguments<Events[T]>
  ): BusEvent<T, Events[T]> | undefined {
    return this.#tryPublish(type, rest[0], rest[1]) as
      | BusEvent<T, Events[T]>
      | undefined;
  }

  /** Publishes in the name of `source`. */
  as(source: string): Publisher<Events> {
    checkString("publish", "source", source);
    return {
      source,
      publish: (type: string, data?: unknown, options?: PublishOptions) =>
        this.#publish(type, data, options, source),
      tryPublish: (type: string, data?: unknown, options?: PublishOptions) =>
        this.#tryPublish(type, data, options, source),
    } as Publisher<Events>;
  }

  /**
   * Subscribes to events of one or several types, or of all (`"*"`), from now
   * on. To be read by `for await`; leaving the loop, or the block of a `using`,
   * unsubscribes. On a closed bus the subscription has ended.
   *
   * @throws {RangeError} If an option is out of range.
   * @throws {TypeError} If an option has the wrong type.
   */
  subscribe<T extends (keyof Events & string) | "*">(
    types: T | readonly T[],
    options: SubscribeOptions<EventOf<Events, T>> = {},
  ): Subscription<EventOf<Events, T>> {
    return this.#subscribe(
      new Inbox(types, options, this.#observers, this.#alarm),
      options,
    );
  }

  /**
   * Subscribes `handler`, which gets the events one after another (or
   * `concurrency` at a time): the next one when what it returned has settled.
   * What it throws becomes a {@linkcode SubscriberError}, and it goes on.
   *
   * Events that have come together are handled together, unless that returns a
   * promise: what one of them does to the async context, by `enterWith`, lasts
   * as long. The next ones are handled in that of `on` again.
   *
   * It is never called by `on` or by `publish` itself, but soon after them. Once
   * the subscription has ended it is called no more, but for the event whose
   * delivery an observer is being told of: what was told is handled.
   *
   * @throws {RangeError} If an option is out of range.
   * @throws {TypeError} If an option has the wrong type.
   */
  on<T extends (keyof Events & string) | "*">(
    types: T | readonly T[],
    handler: (event: EventOf<Events, T>, context: EventContext) => unknown,
    options: HandleOptions<EventOf<Events, T>> = {},
  ): Subscription<EventOf<Events, T>> {
    checkFunction("subscribe", "handler", handler);
    const { concurrency = 1 } = options;
    checkCount("subscribe", "concurrency", concurrency, 1);
    const inbox = new Inbox(types, options, this.#observers, this.#alarm);
    inbox.service = new Service(
      inbox,
      handler as Handler,
      concurrency,
      this.#observers,
      this.#served,
      this.#fail,
    );
    this.#subscribe(inbox, options);
    this.#served.add(inbox);
    const woken = inbox.service.start();
    if (losesTasks()) this.#watchOver(inbox, woken);
    return inbox;
  }

  /**
   * Resolves with the next event of a type that passes `filter`: the one that a
   * subscription would get first, be it replayed.
   *
   * **Cancellation:** it is not waited for any more.
   *
   * @throws {QueueClosedError} If the bus is, or becomes, closed; if it is
   * aborted, the reason of that is thrown.
   */
  async once<T extends keyof Events & string>(
    type: T,
    options: Pick<SubscribeOptions<EventOf<Events, T>>, "signal" | "filter"> =
      {},
  ): Promise<EventOf<Events, T>> {
    const { signal, filter } = options;
    if (signal !== undefined && hasAborted(signal)) throw signal.reason;
    const action = `wait for ${show(type)}`;
    if (this.#state !== "open") throw this.#refusal(action);
    checkType("wait", type);
    const inbox = new Inbox<EventOf<Events, T>>(
      type,
      { filter, signal, capacity: 1 },
      this.#observers,
      this.#alarm,
    );
    inbox.single = true;
    this.#subscribe(inbox, { signal });
    try {
      const { value, done } = await inbox[Symbol.asyncIterator]().next();
      if (!done) return value;
    } finally {
      inbox.unsubscribe();
    }
    throw signal?.aborted ? signal.reason : this.#refusal(action);
  }

  /**
   * Connects the bus with others, in other processes, which use the same medium
   * and topic: what is published here from now on is published there, and the
   * other way round.
   *
   * - **Identity:** an event keeps its `id`, `source`, `time`, `cause` and
   *   `trace`; where it arrives, its `origin` says on which bus it was published.
   *   Its data is what the link makes of it.
   * - **Once around:** what came over a link is not sent over any. What comes
   *   twice, also over two links, is dropped.
   * - **Order:** the events of one bus come in the order in which they were
   *   published, if the medium keeps it.
   * - **Losses:** are counted, here and there, and told by a
   *   {@linkcode LinkError}: events have numbers.
   * - **Back-pressure:** a link that can be held back is, while a `"wait"`
   *   subscription is full; else up to `capacity` events wait for it, and it
   *   misses the next ones.
   * - **Closing:** disposing of the result sends what was published and stops, in
   *   `grace` at most; so does `close`, and so does `abort`, without sending. The
   *   link stays open: it is the caller's, and to be closed after that.
   *
   * @returns What ends the connection; once the link receives.
   * @throws {QueueClosedError} If the bus is, or meanwhile becomes, closed; if it
   * is aborted, the reason of that is thrown.
   * @throws {RangeError} If an option is out of range.
   * @throws {TypeError} If `link` is none, or an option has the wrong type.
   */
  async connect<T extends (keyof Events & string) | "*" = "*">(
    link: Link,
    options: ConnectOptions<T> = {},
  ): Promise<AsyncDisposable> {
    const action = "connect";
    checkLink(link);
    const { topic = "bus", capacity = 1024, overflow, grace = 1000 } = options;
    checkString(action, "topic", topic);
    const { types = "*" as T, name = `link ${topic}` } = options;
    if (!(typeof grace === "number" && grace >= 0)) {
      const Kind = typeof grace === "number" ? RangeError : TypeError;
      throw new Kind(
        invalid(action, "grace", "a number >= 0 or Infinity", grace),
      );
    }
    if (this.#state !== "open") throw this.#refusal(action);
    const outbox = new Inbox(
      types,
      { name, capacity, overflow },
      this.#observers,
      this.#alarm,
    );
    outbox.outward = true;
    // Not loaded by those who have no link.
    const { Bridge, Ids } = await import("./_bridge.ts");
    if (this.#state !== "open") throw this.#refusal(action);
    this.#ids ??= new Ids();
    this.#origin ??= `${randomId()}.`;
    const bridge = new Bridge(this.#shore(outbox), {
      link,
      topic,
      types: outbox.types[0] === "*" ? undefined : new Set(outbox.types),
      capacity,
      grace,
      origin: this.#origin + ++this.#connected,
    });
    this.#bridges.add(bridge);
    try {
      await bridge.open();
    } catch (error) {
      this.#bridges.delete(bridge);
      throw error;
    }
    if ((this.#state as unknown) !== "open") throw this.#refusal(action);
    this.#subscribe(outbox, {});
    bridge.start();
    const dispose = () =>
      bridge.close(undefined).finally(() => this.#bridges.delete(bridge));
    if (losesTasks()) {
      const lose = () => (bridge.lose(), dispose());
      watchOver({
        get over() {
          return !outbox.open;
        },
        lose,
      }, this.#alarm);
    }
    return { [Symbol.asyncDispose]: dispose };
  }

  /**
   * Tells `observer` each step of every event, from now on until the result is
   * disposed of. Observers are told in the order in which the steps were taken,
   * also when they publish, subscribe or close the bus themselves.
   *
   * @throws {TypeError} If it is no object, or one of its methods is no function.
   */
  observe(observer: BusObserver): Disposable {
    return this.#observers.add(observer);
  }

  /** Looks at the bus: plain data, ready for `JSON.stringify`. */
  inspect(): BusSnapshot {
    return {
      name: this.#name,
      closed: this.#state !== "open",
      published: this.#published,
      subscriptions: [...this.#routes.all].map((inbox) => inbox.inspect()),
      ...this.#bridges.size > 0 &&
        { links: [...this.#bridges].map((bridge) => bridge.inspect()) },
    };
  }

  /**
   * Takes no new events, and lets those that were published be delivered, also
   * those whose publisher still waits. Resolves when the handlers of `on` have
   * ended; a subscription that is read by hand ends once it is read out. Called
   * by a handler, it resolves at once, since it can't wait for that; where the
   * runtime has no `AsyncLocalStorage` (pages), only before the handler's first
   * `await`: don't wait for it later than that.
   */
  close(): Promise<void> {
    if (this.#state === "open") {
      this.#state = "closed";
      this.#history.clear();
      for (const inbox of this.#routes.all) inbox.finish();
      for (const bridge of this.#bridges) bridge.close(this.#closed("connect"));
    }
    return this.#ended();
  }

  /**
   * Takes no new events and delivers none: what is queued is discarded, loops
   * and waiting publishers throw `reason` (by default an `AbortError`), and the
   * `context.signal` of handlers fires. Resolves when these have ended, as
   * {@linkcode Bus.close} does.
   */
  abort(reason?: unknown): Promise<void> {
    if (typeof this.#state === "string") {
      if (reason === undefined) {
        reason = new DOMException(`${this.#name} was aborted`, "AbortError");
      }
      this.#state = { reason };
      this.#history.clear();
      const inboxes = [...this.#routes.all];
      this.#observers.hold(); // nobody may look before all of them are cut
      for (const inbox of inboxes) inbox.abort(reason);
      this.#observers.release();
      for (const inbox of inboxes) inbox.halt(reason);
      for (const bridge of this.#bridges) bridge.abort(reason);
    }
    return this.#ended();
  }

  /** Closes the bus as {@linkcode Bus.close} does, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Lets handlers hold up nobody once their loop has ended without a word. */
  #watchOver(inbox: Inbox, woken: Promise<void>): void {
    const served = this.#served;
    const loop: Member = {
      get over() {
        return !served.has(inbox);
      },
      lose() {
        inbox.lose();
        inbox.service!.end();
      },
    };
    // Outside of any request it will belong to the one that wakes it first.
    const watch = () => watchOver(loop, this.#alarm);
    if (!watch()) woken.then(watch);
  }

  #publish(
    type: string,
    data: unknown,
    options: PublishOptions = NO_OPTIONS,
    as?: string,
  ): Promise<BusEvent> {
    try {
      const { signal } = options;
      if (signal !== undefined && hasAborted(signal)) throw signal.reason;
      checkType("publish", type);
      if (this.#state !== "open") {
        throw this.#closed("publish", { value: data });
      }
      const event = this.#message(type, data, as ?? options.source, options);
      const audience = this.#audience(event);
      // once more: a filter may have done anything
      if (signal?.aborted) throw signal.reason;
      if (this.#state !== "open") {
        throw this.#closed("publish", { value: data });
      }
      if (anyFull(audience)) return this.#wait(event, audience, signal);
      this.#send(event, audience);
      return Promise.resolve(event);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #tryPublish(
    type: string,
    data: unknown,
    options: PublishOptions = NO_OPTIONS,
    as?: string,
  ): BusEvent | undefined {
    const { signal } = options;
    if (signal !== undefined && hasAborted(signal)) return undefined;
    checkType("publish", type);
    if (this.#state !== "open") return undefined;
    const event = this.#message(type, data, as ?? options.source, options);
    const audience = this.#audience(event);
    if (
      signal?.aborted || (this.#state as unknown) !== "open" || // by a filter
      anyFull(audience)
    ) return undefined;
    this.#send(event, audience);
    return event;
  }

  #message(
    type: string,
    data: unknown,
    source: string | undefined,
    options: PublishOptions,
  ): Message {
    const observers = this.#observers;
    if (!observers.trace) return new Message(type, data, source, options);
    const draft = { ...options, source };
    observers.draw(type, draft);
    const event = new Message(type, data, source, draft);
    observers.drew(event, draft);
    return event;
  }

  /** Publishes an event although subscriptions are full, unless one refuses it. */
  #wait(
    event: Message,
    audience: readonly Inbox[],
    signal: AbortSignal | undefined,
  ): Promise<BusEvent> {
    const stay = innermost();
    for (const inbox of audience) {
      if (!inbox.full) continue;
      const own = inbox.traps(stay);
      if (!own && inbox.overflow !== "reject") continue;
      const name = show(inbox.name);
      throw new QueueFullError(
        `Cannot publish: subscription ${name} is full (capacity ${inbox.capacity})` +
          (own
            ? ", and its own handler, which publishes, can't wait for it"
            : "") +
          "; the data is in this error's `value`",
        { value: event.data },
      );
    }
    const publisher = new Waiting(event, signal, stay, this.#alarm);
    this.#send(event, audience, publisher);
    return publisher.promise;
  }

  /** Puts an event into every queue, and only then tells of it. */
  #send(
    event: Message,
    audience: readonly Inbox[],
    publisher?: Waiting,
    refusing?: readonly Inbox[], // who don't get it
  ): void {
    const observers = this.#observers;
    this.#published++;
    this.#history.add(event, this.#published);
    observers.hold();
    if (observers.any) observers.tellPublished(event);
    for (const inbox of audience) {
      if (refusing?.includes(inbox)) inbox.refuse(event);
      else if (publisher !== undefined && inbox.full) inbox.lineUp(publisher);
      else inbox.put(event);
    }
    const unheard = audience.length === 0;
    if (unheard && observers.any) {
      observers.tell(TELL.unheard, { event, at: observers.at });
    }
    const lost = unheard && this.#onUnheard !== undefined && !this.#telling;
    if (lost) this.#unheard.push(event); // before those that observers publish
    observers.release();
    if (lost) this.#tellUnheard(this.#onUnheard!);
  }

  #tellUnheard(onUnheard: (event: never) => void): void {
    if (this.#telling) return;
    this.#telling = true;
    for (let event; (event = this.#unheard.shift()) !== undefined;) {
      try {
        onUnheard(event as never);
      } catch (error) {
        report(error);
      }
    }
    this.#telling = false;
  }

  /** Why somebody waits in vain: the bus was aborted, or closed. */
  #refusal(action: string): unknown {
    return typeof this.#state === "object"
      ? this.#state.reason
      : this.#closed(action);
  }

  #closed(action: string, unsent?: UnsentOptions): QueueClosedError {
    const hint = unsent ? "; the data is in this error's `value`" : "";
    return new QueueClosedError(
      `Cannot ${action}: ${this.#name} is closed${hint}`,
      unsent,
    );
  }

  /** Resolves when the handlers have ended; at once, if it is one of them that asks. */
  async #ended(): Promise<void> {
    const stay = innermost();
    const served = [...this.#served];
    if (served.some((inbox) => isWithin(inbox, stay))) return;
    const bridges = [...this.#bridges].map((bridge) => bridge.close(undefined));
    const handlers = served.map((inbox) => inbox.service!.ended());
    const watch = { over: false, lose() {} }; // counts, should they be lost
    if (losesTasks()) watchOver(watch, this.#alarm);
    await Promise.all([...handlers, ...bridges]);
    watch.over = true;
  }

  /** What a link has to do with the bus. */
  #shore(outbox: Inbox): Shore {
    return {
      outbox,
      ids: this.#ids!,
      own: this.#origin!,
      takeIn: (event, patient, refusable) =>
        this.#takeIn(event, patient, refusable),
      describe,
      report,
      unsent: (event, error) => this.#tellFailed(event, outbox, error),
      trouble: (state, what, cause) => {
        const { name } = outbox;
        const event = new Message(`link.${state.state}`, state, name, {});
        const message = brief(`Link ${show(name)} ${oneLine(what)}`);
        const failure = new LinkError(event, name, state, { cause, message });
        this.#tellFailed(event, outbox, failure);
        this.#tellError(failure);
      },
    };
  }

  /** Publishes what was published elsewhere. */
  #takeIn(
    found: LinkEvent,
    patient: boolean,
    refusable: boolean,
  ): Promise<BusEvent> | undefined {
    if (this.#state !== "open") throw this.#closed("take in an event");
    const { type, data, source, trace } = found;
    const event = new Message(type, data, source, { trace }, found);
    const audience = this.#audience(event).filter(({ outward }) => !outward);
    if ((this.#state as unknown) !== "open") { // by a filter
      throw this.#closed("take in an event");
    }
    if (!anyFull(audience)) {
      this.#send(event, audience);
      return undefined;
    }
    const [holding, refusing]: Inbox[][] = [[], []];
    for (const inbox of audience) {
      if (!inbox.full) continue;
      const holds = inbox.overflow === "wait" && patient;
      (holds ? holding : refusing).push(inbox);
    }
    if (refusable && refusing.some(({ overflow }) => overflow === "reject")) {
      throw new QueueFullError("Cannot take in an event: a queue is full", {
        value: data,
      });
    }
    const publisher = holding.length > 0
      ? new Waiting(event, undefined, undefined, this.#alarm)
      : undefined;
    this.#send(event, audience, publisher, refusing);
    return publisher?.promise;
  }

  /** Lets `inbox` have what is kept for newcomers, and everything from now on. */
  #subscribe<E extends BusEvent>(
    inbox: Inbox<E>,
    { signal }: SubscribeOptions<E>,
  ): Inbox<E> {
    const past: BusEvent[] = [];
    if (!signal?.aborted && !inbox.outward) {
      for (const event of this.#history.of(inbox.types)) { // none, once closed
        if (this.#wanted(event, inbox)) past.push(event);
      }
    }
    if (this.#state !== "open") {
      inbox.unsubscribe();
      return inbox;
    }
    this.#routes.add(inbox);
    inbox.routes = this.#routes;
    this.#observers.hold();
    if (this.#observers.any) this.#observers.read();
    for (const event of past) inbox.put(event as E);
    this.#observers.release();
    inbox.endWith(signal);
    return inbox;
  }

  /** Who gets an event: those who listen, whom their filters leave, and who are still there after that. */
  #audience(event: BusEvent): readonly Inbox[] {
    const { inboxes, filtered } = this.#routes.to(event.type);
    if (!filtered) return inboxes;
    return inboxes.filter((inbox) => this.#wanted(event, inbox)).filter(
      (inbox) => inbox.open,
    );
  }

  #wanted(event: BusEvent, inbox: Inbox): boolean {
    try {
      return inbox.filter === undefined || inbox.filter(event);
    } catch (error) {
      // Not now: who is told may publish, which must come after this event.
      queueMicrotask(() => this.#fail(event, inbox, error));
      return false;
    }
  }

  readonly #fail: OnFailure = (event, inbox, error, handler = false, since) => {
    inbox.failed++;
    this.#tellFailed(event, inbox, error, handler, since);
    this.#tellError(new SubscriberError(event, inbox.name, { cause: error }));
  };

  #tellFailed(
    event: BusEvent,
    inbox: Inbox,
    error: unknown,
    handler = false,
    since?: number,
  ): void {
    if (!this.#observers.any) return;
    const at = this.#observers.read();
    const step = { ...inbox.step(event, at), handler, error };
    const took = since === undefined ? undefined : { waited: at - since };
    this.#observers.tell(TELL.failed, { ...step, ...took });
  }

  #tellError(failure: SubscriberError): void {
    try {
      if (this.#onError !== report || !(failure instanceof LinkError)) {
        this.#onError(failure);
      } else globalThis.console?.warn(failure.message); // decision 0009
    } catch (error) {
      report(failure);
      report(error);
    }
  }
}

/**
 * A subscriber's events, made by {@linkcode Bus.subscribe} and
 * {@linkcode Bus.on}. Several loops over one subscription share its events;
 * leaving one of them ends it for all. They share `missed`, too, which is right
 * for one loop only: count by `dropped` there.
 */
export abstract class Subscription<Event extends BusEvent = BusEvent>
  implements AsyncIterable<Event>, Disposable {
  /** What errors and {@linkcode Bus.inspect} call it. */
  abstract readonly name: string;
  /** What it listens to. */
  abstract readonly types: readonly string[];
  /** How many events are in its queue. */
  abstract readonly size: number;
  /** How many events its `overflow` policy has dropped in all. */
  abstract readonly dropped: number;
  /**
   * How many were dropped between the event just delivered and the one before
   * it; for one loop, or for a handler as it is called.
   */
  abstract readonly missed: number;

  /**
   * Ends the subscription, now: what is in its queue is discarded, loops over
   * it end, publishers who wait for it go on. Does nothing if it has ended.
   */
  abstract unsubscribe(): void;

  /** Iterates over the events as they come. Leaving the loop unsubscribes. */
  abstract [Symbol.asyncIterator]():
    & AsyncIterableIterator<Event>
    & AsyncDisposable;

  /** Unsubscribes, at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.unsubscribe();
  }
}

/** How many subscriptions this process has made. */
let subscriptions = 0;

/**
 * A subscription as the bus sees it: a queue, those who sleep until something
 * comes into it, and the publishers who wait for a place in it.
 *
 *     open ──finish()──▶ closing ──read out──▶ ended
 *       └────unsubscribe(), abort()───────────▶
 *
 * Publishers wait only while the queue is full. Readers sleep while it is empty,
 * and until they are woken. Who asks meanwhile gets in line behind them.
 */
// deno-lint-ignore no-explicit-any
class Inbox<Event extends BusEvent = any> extends Subscription<Event>
  implements Member, Outbox {
  // What each event touches comes first: a thousand of these don't fit into a
  // processor's cache.
  readonly capacity: number;
  overflow: Overflow;
  missed = 0;
  #events = new Ring<Event>();
  #state: "open" | "closing" | "ended" = "open";
  #lossy: boolean; // whether it drops what is too much
  #limit: number; // how many events make it full
  readonly #line = new List<Place>();
  #insiders: Map<Stay, number> | undefined = undefined; // handlers of this queue: how much of theirs is in line
  readonly #observers: Observers;
  #delivered = 0;
  #peak = 0;
  // Who sleeps: readers, in the order in which they have asked, and the loop of
  // `on`, with what wakes it. Whether the alarm is set for them.
  readonly #asking = new List<Waiter<Reader<Event>>>();
  #arrive: (() => void) | undefined = undefined;
  #alarmed = false;
  // With "drop-newest": how many were dropped before each event in the queue.
  readonly #gaps: Ring<number> | undefined;
  // How many were dropped since the last delivery; with "drop-newest", since
  // the last event that was taken in.
  #lost = 0;

  readonly id: number = ++subscriptions;
  readonly name: string;
  readonly types: readonly string[];
  readonly filter: ((event: Event) => boolean) | undefined;
  readonly #policy: Overflow; // as it was chosen
  dropped = 0;
  /** How many events its handler, or its filter, has failed on. */
  failed = 0;
  /** The loop of `on` that reads it, if any: then it ends with the last handler. */
  service: Service | undefined = undefined;
  /** Whether it wants one event only. */
  single = false;
  /** Whether it is for a link, which gets nothing that came over one. */
  outward = false;
  /** Aborted when handlers should stop. */
  readonly stop: LazySignal = new LazySignal();
  /** What sends it events. */
  routes: Routes | undefined = undefined;
  readonly #alarm: Alarm;
  #waiting = 0;
  #failure: { readonly reason: unknown } | undefined = undefined; // what readers are told
  #watch: Watch | undefined = undefined;

  constructor(
    types: string | readonly string[],
    options: SubscribeOptions<Event>,
    observers: Observers,
    alarm: Alarm,
  ) {
    super();
    const { capacity = 256, overflow = "wait", filter, signal } = options;
    const wanted = [...new Set([types].flat())];
    for (const type of wanted) checkString("subscribe", "type", type);
    this.types = Object.freeze(wanted.includes("*") ? ["*"] : wanted);
    if (this.types.length === 0) {
      throw new RangeError(
        "Cannot subscribe: give at least one type, got none",
      );
    }
    const { name = this.types.join(", ") } = options;
    checkString("subscribe", "name", name);
    checkCount("subscribe", "capacity", capacity, 1);
    checkOverflow("subscribe", overflow);
    if (filter !== undefined) checkFunction("subscribe", "filter", filter);
    if (signal !== undefined) hasAborted(signal); // refuses what is no signal
    this.name = name;
    this.capacity = capacity;
    this.overflow = this.#policy = overflow;
    if (overflow === "drop-newest") this.#gaps = new Ring();
    this.#lossy = overflow.startsWith("drop");
    this.#limit = this.#lossy ? Infinity : capacity;
    this.filter = filter;
    this.#observers = observers;
    this.#alarm = alarm;
  }

  get size(): number {
    return this.#events.size;
  }

  /** Whether a publisher has to wait, or is refused. */
  get full(): boolean {
    return this.#events.size >= this.#limit;
  }

  /** Whether it gets what is published. */
  get open(): boolean {
    return this.#state === "open";
  }

  /** Whether there is nothing left to take, nor ever will be. */
  get over(): boolean {
    return this.#state !== "open" && this.size === 0;
  }

  /** Why there is nothing left to take, if the bus was aborted. */
  get failure(): { readonly reason: unknown } | undefined {
    return this.#failure;
  }

  /** Ends it when `signal` aborts, or at once if it has. */
  endWith(signal: AbortSignal | undefined): void {
    if (signal?.aborted) this.#stop(signal.reason);
    else if (signal !== undefined && this.#state !== "ended") {
      const abort = (reason: unknown) => this.#stop(reason);
      this.#watch = new Watch(signal, { abort });
    }
  }

  /**
   * Ends it if its signal has aborted, but not told so yet. Handlers are told
   * later: this may be in the middle of a `publish`.
   */
  lapse(): void {
    const signal = this.#watch?.signal;
    if (!signal?.aborted || this.#state === "ended") return;
    this.#cut();
    queueMicrotask(() => this.halt(signal.reason));
  }

  /** Takes in an event, or drops one. Who minds that it is full looks before. */
  put(event: Event): void {
    if (this.#state !== "open") return; // it has got the single one
    if (this.size >= this.capacity && this.#drops(event)) return;
    this.#push(event);
    this.#tellQueued(event);
    this.#alert();
    if (this.single) this.finish();
  }

  /** Does not take in an event that came over a link, since it is full. */
  refuse(event: Event): void {
    if (this.#state === "open") this.#drop(event);
  }

  /** Whether to drop the oldest events where publishers would wait. */
  beLossy(lossy: boolean): void {
    if (this.#policy !== "wait") return;
    this.overflow = lossy ? "drop-oldest" : "wait";
    this.#lossy = lossy;
    this.#limit = lossy ? Infinity : this.capacity;
    if (!lossy) return;
    this.#observers.hold();
    this.#admit(Infinity);
    while (this.size > this.capacity) this.#drop(this.#events.shift());
    this.#observers.release();
  }

  /** Puts a publisher in line for a place in the queue, which is full. */
  lineUp(publisher: Waiting): void {
    const place = new Place(this, publisher);
    this.#line.add(place);
    if (place.insider !== undefined) this.#count(place.insider, 1);
    this.#waiting++;
    this.#tellQueued(publisher.event);
  }

  /** Takes the next event; only while there is one. */
  take(handler = false): Event {
    const event = this.#events.shift();
    this.#delivered++;
    if (this.#gaps !== undefined) this.missed = this.#gaps.shift();
    else if (this.#lost > 0 || this.missed > 0) {
      this.missed = this.#lost;
      this.#lost = 0;
    }
    if (this.#line.first !== undefined) { // in one step
      this.#observers.hold();
      this.#admit(this.capacity);
      this.#tellDelivered(event, handler);
      this.#observers.release();
    } else this.#tellDelivered(event, handler);
    if (this.#state !== "open") this.#endIfOver();
    return event;
  }

  /**
   * Whether a publisher must not wait for a place: it is within a handler of
   * this queue, and all others that may run wait for one, too. So at least one
   * of them does not, and will make room, as long as it ends.
   */
  traps(stay: Stay | undefined): boolean {
    const own = stayWith(this, stay);
    if (own === undefined) return false;
    const stuck = new Set([own]);
    for (const handler of this.#insiders?.keys() ?? []) {
      if (handler.over) this.#insiders!.delete(handler); // it waits for nothing
      else stuck.add(handler);
    }
    return stuck.size >= this.service!.concurrency;
  }

  /** Calls `arrive` once there may be something to take, or it is over; to be asked while it is not. */
  onArrival(arrive: () => void): void {
    if (this.size > 0) arrive();
    else this.#arrive = arrive;
  }

  /** The next event for a reader: once those who have asked before have theirs. */
  ask(reader: Reader<Event>): Promise<IteratorResult<Event>> {
    this.lapse();
    if (this.size > 0 && this.#asking.first === undefined) {
      return Promise.resolve({ value: this.take(), done: false });
    }
    const ask = new Waiter(reader, ITSELF);
    ask.join(this.#asking, undefined);
    const result = ask.promise<IteratorResult<Event>>();
    if (this.over) this.wake();
    return result;
  }

  [Symbol.asyncIterator](): Reader<Event> {
    if (losesTasks()) watchOver(this, this.#alarm);
    return new Reader(this);
  }

  unsubscribe(): void {
    this.#stop();
  }

  /** Unsubscribes those who read it, whose request is gone. */
  lose(): void {
    this.#failure = { reason: lost("wait for events") };
    this.#stop();
  }

  /** Lets what was published be delivered, and nothing after that. */
  finish(): void {
    if (this.#state !== "open") return;
    this.#state = "closing";
    this.routes?.leave(this);
    this.#admit(Infinity); // so that publishers can go
    this.wake();
    this.#endIfOver();
  }

  /** Lets nothing be delivered any more: publishers and loops get `reason`. To be halted next. */
  abort(reason: unknown): void {
    if (!this.#watch?.signal.aborted) this.#failure = { reason };
    this.#cut({ reason });
  }

  /** Tells handlers to stop. An aborted signal of the subscription's own wins. */
  halt(reason: unknown): void {
    const own = this.#watch?.signal;
    this.stop.abort(own?.aborted ? own.reason : reason);
  }

  /** It is over: nothing can reach it any more. */
  end(): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#watch?.end();
    this.routes?.leave(this);
    this.routes?.all.delete(this);
  }

  #endIfOver(): void {
    if (this.over && this.service === undefined) this.end();
  }

  inspect(): SubscriptionSnapshot {
    return {
      id: this.id,
      name: this.name,
      types: this.types,
      size: this.size,
      peak: this.#peak,
      capacity: this.capacity === Infinity ? null : this.capacity,
      waiting: this.#waiting,
      heldSince: this.#line.first?.publisher.event.time ?? null,
      delivered: this.#delivered,
      dropped: this.dropped,
      failed: this.failed,
    };
  }

  /** A publisher gives up its place in the line. */
  withdraw(place: Place, why: "ended" | "withdrawn"): void {
    this.#leave(place);
    this.#tellDropped(place.publisher.event, why);
  }

  #push(event: Event): void {
    this.#events.push(event);
    if (this.#gaps !== undefined) {
      this.#gaps.push(this.#lost);
      this.#lost = 0;
    }
    if (this.size > this.#peak) this.#peak = this.size;
  }

  /** Wakes those who sleep: soon, so that they find more than one event; at once if no more may come. */
  #alert(): void {
    if (this.#arrive === undefined && this.#asking.first === undefined) return;
    if (this.size >= this.capacity) this.wake();
    else if (!this.#alarmed) {
      this.#alarmed = true;
      this.#alarm.set(this);
    }
  }

  /** Gives those who sleep what has come for them, or tells them that nothing will. */
  wake(): void {
    this.lapse();
    this.#alarmed = false;
    this.#observers.hold(); // who is told may wake those who come later
    for (let ask; (ask = this.#asking.first) !== undefined;) {
      if (this.size === 0 && !this.over) break;
      ask.leave();
      if (this.size > 0) ask.resolve({ value: this.take(), done: false });
      else ask.value.end(ask, this.#failure);
    }
    this.#arrive?.();
    this.#arrive = undefined;
    this.#observers.release();
  }

  /** Drops an event, if that is the policy; returns whether it is the new one. */
  #drops(event: Event): boolean {
    if (!this.#lossy) return false; // so much is replayed
    const newest = this.overflow === "drop-newest";
    this.#drop(newest ? event : this.#events.shift());
    return newest;
  }

  #drop(event: Event): void {
    this.dropped++;
    this.#lost++;
    this.#tellDropped(event, "overflow");
  }

  /** Lets publishers in line fill the queue, up to `capacity`. */
  #admit(capacity: number): void {
    this.#observers.hold();
    for (let place; (place = this.#line.first) !== undefined;) {
      if (place.publisher.lapse()) continue;
      if (this.size >= capacity) break;
      this.#leave(place);
      this.#push(place.publisher.event as Event);
      place.publisher.goOn();
      this.#alert();
    }
    this.#observers.release();
  }

  /** More, or less, of what a handler of this queue has published is in line for it. */
  #count(handler: Stay, more: 1 | -1): void {
    this.#insiders ??= new Map();
    const count = (this.#insiders.get(handler) ?? 0) + more;
    if (count > 0) this.#insiders.set(handler, count);
    else this.#insiders.delete(handler);
  }

  #leave(place: Place): void {
    this.#line.remove(place);
    if (place.insider !== undefined) this.#count(place.insider, -1);
    this.#waiting--;
  }

  /** Ends it, if that has not happened, for itself alone. */
  #stop(reason?: unknown): void {
    if (this.#state === "ended") return;
    this.#cut();
    this.halt(reason);
  }

  /** Ends it now, and discards what is in the queue; publishers go on, or fail. */
  #cut(failure?: { readonly reason: unknown }): void {
    this.end();
    const events = this.#events;
    this.#events = new Ring();
    this.#observers.hold();
    while (events.size > 0) this.#tellDropped(events.shift(), "ended");
    for (let place; (place = this.#line.first) !== undefined;) {
      const { publisher } = place;
      if (publisher.lapse()) continue;
      if (failure !== undefined) publisher.giveUp(failure.reason, "ended");
      else {
        this.withdraw(place, "ended");
        publisher.goOn();
      }
    }
    this.wake();
    this.#observers.release();
  }

  #tellQueued(event: BusEvent): void {
    const observers = this.#observers;
    if (!observers.any) return;
    observers.tell(TELL.queued, {
      event,
      subscription: this.name,
      subscriptionId: this.id,
      at: observers.at,
      depth: this.size,
    });
  }

  #tellDelivered(event: BusEvent, handler: boolean): void {
    const observers = this.#observers;
    if (!observers.any) return;
    const at = handler ? observers.at : observers.read(); // `Service` has read it
    observers.tell(TELL.delivered, {
      event,
      subscription: this.name,
      subscriptionId: this.id,
      at,
      waited: observers.since(event),
      depth: this.size,
      handler,
    });
  }

  #tellDropped(event: BusEvent, reason: BusStep["reason"]): void {
    const observers = this.#observers;
    if (!observers.any) return;
    // What overflows does so as another one is published, at that time.
    const at = reason === "overflow" ? observers.at : observers.read();
    const step = this.step(event, at);
    observers.tell(TELL.dropped, { ...step, reason, depth: this.size });
  }

  /**
   * What a step of an event here tells, whatever it is. Those that are taken
   * often write it out, since spreading costs more.
   */
  step(event: BusEvent, at: number): BusStep {
    return { event, subscription: this.name, subscriptionId: this.id, at };
  }
}

/**
 * Wakes those who sleep, a few turns of the microtask queue after something has
 * come for them. A publisher who awaits one `publish` after another has
 * published several events by then, for which they wake once.
 */
class Alarm {
  #due: Inbox[] = [];

  set(inbox: Inbox): void {
    if (this.#due.push(inbox) > 1) return;
    SETTLED.then().then().then().then(() => this.#ring()); // cheaper than to await four times
  }

  #ring(): void {
    const due = this.#due;
    this.#due = [];
    for (const inbox of due) inbox.wake();
  }
}

const SETTLED = /* @__PURE__ */ Promise.resolve();

/** Whether somebody would have to wait for one of them, or be refused by it. */
function anyFull(inboxes: readonly Inbox[]): boolean {
  for (const inbox of inboxes) if (inbox.full) return true;
  return false;
}

/** A publisher who waits for a place in each of the queues that were full. */
class Waiting implements Owner {
  readonly event: BusEvent;
  readonly stay: Stay | undefined;
  readonly promise: Promise<BusEvent>;
  readonly #waiter: Waiter = new Waiter(undefined, this);
  readonly #places: Place[] = [];
  #missing = 0;

  constructor(
    event: BusEvent,
    signal: AbortSignal | undefined,
    stay: Stay | undefined,
    alarm: Alarm,
  ) {
    this.event = event;
    this.stay = stay;
    this.promise = this.#waiter.promise();
    this.#waiter.watch(signal, alarm);
  }

  add(place: Place): void {
    this.#places.push(place);
    this.#missing++;
  }

  /** Needs to wait for one place less. */
  goOn(): void {
    if (--this.#missing === 0) this.#waiter.resolve(this.event);
  }

  /** Its signal has aborted. */
  abort(_: Waiter, reason: unknown): void {
    this.giveUp(reason, "withdrawn");
  }

  /** Whether its signal has aborted, but not called its listeners yet; gives up if so. */
  lapse(): boolean {
    return this.#waiter.lapse();
  }

  /** Leaves every line it stands in. */
  giveUp(reason: unknown, why: "ended" | "withdrawn"): void {
    this.#waiter.reject(reason);
    for (const place of this.#places) {
      if (place.list !== undefined) place.inbox.withdraw(place, why);
    }
  }
}

/** A publisher's place in the line of one subscription. */
class Place implements Linked<Place> {
  list: List<Place> | undefined = undefined;
  previous: Place | undefined = undefined;
  next: Place | undefined = undefined;
  readonly inbox: Inbox;
  readonly publisher: Waiting;
  /** The handler of that same subscription in which it publishes, if it does. */
  readonly insider: Stay | undefined;

  constructor(inbox: Inbox, publisher: Waiting) {
    this.inbox = inbox;
    this.publisher = publisher;
    this.insider = stayWith(inbox, publisher.stay);
    publisher.add(this);
  }
}

/** A loop over a subscription. */
class Reader<Event extends BusEvent>
  implements AsyncIterableIterator<Event>, AsyncDisposable {
  readonly #inbox: Inbox<Event>;
  #ended = false;

  constructor(inbox: Inbox<Event>) {
    this.#inbox = inbox;
  }

  // An own property, since it may be taken out of its iterator.
  readonly next = (): Promise<IteratorResult<Event>> =>
    this.#ended
      ? Promise.resolve({ value: undefined, done: true })
      : this.#inbox.ask(this);

  readonly return = (value?: unknown): Promise<IteratorResult<Event>> => {
    this.#ended = true;
    this.#inbox.unsubscribe();
    return Promise.resolve({ value, done: true });
  };

  /** There are no more events: says so, or throws, once, why. */
  end(
    ask: Waiter,
    failure: { readonly reason: unknown } | undefined,
  ): void {
    const throws = failure !== undefined && !this.#ended;
    this.#ended = true;
    if (throws) ask.reject(failure.reason);
    else ask.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }
}

type Handler = (event: BusEvent, context: EventContext) => unknown;

/** Told of what a handler threw, and when that began, if somebody observed it; or a filter. */
type OnFailure = (
  event: BusEvent,
  inbox: Inbox,
  error: unknown,
  handler?: boolean,
  since?: number,
) => void;

/**
 * The loop of `on`. What is queued is handled without a pause, for as long as
 * the handler returns no promise.
 *
 *     start() ──▶ asleep ──something comes──▶ handling ──▶ asleep again,
 *                                                          if one more may run
 *
 * Its handlers are told from others (which must not wait for their own end) by
 * a stay. Entering one is dear, so handlers share one until one of them returns a
 * promise. Then it is over with that call; what calls before it have left behind
 * (a timer, say) is taken for a part of it.
 *
 * Whatever async context a handler enters, the loop does not follow it there: it
 * is set up to be woken again before it calls one.
 */
class Service {
  readonly #inbox: Inbox;
  readonly #handler: Handler;
  /** How many handlers may run at a time. */
  readonly concurrency: number;
  readonly #observers: Observers;
  readonly #served: Set<Inbox>;
  readonly #onFailure: OnFailure;
  readonly #context: EventContext;
  #stay: Stay | undefined; // of the handlers that are called next
  #wake: (() => void) | undefined;
  #running = 0;
  #ended: Promise<void> | undefined;
  #onEnd: (() => void) | undefined;

  constructor(
    inbox: Inbox,
    handler: Handler,
    concurrency: number,
    observers: Observers,
    served: Set<Inbox>,
    onFailure: OnFailure,
  ) {
    this.#inbox = inbox;
    this.#handler = handler;
    this.concurrency = concurrency;
    this.#observers = observers;
    this.#served = served;
    this.#onFailure = onFailure;
    this.#context = new Context(inbox);
  }

  /**
   * Handles all events in the async context that it is called in, until there are
   * no more and all handlers have ended. Resolves when it first wakes.
   */
  start(): Promise<void> {
    const woken = this.#sleep();
    this.#rest();
    return woken;
  }

  /** Resolves when there are no more events and all handlers have ended; to be asked before. */
  ended(): Promise<void> {
    return this.#ended ??= new Promise((resolve) => this.#onEnd = resolve);
  }

  /** It is over: all handlers have ended, or nothing is heard of them any more. */
  end(): void {
    this.#inbox.end();
    this.#served.delete(this.#inbox);
    this.#onEnd?.();
  }

  #sleep(): Promise<void> {
    const woken = new Promise<void>((wake) => this.#wake = wake);
    woken.then(this.#serve);
    return woken;
  }

  /** Wakes when there are events, and one more may be handled; also between two batches: others want to run, too. */
  #rest(): void {
    if (this.#inbox.over) {
      if (this.#running === 0) this.end();
    } else if (this.#running < this.concurrency) {
      this.#inbox.onArrival(this.#wake!);
    }
  }

  readonly #serve = (): void => {
    const stay = this.#stay ??= new Stay(this.#inbox, undefined);
    stay.over = false;
    // Where nothing lasts beyond a turn, the stay is entered each time.
    if (innermost() === stay) this.#handleAll(stay);
    else within(stay, () => this.#handleAll(stay));
  };

  /** Handles what has come, until a handler takes its time. */
  #handleAll(stay: Stay): void {
    const inbox = this.#inbox;
    const observers = this.#observers;
    this.#sleep();
    inbox.lapse();
    if (observers.any) observers.read();
    for (let batch = inbox.size; batch > 0 && inbox.size > 0; batch--) {
      const event = inbox.take(true);
      const since = observers.any ? observers.at : undefined;
      const result = this.#handle(event, since);
      if (result !== undefined) {
        this.#stay = undefined;
        this.#follow(event, result, stay, since);
        this.#rest();
        return;
      }
    }
    stay.over = true;
    this.#rest();
  }

  /** Calls the handler; returns what to wait for, if there is anything. */
  #handle(
    event: BusEvent,
    since: number | undefined,
  ): PromiseLike<unknown> | undefined {
    try {
      const result = this.#observers.around
        ? this.#surrounded(event)
        : this.#handler(event, this.#context);
      if (isPromiseLike(result)) return result;
      this.#handled(event, since);
    } catch (error) {
      this.#onFailure(event, this.#inbox, error, true, since);
    }
  }

  #surrounded(event: BusEvent): unknown {
    const step = this.#inbox.step(event, this.#observers.at);
    return this.#observers.surround(
      { ...step, handler: true },
      () => this.#handler(event, this.#context),
    );
  }

  async #follow(
    event: BusEvent,
    result: PromiseLike<unknown>,
    stay: Stay,
    since: number | undefined,
  ): Promise<void> {
    this.#running++;
    try {
      await result;
      this.#handled(event, since);
    } catch (error) {
      this.#onFailure(event, this.#inbox, error, true, since);
    }
    stay.over = true;
    this.#running--;
    this.#rest();
  }

  #handled(event: BusEvent, since: number | undefined): void {
    const observers = this.#observers;
    if (!observers.any) return;
    const { name: subscription, id: subscriptionId } = this.#inbox;
    const at = observers.read();
    const handler = true;
    observers.tell(
      TELL.handled,
      since === undefined // nobody observed its beginning
        ? { event, subscription, subscriptionId, at, handler }
        : {
          event,
          subscription,
          subscriptionId,
          at,
          handler,
          waited: at - since,
        },
    );
  }
}

class Context implements EventContext {
  readonly #inbox: Inbox;

  constructor(inbox: Inbox) {
    this.#inbox = inbox;
  }

  get subscription(): string {
    return this.#inbox.name;
  }

  get signal(): AbortSignal {
    return this.#inbox.stop.signal;
  }
}

/** Those who get events of one type, if their filters let them. */
interface Audience {
  readonly inboxes: readonly Inbox[];
  /** Whether one of them has a filter. */
  readonly filtered: boolean;
}

/** Who listens to what. */
class Routes {
  /** All subscriptions that have not ended, the oldest first. */
  readonly all: Set<Inbox> = new Set();
  readonly #listeners = new Map<string, Set<Inbox>>();
  readonly #audiences = new Map<string, Audience>(); // as long as nobody comes or goes

  add(inbox: Inbox): void {
    this.all.add(inbox);
    for (const type of inbox.types) {
      const listeners = this.#listeners.get(type);
      if (listeners === undefined) this.#listeners.set(type, new Set([inbox]));
      else listeners.add(inbox);
      this.#changed(type);
    }
  }

  /** It wants no more events. */
  leave(inbox: Inbox): void {
    for (const type of inbox.types) {
      const listeners = this.#listeners.get(type);
      listeners?.delete(inbox);
      if (listeners?.size === 0) this.#listeners.delete(type);
      this.#changed(type);
    }
  }

  /** Whom an event of a type concerns. */
  to(type: string): Audience {
    return this.#audiences.get(type) ?? this.#find(type);
  }

  #find(type: string): Audience {
    const listeners = this.#listeners.get(type);
    if (listeners === undefined && type !== "*") return this.to("*");
    const all = this.#listeners.get("*") ?? [];
    const inboxes = [...listeners ?? [], ...type === "*" ? [] : all];
    const filtered = inboxes.some(({ filter }) => filter !== undefined);
    const audience = { inboxes, filtered };
    this.#audiences.set(type, audience);
    return audience;
  }

  #changed(type: string): void {
    if (type === "*") this.#audiences.clear();
    else this.#audiences.delete(type);
  }
}

/** The last events of some types, kept for newcomers. */
class History {
  readonly #last = new Map<string, Past>();

  constructor(replay: { readonly [type: string]: number | undefined }) {
    checkObject("create bus", "replay", replay, "a record of numbers");
    for (const [type, most] of Object.entries(replay)) {
      checkType("create bus", type);
      checkCount("create bus", `replay[${show(type)}]`, most, 0);
      this.#last.set(type, { most: most!, events: [], added: 0 });
    }
  }

  /** Keeps an event, if its type asks for it. */
  add(event: BusEvent, number: number): void {
    if (this.#last.size === 0) return;
    const past = this.#last.get(event.type);
    if (past === undefined || past.most === 0) return;
    past.events[past.added++ % past.most] = { event, number };
  }

  /** What is kept of some types, oldest first; also what is added while somebody looks. */
  *of(types: readonly string[]): Generator<BusEvent> {
    for (let last = 0;;) {
      const next = [...this.#last]
        .filter(([type]) => types.includes(type) || types.includes("*"))
        .flatMap(([_, { events }]) => events)
        .filter(({ number }) => number > last)
        .sort((a, b) => a.number - b.number);
      if (next.length === 0) return;
      for (const { event, number } of next) {
        yield event;
        last = number;
      }
    }
  }

  clear(): void {
    this.#last.clear();
  }
}

/** The last events of one type: a ring. */
interface Past {
  readonly most: number;
  readonly events: { readonly event: BusEvent; readonly number: number }[];
  /** How many there have been. */
  added: number;
}

/** Those who are told each step. */
class Observers {
  /** Whether one of them wants to give events their trace. */
  trace = false;
  /** Whether one of them wants to be around handlers. */
  around = false;
  /** The time by `performance.now`, as it was last read: reading it is dear. */
  at = 0;
  // And what to add to it to get the time that events had before somebody
  // observed them, to the millisecond, unless the clock was set meanwhile.
  #epoch = 0;
  readonly #drafts = new WeakMap<BusEvent, PublishOptions>(); // what `trace` was asked about
  #all: readonly Observing[] = [];
  #held = 0;
  // Whom to tell, as it was then, how, and what: in turns, as this is cheaper
  // than an object for each.
  #untold: (readonly Observing[] | Telling | BusStep)[] = [];

  /** Whether there are any: if not, no step need be made. */
  get any(): boolean {
    return this.#all.length > 0;
  }

  add(observer: BusObserver): Disposable {
    checkObserver(observer);
    const observing = { observer, over: false };
    this.#epoch = Date.now() - this.read();
    this.#change([...this.#all, observing]);
    return {
      [Symbol.dispose]: () => {
        observing.over = true;
        this.#change(this.#all.filter((one) => one !== observing));
      },
    };
  }

  #change(all: readonly Observing[]): void {
    this.#all = all;
    this.trace = all.some(({ observer }) => observer.trace !== undefined);
    this.around = all.some(({ observer }) => observer.around !== undefined);
  }

  /** Reads the clock. */
  read(): number {
    return this.at = performance.now();
  }

  /** How long ago an event was published, when the clock was last read. */
  since(event: BusEvent): number {
    const at = Message.publishedAt(event);
    if (at !== undefined) return this.at - at;
    return Math.max(0, this.#epoch + this.at - event.time);
  }

  /** An event was made of a draft that was shown around, and may be published. */
  drew(event: BusEvent, draft: PublishOptions): void {
    this.#drafts.set(event, draft);
  }

  /** Tells that an event is published, now. */
  tellPublished(event: Message): void {
    const at = this.read();
    Message.publish(event, at);
    const draft = this.#drafts.get(event);
    this.#drafts.delete(event); // it may hold its cause, and that one the next
    this.tell(
      TELL.published,
      draft === undefined ? { event, at } : { event, at, draft },
    );
  }

  /** Tells a step, or keeps it until those before it have been told. */
  tell(how: Telling, step: BusStep): void {
    if (this.#held > 0) this.#untold.push(this.#all, how, step);
    else {
      this.#held++;
      this.#tell(this.#all, how, step);
      this.release();
    }
  }

  /** Keeps steps from being told, in the middle of something. */
  hold(): void {
    this.#held++;
  }

  /** Tells what was kept. */
  release(): void {
    if (this.#held === 1 && this.#untold.length > 0) {
      const untold = this.#untold;
      for (let i = 0; i < untold.length; i += 3) { // it may grow
        this.#tell(
          untold[i] as readonly Observing[],
          untold[i + 1] as Telling,
          untold[i + 2] as BusStep,
        );
      }
      this.#untold = [];
    }
    this.#held--;
  }

  #tell(
    all: readonly Observing[],
    how: Telling,
    step: BusStep,
  ): void {
    for (const observing of all) {
      if (observing.over) continue;
      try {
        how(observing.observer, step);
      } catch (error) {
        report(error);
      }
    }
  }

  /** Lets observers say what an event is to carry as `trace`. */
  draw(type: string, draft: PublishOptions): void {
    for (const { observer, over } of this.#all) {
      if (over || observer.trace === undefined) continue;
      try {
        const trace = observer.trace(type, draft);
        if (trace === undefined) continue;
        checkString("publish", "trace", trace);
        draft.trace = trace;
      } catch (error) {
        report(error);
      }
    }
  }

  /** Calls a handler within all who want to be around it, once, whatever they do. */
  surround(step: BusStep, handler: () => unknown): unknown {
    const all = this.#all;
    let outcome: { readonly value: unknown } | { readonly error: unknown };
    let entered = 0;
    const enter = (place: number) => {
      if (place < entered) return; // once
      entered = place + 1;
      if (place === all.length) {
        try {
          outcome = { value: handler() };
        } catch (error) {
          outcome = { error };
        }
        return;
      }
      const { observer, over } = all[place];
      try {
        if (!over) observer.around?.(step, () => enter(place + 1));
      } catch (error) {
        report(error);
      }
      enter(place + 1); // in case it has not
    };
    enter(0);
    if ("error" in outcome!) throw outcome.error;
    return outcome!.value;
  }
}

/** An observer, until it is over. */
interface Observing {
  readonly observer: BusObserver;
  over: boolean;
}

function checkObserver(observer: unknown): void {
  checkObject("observe", "observer", observer);
  for (const name of [...Object.keys(TELL), "trace", "around"]) {
    const method = (observer as Record<string, unknown>)[name];
    if (method !== undefined) checkFunction("observe", name, method);
  }
}

/** The methods of an observer that are told a step. */
type Told = Exclude<keyof BusObserver, "trace" | "around">;

/** How an observer is told a step. */
type Telling = (observer: BusObserver, step: BusStep) => void;

// A function for each, since looking a method up by name costs more than calling it.
const TELL: Readonly<Record<Told, Telling>> = {
  published: (observer, step) => observer.published?.(step),
  queued: (observer, step) => observer.queued?.(step),
  dropped: (observer, step) => observer.dropped?.(step),
  delivered: (observer, step) => observer.delivered?.(step),
  handled: (observer, step) => observer.handled?.(step),
  failed: (observer, step) => observer.failed?.(step),
  unheard: (observer, step) => observer.unheard?.(step),
};

const NO_OPTIONS: PublishOptions = {};

/** How many events this process has made. */
let messages = 0;

/** What makes ids of this process unlike those of others; made when first needed. */
let prefix: string | undefined;

/** What 256 ids in a row begin with. */
let block = "";

/**
 * The id of a new event: two strings that are at hand, which the runtime joins
 * when somebody looks.
 */
function nextId(): string {
  const number = messages % 256;
  if (number === 0) {
    prefix ??= randomId(16);
    block = `${prefix}-${messages / 256}-`;
  }
  messages++;
  return block + number;
}

// Fields are only declared: what the class defined first and assigned later
// would double the cost of an event. `id` is an own property, so that copies
// (`{ ...event }`, JSON, `structuredClone`) have it; a getter that is one, too,
// costs five times as much as the rest of the event.
class Message implements BusEvent {
  declare readonly id: string;
  declare readonly type: string;
  declare readonly source: string;
  declare readonly time: number;
  declare readonly data: unknown;
  declare readonly cause?: string;
  declare readonly trace?: string;
  declare readonly origin?: string;
  // What the bus knows besides. Private, and so not frozen.
  #cause: Pick<BusEvent, "type" | "source" | "origin"> | undefined;
  #published: number | undefined;

  /** The type and the source of the event that led to another one, if it was made here. */
  static causeOf(
    event: BusEvent,
  ): Pick<BusEvent, "type" | "source" | "origin"> | undefined {
    return #cause in event ? event.#cause : undefined;
  }

  /** It is published now, by `performance.now`; for those who observe it. */
  static publish(event: Message, now: number): void {
    event.#published = now;
  }

  /** When it was published, by `performance.now`, if somebody observed that. */
  static publishedAt(event: BusEvent): number | undefined {
    return #published in event ? event.#published : undefined;
  }

  constructor(
    type: string,
    data: unknown,
    source: string | undefined,
    { cause, trace }: PublishOptions,
    found?: LinkEvent, // what it was elsewhere, if it was published there
  ) {
    if (source === undefined) source = "unknown";
    else checkString("publish", "source", source);
    if (cause !== undefined) checkString("publish", "cause.id", cause?.id);
    if (trace !== undefined) checkString("publish", "trace", trace);
    this.id = found === undefined ? nextId() : found.id;
    this.type = type;
    this.source = source;
    this.time = found === undefined ? Date.now() : found.time;
    this.data = data;
    if (cause !== undefined) {
      this.cause = cause.id;
      const { type, source, origin } = cause; // and no more of it
      this.#cause = { type, source, origin };
    }
    if (trace !== undefined) this.trace = trace;
    if (found !== undefined) {
      if (found.cause !== undefined) this.cause = found.cause;
      this.origin = found.origin ?? "unknown";
    }
    Object.freeze(this);
  }
}

function checkLink(found: unknown): void {
  const { caps, send, receive } = Object(found) as Partial<Link>;
  if (
    typeof caps === "object" && caps !== null && typeof send === "function" &&
    typeof receive === "function"
  ) return;
  throw new TypeError(invalid("connect", "link", "a Link", found));
}

function checkType(action: string, type: unknown): void {
  checkString(action, "type", type);
  if (type !== "*") return;
  throw new RangeError(
    `Cannot ${action}: "*" stands for all types, and is none`,
  );
}

/** What a message says of an event: what it is, and who published it. */
function origin(
  { type, id, source, origin }: Pick<
    BusEvent,
    "type" | "id" | "source" | "origin"
  >,
): string {
  return `${show(type)} (${plain(id)}) from ${show(source)}` +
    (origin === undefined ? "" : ` of ${plain(origin)}`);
}

/** What a message says of the event that led to another one. */
function causeOf(event: BusEvent): string {
  const id = event.cause!;
  const cause = Message.causeOf(event);
  return cause === undefined ? plain(id) : origin({ ...cause, id });
}

/** An id, which may be anything if it comes from elsewhere. */
function plain(id: string): string {
  return show(id).slice(1, -1);
}

/** What an error says, on one line, and its kind, if it is a special one. */
function message(thrown: unknown): string {
  return oneLine(describe(thrown).replace(/^Error: /, ""));
}

function oneLine(text: string): string {
  return text.replace(
    /[\p{Cc}\u2028\u2029]/gu,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** Not all of what comes from elsewhere. */
function brief(text: string): string {
  return text.length > 500 ? `${text.slice(0, 500)}…` : text;
}
