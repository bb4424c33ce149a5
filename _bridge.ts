/**
 * What stands between a bus and a link, in both directions.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

import type { Delivery, Link, LinkEvent, LinkState } from "./_link.ts";
import { MAX_NAME, MAX_ORIGIN } from "./_limits.ts";
import { after } from "./_timers.ts";
import { Ids, Windows } from "./_window.ts";
import type { BusEvent } from "./bus.ts";

export { Ids };

/** How many events are sent in one go, at most. */
const BATCH = 256;
/** How often a batch is sent that fails, on links that confirm; and the pauses between, in ms. */
const ATTEMPTS = 8;
const PAUSE = 20;
const LONGEST_PAUSE = 1000;
/** How long a send may take before nobody waits for the link, in ms. */
const SLOW = 5000;
/** Why events are not sent that are there when a connection ends. */
const LEFT = "the link was left before it took them";
/** How long troubles of one kind are gathered, in ms. */
const GATHER = 1000;

/** What a bridge needs of the bus. */
export interface Shore {
  /** The subscription whose events are to be sent. */
  readonly outbox: Outbox;
  /** Ids of what has come lately, by any link. */
  readonly ids: Ids;
  /** What the origins of this bus begin with. */
  readonly own: string;
  /**
   * Puts an event into the queues of those who want it. Returns what to wait for,
   * if some are full; or drops it for these, if nobody is `patient`.
   *
   * @throws If it was not taken in.
   */
  takeIn(
    event: LinkEvent,
    patient: boolean,
    refusable: boolean,
  ): Promise<unknown> | undefined;
  /** How a message shows what was thrown. A bridge, which is loaded late, shares no code with the bus. */
  describe(thrown: unknown): string;
  /** Gives an error that nobody waits for to the runtime. */
  report(error: unknown): void;
  /** An event could not be sent. */
  unsent(event: BusEvent, error: unknown): void;
  /** Something is wrong with the link. */
  trouble(state: LinkState, message: string, cause?: unknown): void;
}

/** What a bridge needs of a subscription. */
export interface Outbox {
  readonly name: string;
  readonly size: number;
  readonly over: boolean;
  readonly missed: number;
  take(): BusEvent;
  onArrival(arrive: () => void): void;
  /** Whether to drop the oldest events where publishers would wait. */
  beLossy(lossy: boolean): void;
  finish(): void;
  unsubscribe(): void;
}

/** What a bridge is told to do. */
export interface BridgeOptions {
  readonly link: Link;
  readonly topic: string;
  /** All, if absent. */
  readonly types: ReadonlySet<string> | undefined;
  readonly capacity: number;
  readonly grace: number;
  /** Unlike that of any other bridge. */
  readonly origin: string;
}

/** The state of a link, as plain data. */
export interface LinkSnapshot {
  /** The name of the subscription that it sends the events of. */
  readonly name: string;
  /** The topic. */
  readonly topic: string;
  /** Whether what is sent arrives, as far as is known. */
  readonly state: "up" | "down";
  /** How many events were sent. */
  readonly sent: number;
  /** How many events could not be sent, or were left out by the link. Those dropped before that, by `overflow` or by `abort`, are not among them. */
  readonly unsent: number;
  /** How many events of others were taken in. */
  readonly received: number;
  /** How many came again, and were dropped. */
  readonly repeated: number;
  /** How many messages and events were refused, on their way in or out. */
  readonly refused: number;
  /** How many events of others were lost. */
  readonly lost: number;
  /** How many events of others have not come yet, although later ones have. */
  readonly missing: number;
  /** How many events of others wait for a place in the queue of a subscription. */
  readonly waiting: number;
  /** How many buses there are at the other end, of those heard of lately. */
  readonly origins: number;
}

// States of a bridge:
//
//   opening ──receive() resolved──▶ open ──close()──▶ closing ──▶ closed
//      └────────────────close()────────────────────────────────────▲
//
// The way out: the outbox, which the bus fills; from there in batches, one at a
// time, to the link. The way in: checks, the window, the queues of the bus.

