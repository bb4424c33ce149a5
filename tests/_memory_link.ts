/**
 * A medium in memory whose links can do all that a link may do; the reference
 * for the conformance suite. It may have a flaw, to see whether that is noticed.
 *
 * @module
 */

import {
  decodeEvent,
  encodeEvent,
  type Link,
  type LinkCapabilities,
  type LinkReceiveOptions,
  type LinkState,
  type Sink,
} from "../link.ts";
import type { BusEvent } from "../bus.ts";
import type { Medium } from "./link_conformance.ts";

/** What can be wrong with it. */
export const FLAWS = [
  "lies about acks",
  "loses the source",
  "turns undefined into null",
  "reverses batches",
  "lets sends overtake each other",
  "mixes topics",
  "gives each event to one receiver of a link",
  "gives each event to one link",
  "shares nothing within a group",
  "acknowledges before the sink has",
  "counts no attempts",
  "takes a throw for done",
  "never gives up",
  "gives up without a word",
  "falls silent after garbage",
  "takes garbage for an event",
  "rejects a batch for one event",
  "leaves out without a word",
  "minds no maxInFlight",
  "forgets what was sent before",
  "always begins at the beginning",
  "loses what a receiver has when it stops",
  "loses what a dead receiver had",
  "close waits for sinks",
  "sends after close",
  "calls a sink after stop",
  "ends a batch after stop",
  "ends a batch after close",
  "never answers a send",
  "never closes",
  "stops all receivers at once",
  "keeps repeats",
  "cuts what is large",
  "ends with a sink that throws",
] as const;

export type Flaw = typeof FLAWS[number];

export const ALL: LinkCapabilities = {
  durable: true,
  acks: true,
  groups: true,
  backpressure: true,
  confirms: true,
};

const ATTEMPTS = 5;

interface Entry {
  readonly ref: number;
  readonly text: string;
  attempt: number;
}

/** Those who share events: of one `group`, or a single receiver. */
class Group {
  /** The place in the log from where on nobody has had anything. */
  next: number;
  readonly again: Entry[] = [];
  readonly receivers = new Set<Receiver>();

  constructor(next: number) {
    this.next = next;
  }
}

interface Receiver {
  readonly link: MemoryLink;
  readonly sink: Sink;
  readonly most: number;
  readonly group: Group;
  readonly inFlight: Set<Entry>;
  stopped: boolean;
}

/** A log for each topic. */
export class MemoryMedium implements Medium {
  readonly flaw: Flaw | undefined;
  readonly logs = new Map<string, string[]>();
  readonly groups = new Map<string, Map<unknown, Group>>(); // by topic
  readonly #ids = new Set<string>();

  constructor(flaw?: Flaw) {
    this.flaw = flaw;
  }

  link(): MemoryLink {
    return new MemoryLink(this);
  }

  garble(topic: string): void {
    const log = this.log(topic);
    log.push(
      this.flaw === "takes garbage for an event"
        ? encodeEvent({ id: "?", type: "?", source: "?", time: 0, data: "?" })
        : "{garbage",
    );
    this.serve(topic);
  }

  kill(link: Link): void {
    (link as MemoryLink).die(this.flaw === "loses what a dead receiver had");
  }

  log(topic: string): string[] {
    if (this.flaw === "mixes topics") topic = "";
    let log = this.logs.get(topic);
    if (log === undefined) this.logs.set(topic, log = []);
    return log;
  }

  isNew(id: string): boolean {
    const isNew = !this.#ids.has(id) || this.flaw === "keeps repeats";
    this.#ids.add(id);
    return isNew;
  }

  serve(topic: string): void {
    const topics = this.flaw === "mixes topics" ? this.groups.keys() : [topic];
    for (const topic of [...topics]) {
      for (const group of this.groups.get(topic)?.values() ?? []) {
        this.#serve(topic, group);
      }
    }
  }

  #serve(topic: string, group: Group): void {
    const log = this.log(topic);
    for (;;) {
      // Whoever has the fewest comes first.
      const [receiver] = [...group.receivers]
        .filter(({ inFlight, most }) =>
          inFlight.size < most || this.flaw === "minds no maxInFlight"
        )
        .sort((a, b) => a.inFlight.size - b.inFlight.size);
      if (receiver === undefined) return;
      const entry = group.again.shift() ??
        (group.next < log.length
          ? { ref: group.next, text: log[group.next++], attempt: 1 }
          : undefined);
      if (entry === undefined) return;
      receiver.inFlight.add(entry);
      queueMicrotask(() => receiver.link.deliver(topic, receiver, entry));
      if (this.flaw === "shares nothing within a group") {
        for (const other of group.receivers) {
          if (other !== receiver) {
            other.link.deliver(topic, other, { ...entry });
          }
        }
      }
    }
  }
}

export class MemoryLink implements Link {
  readonly caps: LinkCapabilities;
  onState: (state: LinkState) => void = () => {};
  readonly #medium: MemoryMedium;
  readonly #receivers = new Set<readonly [topic: string, Receiver]>();
  #closed = false;
  #deaf = false;

  constructor(medium: MemoryMedium) {
    this.#medium = medium;
    this.caps = { ...ALL, acks: medium.flaw !== "lies about acks" };
  }

