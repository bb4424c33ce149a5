/**
 * What the test files of the bus share.
 *
 * @module
 */

import {
  Bus,
  type BusEvent,
  type BusOptions,
  type SubscribeOptions,
  type SubscriberError,
  type Subscription,
} from "../bus.ts";
import { follow, Journal, replaceGlobals } from "./_helpers.ts";

export interface Events {
  n: number;
  s: string;
  quit: undefined;
}

export const BOOM = new Error("boom");

/** A bus, what its `onError` was told, and what most tests need besides. */
export function open(options: BusOptions = {}) {
  const errors: SubscriberError[] = [];
  const seen: unknown[] = [];
  const { passed, open: go } = gate();
  const onError = (error: SubscriberError) => void errors.push(error);
  const bus = new Bus<Events>({ onError, ...options });
  const see = (data: unknown) => void seen.push(data);
  return { bus, errors, seen, see, passed, go, journal: new Journal() };
}

/** What is done with the data of an event. */
export type Sink = (data: unknown) => unknown;

/** Reads a subscription to its end, by hand; resolves with "end", or what was thrown. */
export async function read(events: AsyncIterable<BusEvent>, sink: Sink) {
  try {
    for await (const { data } of events) await sink(data);
    return "end";
  } catch (error) {
    return error;
  }
}

/** The ways to get events of type "n". */
export const READING: Record<
  string,
  (bus: Bus<Events>, sink: Sink, options?: SubscribeOptions) => Subscription
> = {
  "subscribe()": (bus, sink, options) => {
    const subscription = bus.subscribe("n", options);
    read(subscription, sink);
    return subscription;
  },
  "on()": (bus, sink, options) =>
    bus.on("n", ({ data }) => sink(data), options),
};

/** Registers one test for each way to get events. */
export function reading(
  name: string,
  fn: (on: (typeof READING)[string]) => Promise<void>,
): void {
  for (const [way, on] of Object.entries(READING)) {
    Deno.test(`Bus.${way} ${name}`, () => fn(on));
  }
}

/** A promise, and what resolves it. */
export function gate() {
  let open = () => {};
  const passed = new Promise<void>((resolve) => open = resolve);
  return { passed, open: () => open() };
}

/**
 * Clocks that the test sets, until the end of the `using` block: for `Date.now`,
 * and for `performance.now`, which goes on by `tick` each time it is read.
 */
export function stopClocks(tick = 0) {
  const clocks = { at: 1000.25, time: Date.UTC(2026, 0, 31, 12) };
  const replaced = replaceGlobals({
    performance: { now: () => clocks.at += tick },
    Date: class extends Date {
      static override now = () => clocks.time;
    },
  });
  return Object.assign(replaced, {
    /** Lets so many milliseconds pass on both. */
    pass(milliseconds: number) {
      clocks.at += milliseconds;
      clocks.time = Math.floor(clocks.time + milliseconds);
    },
    /** Sets that of `Date.now` by so much. */
    set(milliseconds: number) {
      clocks.time += milliseconds;
    },
  });
}

/** Waits for a promise to settle, either way. */
export async function settled<T>(promise: Promise<T>) {
  const task = follow(promise);
  await promise.catch(() => {});
  return task;
}

/** Publishes numbers without waiting; notes in the journal when each is done. */
export function publishAll(
  bus: Bus<Events>,
  numbers: number[],
  journal?: Journal,
) {
  for (const n of numbers) {
    const publishing = bus.publish("n", n).then(() => {});
    (journal ?? new Journal()).follow(`published ${n}`, publishing);
  }
}