/** A bus's end of a link. */
export class Bridge {
  readonly #shore: Shore;
  readonly #options: BridgeOptions;
  readonly #windows = new Windows();
  readonly #troubles: Troubles;
  #state: "opening" | "open" | "closing" | "closed" = "opening";
  #cancel: ((reason: unknown) => void) | undefined; // while it is opening
  #stop: (() => Promise<void>) | undefined; // receiving
  #leave: (() => void) | undefined; // the link
  #pumped: Promise<void> = Promise.resolve();
  #closed: Promise<void> | undefined;
  #wake: (() => void) | undefined; // the pump, where it waits for the link
  #down = false; // by its own word
  #slow = false;
  #late: ReturnType<typeof setTimeout> | undefined; // until it is slow
  #seq = 0;
  #inHand: readonly LinkEvent[] = []; // by the pump, neither sent nor unsent
  #left = false; // whether what it had in hand was given up
  #sent = 0;
  #unsent = 0;
  #received = 0;
  #repeated = 0;
  #refused = 0;
  #lost = 0;
  readonly #waiting = new Map<string, Promise<void>>(); // for a place, by what tells repeats

  constructor(shore: Shore, options: BridgeOptions) {
    this.#shore = shore;
    this.#options = options;
    this.#troubles = new Troubles((state, message, cause) =>
      shore.trouble(state, message, cause)
    );
  }

  /** Begins to receive; rejects if that fails, or if it is closed before. */
  open(): Promise<void> {
    const { link, topic, capacity } = this.#options;
    this.#leave = join(link, (state) => this.#hear(state), this.#shore.report);
    return new Promise((resolve, reject) => {
      this.#cancel = (reason) => {
        this.#end();
        reject(reason);
      };
      const fail = (error: unknown) => {
        if (this.#state === "opening") this.#cancel!(error);
      };
      try {
        link.receive(topic, this.#sink, { maxInFlight: capacity, from: "new" })
          .then((stop) => {
            if (this.#state !== "opening") return this.#stopping(stop);
            this.#stop = stop;
            this.#state = "open";
            resolve();
          }).catch(fail);
      } catch (error) {
        fail(error);
      }
    });
  }

  /** Begins to send what is in the outbox. */
  start(): void {
    if (this.#state !== "open") return;
    this.#adjust();
    this.#pumped = this.#pump();
  }

  /**
   * Stops receiving, and sends what is left, as far as both can be done in time.
   * Those who wait until it is open are told `reason`.
   */
  close(reason: unknown): Promise<void> {
    if (this.#state === "opening") {
      this.#cancel!(reason);
      return this.#closed = Promise.resolve();
    }
    return this.#closed ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#state = "closing";
    this.#shore.outbox.finish();
    await inTime(
      Promise.all([this.#stopping(this.#stop!), this.#pumped]),
      this.#options.grace,
    );
    this.#end();
  }

  /** Sends nothing more, and stops receiving. */
  abort(reason: unknown): Promise<void> {
    const closed = this.close(reason);
    this.#leaveInHand();
    return closed;
  }

  /** The request that has opened it is gone, and with it what sends. */
  lose(): void {
    const reason = "the request that connected it has ended";
    this.#trouble({ state: "down", reason });
    this.abort(undefined);
  }

  /** It has nothing to do with the link any more. */
  #end(): void {
    this.#state = "closed";
    this.#leave?.();
    this.#leaveInHand();
    const { outbox } = this.#shore;
    const left = outbox.size;
    outbox.unsubscribe(); // and tells observers of each
    this.#notSent(left, LEFT);
    this.#miss(this.#windows.clear(), "until the link was left");
    this.#troubles.end();
  }

  async #stopping(stop: () => Promise<void>): Promise<void> {
    try {
      await stop();
    } catch (error) {
      this.#trouble({ state: "bad", reason: "it could not be stopped" }, error);
    }
  }

  inspect(): LinkSnapshot {
    return {
      name: this.#shore.outbox.name,
      topic: this.#options.topic,
      state: this.#down || this.#slow ? "down" : "up",
      sent: this.#sent,
      unsent: this.#unsent,
      received: this.#received,
      repeated: this.#repeated,
      refused: this.#refused,
      lost: this.#lost,
      missing: this.#windows.missing,
      waiting: this.#waiting.size,
      origins: this.#windows.size,
    };
  }

  // ------------------------------------------------------------------ state

  #hear(state: LinkState): void {
    const { state: kind, reason, lost, event } = Object(state) as LinkState;
    switch (kind) {
      case "up":
        this.#down = false;
        this.#adjust();
        break;
      case "down":
        if (!this.#down) this.#trouble({ state: "down", reason });
        this.#down = true;
        this.#adjust();
        break;
      case "gap":
        this.#trouble({ state: "gap", reason, lost });
        break;
      case "bad":
        this.#refused++;
        if (event !== undefined) this.#leaveOut(event, reason);
        this.#trouble({ state: "bad", reason });
    }
  }

  /** Lets the rest of the program wait for the link, or not. */
  #adjust(): void {
    const up = !this.#down && !this.#slow;
    if (this.#state === "open") this.#shore.outbox.beLossy(!up);
    if (up) this.#wake?.();
  }

  #trouble(state: LinkState, cause?: unknown): void {
    this.#troubles.add(state, cause);
  }

  #miss(lost: number, reason: string): void {
    if (lost === 0) return;
    this.#lost += lost;
    this.#trouble({ state: "gap", lost, reason });
  }

  // -------------------------------------------------------------------- out

  async #pump(): Promise<void> {
    const { outbox } = this.#shore;
    while (!outbox.over && !this.#left) {
      await new Promise<void>((arrive) => outbox.onArrival(arrive));
      if (outbox.size > 0 && !this.#left) await this.#send(this.#batch());
    }
  }

  /** The next events, with their numbers; those that were dropped had numbers, too. */
  #batch(): LinkEvent[] {
    const { outbox } = this.#shore;
    const { origin } = this.#options;
    const batch: LinkEvent[] = [];
    while (outbox.size > 0 && batch.length < BATCH) {
      const { id, type, source, time, data, cause, trace } = outbox.take();
      const seq = this.#seq += outbox.missed + 1;
      batch.push({ id, type, source, time, data, cause, trace, origin, seq });
    }
    return batch;
  }

  /** Sends a batch; again and again, if that is of use, and at last event by event: one of them may be at fault. */
  async #send(batch: readonly LinkEvent[]): Promise<void> {
    this.#inHand = batch;
    const { confirms } = this.#options.link.caps;
    let failure = await this.#try();
    for (let attempt = 1; confirms && attempt < ATTEMPTS; attempt++) {
      if (failure === undefined || this.#left) break;
      await this.#turn(Math.min(PAUSE * 2 ** attempt, LONGEST_PAUSE));
      failure = await this.#try();
    }
    if (failure === undefined || this.#left) return;
    if (!confirms || this.#inHand.length === 1) {
      return this.#giveUp(failure.error);
    }
    while (this.#inHand.length > 0 && !this.#left) {
      const rest = this.#inHand.slice(1);
      const failure = await this.#try(rest);
      if (failure !== undefined && !this.#left) {
        this.#giveUp(failure.error, rest);
      }
    }
  }

  /**
   * Sends what is in hand, but for the `rest` of it, once the link is up. Nobody
   * waits for it if that takes too long.
   */
  async #try(
    rest: readonly LinkEvent[] = [],
  ): Promise<{ readonly error: unknown } | undefined> {
    if (this.#down) await this.#turn();
    const events = this.#but(rest);
    if (this.#left || events.length === 0) return undefined;
    const { link, topic } = this.#options;
    let settled = false;
    const settle = () => void (settled = true);
    try {
      const sending = link.send(topic, events);
      Promise.resolve(sending).then(settle, settle);
      await undefined; // a timer is dear, and many links are done by then
      if (!settled && !this.#left) {
        this.#late = setTimeout(() => this.#isSlow(true), SLOW);
      }
      await sending;
      if (this.#left) return undefined;
      this.#sent += this.#but(rest).length; // some may have been left out
      this.#inHand = rest;
    } catch (error) {
      return { error };
    } finally {
      clearTimeout(this.#late);
      if (this.#slow) this.#isSlow(false);
    }
  }

  #isSlow(slow: boolean): void {
    this.#slow = slow;
    const reason = `it has not answered for ${SLOW} ms`;
    if (slow) this.#trouble({ state: "down", reason });
    this.#adjust();
  }

  /** The link has left out an event, be it one of ours; somebody else may use it, too. */
  #leaveOut(event: BusEvent, reason: string | undefined): void {
    const rest = this.#inHand.filter((one) => one !== event);
    if (rest.length === this.#inHand.length) return;
    this.#inHand = rest;
    this.#unsent++;
    this.#shore.unsent(event, new Error(reason ?? "the link has left it out"));
  }

  /** What is in hand, but for the end of it. */
  #but(rest: readonly LinkEvent[]): readonly LinkEvent[] {
    return this.#inHand.slice(0, this.#inHand.length - rest.length);
  }

  /** What is in hand, but for the `rest` of it, is not sent. */
  #giveUp(error: unknown, rest: readonly LinkEvent[] = []): void {
    const events = this.#but(rest);
    this.#inHand = rest;
    for (const event of events) this.#shore.unsent(event, error);
    this.#notSent(events.length, this.#shore.describe(error), error);
  }

  #notSent(lost: number, why: string, cause?: unknown): void {
    if (lost === 0) return;
    this.#unsent += lost;
    const reason = `could not be sent: ${why}`;
    this.#trouble({ state: "gap", lost, reason }, cause);
  }

  #leaveInHand(): void {
    this.#left = true;
    clearTimeout(this.#late);
    if (this.#inHand.length > 0) this.#giveUp(new Error(LEFT));
    this.#wake?.();
  }

  /** Waits until the link is up, or is left, or for some time at most. */
  #turn(most?: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = most === undefined ? undefined : setTimeout(done, most);
      this.#wake = done;
      function done() {
        clearTimeout(timer);
        resolve();
      }
    });
  }

  // --------------------------------------------------------------------- in

  readonly #sink = (
    event: BusEvent,
    _: Delivery,
  ): void | Promise<void> => {
    const { caps } = this.#options.link;
    if (this.#state === "closing" || this.#state === "closed") {
      // It is for somebody else, if there can be one.
      if (caps.acks) return Promise.reject(new Error("The link was left"));
      return;
    }
    const fault = faultOf(event);
    if (fault !== undefined) return this.#refuse(fault);
    const { id, origin, seq, source } = event as LinkEvent;
    const { own, ids } = this.#shore;
    if (origin?.startsWith(own)) return;
    const window = origin === undefined || seq === undefined
      ? undefined
      : this.#windows.of(origin, seq, this.#onForgotten);
    const key = window !== undefined ? id : `${source}\n${id}`;
    if (window !== undefined) {
      const lost = window.add(seq!);
      if (lost === undefined) return this.#repeat(key);
      if (lost > 0) this.#miss(lost, `of those from ${origin}`);
    }
    // Asked of all: one event may come from two links of its bus, with two
    // numbers; or so late that its number says nothing, be it that somebody has
    // used the name of its bus for a number that is far ahead.
    if (!ids.add(key)) return this.#repeat(key);
    if (this.#options.types?.has(event.type) === false) return;
    const again = (error: unknown) => {
      window?.remove(seq!);
      ids.remove(key);
      throw error;
    };
    const patient = this.#waiting.size < this.#options.capacity;
    try {
      const entered = this.#shore.takeIn(event, patient, caps.acks);
      this.#received++;
      if (entered === undefined) return;
      const done = entered.then(
        () => void this.#waiting.delete(key),
        (error) => {
          this.#waiting.delete(key);
          if (caps.acks) again(error); // else it is dropped, as observers know
        },
      );
      this.#waiting.set(key, done);
      return this.#answer(done);
    } catch (error) {
      return caps.acks ? Promise.reject(error).catch(again) : undefined;
    }
  };

  /** It has come before, and is done with when that is. */
  #repeat(key: string): Promise<void> | undefined {
    this.#repeated++;
    return this.#answer(this.#waiting.get(key));
  }

  /** Links that cannot wait are not told to. */
  #answer(done: Promise<void> | undefined): Promise<void> | undefined {
    const { backpressure, acks } = this.#options.link.caps;
    return backpressure || acks ? done : undefined;
  }

  readonly #onForgotten = (origin: string, missing: number) =>
    this.#miss(missing, `of those from ${origin}`);

  #refuse(fault: string): void {
    this.#refused++;
    this.#trouble({ state: "bad", reason: fault });
  }
}

