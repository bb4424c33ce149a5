/**
 * What the tests of links share.
 *
 * @module
 */

import {
  Bus,
  type BusOptions,
  LinkError,
  type SubscriberError,
} from "../bus.ts";
import type {
  Link,
  LinkCapabilities,
  LinkEvent,
  LinkReceiveOptions,
  LinkState,
  Sink,
} from "../link.ts";
import { replaceGlobals } from "./_helpers.ts";

export interface Events {
  n: number;
  s: string;
}

export const NONE: LinkCapabilities = {
  durable: false,
  acks: false,
  groups: false,
  backpressure: false,
  confirms: false,
};

/** A link that does what the test says, and tells what the bus does with it. */
export class FakeLink implements Link {
  readonly caps: LinkCapabilities;
  onState: (state: LinkState) => void = () => {};
  /** What was sent, by batch. */
  readonly batches: LinkEvent[][] = [];
  readonly calls: string[] = [];
  sink: Sink | undefined;
  options: LinkReceiveOptions | undefined;
  /** What `send`, `receive` and `stop` wait for. */
  sending: () => Promise<void> = () => Promise.resolve();
  receiving: () => Promise<void> = () => Promise.resolve();
  stopping: () => Promise<void> = () => Promise.resolve();

  constructor(caps: Partial<LinkCapabilities> = {}) {
    this.caps = { ...NONE, ...caps };
  }

  /** The data of all that was sent. */
  get sent(): unknown[] {
    return this.batches.flat().map(({ data }) => data);
  }

  /** The numbers of all that was sent. */
  get seqs(): unknown[] {
    return this.batches.flat().map(({ seq }) => seq);
  }

  send(topic: string, batch: readonly LinkEvent[]): Promise<void> {
    this.calls.push(`send ${topic}`);
    this.batches.push([...batch]);
    return this.sending();
  }

  async receive(topic: string, sink: Sink, options: LinkReceiveOptions = {}) {
    this.calls.push(`receive ${topic}`);
    await this.receiving();
    this.sink = sink;
    this.options = options;
    return () => {
      this.calls.push(`stop ${topic}`);
      return this.stopping();
    };
  }

  close(): Promise<void> {
    this.calls.push("close");
    return Promise.resolve();
  }

  /** Lets an event come. */
  come(fields: Partial<LinkEvent> = {}): void | Promise<void> {
    return this.sink!(came(fields), { ref: "1", attempt: 1 });
  }
}

let events = 0;

/** An event from elsewhere. */
export function came(fields: Partial<LinkEvent> = {}): LinkEvent {
  const seq = fields.seq ?? 1;
  return {
    id: `elsewhere-${++events}`,
    type: "n",
    source: "elsewhere",
    time: 1000,
    data: seq,
    origin: "far.1",
    seq,
    ...fields,
  };
}

/** A bus, and what its `onError` was told. */
export function openBus(options: BusOptions<Events> = {}) {
  const errors: SubscriberError[] = [];
  const bus = new Bus<Events>({
    onError: (error) => void errors.push(error),
    ...options,
  });
  return {
    bus,
    errors,
    /** What it was told of links, in short. */
    get troubles() {
      return errors.filter((error) => error instanceof LinkError)
        .map(({ message }) => message);
    },
    /** How many events it was told are lost. */
    get lost() {
      return errors.filter((error) => error instanceof LinkError)
        .reduce((sum, { state: { lost = 0 } }) => sum + lost, 0);
    },
  };
}

/** The data of all events of type "n" that a bus gets. */
export function collect(bus: Bus<Events>): unknown[] {
  const seen: unknown[] = [];
  bus.on("n", ({ data }) => void seen.push(data), { capacity: Infinity });
  return seen;
}

/** Timers that the test lets fire, until the end of the `using` block; but for those of the runner itself. */
export function stopTimers() {
  const { setTimeout, clearTimeout } = globalThis;
  let last = 0;
  const own = new Map<unknown, { fn: () => void; ms: number }>();
  const replaced = replaceGlobals({
    setTimeout: (fn: () => void, ms = 0) => {
      if (ms > 10_000) return setTimeout(fn, ms);
      own.set(--last, { fn, ms });
      return last;
    },
    clearTimeout: (id: number) => {
      if (typeof id === "number" && id < 0) own.delete(id);
      else clearTimeout(id);
    },
  });
  return Object.assign(replaced, {
    /** For how long those wait that have not fired. */
    get waiting() {
      return [...own.values()].map(({ ms }) => ms);
    },
    /** Fires those of a time, or all. */
    fire(ms?: number) {
      for (const [id, timer] of [...own]) {
        if (ms !== undefined && timer.ms !== ms) continue;
        own.delete(id);
        timer.fn();
      }
    },
  });
}
