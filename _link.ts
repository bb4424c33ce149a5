/**
 * What a bus and its links have to do with each other.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

import type { LinkEvent } from "./_cloudevents.ts";
import type { BusEvent } from "./bus.ts";

export type { LinkEvent };

/** What a {@linkcode Link} can do, which decides on what a bus may promise. */
export interface LinkCapabilities {
  /** The medium keeps events: a receiver gets `"all"` of them if it asks for that. */
  readonly durable: boolean;
  /** An event for which the sink rejects is delivered again. */
  readonly acks: boolean;
  /** Receivers of one `group` share the events: each goes to one of them. */
  readonly groups: boolean;
  /** No more than `maxInFlight` events are with the sink at a time; the rest is left where it is. */
  readonly backpressure: boolean;
  /** `send` resolves once the medium has the events, and not when they were handed over. */
  readonly confirms: boolean;
}

/** How a link is, as it tells by `onState`. */
export interface LinkState {
  /**
   * `"down"`: what is sent now doesn't arrive; `"up"`: it does, again. `"gap"`:
   * events are missing. `"bad"`: something was refused, on its way in or out.
   */
  readonly state: "up" | "down" | "gap" | "bad";
  /** Why, in a few words. */
  readonly reason?: string;
  /** `"gap"`: how many events are missing, if that is known. */
  readonly lost?: number;
  /** `"bad"`: which event that `send` was given is left out, if it is about one. */
  readonly event?: BusEvent;
}

/** How an event has come. */
export interface Delivery {
  /** What the medium calls it. */
  readonly ref: string;
  /** How many times it was delivered, this one included: from 1. */
  readonly attempt: number;
}

/**
 * Takes events out of a link. If what it returns resolves, or is no promise, the
 * event is done with; if it rejects, or throws, the event is to come again, on
 * links that have `acks`.
 */
export type Sink = (event: BusEvent, meta: Delivery) => void | Promise<void>;

/** Options for `Link.receive`. */
export interface LinkReceiveOptions {
  /** Which receivers share the events. By default each gets all of them. */
  group?: string;
  /** How many events may be with the sink at a time. */
  maxInFlight?: number;
  /**
   * Whether to begin with what is sent from now on, or with all that the medium has.
   *
   * @default {"new"}
   */
  from?: "new" | "all";
}

/**
 * A way for events to leave the process, and to come in: what a driver
 * implements. The suite in `tests/link_conformance.ts` tests one.
 *
 * It carries what `LinkEvent` has besides an event: `origin` and `seq`.
 */
export interface Link {
  /** What it can do. */
  readonly caps: LinkCapabilities;
  /**
   * Sends events on a topic, in this order. Resolves once they were handed over;
   * with `confirms`, once the medium has them. Rejects if that did not happen,
   * or may not have happened. What cannot be sent by itself (its data has no form
   * in JSON, it is too large) is left out and told as `"bad"`, as `event`, before
   * it settles.
   */
  send(topic: string, batch: readonly BusEvent[]): Promise<void>;
  /**
   * Hands events of a topic to `sink`. Resolves once none is missed, with what
   * stops it: after that `sink` is not called any more.
   */
  receive(
    topic: string,
    sink: Sink,
    options?: LinkReceiveOptions,
  ): Promise<() => Promise<void>>;
  /**
   * Called with each change; set by who uses the link. A bus that connects puts
   * its own around what is there: set yours before that. What it throws is
   * reported as uncaught, and changes nothing.
   */
  onState: (state: LinkState) => void;
  /** Ends all it does. `send` and `receive` reject from then on. May be called twice. */
  close(): Promise<void>;
}