/** What is wrong with an event, if anything; drivers are written by many. */
function faultOf(event: BusEvent): string | undefined {
  if (typeof event !== "object" || event === null) return "no event has come";
  const { id, type, source, time, cause, trace, origin, seq } =
    event as LinkEvent;
  if (!isName(id)) return "an event has no id";
  if (!isName(type) || type === "*") return "an event has no type";
  if (!isName(source)) return "an event has no source";
  if (typeof time !== "number" || !(Math.abs(time) <= LAST_TIME)) {
    return "an event has no time";
  }
  if (cause !== undefined && !isName(cause)) {
    return "the cause of an event is none";
  }
  if (trace !== undefined && !isName(trace)) {
    return "the trace of an event is none";
  }
  if (origin !== undefined && !isName(origin, MAX_ORIGIN)) {
    return "the origin of an event is none";
  }
  if (seq !== undefined && !(Number.isSafeInteger(seq) && seq > 0)) {
    return "the number of an event is none";
  }
}

/** The last one that a `Date` can have. */
const LAST_TIME = 8.64e15;

function isName(found: unknown, most = MAX_NAME): boolean {
  return typeof found === "string" && found.length > 0 && found.length <= most;
}

/** Resolves once `done` does, or after `ms`. */
function inTime(done: Promise<unknown>, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const stop = after(ms, resolve);
    const end = () => {
      stop();
      resolve();
    };
    done.then(end, end);
  });
}