  async send(topic: string, batch: readonly BusEvent[]): Promise<void> {
    const { flaw } = this.#medium;
    if (this.#closed && flaw !== "sends after close") {
      throw new Error("Cannot send: the link was closed");
    }
    const log = this.#medium.log(topic);
    if (flaw === "lets sends overtake each other" && this.#sends++ % 10 === 0) {
      await undefined;
    }
    if (flaw === "reverses batches") batch = [...batch].reverse();
    for (let event of batch) {
      if (flaw === "loses the source") event = { ...event, source: "?" };
      if (flaw === "turns undefined into null") {
        event = { ...event, data: event.data ?? null };
      }
      if (flaw === "cuts what is large" && typeof event.data === "string") {
        event = { ...event, data: event.data.slice(0, 65_536) };
      }
      try {
        const text = encodeEvent(event);
        if (this.#medium.isNew(event.id)) log.push(text);
      } catch (error) {
        if (flaw === "rejects a batch for one event") throw error;
        if (flaw === "leaves out without a word") continue;
        this.onState({ state: "bad", reason: String(error), event });
      }
    }
    this.#medium.serve(topic);
    if (flaw === "never answers a send") await new Promise(() => {});
  }

  // deno-lint-ignore require-await
  async receive(
    topic: string,
    sink: Sink,
    { group: name, maxInFlight = 256, from = "new" }: LinkReceiveOptions = {},
  ): Promise<() => Promise<void>> {
    const { flaw, groups } = this.#medium;
    if (this.#closed) throw new Error("Cannot receive: the link was closed");
    let all = groups.get(topic);
    if (all === undefined) groups.set(topic, all = new Map());
    const log = this.#medium.log(topic);
    if (flaw === "always begins at the beginning") from = "all";
    if (flaw === "forgets what was sent before") from = "new";
    const key = name ??
      (flaw === "gives each event to one receiver of a link"
        ? this
        : flaw === "gives each event to one link"
        ? "everybody"
        : Symbol());
    let group = all.get(key);
    if (group === undefined) {
      all.set(key, group = new Group(from === "all" ? 0 : log.length));
    }
    const receiver: Receiver = {
      link: this,
      sink,
      most: maxInFlight,
      group,
      inFlight: new Set(),
      stopped: false,
    };
    group.receivers.add(receiver);
    const registered = [topic, receiver] as const;
    this.#receivers.add(registered);
    this.#medium.serve(topic);
    const stop = () => {
      if (flaw === "calls a sink after stop") return;
      receiver.stopped = true;
      group.receivers.delete(receiver);
      this.#receivers.delete(registered);
      if (name === undefined) all.delete(key);
      if (flaw === "loses what a receiver has when it stops") {
        group.next = log.length;
      }
      this.#medium.serve(topic);
    };
    return () => {
      if (flaw === "stops all receivers at once") this.die(false);
      stop();
      return Promise.resolve();
    };
  }

  deliver(topic: string, receiver: Receiver, entry: Entry): void {
    const { flaw } = this.#medium;
    const { inFlight, group, sink } = receiver;
    const isOver = () => !inFlight.delete(entry) || this.#closed;
    const done = () => {
      if (!isOver()) this.#medium.serve(topic);
    };
    const again = (reason: string) => {
      if (isOver()) return;
      if (entry.attempt < ATTEMPTS || flaw === "never gives up") {
        group.again.push(entry);
        if (flaw !== "counts no attempts") entry.attempt++;
      } else if (flaw !== "gives up without a word") {
        this.onState({ state: "bad", reason: `given up: ${reason}` });
      }
      setTimeout(() => this.#medium.serve(topic)); // not at once, lest it spins
    };
    const goesOn =
      flaw === `ends a batch after ${this.#closed ? "close" : "stop"}`;
    if (receiver.stopped && !goesOn || this.#deaf) {
      if (inFlight.delete(entry)) group.again.push(entry);
      return;
    }
    let event: BusEvent;
    try {
      event = decodeEvent(entry.text);
    } catch (error) {
      if (flaw === "falls silent after garbage") this.#deaf = true;
      this.onState({ state: "bad", reason: String(error) });
      return done();
    }
    const ref = String(entry.ref);
    try {
      const result = sink(event, { ref, attempt: entry.attempt });
      if (result === undefined || flaw === "acknowledges before the sink has") {
        result?.catch(() => {});
        return done();
      }
      result.then(done, (error) => again(String(error)));
    } catch (error) {
      if (flaw === "ends with a sink that throws") this.#deaf = true;
      if (flaw === "takes a throw for done") done();
      else again(String(error));
    }
  }

  /** What it has goes back to others. */
  die(losing: boolean): void {
    this.#closed = true;
    for (const [topic, receiver] of this.#receivers) {
      receiver.stopped = true;
      receiver.group.receivers.delete(receiver);
      if (!losing) receiver.group.again.push(...receiver.inFlight);
      receiver.inFlight.clear();
      this.#medium.serve(topic);
    }
    this.#receivers.clear();
  }

  async close(): Promise<void> {
    const { flaw } = this.#medium;
    if (flaw === "close waits for sinks") {
      for (const [, { inFlight }] of this.#receivers) {
        while (inFlight.size > 0 && !this.#closed) {
          await new Promise((resolve) => setTimeout(resolve, 1));
          if (this.#given++ > 500) break; // so that the test itself can end
        }
      }
    }
    this.die(false);
    if (flaw === "never closes") await new Promise(() => {});
  }

  #given = 0;
  #sends = 0;
}
