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

import { innermost, isWithin, LazySignal, within } from "./_context.ts";
import { checkCount, checkFunction, invalid, report, show } from "./_errors.ts";
import { hasAborted, Watch } from "./_line.ts";
import {
  type Overflow,
  Queue,
  QueueClosedError,
  QueueFullError,
  type UnsentOptions,
} from "./queue.ts";

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
}

/** The events of one or several types, as a union that narrows by `type`; of all types for `"*"`. */
export type EventOf<Events extends object, Type extends string> = Type extends
  "*" ? EventOf<Events, keyof Events & string>
  : Type extends keyof Events ? BusEvent<Type, Events[Type]>
  : never;

/** What `publish` takes after the type: data, unless the event has none, and options. */
export type PublishArguments<Data> = 0 extends 1 & Data // any
  ? [data?: Data, options?: PublishOptions]
  : [Data] extends [undefined | void]
    ? [data?: undefined, options?: PublishOptions]
  : undefined extends Data ? [data?: Data, options?: PublishOptions]
  : [data: Data, options?: PublishOptions];

/** Options for a {@linkcode Bus}. */
export interface BusOptions {
  /**
   * What error messages call it.
   *
   * @default {"bus"}
   */
  name?: string;
  /** Told when a handler or a filter throws. By default the error is reported as uncaught. */
  onError?: (error: SubscriberError) => void;
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
   * that have the event keep it, the others don't get it.
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
  /** Which events it gets. Called by `publish`; an event for which it throws is not delivered. */
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

/** What a handler is told besides the event. */
export interface EventContext {
  /** The name of its subscription. */
  readonly subscription: string;
  /** Fires when the bus is aborted, or the subscription ends. */
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
}

/** The state of a subscription, as plain data. */
export interface SubscriptionSnapshot {
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
  /** How many events it has delivered. */
  readonly delivered: number;
  /** How many events it has dropped. */
  readonly dropped: number;
}

/** One step on an event's way through a bus, as a {@linkcode BusObserver} is told of it. */
export interface BusStep {
  /** The event. */
  readonly event: BusEvent;
  /** The name of the subscription concerned; absent for `published` and `unheard`. */
  readonly subscription?: string;
  /** `failed`: what the handler or the filter threw. */
  readonly error?: unknown;
  /**
   * In milliseconds. `delivered`: since it was published. `handled` and
   * `failed`: how long the handler took; absent if it was the filter that failed.
   */
  readonly waited?: number;
  /** `queued`, `delivered` and `dropped`: how many events are in the subscription's queue after this step. */
  readonly depth?: number;
  /** `delivered`: true if it was to a handler of `on`. Then `handled` or `failed` follows. */
  readonly handler?: boolean;
  /**
   * `dropped`: why. By the `overflow` policy; since the subscription or the bus
   * was ended before; or since its publisher gave up waiting.
   */
  readonly reason?: "overflow" | "ended" | "withdrawn";
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
  /** A handler or a filter threw. */
  failed?(step: BusStep): void;
  /** Nobody listens to it. */
  unheard?(step: BusStep): void;
  /**
   * Asked before an event is made, which may be refused yet. What it returns
   * becomes the event's `trace`, in place of that in `options`.
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

  /** Takes what the handler or filter threw as `cause`. */
  constructor(event: BusEvent, subscription: string, options?: ErrorOptions) {
    const cause = options?.cause;
    super(
      `Subscription "${subscription}" failed on event "${event.type}" (${event.id}) from "${event.source}"` +
        (event.cause === undefined ? "" : `, caused by ${event.cause}`) +
        (cause === undefined ? "" : `: ${message(cause)}`),
      options,
    );
    this.name = "SubscriberError";
    this.event = event;
    this.subscription = subscription;
  }
}

/** Publishes with a fixed source; made by {@linkcode Bus.as}. */
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
//   publish ──▶ for each subscription to its type, whose filter lets it pass:
//               its queue, whose line of senders makes the publisher wait if it
//               is full. So the order of the calls of `publish` is the order of
//               events in every queue, whoever waits.
//
// States of a bus: open ──close()──▶ closing ──▶ closed   (handlers have ended)
//                    └────abort()──▶ aborted ──▶ closed

/**
 * Hands events from publishers to subscribers, who need not know each other.
 *
 * - **Order:** every subscriber gets its events in the order in which `publish`
 *   was called, also when a handler publishes.
 * - **Back-pressure:** `publish` waits while a subscription that wants it is
 *   full; the others have the event at once.
 * - **Isolation:** a handler that throws stops nobody. Its error becomes a
 *   {@linkcode SubscriberError} that says who sent the event and why.
 * - **Newcomers:** get what is published after they have subscribed.
 * - **Closing:** `close` lets what is queued be delivered, `abort` does not.
 */
export class Bus<Events extends object = Record<string, unknown>>
  implements AsyncDisposable {
  readonly #events: Events | undefined = undefined; // for the type checker: no bus of other events
  readonly #name: string;
  readonly #onError: (error: SubscriberError) => void;
  readonly #inboxes = new Set<Inbox>();
  readonly #routes = new Map<string, Set<Inbox>>();
  readonly #loops = new Set<Promise<void>>(); // those of `on`
  readonly #observers = new Observers();
  #published = 0;
  #state: "open" | "closed" | { readonly reason: unknown } = "open";

  /**
   * Makes an open bus without subscriptions.
   *
   * @throws {TypeError} If an option has the wrong type.
   */
  constructor(options: BusOptions = {}) {
    const { name = "bus", onError = report } = options;
    checkString("create bus", "name", name);
    checkFunction("create bus", "onError", onError);
    this.#name = name;
    this.#onError = onError;
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
   * full; then nobody gets the event.
   */
  async publish<T extends keyof Events & string>(
    type: T,
    ...[data, options = {}]: PublishArguments<Events[T]>
  ): Promise<BusEvent<T, Events[T]>> {
    const { signal } = options;
    if (signal !== undefined && hasAborted(signal)) throw signal.reason;
    checkType("publish", type);
    this.#mustBeOpen(data);
    const event = this.#message(type, data as Events[T], options);
    const inboxes = this.#audience(event);
    this.#mustBeOpen(data); // a filter may have closed it
    const full = inboxes.find((inbox) => inbox.rejects);
    if (full !== undefined) {
      throw new QueueFullError(
        `Cannot publish: subscription "${full.name}" is full (capacity ${full.capacity}); ` +
          "the data is in this error's `value`",
        { value: data },
      );
    }
    this.#count(event, inboxes.length);
    const waits = inboxes.map((inbox) => inbox.put(event, signal))
      .filter((wait) => wait !== undefined);
    if (waits.length > 0) await Promise.all(waits);
    return event;
  }

  /**
   * Publishes an event if that needs no waiting.
   *
   * @returns The event; or nothing, and nobody has got it, if a subscription
   * that wants it is full (and does not drop), or the bus is closed.
   */
  tryPublish<T extends keyof Events & string>(
    type: T,
    ...[data, options = {}]: PublishArguments<Events[T]>
  ): BusEvent<T, Events[T]> | undefined {
    const { signal } = options;
    if (signal !== undefined && hasAborted(signal)) return undefined;
    checkType("publish", type);
    if (this.#state !== "open") return undefined;
    const event = this.#message(type, data as Events[T], options);
    const inboxes = this.#audience(event);
    if (
      (this.#state as unknown) !== "open" || // a filter may have closed it
      inboxes.some((inbox) => inbox.rejects || inbox.holds)
    ) return undefined;
    this.#count(event, inboxes.length);
    for (const inbox of inboxes) inbox.put(event, undefined);
    return event;
  }

  /** Publishes in the name of `source`. */
  as(source: string): Publisher<Events> {
    checkString("publish", "source", source);
    return {
      source,
      publish: (type, ...[data, options]) =>
        this.publish(
          type,
          ...[data, { ...options, source }] as PublishArguments<
            Events[typeof type]
          >,
        ),
      tryPublish: (type, ...[data, options]) =>
        this.tryPublish(
          type,
          ...[data, { ...options, source }] as PublishArguments<
            Events[typeof type]
          >,
        ),
    };
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
    return this.#subscribe(types, options);
  }

  /**
   * Subscribes `handler`, which gets the events one after another (or
   * `concurrency` at a time): the next one when what it returned has settled.
   * What it throws becomes a {@linkcode SubscriberError}, and it goes on.
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
    const inbox = this.#subscribe(types, options);
    inbox.handled = true;
    const loop = this.#serve(inbox, handler as Handler, concurrency)
      .finally(() => this.#loops.delete(loop));
    this.#loops.add(loop);
    return inbox;
  }

  /**
   * Resolves with the next event of a type that passes `filter`.
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
    if (this.#state !== "open") throw this.#refusal(`wait for "${type}"`);
    const inbox = this.#subscribe(type, {
      filter,
      capacity: 1,
      overflow: "drop-newest",
    });
    try {
      return await inbox.first(signal);
    } catch (error) {
      if (signal?.aborted) throw error;
      throw this.#refusal(`wait for "${type}"`);
    } finally {
      inbox.unsubscribe();
    }
  }

  /**
   * Tells `observer` each step of every event, from now on until the result is
   * disposed of.
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
      subscriptions: [...this.#inboxes].map((inbox) => inbox.inspect()),
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
      for (const inbox of this.#inboxes) inbox.finish();
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
      for (const inbox of this.#inboxes) inbox.abort(reason);
    }
    return this.#ended();
  }

  /** Closes the bus as {@linkcode Bus.close} does, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Why somebody waits in vain: the bus was aborted, or closed. */
  #refusal(action: string): unknown {
    return typeof this.#state === "object"
      ? this.#state.reason
      : this.#closed(action);
  }

  #mustBeOpen(value: unknown): void {
    if (this.#state !== "open") throw this.#closed("publish", { value });
  }

  #closed(action: string, unsent?: UnsentOptions): QueueClosedError {
    const hint = unsent ? "; the data is in this error's `value`" : "";
    return new QueueClosedError(
      `Cannot ${action}: ${this.#name} is closed${hint}`,
      unsent,
    );
  }

  async #ended(): Promise<void> {
    if (!isWithin(this, innermost())) await Promise.all(this.#loops);
  }

  #subscribe<E extends BusEvent>(
    types: string | readonly string[],
    options: SubscribeOptions<E>,
  ): Inbox<E> {
    const inbox = new Inbox(types, options, this.#observers, () => {
      this.#inboxes.delete(inbox);
      for (const type of inbox.types) {
        const route = this.#routes.get(type);
        if (route?.delete(inbox) && route.size === 0) this.#routes.delete(type);
      }
    });
    if (this.#state === "open") {
      this.#inboxes.add(inbox);
      for (const type of inbox.types) {
        const route = this.#routes.get(type);
        if (route === undefined) this.#routes.set(type, new Set([inbox]));
        else route.add(inbox);
      }
      inbox.endWith(options.signal);
    } else inbox.unsubscribe();
    return inbox;
  }