type Hear = (state: LinkState) => void;

/** Tells the states of a link to all who use it, and to whoever was told before. */
class Hub {
  readonly all: Set<Hear> = new Set();
  #tell: Hear | undefined;

  listen(link: Link, report: (error: unknown) => void): void {
    const before: Hear | undefined = link.onState;
    if (before !== undefined && before === this.#tell) return;
    const tell = (state: LinkState) => {
      try {
        if (typeof before === "function") before.call(link, state);
      } catch (error) {
        report(error);
      }
      // It is older, if somebody has put his own around it.
      if (tell === this.#tell) {
        for (const hear of [...this.all]) hear(state);
      }
    };
    link.onState = this.#tell = tell;
  }
}

const hubs = /* @__PURE__ */ new WeakMap<Link, Hub>();

/** Begins to hear the states of a link. */
function join(
  link: Link,
  hear: Hear,
  report: (error: unknown) => void,
): () => void {
  let hub = hubs.get(link);
  if (hub === undefined) hubs.set(link, hub = new Hub());
  hub.listen(link, report);
  hub.all.add(hear);
  return () => void hub.all.delete(hear);
}

/** One or several troubles of one kind. */
interface Trouble {
  state: LinkState;
  cause: unknown;
  times: number;
}

/**
 * Tells the first trouble of a kind at once; those that follow within a second
 * are told as one, at its end. A peer who only makes trouble must not keep
 * everybody busy with it.
 */
class Troubles {
  readonly #tell: (state: LinkState, message: string, cause: unknown) => void;
  readonly #timers = new Map<string, ReturnType<typeof setTimeout>>();
  readonly #gathered = new Map<string, Trouble>();
  #over = false;

