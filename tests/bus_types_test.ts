import { assert } from "@std/assert";
import {
  Bus,
  type BusEvent,
  type EventOf,
  type PublishArguments,
  type Publisher,
  SubscriberError,
  Subscription,
} from "../bus.ts";

// What must not compile, as in types_test.ts. Nothing in here is ever called.

/** Compiles only where both types are the same; `any` is the same as `any` alone. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends
  (<T>() => T extends B ? 1 : 2) ? true : false;

/** Asserts a type that is known to be `true`. */
function holds<_ extends true>(): void {}

interface Events {
  order: { dish: string };
  count: number | undefined;
  shutdown: undefined;
  opened: void;
}

const uncalled: ((...args: never[]) => unknown)[] = [];

// ── publish() ───────────────────────────────────────────────────────────────

uncalled.push(async (bus = new Bus<Events>(), table = bus.as("table 1")) => {
  for (const { publish, tryPublish } of [bus, table]) {
    const event = await publish("order", { dish: "soup" }, { source: "me" });
    holds<Same<typeof event, BusEvent<"order", { dish: string }>>>();
    const tried = tryPublish("order", { dish: "soup" }, { cause: event });
    holds<Same<typeof tried, typeof event | undefined>>();
    publish("count");
    publish("count", 1);
    publish("shutdown");
    publish("shutdown", undefined, { cause: event, trace: "00-…" });
    publish("opened");
    // @ts-expect-error an order has data
    publish("order");
    // @ts-expect-error an order has a dish
    publish("order", {});
    // @ts-expect-error a count is no order
    tryPublish("order", 1);
    // @ts-expect-error there is no such type
    publish("ordr", { dish: "soup" });
    // @ts-expect-error "*" is no type
    publish("*", 1);
    // @ts-expect-error a shutdown has no data
    publish("shutdown", 1);
    // @ts-expect-error options come after the data
    publish("shutdown", { source: "me" });
    // @ts-expect-error a typo
    publish("count", 1, { sorce: "me" });
    // @ts-expect-error the cause is an event, not its id
    publish("count", 1, { cause: event.id });
    // @ts-expect-error events are frozen
    event.source = "somebody else";
  }
  // @ts-expect-error the source is fixed
  table.source = "table 2";
  // @ts-expect-error a publisher does not subscribe
  table.subscribe("order");
});

uncalled.push((bus = new Bus<Events>()) => {
  const take = (publisher: Publisher<{ order: { dish: string } }>) => publisher;
  take(bus.as("table 1")); // who publishes orders need not know of the rest
  const serve = (_: Bus<{ order: { dish: string } }>) => {};
  serve(bus);
  // @ts-expect-error: there are no orders on that bus
  serve(new Bus<{ count: number }>());

  // A generic class that holds a bus could not be written otherwise: docs/bus.md.
  const dishes = new Bus<{ order: string }>();
  const wider: Bus<{ order: string | number }> = dishes;
  const widest: Bus<Record<string, unknown>> = dishes;
  wider.publish("order", 1);
  widest.publish("anything", 1);
  // @ts-expect-error: there are orders that are no numbers
  const other: Bus<{ order: number }> = dishes;
  other.once("order");

  // deno-lint-ignore no-explicit-any
  const loose = new Bus<{ anything: any }>();
  loose.publish("anything", 1);
  // deno-lint-ignore no-explicit-any
  const any = new Bus<any>();
  any.publish("whatever", 1);
  const unknown = new Bus();
  unknown.publish("whatever");
  unknown.publish("whatever", 1, { source: "me" });
});

// ── subscribe(), on(), once() ───────────────────────────────────────────────

uncalled.push(async (bus = new Bus<Events>()) => {
  for await (const event of bus.subscribe(["order", "shutdown"])) {
    // @ts-expect-error it may be a shutdown
    event.data.dish;
    if (event.type === "order") event.data.dish.length;
    else holds<Same<typeof event.data, undefined>>();
    // @ts-expect-error it is neither
    if (event.type === "count") return;
  }
  for await (const event of bus.subscribe("*")) {
    holds<Same<typeof event, EventOf<Events, keyof Events>>>();
    if (event.type === "count") {
      holds<Same<typeof event.data, number | undefined>>();
    }
  }
  // @ts-expect-error there is no such type
  bus.subscribe("ordr");
  // @ts-expect-error there is no such type
  bus.subscribe(["order", "ordr"]);
  // @ts-expect-error no such policy
  bus.subscribe("order", { overflow: "drop" });
  // @ts-expect-error only handlers are concurrent
  bus.subscribe("order", { concurrency: 2 });
  bus.subscribe("order", { filter: ({ data }) => data.dish === "soup" });
  // @ts-expect-error a filter decides at once
  bus.subscribe("order", { filter: () => Promise.resolve(true) });
  // @ts-expect-error an order has no length
  bus.subscribe("order", { filter: ({ data }) => data.length > 0 });
  const types: ("order" | "count")[] = ["order"];
  const two: Subscription<EventOf<Events, "order" | "count">> = bus.subscribe(
    types,
  );
  // @ts-expect-error subscriptions are made by a bus
  return [two, new Subscription()];
});