  #message<T extends string, D>(type: T, data: D, options: PublishOptions) {
    if (this.#observers.any) {
      options = { ...options, trace: this.#observers.trace(type, options) };
    }
    return new Message(type, data, options);
  }

  #count(event: BusEvent, listeners: number): void {
    this.#published++;
    if (!this.#observers.any) return;
    this.#observers.tell("published", { event });
    if (listeners === 0) this.#observers.tell("unheard", { event });
  }

  /** Who gets an event: those who listen, whom their filters leave, and who are still there after that. */
  #audience(event: BusEvent): Inbox[] {
    return [
      ...this.#routes.get(event.type) ?? [],
      ...this.#routes.get("*") ?? [],
    ].filter((inbox) => {
      try {
        return inbox.wants(event);
      } catch (error) {
        // Not now: who is told may publish, which must come after this event.
        queueMicrotask(() => this.#fail(event, inbox, error));
        return false;
      }
    }).filter((inbox) => !inbox.ended);
  }

  /** Runs a handler for each event, until the subscription ends. */
  async #serve(
    inbox: Inbox,
    handler: Handler,
    concurrency: number,
  ): Promise<void> {
    const context = new Context(inbox);
    let running = 0;
    let wake: (() => void) | undefined;
    const fewerThan = async (limit: number) => {
      while (running >= limit) await new Promise<void>((go) => wake = go);
    };
    try {
      for await (const event of inbox) {
        if (inbox.ended) break; // since the event was handed over
        running++;
        this.#handle(event, inbox, handler, context).then(() => {
          running--;
          wake?.();
        });
        if (running >= concurrency) await fewerThan(concurrency);
      }
    } catch {
      // the bus was aborted: its owner knows why
    }
    await fewerThan(1);
    inbox.end();
  }

  async #handle(
    event: BusEvent,
    inbox: Inbox,
    handler: Handler,
    context: EventContext,
  ): Promise<void> {
    const stay = { host: this, parent: innermost(), over: false };
    const observers = this.#observers;
    const since = observers.any ? performance.now() : undefined;
    const waited = () => since === undefined ? 0 : performance.now() - since;
    const subscription = inbox.name;
    try {
      await within(
        stay,
        () =>
          observers.any
            ? observers.around(
              { event, subscription },
              () => handler(event, context),
            )
            : handler(event, context),
      );
      if (observers.any) {
        observers.tell("handled", { event, subscription, waited: waited() });
      }
    } catch (error) {
      this.#fail(event, inbox, error, observers.any ? waited() : undefined);
    }
    stay.over = true;
  }

  #fail(
    event: BusEvent,
    { name }: Inbox,
    cause: unknown,
    waited?: number,
  ): void {
    if (this.#observers.any) {
      const step = { event, subscription: name, error: cause };
      this.#observers.tell(
        "failed",
        waited === undefined ? step : { ...step, waited },
      );
    }
    const failure = new SubscriberError(event, name, { cause });
    try {
      this.#onError(failure);
    } catch (error) {
      report(failure);
      report(error);
    }
  }
}