  constructor(
    tell: (state: LinkState, message: string, cause: unknown) => void,
  ) {
    this.#tell = tell;
  }

  add(state: LinkState, cause: unknown): void {
    const kind = state.state;
    if (!this.#timers.has(kind)) {
      this.#say({ state, cause, times: 1 });
      if (!this.#over) this.#gather(kind);
      return;
    }
    const known = this.#gathered.get(kind);
    if (known === undefined) {
      this.#gathered.set(kind, { state, cause, times: 1 });
      return;
    }
    known.times++;
    const { lost } = known.state;
    if (state.lost !== undefined) {
      known.state = { ...known.state, lost: (lost ?? 0) + state.lost };
    }
  }

  #gather(kind: string): void {
    this.#timers.set(kind, setTimeout(() => this.#tellGathered(kind), GATHER));
  }

  #tellGathered(kind: string): void {
    this.#timers.delete(kind);
    const trouble = this.#gathered.get(kind);
    if (trouble === undefined) return;
    this.#gathered.delete(kind);
    this.#gather(kind);
    this.#say(trouble);
  }

  /** Tells what is left, now, and what may come yet at once. */
  end(): void {
    this.#over = true;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    const left = [...this.#gathered.values()];
    this.#gathered.clear();
    for (const trouble of left) this.#say(trouble);
  }

  #say({ state, cause, times }: Trouble): void {
    const { state: kind, reason, lost } = state;
    const what = {
      down: "is down",
      bad: "has refused something",
      gap: lost === undefined
        ? "may have lost events"
        : `has lost ${lost} event${lost === 1 ? "" : "s"}`,
    }[kind as "down" | "bad" | "gap"];
    const why = reason === undefined ? "" : `: ${reason}`;
    const more = times === 1 ? "" : ` (and ${times - 1} more like it)`;
    this.#tell(state, what + why + more, cause);
  }
}