uncalled.push(async (bus = new Bus<Events>()) => {
  const subscription = bus.on("order", (event, { signal, subscription }) => {
    holds<Same<typeof event, BusEvent<"order", { dish: string }>>>();
    holds<Same<typeof signal, AbortSignal>>();
    holds<Same<typeof subscription, string>>();
  }, { concurrency: 2, filter: ({ data }) => data.dish !== "" });
  // @ts-expect-error drops are counted by the subscription
  subscription.dropped = 0;
  // @ts-expect-error a handler is needed
  bus.on("order");
  // @ts-expect-error orders are not counts
  bus.on("order", (event: BusEvent<"count", number>) => event);
  bus.on("*", (event) => event.type === "order" && event.data.dish);
  bus.on("order", (event: BusEvent) => event.id);

  const { data } = await bus.once("order", {
    filter: ({ data }) => data.dish === "soup",
  });
  holds<Same<typeof data, { dish: string }>>();
  // @ts-expect-error there is one event, so there is no capacity
  bus.once("order", { capacity: 2 });
  // @ts-expect-error one type
  bus.once(["order", "count"]);
});

uncalled.push((bus = new Bus<Events>()) => {
  new Bus({ name: "restaurant", onError: ({ event }) => event.id });
  // @ts-expect-error a typo
  new Bus({ onerror: () => {} });
  // @ts-expect-error events have names
  new Bus<string>();
  // @ts-expect-error a snapshot can only be looked at
  bus.inspect().published = 0;
  // @ts-expect-error the event is needed
  return new SubscriberError("no");
});

uncalled.push(() => {
  const bus: Bus<Events> = new Bus({ replay: { count: 1, shutdown: 2 } });
  new Bus<Events>({
    onUnheard: (event) => event.type === "order" && event.data.dish,
  });
  new Bus<Events>({ onUnheard: (event: BusEvent) => event.id });
  // @ts-expect-error there is no such type
  new Bus<Events>({ replay: { ordr: 1 } });
  // @ts-expect-error how many
  new Bus<Events>({ replay: { order: true } });
  const types: Record<string, number> = {};
  new Bus<Events>({ replay: types });

  using observing = bus.observe({
    published: ({ event }) => event.id,
    dropped: ({ reason }) => reason === "overflow",
  });
  // @ts-expect-error no such reason
  bus.observe({ dropped: ({ reason }) => reason === "full" });
  // @ts-expect-error a typo
  bus.observe({ publishd: () => {} });
  // @ts-expect-error a step can only be looked at
  bus.observe({ queued: (step) => step.depth = 0 });
  return observing;
});

uncalled.push(async (bus = new Bus<Events>()) => {
  const { next } = bus.subscribe("order")[Symbol.asyncIterator]();
  const { value, done } = await next();
  if (!done) holds<Same<typeof value, BusEvent<"order", { dish: string }>>>();
  await using iterator = bus.subscribe("*")[Symbol.asyncIterator]();
  return iterator;
});

// ── Unions of types ─────────────────────────────────────────────────────────

uncalled.push(
  async (type: "order" | "count", bus = new Bus<Events>()) => {
    const event = await bus.once(type);
    if (event.type === "order") event.data.dish.length;
    else holds<Same<typeof event.data, number | undefined>>();
    bus.on(type, (event) => {
      // @ts-expect-error it may be a count
      event.data.dish;
    });
    bus.on(["order", type, "*"], (event) => {
      if (event.type === "shutdown") {
        holds<Same<typeof event.data, undefined>>();
      }
    });
    // @ts-expect-error a string is neither of them
    bus.publish(type, "soup");
  },
);

// ── A bus held by a generic class ───────────────────────────────────────────

interface Base {
  count: number;
  shutdown: undefined;
}

/** Knows some events of its bus, and passes on the others. */
class Service<E extends object> {
  readonly bus: Bus<E & Base>;
  readonly base: Bus<Base>; // what it publishes itself goes through here

  constructor(bus: Bus<E & Base>) {
    this.bus = bus;
    this.base = bus;
  }

  async known() {
    const event = await this.base.publish("count", 1);
    holds<Same<typeof event, BusEvent<"count", number>>>();
    this.base.publish("shutdown");
    // @ts-expect-error for all that is known, E["count"] may be 5
    this.bus.publish("count", 1);
    // @ts-expect-error it is no order
    this.base.publish("order", 1);

    for await (const { type, data } of this.bus.subscribe("count")) {
      data.toFixed(type.length);
    }
    this.bus.on(["count", "shutdown"], (event) => {
      if (event.type === "count") event.data.toFixed();
    });
    this.bus.on("*", ({ id, type }) => id + type);
    const { data } = await this.bus.once("count");
    data.toFixed();
  }

  publish<T extends keyof E & string>(type: T, data: (E & Base)[T]) {
    return this.bus.publish(type, data);
  }

  publishAny<T extends keyof E & string>(
    type: T,
    ...rest: PublishArguments<(E & Base)[T]>
  ) {
    return this.bus.publish(type, ...rest);
  }

  on<T extends keyof E & string>(
    type: T,
    handler: (event: EventOf<E & Base, T>) => void,
  ) {
    return this.bus.on(type, handler);
  }
}

/** Knows none. */
class Relay<E extends object> {
  readonly bus: Bus<E> = new Bus<E>({ onUnheard: ({ id }) => id });

  publish<T extends keyof E & string>(type: T, data: E[T]) {
    return this.bus.publish(type, data);
  }

  publisher(): Publisher<E> {
    return this.bus.as("relay");
  }
}

uncalled.push((all: Bus<Events & Base>, orders = new Bus<Events>()) => {
  const service = new Service<Events>(all);
  service.publish("order", { dish: "soup" });
  service.publishAny("shutdown");
  service.on("order", ({ data }) => data.dish);
  // @ts-expect-error an order has a dish
  service.publish("order", {});
  // @ts-expect-error it must know what the service publishes
  new Service<Events>(new Bus<{ order: { dish: string } }>());
  const relay = new Relay<Events>();
  relay.publish("order", { dish: "soup" });
  relay.publisher().publish("opened");
  return orders;
});

Deno.test("Types of a bus are checked before the tests run", () => {
  assert(uncalled.length > 0);
});