/** The methods of an observer that are told a step. */
type Telling = Exclude<keyof BusObserver, "trace" | "around">;

/** Those who are told each step. */
class Observers {
  #all: readonly { readonly observer: BusObserver; over: boolean }[] = [];

  /** Whether there are any: if not, no step need be made. */
  get any(): boolean {
    return this.#all.length > 0;
  }

  add(observer: BusObserver): Disposable {
    if (typeof observer !== "object" || observer === null) {
      throw new TypeError(
        invalid("observe", "observer", "an object", observer),
      );
    }
    const entry = { observer, over: false };
    this.#all = [...this.#all, entry];
    return {
      [Symbol.dispose]: () => {
        entry.over = true;
        this.#all = this.#all.filter((one) => one !== entry);
      },
    };
  }

  tell(what: Telling, step: BusStep): void {
    for (const entry of this.#all) {
      try {
        if (!entry.over) entry.observer[what]?.(step);
      } catch (error) {
        report(error);
      }
    }
  }

  /** What an event is to carry as `trace`. */
  trace(type: string, options: PublishOptions): string | undefined {
    let { trace } = options;
    for (const { observer, over } of this.#all) {
      try {
        if (!over && observer.trace !== undefined) {
          trace = observer.trace(type, { ...options, trace });
        }
      } catch (error) {
        report(error);
      }
    }
    return trace;
  }

  /** Calls a handler within all who want to be around it, once, whatever they do. */
  around(step: BusStep, handler: () => unknown): unknown {
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

/**
 * A subscriber's events, made by {@linkcode Bus.subscribe} and
 * {@linkcode Bus.on}. Several loops over one subscription share its events.
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
  /** How many were dropped between the event just delivered and the one before it. */
  abstract readonly missed: number;

  /**
   * Ends the subscription, now: what is in its queue is discarded, loops over
   * it end, publishers who wait for it go on. Does nothing if it has ended.
   */
  abstract unsubscribe(): void;

  /** Iterates over the events as they come. Leaving the loop unsubscribes. */
  abstract [Symbol.asyncIterator](): AsyncIterableIterator<Event>;

  /** Unsubscribes, at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.unsubscribe();
  }
}

type Handler = (event: BusEvent, context: EventContext) => unknown;

/** An event in a subscription's queue. */
interface Delivery<Event> {
  readonly event: Event;
  /** Which one it is of those that the subscription should get, from 1. */
  readonly number: number;
}

/** A subscription as the bus sees it. */
// deno-lint-ignore no-explicit-any
class Inbox<Event extends BusEvent = any> extends Subscription<Event> {
  readonly name: string;
  readonly types: readonly string[];
  readonly capacity: number;
  missed = 0;
  ended = false;
  /** Whether handlers read it: then it ends with the last of them. */
  handled = false;
  readonly #overflow: Overflow;
  readonly #filter: ((event: Event) => boolean) | undefined;
  readonly #leave: () => void;
  readonly #observers: Observers;
  #watch: Watch | undefined;
  #queue: Queue<Delivery<Event>>;
  #failure: { readonly reason: unknown } | undefined;
  #numbered = 0;
  #delivered = 0; // how many
  #last = 0; // the number of the last one
  #peak = 0;
  #waiting = 0;
  /** Aborted when handlers should stop. */
  readonly stop: LazySignal = new LazySignal();

  /** Listens until it ends, when it calls `leave`. */
  constructor(
    types: string | readonly string[],
    options: SubscribeOptions<Event>,
    observers: Observers,
    leave: () => void,
  ) {
    super();
    const { capacity = 256, overflow = "wait", filter, signal } = options;
    this.types = [...new Set([types].flat())];
    if (this.types.includes("*")) this.types = ["*"];
    for (const type of this.types) checkString("subscribe", "type", type);
    if (this.types.length === 0) {
      throw new RangeError(
        "Cannot subscribe: give at least one type, got none",
      );
    }
    const { name = this.types.join(", ") } = options;
    checkString("subscribe", "name", name);
    checkCount("subscribe", "capacity", capacity, 1);
    if (filter !== undefined) checkFunction("subscribe", "filter", filter);
    if (signal !== undefined) hasAborted(signal); // refuses what is no signal
    this.name = name;
    this.capacity = capacity;
    this.#overflow = overflow;
    this.#filter = filter;
    this.#leave = leave;
    this.#observers = observers;
    this.#queue = new Queue({
      capacity,
      overflow,
      onDrop: ({ event }) => this.#dropped(event, "overflow"),
    });
  }

  get size(): number {
    return this.#queue.size;
  }

  get dropped(): number {
    return this.#queue.dropped;
  }

  /** Whether it would make a publisher wait. */
  get holds(): boolean {
    return this.#overflow === "wait" && this.size >= this.capacity;
  }

  /** Whether it would refuse an event. */
  get rejects(): boolean {
    return this.#overflow === "reject" && this.size >= this.capacity;
  }

  /** Ends it when `signal` aborts, or at once if it has. */
  endWith(signal: AbortSignal | undefined): void {
    if (signal?.aborted) this.unsubscribe();
    else if (signal !== undefined) {
      this.#watch = new Watch(signal, { abort: () => this.unsubscribe() });
    }
  }

  wants(event: Event): boolean {
    const filter = this.#filter;
    return filter === undefined || filter(event);
  }

  /** Takes an event; returns what to wait for if it is full. */
  put(
    event: Event,
    signal: AbortSignal | undefined,
  ): Promise<void> | undefined {
    const delivery = { event, number: ++this.#numbered };
    const taken = this.#queue.trySend(delivery);
    if (this.#observers.any) {
      const { name: subscription, size: depth } = this;
      this.#observers.tell("queued", { event, subscription, depth });
    }
    this.#peak = Math.max(this.#peak, this.size);
    if (taken) return undefined;
    this.#waiting++;
    return this.#queue.send(delivery, { signal }).catch((error) => {
      const aborted = (error as QueueClosedError).value === delivery;
      this.#dropped(event, aborted ? "ended" : "withdrawn");
      throw aborted ? this.#failure!.reason : error;
    }).finally(() => this.#waiting--);
  }

  /** The next event, for `once`. */
  async first(signal: AbortSignal | undefined): Promise<Event> {
    return this.#deliver(await this.#queue.receive({ signal }));
  }

  next(): Promise<IteratorResult<Event>> {
    const found = this.#queue.tryReceive();
    if (found.state !== "ok") return this.#wait();
    return Promise.resolve({ value: this.#deliver(found.value), done: false });
  }

  async #wait(): Promise<IteratorResult<Event>> {
    const delivery = await this.#queue.receive().catch(() => undefined);
    if (delivery !== undefined && !this.ended) {
      return { value: this.#deliver(delivery), done: false };
    }
    if (delivery !== undefined) this.#dropped(delivery.event, "ended");
    if (!this.handled) this.end();
    if (this.#failure !== undefined) throw this.#failure.reason;
    return { value: undefined, done: true };
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<Event> {
    return {
      next: () => this.next(),
      return: (value) => {
        this.unsubscribe();
        return Promise.resolve({ value, done: true });
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  unsubscribe(): void {
    if (this.ended) return;
    this.end();
    for (const { event } of this.#queue.drain()) { // publishers who wait go on
      this.#dropped(event, "ended");
    }
    this.#queue.close();
    this.stop.abort();
  }

  /** Lets what was published be delivered, and nothing after that. */
  finish(): void {
    const queue = this.#queue;
    if (this.#waiting > 0) { // their events move up, so that they can go
      this.#queue = new Queue({ capacity: Infinity });
      for (const delivery of queue.drain()) this.#queue.trySend(delivery);
      this.#peak = Math.max(this.#peak, this.size);
      this.#queue.close();
    }
    queue.close();
  }

  /** Lets nothing be delivered any more: publishers and loops get `reason`. */
  abort(reason: unknown): void {
    this.#failure = { reason };
    this.end();
    this.#queue.close();
    for (const { event } of this.#queue.drain()) this.#dropped(event, "ended");
    this.stop.abort(reason);
  }

  /** It is over: nothing can reach it any more. */
  end(): void {
    this.ended = true;
    this.#watch?.end();
    this.#leave();
  }

  inspect(): SubscriptionSnapshot {
    return {
      name: this.name,
      types: this.types,
      size: this.size,
      peak: this.#peak,
      capacity: this.capacity === Infinity ? null : this.capacity,
      waiting: this.#waiting,
      delivered: this.#delivered,
      dropped: this.dropped,
    };
  }

  #deliver({ event, number }: Delivery<Event>): Event {
    // Where publishers wait, a number is missing only if one of them gave up.
    this.missed = this.#overflow === "wait" ? 0 : number - this.#last - 1;
    this.#last = number;
    this.#delivered++;
    if (this.#observers.any) {
      const { name: subscription, size: depth } = this;
      const waited = Date.now() - event.time;
      const { handled: handler } = this;
      this.#observers.tell("delivered", {
        event,
        subscription,
        waited,
        depth,
        handler,
      });
    }
    return event;
  }

  #dropped(event: Event, reason: BusStep["reason"]): void {
    if (!this.#observers.any) return;
    const { name: subscription, size: depth } = this;
    this.#observers.tell("dropped", { event, subscription, reason, depth });
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

/** How many events this process has made. */
let messages = 0;

/** What makes ids of this process unlike those of others; made when first needed. */
let origin: string | undefined;

class Message<Type extends string, Data> implements BusEvent<Type, Data> {
  readonly type: Type;
  readonly source: string;
  readonly time: number;
  readonly data: Data;
  declare readonly cause?: string;
  declare readonly trace?: string;
  declare readonly id: string;
  readonly #number = ++messages;

  /** Builds the `id` when it is first looked at. An own property, so that copies have it too. */
  static readonly #ID: PropertyDescriptor = {
    enumerable: true,
    get(this: Message<string, unknown>): string {
      origin ??= crypto.randomUUID();
      return `${origin}-${this.#number}`;
    },
  };

  constructor(type: Type, data: Data, options: PublishOptions) {
    const { source = "unknown", cause, trace } = options;
    checkString("publish", "source", source);
    if (cause !== undefined) checkString("publish", "cause.id", cause?.id);
    if (trace !== undefined) checkString("publish", "trace", trace);
    Object.defineProperty(this, "id", Message.#ID);
    this.type = type;
    this.source = source;
    this.time = Date.now();
    this.data = data;
    if (cause !== undefined) this.cause = cause.id;
    if (trace !== undefined) this.trace = trace;
    Object.freeze(this);
  }
}

function checkString(action: string, option: string, found: unknown): void {
  if (typeof found === "string") return;
  throw new TypeError(invalid(action, option, "a string", found));
}

function checkType(action: string, type: unknown): void {
  checkString(action, "type", type);
  if (type !== "*") return;
  throw new RangeError(
    `Cannot ${action}: "*" stands for all types, and is none`,
  );
}

/** What an error says, or what was thrown instead of one. */
function message(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : show(thrown);
}
