/**
 * What a bus did: as log lines, as the lineage of an event, as diagrams, as
 * CloudEvents, and as spans of OpenTelemetry.
 *
 * ```ts
 * import { Bus, type SubscriberError } from "@sauce/queues/bus";
 * import { Recorder } from "@sauce/queues/trace";
 * import { assertEquals } from "@std/assert";
 *
 * const failed = Promise.withResolvers<SubscriberError>();
 * const bus = new Bus<{ order: string; served: string }>({
 *   onError: failed.resolve,
 * });
 * using recorder = new Recorder(bus);
 * bus.on("order", async (order) => {
 *   await bus.publish("served", order.data, { source: "kitchen", cause: order });
 * }, { name: "kitchen" });
 * bus.on("served", () => {
 *   throw new Error("no ink");
 * }, { name: "bookkeeper" });
 * await bus.publish("order", "soup", { source: "table 7" });
 *
 * const { event } = await failed.promise; // who sent this, and why?
 * const lineage = recorder.lineage(event)!;
 * assertEquals(lineage.event.source, "kitchen");
 * assertEquals(lineage.event.deliveries[0].error, "Error: no ink");
 * assertEquals(lineage.causes[0].source, "table 7");
 * ```
 *
 * Nothing here is needed to run a bus, and a bus that nobody looks at pays
 * nothing for it.
 *
 * @module
 */

import { TRACEPARENT } from "./_cloudevents.ts";
import { checkCount, checkFunction, describe, report } from "./_errors.ts";
import type {
  Bus,
  BusEvent,
  BusObserver,
  BusStep,
  PublishOptions,
} from "./bus.ts";

/** What is needed of a bus to see what it does: any {@linkcode Bus} will do. */
export type Observable = Pick<Bus, "observe" | "inspect">;

// ---------------------------------------------------------------- log lines

/** Options for {@linkcode logTo}. */
export interface LogOptions {
  /**
   * How many events are remembered at least, an integer from 1 or `Infinity`,
   * so that a failure can be followed back to its first cause.
   *
   * @default {1000}
   */
  size?: number;
  /** What to print of an event's data. By default nothing: data may be large, and secret. */
  data?: (event: BusEvent) => string;
}

/**
 * Writes a line for each event that comes in, and for what becomes of it:
 *
 * ```txt
 * in type=order id=5d1c-1 source="table 7"
 * out type=order id=5d1c-1 subscription=kitchen waited=0.2ms depth=3
 * in type=served id=5d1c-2 source=kitchen cause=5d1c-1
 * dropped type=served id=5d1c-2 subscription=board reason=overflow depth=1
 * failed type=served id=5d1c-2 source=kitchen subscription=bookkeeper took=1.5ms error="Error: no ink" <- type=order id=5d1c-1 source="table 7"
 * unheard type=bell id=5d1c-3 source=unknown
 * in type=order id=77a0-8 source="table 9" origin=3fa9c2d1e0b4a697.1
 * ```
 *
 * - **Format:** a word and `key=value` pairs; what is not a plain word is in
 *   quotes, as in JSON. An event is always one line, whatever its names contain.
 * - **Failures:** are followed by all that led to them, back to the first
 *   publisher: `<-` reads "caused by".
 * - **Links:** what came over one has the `origin` of the bus that it was
 *   published on.
 * - **Memory:** bounded by `size` events, twice that at most.
 *
 * @returns What ends it.
 * @throws {RangeError} If an option is out of range.
 * @throws {TypeError} If `write` or an option has the wrong type.
 */
export function logTo(
  bus: Observable,
  write: (line: string) => void,
  options: LogOptions = {},
): Disposable {
  checkFunction("log", "write", write);
  const { size = 1000, data } = options;
  checkCount("log", "size", size, 1);
  if (data !== undefined) checkFunction("log", "data", data);
  const known = new Recent(size);
  return bus.observe({
    published({ event }) {
      known.add(event);
      const shown = data && { data: data(event) };
      write(`in ${pairs({ ...sent(event), cause: event.cause, ...shown })}`);
    },
    delivered({ event, subscription, waited, depth }) {
      const { type, id } = event;
      const line = { type, id, subscription, waited: time(waited), depth };
      write(`out ${pairs(line)}`);
    },
    dropped({ event, subscription, reason, depth }) {
      const { type, id } = event;
      write(`dropped ${pairs({ type, id, subscription, reason, depth })}`);
    },
    failed({ event, subscription, waited, error }) {
      const took = time(waited);
      const failure = { subscription, took, error: describe(error) };
      const causes = known.causes(event).map((cause) => `<- ${pairs(cause)}`);
      const line = pairs({ ...sent(event), ...failure });
      write(["failed", line, ...causes].join(" "));
    },
    unheard({ event }) {
      write(`unheard ${pairs(sent(event))}`);
    },
  });
}

/** Who has sent what, and on which bus, if it came over a link. */
function sent(
  { type, id, source, origin }: BusEvent,
): Record<string, string | undefined> {
  return { type, id, source, origin };
}

/** `key=value`, for each value that is there. */
function pairs(values: Record<string, string | number | undefined>): string {
  return Object.entries(values)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${word(String(value))}`).join(" ");
}

/** As it is if it is a plain word, else as a string of JSON. */
function word(text: string): string {
  return /^[\w.,:/+-]+$/.test(text) ? text : quote(text);
}

function time(milliseconds: number | undefined): string | undefined {
  return milliseconds === undefined
    ? undefined
    : `${Number(milliseconds.toFixed(3))}ms`;
}

/** The last events, at least `size` of them, by id. */
class Recent {
  // Two generations: when the young one is full, it becomes the old one. A map
  // from which the oldest entry is deleted each time would be far slower.
  readonly #size: number;
  #young = new Map<string, BusEvent>();
  #old = new Map<string, BusEvent>();

  constructor(size: number) {
    this.#size = size;
  }

  add(event: BusEvent): void {
    if (this.#young.size >= this.#size) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(event.id, event);
  }

  /** What led to an event, the last cause first; of one that is not known, its id. */
  causes({ id, cause }: BusEvent): Record<string, string | undefined>[] {
    const causes: Record<string, string | undefined>[] = [];
    const seen = new Set([id]); // a chain that runs in a circle ends
    while (cause !== undefined && !seen.has(cause)) {
      seen.add(cause);
      const event = this.#young.get(cause) ?? this.#old.get(cause);
      causes.push(event === undefined ? { id: cause } : sent(event));
      cause = event?.cause;
    }
    return causes;
  }
}

// ----------------------------------------------------------------- recorder

/** Options for a {@linkcode Recorder}. */
export interface RecorderOptions {
  /**
   * How many steps are kept, an integer from 1 or `Infinity`. An event makes one
   * when it is published and up to three for each subscription that gets it.
   *
   * @default {4096}
   */
  size?: number;
}

/** Options for {@linkcode Recorder.toMermaid}. */
export interface MermaidOptions {
  /** Shows only the lineage of this event, given by itself or by its `id`. */
  of?: BusEvent | string;
  /**
   * How many arrows are shown at most, an integer from 1 or `Infinity`; the last
   * ones are. Viewers refuse a text of more than 50,000 characters, so there are
   * fewer if names are long.
   *
   * @default {200}
   */
  limit?: number;
}

/** What became of an event at one subscription, as plain data. */
export interface TracedDelivery {
  /** The name of the subscription. */
  readonly subscription: string;
  /**
   * `queued`: it still waits. `delivered`: its reader has it, what it does with
   * it is unknown. `handling`: the handler has not ended. `failed`: the handler,
   * or the filter, threw.
   */
  readonly state:
    | "queued"
    | "delivered"
    | "handling"
    | "handled"
    | "failed"
    | "dropped";
  /** How many events were in the queue when it was put there, with this one unless it had to wait for a place. */
  readonly depth?: number;
  /** How long it waited from publishing to delivery, in milliseconds. */
  readonly waited?: number;
  /** How long the handler took, in milliseconds. */
  readonly took?: number;
  /** `dropped`: why. */
  readonly reason?: BusStep["reason"];
  /** `failed`: what was thrown, as text. */
  readonly error?: string;
}

/** An event and who got it, as plain data. */
export interface TracedEvent {
  /** Its id. */
  readonly id: string;
  /** What happened. */
  readonly type: string;
  /** Who published it. */
  readonly source: string;
  /** When it was published, in milliseconds since the epoch. */
  readonly time: number;
  /** The id of the event that led to it. */
  readonly cause?: string;
  /** Which bus it was published on, if it came over a link. */
  readonly origin?: string;
  /** Whether it was recorded from its publishing on. If not, deliveries may be missing. */
  readonly complete: boolean;
  /** What became of it at each subscription. */
  readonly deliveries: readonly TracedDelivery[];
}

/** Where an event came from and what it led to, as plain data, ready for `JSON.stringify`. */
export interface Lineage {
  /**
   * What led to the event, the first cause first. If that one has a `cause`
   * itself, the event of this id is not in the recording.
   */
  readonly causes: readonly TracedEvent[];
  /** The event. */
  readonly event: TracedEvent;
  /** What it led to, directly or not, in the order of publishing (by time, where that is not recorded any more). */
  readonly effects: readonly TracedEvent[];
}

/** An entry of a {@linkcode ChromeTrace}. */
export interface ChromeTraceEvent {
  /** Its phase: a name, a slice, an instant, the start or the end of an arrow. */
  readonly ph: "M" | "X" | "i" | "s" | "f";
  /** What is shown. */
  readonly name: string;
  /** Its category. */
  readonly cat?: string;
  /** The process: always the same. */
  readonly pid: number;
  /** The thread: a publisher or a subscription. */
  readonly tid: number;
  /** When it began, in microseconds since the start of the recording. */
  readonly ts?: number;
  /** How long it took, in microseconds. */
  readonly dur?: number;
  /** What an arrow's start and end have in common. */
  readonly id?: number;
  /** `e`: the arrow ends at the slice around it. */
  readonly bp?: "e";
  /** `t`: the instant is shown on its thread. */
  readonly s?: "t";
  /** Details. */
  readonly args?: Readonly<Record<string, unknown>>;
}

/** A recording in the Trace Event Format, for Perfetto and chrome://tracing. */
export interface ChromeTrace {
  /** How times are shown. */
  readonly displayTimeUnit: "ms";
  /** Names, slices and arrows. */
  readonly traceEvents: readonly ChromeTraceEvent[];
  /** How much was recorded, and how much of that is no longer there. */
  readonly otherData: Readonly<Record<string, unknown>>;
}

/** What happened at a step: the name of its method in {@linkcode BusObserver}. */
type Kind = Exclude<keyof BusObserver, "trace" | "around">;

/** A step in a recording. */
interface Entry {
  readonly kind: Kind;
  readonly step: BusStep;
}

// While the bus runs, a step is written over the oldest one, and nothing else
// happens. All that is told about it is made from the steps when asked for:
//
//   steps ──▶ events, with their deliveries ──▶ lineage
//     ├─────▶ arrows between names ───────────▶ Mermaid
//     └─────▶ slices of time on threads ──────▶ Chrome trace

/**
 * Records the last steps of a bus, to be looked at afterwards.
 *
 * - **Cost:** a step is kept as it is; nothing is rendered before it is asked for.
 * - **Memory:** bounded by `size` steps, with the events (and data) they belong
 *   to; those that had to give way are counted.
 * - **Names:** may contain anything. Those who share a name share a place in
 *   diagrams.
 */
export class Recorder implements Disposable {
  readonly #bus: Observable;
  readonly #observing: Disposable;
  readonly #limit: number;
  // A ring, in two arrays.
  readonly #kinds: Kind[] = [];
  readonly #steps: BusStep[] = [];
  #recorded = 0;
  #ended: number | undefined; // when, if it has

  /**
   * Begins to record, until it is disposed of.
   *
   * @throws {RangeError} If `size` is out of range.
   * @throws {TypeError} If `size` is no number.
   */
  constructor(bus: Observable, options: RecorderOptions = {}) {
    const { size = 4096 } = options;
    checkCount("record", "size", size, 1);
    this.#bus = bus;
    this.#limit = size;
    this.#observing = bus.observe({
      published: (step) => this.#note("published", step),
      queued: (step) => this.#note("queued", step),
      dropped: (step) => this.#note("dropped", step),
      delivered: (step) => this.#note("delivered", step),
      handled: (step) => this.#note("handled", step),
      failed: (step) => this.#note("failed", step),
      unheard: (step) => this.#note("unheard", step),
    });
  }

  /** How many steps it holds. */
  get size(): number {
    return this.#steps.length;
  }

  /** How many steps had to give way to later ones. */
  get dropped(): number {
    return this.#recorded - this.#steps.length;
  }

  /**
   * Who sent an event, what led to it, who got it, how long it waited, and what
   * came of it. Nothing if it is not in the recording (any more).
   */
  lineage(event: BusEvent | string): Lineage | undefined {
    return lineageOf(idOf(event), eventsOf(this.#entries()));
  }

  /**
   * Draws the recording as a sequence diagram for Mermaid: who publishes, the
   * bus, who subscribes, and the events that go between them. The same events in
   * the same order make the same text.
   *
   * @throws {RangeError} If `limit` is out of range.
   * @throws {TypeError} If `limit` is no number.
   */
  toMermaid(options: MermaidOptions = {}): string {
    const { of, limit = 200 } = options;
    checkCount("draw", "limit", limit, 1);
    const { name } = this.#bus.inspect();
    const entries = this.#entries();
    if (of === undefined) return sequenceDiagram(entries, name, limit);
    const lineage = lineageOf(idOf(of), eventsOf(entries));
    const family = new Set(
      lineage && [...lineage.causes, lineage.event, ...lineage.effects]
        .map(({ id }) => id),
    );
    const theirs = entries.filter(({ step }) => family.has(step.event.id));
    return sequenceDiagram(theirs, name, limit);
  }

  /**
   * Shows the recording over time, as an object whose JSON opens in Perfetto
   * (https://ui.perfetto.dev) and in chrome://tracing: a thread for each
   * publisher and subscription, a slice for each handler, arrows from an event
   * to those who got it and to those it led to.
   */
  toChromeTrace(): ChromeTrace {
    const timeline = new Timeline();
    for (const entry of this.#entries()) timeline.add(entry);
    return {
      displayTimeUnit: "ms",
      traceEvents: timeline.events(
        this.#bus.inspect().name,
        this.#ended ?? performance.now(),
      ),
      otherData: { recorded: this.#recorded, dropped: this.dropped },
    };
  }

  /** Ends the recording; what was recorded can still be looked at. */
  [Symbol.dispose](): void {
    this.#observing[Symbol.dispose]();
    this.#ended ??= performance.now();
  }

  #note(kind: Kind, step: BusStep): void {
    const place = this.#recorded++ % this.#limit;
    this.#kinds[place] = kind;
    this.#steps[place] = step;
  }

  /** What is recorded, the oldest first. */
  #entries(): Entry[] {
    return this.#steps.map((_, i) => {
      const place = (this.dropped + i) % this.#limit;
      return { kind: this.#kinds[place], step: this.#steps[place] };
    });
  }
}

function idOf(event: BusEvent | string): string {
  return typeof event === "string" ? event : event.id;
}

// ------------------------------------------------------------------ lineage

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };
type Delivery = Mutable<TracedDelivery>;
type Traced = TracedEvent & { readonly deliveries: Delivery[] };

/** The events of a recording by id, in the order of publishing. */
function eventsOf(entries: readonly Entry[]): Map<string, Traced> {
  const events = new Map<string, Traced>();
  const deliveries = new Map<string, Delivery>();
  for (const { kind, step } of entries) {
    const { id, type, source, time, cause, origin } = step.event;
    let event = events.get(id);
    if (event === undefined) {
      const complete = kind === "published";
      const known = {
        ...cause !== undefined && { cause },
        ...origin !== undefined && { origin },
      };
      event = { id, type, source, time, ...known, complete, deliveries: [] };
      events.set(id, event);
    }
    const { subscription } = step;
    if (subscription === undefined) continue;
    const key = deliveryOf(step);
    let delivery = deliveries.get(key);
    if (delivery === undefined) {
      deliveries.set(key, delivery = { subscription, state: "queued" });
      event.deliveries.push(delivery);
    }
    advance(delivery, kind, step);
  }
  // Those whose publishing is not recorded any more came first. Of these only
  // the time is known; it is no good for the others, as clocks are set.
  const all = [...events];
  const early = all.filter(([, { complete }]) => !complete);
  const others = all.filter(([, { complete }]) => complete);
  return new Map([
    ...early.sort(([, a], [, b]) => a.time - b.time),
    ...others,
  ]);
}

/** An event at a subscription: no two deliveries share this. */
function deliveryOf({ event, subscriptionId }: BusStep): string {
  return `${subscriptionId} ${event.id}`;
}

/** Takes a delivery a step further. */
function advance(delivery: Delivery, kind: Kind, step: BusStep): void {
  const { depth, waited, reason, error } = step;
  switch (kind) {
    case "queued":
      delivery.depth = depth;
      break;
    case "delivered":
      delivery.state = step.handler ? "handling" : "delivered";
      delivery.waited = waited;
      break;
    case "dropped":
      delivery.state = "dropped";
      delivery.reason = reason;
      break;
    case "handled":
    case "failed":
      delivery.state = kind;
      if (waited !== undefined) delivery.took = waited;
      if (kind === "failed") delivery.error = describe(error);
  }
}

function lineageOf(
  id: string,
  events: ReadonlyMap<string, Traced>,
): Lineage | undefined {
  const event = events.get(id);
  if (event === undefined) return undefined;

  const before = new Set([event]); // in sets, so that what runs in a circle ends
  for (const { cause } of before) {
    const earlier = cause === undefined ? undefined : events.get(cause);
    if (earlier !== undefined) before.add(earlier);
  }

  const effects = new Map<string, Traced[]>();
  for (const one of events.values()) {
    if (one.cause !== undefined) put(effects, one.cause, one);
  }
  const after = new Set([event]);
  for (const { id } of after) {
    for (const effect of effects.get(id) ?? []) after.add(effect);
  }

  return {
    causes: [...before].slice(1).reverse(),
    event,
    effects: [...events.values()]
      .filter((one) => after.has(one) && !before.has(one)),
  };
}

// ------------------------------------------------------------------ Mermaid

/** What viewers take at most, less the frame. */
const MERMAID_TEXT = 49_000;

/** How many characters of a name or an error are shown. */
const MERMAID_LABEL = 60;

/** A line between the bus and somebody; with nobody, a note at the bus. */
interface Arrow {
  readonly name?: string;
  /** `->>`, from somebody to the bus; `-)`, `-x`, from the bus; `--x`, back to it. */
  readonly line: "->>" | "-)" | "-x" | "--x";
  readonly label: string;
  /** Whether nothing led to it. */
  readonly first?: boolean;
}

/** Who has published an event; of another bus, not to be taken for one of here. */
function publisherOf({ source, origin }: BusEvent): string {
  return origin === undefined ? source : `${source} of ${origin}`;
}

/** How a step is drawn, if it is. */
function arrowOf({ kind, step }: Entry): Arrow | undefined {
  const { event, subscription: name, error, reason } = step;
  const type = labelOf(event.type);
  switch (kind) {
    case "published":
      return {
        name: publisherOf(event),
        line: "->>",
        label: type,
        first: event.cause === undefined,
      };
    case "delivered":
      return { name, line: "-)", label: type };
    case "dropped":
      return { name, line: "-x", label: `${type} dropped, ${reason}` };
    case "failed":
      return {
        name,
        line: "--x",
        label: `${type} failed, ${labelOf(describe(error))}`,
      };
    case "unheard":
      return { line: "-x", label: `${type} is heard by nobody` };
  }
}

function sequenceDiagram(
  entries: readonly Entry[],
  bus: string,
  limit: number,
): string {
  const arrows = entries.map(arrowOf).filter((arrow) => arrow !== undefined);
  const names = new Map<string, string>(); // as they are shown
  let begin = arrows.length;
  let room = MERMAID_TEXT;
  while (begin > 0 && arrows.length - begin < limit) { // the last ones
    const { name, label } = arrows[begin - 1];
    room -= label.length + 20;
    if (name !== undefined && !names.has(name)) {
      names.set(name, labelOf(name));
      room -= names.get(name)!.length + 30;
    }
    if (room < 0) break;
    begin--;
  }

  // Who begins something stands to the left of the bus, the others to its right.
  const ids = new Map<string, string>();
  const left: string[] = [];
  const right: string[] = [];
  const lines: string[] = [];
  if (begin > 0) lines.push(`Note over bus: ${begin} earlier arrows left out`);
  for (const { name, line, label, first } of arrows.slice(begin)) {
    if (name === undefined) {
      lines.push(`Note over bus: ${label}`);
      continue;
    }
    let id = ids.get(name);
    if (id === undefined) {
      ids.set(name, id = `p${ids.size}`);
      (first ? left : right).push(`participant ${id} as ${names.get(name)}`);
    }
    const toBus = line === "->>" || line === "--x";
    const [from, to] = toBus ? [id, "bus"] : ["bus", id];
    lines.push(`${from}${line}${to}: ${label}`);
  }
  const middle = `participant bus as ${labelOf(bus)}`;
  return ["sequenceDiagram", ...left, middle, ...right, ...lines]
    .join("\n  ") + "\n";
}

/** Text that Mermaid shows as it is: whatever could mean something to it becomes an entity. */
function labelOf(text: string): string {
  text = text.slice(0, 2 * MERMAID_LABEL + 2); // enough, and no more work than that
  let shown = text.trim() === "" ? quote(text) : plain(text);
  const characters = [...shown];
  if (characters.length > MERMAID_LABEL) {
    shown = characters.slice(0, MERMAID_LABEL - 1).join("") + "…";
  }
  return shown
    .replace(/[^\p{L}\p{N} _.,()-]/gu, (it) => `#${it.codePointAt(0)};`)
    .replace(/\bend\b/gi, (it) => `#${it.charCodeAt(0)};${it.slice(1)}`);
}

// ------------------------------------------------------------- Chrome trace

/**
 * How many ticks a microsecond has. Times in whole ticks are exact, as numbers
 * and as decimals, so that no viewer's rounding makes slices overlap.
 */
const TICKS = 64;

/** What happened on a thread, in ticks since the start. */
interface Slice {
  readonly name: string;
  readonly from: number;
  /** Absent while it goes on, or if it is not known how long it took. */
  to?: number;
  readonly args: Record<string, unknown>;
  /** Which of the rows of its thread shows it. */
  tid: number;
}

/** An arrow from one slice to another. */
interface Flow {
  readonly name: string;
  readonly from: Slice;
  readonly to: Slice;
}

const PID = 1; // a bus is one process; its threads have other numbers

class Timeline {
  readonly #threads = new Map<string, Slice[]>(); // by role and name
  readonly #running = new Map<string, Slice>(); // while the handler runs, by delivery
  readonly #published = new Map<string, Slice>(); // by event
  readonly #flows: Flow[] = [];
  #start = NaN;
  #now = -1;

  add({ kind, step }: Entry): void {
    const { at, depth, waited, reason } = step;
    if (this.#now < 0) this.#start = at;
    this.#advance(at);

    const { id, type, source, cause, origin } = step.event;
    const published = this.#published.get(id);
    const publisher = `publisher ${publisherOf(step.event)}`;
    const subscription = `subscription ${step.subscription}`;
    const event = {
      id,
      source,
      cause,
      ...origin !== undefined && { origin },
    };
    switch (kind) {
      case "published": {
        const slice = this.#begin(publisher, type, event);
        if (cause !== undefined) {
          this.#flow("cause", this.#published.get(cause), slice);
        }
        this.#published.set(id, slice);
        break;
      }
      case "unheard":
        if (published !== undefined) published.args.unheard = true;
        break;
      case "dropped":
        this.#begin(subscription, `${type} dropped`, {
          ...event,
          reason,
          depth,
        });
        break;
      case "delivered": {
        const args = { ...event, waited, depth };
        const slice = this.#begin(subscription, type, args);
        this.#flow("delivery", published, slice);
        if (step.handler) this.#running.set(deliveryOf(step), slice);
        break;
      }
      case "failed":
      case "handled": {
        const delivery = deliveryOf(step);
        let slice = this.#running.get(delivery);
        this.#running.delete(delivery);
        if (slice !== undefined) slice.to = this.#now;
        else slice = this.#begin(subscription, type, event);
        if (waited !== undefined) slice.args.took = waited;
        if (kind === "failed") slice.args.error = describe(step.error);
      }
    }
  }

  /** What has been added, as the format has it; what goes on yet goes on until `end`. */
  events(bus: string, end: number): ChromeTraceEvent[] {
    this.#advance(end);
    for (const slice of this.#running.values()) {
      slice.to = this.#now;
      slice.args.unfinished = true;
    }
    const events: ChromeTraceEvent[] = [
      named("process_name", PID, plain(bus)),
    ];
    const threads = [...this.#threads].sort(([a], [b]) =>
      Number(a.startsWith("s")) - Number(b.startsWith("s")) // publishers first
    );
    let tid = PID;
    for (const [thread, slices] of threads) {
      rows(slices).forEach((row, i) => {
        tid++;
        const name = i === 0 ? thread : `${thread} (${i + 1})`;
        events.push(named("thread_name", tid, plain(name)));
        row.forEach((slice, i) => {
          slice.tid = tid;
          const next = row[i + 1]?.from ?? Infinity;
          const to = slice.to ?? Math.min(slice.from + TICKS, next);
          const dur = (to - slice.from) / TICKS;
          events.push({ ph: "X", ...placed(slice), dur, args: slice.args });
        });
      });
    }
    this.#flows.forEach(({ name, from, to }, id) => {
      const cat = name;
      events.push({ ph: "s", ...placed(from), name, cat, id });
      events.push({ ph: "f", ...placed(to), name, cat, id, bp: "e" });
    });
    return events;
  }

  // No two steps happen at the same time, whatever the clock says. So causes come
  // before effects, and what follows each other does not overlap.
  #advance(at: number): void {
    const ticks = Math.round((at - this.#start) * 1000 * TICKS);
    this.#now = Math.max(this.#now + 1, ticks);
  }

  #begin(thread: string, name: string, args: Slice["args"]): Slice {
    const slice = { name: plain(name), from: this.#now, tid: 0, args };
    put(this.#threads, thread, slice);
    return slice;
  }

  #flow(name: string, from: Slice | undefined, to: Slice): void {
    if (from !== undefined) this.#flows.push({ name, from, to });
  }
}

/** Puts the slices of a thread on as few rows as it takes for none to overlap. */
function rows(slices: readonly Slice[]): Slice[][] {
  const rows: Slice[][] = [];
  for (const slice of slices) {
    const row = rows.find((row) => {
      const { from, to = from } = row.at(-1)!;
      return to <= slice.from;
    });
    if (row === undefined) rows.push([slice]);
    else row.push(slice);
  }
  return rows;
}

function named(name: string, tid: number, given: string): ChromeTraceEvent {
  return { ph: "M", name, pid: PID, tid, args: { name: given } };
}

function placed({ name, tid, from }: Slice) {
  return { name, pid: PID, tid, ts: from / TICKS };
}

// --------------------------------------------------------------- CloudEvent

export { type CloudEvent, toCloudEvent } from "./_cloudevents.ts";

// ------------------------------------------------------------ OpenTelemetry

/** What {@linkcode toOpenTelemetry} needs of a `SpanContext` of `@opentelemetry/api`. */
export interface SpanContextLike {
  /** 32 hexadecimal digits. */
  traceId: string;
  /** 16 hexadecimal digits. */
  spanId: string;
  /** 1 if it is sampled. */
  traceFlags: number;
  /** Whether it came from elsewhere. */
  isRemote?: boolean;
}

/** What {@linkcode toOpenTelemetry} needs of a `Span` of `@opentelemetry/api`. */
export interface SpanLike {
  /** What others can link to. */
  spanContext(): SpanContextLike;
  /** Notes a detail. */
  setAttribute(key: string, value: string | number): unknown;
  /** Says how it went. */
  setStatus(status: { code: number; message?: string }): unknown;
  /** Notes what was thrown. */
  recordException(exception: Error | string): unknown;
  /** Ends it. */
  end(): void;
}

/** What {@linkcode toOpenTelemetry} says of a span it starts. */
export interface SpanOptionsLike {
  /** 2: client, 3: producer, 4: consumer. */
  kind: number;
  /** Whether it begins a trace of its own. */
  root?: boolean;
  /** Details. */
  attributes: Record<string, string | number>;
  /** The spans that led to it. */
  links: { context: SpanContextLike }[];
}

/** What {@linkcode toOpenTelemetry} needs of a `Tracer` of `@opentelemetry/api`. */
export interface TracerLike {
  /** Starts a span, by default as a child of the active one. */
  // deno-lint-ignore no-explicit-any
  startSpan(name: string, options: SpanOptionsLike, context?: any): SpanLike;
  /** Starts a span, and calls `run` while it is the active one. */
  startActiveSpan<T>(
    name: string,
    options: SpanOptionsLike,
    run: (span: SpanLike) => T,
  ): T;
}

const CLIENT = 2;
const PRODUCER = 3;
const CONSUMER = 4;
const ERROR = 2; // the code of a status

// Spans, named after OpenTelemetry's conventions for messaging:
//
//   publish A ◀┄link┄ process A                      (one for each handler)
//       ▲                 └─child─ publish B ◀┄link┄ process B
//       └┄┄┄┄┄┄ link to the cause ┄┄┄┄┄┘
//
// The context of `publish A` travels in the event, as `trace`.

/**
 * Makes spans of what a bus does, with a tracer of `@opentelemetry/api`:
 *
 * - `publish <type>` (producer), while `publish` puts the event into the queues;
 *   a child of the span that is active there. The event carries its context as
 *   `trace`.
 * - `process <type>` (consumer), while a handler of `on` runs, which it is
 *   active for. A trace of its own, linked to `publish <type>`.
 * - `receive <type>` (client), for a moment, when another reader gets the event;
 *   linked likewise.
 *
 * **Traces from elsewhere:** a valid `trace` that the publisher gives stays in
 * the event. `publish <type>` is then a child of it, and of kind client.
 *
 * **Causes:** `publish <type>` is linked to the span of the event's `cause`.
 *
 * **Failures:** what a handler throws is recorded by its span, and makes it an
 * error; likewise if a subscription or a filter makes the bus refuse the event.
 * A `publish` whose signal has aborted, or on a closed bus, makes no span, and
 * that it waits for a place is in none.
 *
 * **Context:** a `publish <type>` within a given `trace` has nothing but that as
 * its context, no baggage for one.
 *
 * ```ts
 * import { Bus } from "@sauce/queues/bus";
 * import { toOpenTelemetry } from "@sauce/queues/trace";
 * import { trace } from "@opentelemetry/api";
 *
 * const bus = new Bus<{ order: string }>();
 * using _ = toOpenTelemetry(bus, trace.getTracer("restaurant"));
 * ```
 *
 * @returns What ends it, and the spans that are still open.
 */
export function toOpenTelemetry(
  bus: Observable,
  tracer: TracerLike,
): Disposable {
  // A publish is one synchronous step. What is still here after it was refused.
  const publishing = new Map<PublishOptions, SpanLike>();
  const handling = new Map<string, SpanLike>(); // by delivery
  let refusing = false;

  const refuse = () => {
    refusing = false;
    for (const span of publishing.values()) {
      attempt(() => fail(span, "refused", "The bus has not taken the event"));
      attempt(() => span.end());
    }
    publishing.clear();
  };
  const finish = (step: BusStep, failed: boolean) => {
    const delivery = deliveryOf(step);
    const span = handling.get(delivery);
    if (span === undefined) return;
    handling.delete(delivery);
    try {
      if (!failed) return;
      const { error } = step;
      const message = describe(error);
      const thrown = error instanceof Error;
      fail(span, thrown ? String(error.name) : "_OTHER", message);
      span.recordException(thrown ? error : message);
    } finally {
      span.end(); // also if the error cannot be looked at
    }
  };

  const observing = bus.observe({
    trace(type, draft) {
      const { source, cause, trace } = draft;
      const given = parse(trace);
      const span = tracer.startSpan(`publish ${type}`, {
        kind: given ? CLIENT : PRODUCER,
        attributes: attributes("publish", "send", { type, source }),
        links: links(trace, cause?.trace),
      }, given && contextOf(given));
      publishing.set(draft, span);
      if (!refusing) queueMicrotask(refuse);
      refusing = true;
      return given ? trace : format(span.spanContext());
    },
    published({ event, draft }) {
      const span = publishing.get(draft!);
      if (span === undefined) return;
      publishing.delete(draft!);
      span.setAttribute("messaging.message.id", event.id);
      span.end();
    },
    delivered({ event, subscription, handler }) {
      if (handler) return; // `around` follows
      tracer.startSpan(`receive ${event.type}`, {
        kind: CLIENT,
        root: true,
        attributes: attributes("receive", "receive", event, subscription),
        links: links(event.trace),
      }).end();
    },
    around(step, run) {
      const { event, subscription } = step;
      tracer.startActiveSpan(`process ${event.type}`, {
        kind: CONSUMER,
        root: true,
        attributes: attributes("process", "process", event, subscription),
        links: links(event.trace),
      }, (span) => {
        handling.set(deliveryOf(step), span);
        run();
      });
    },
    handled(step) {
      finish(step, false);
    },
    failed(step) {
      finish(step, true);
    },
  });
  return {
    [Symbol.dispose]() {
      observing[Symbol.dispose]();
      for (const span of [...publishing.values(), ...handling.values()]) {
        attempt(() => span.end());
      }
      publishing.clear();
      handling.clear();
    },
  };
}

/** What a span says of an event. */
function attributes(
  operation: string,
  kind: string,
  { type, source, id }: Pick<BusEvent, "type"> & Partial<BusEvent>,
  subscription?: string,
): SpanOptionsLike["attributes"] {
  const attributes: SpanOptionsLike["attributes"] = {
    "messaging.system": "sauce",
    "messaging.operation.name": operation,
    "messaging.operation.type": kind,
    "messaging.destination.name": type,
  };
  if (source !== undefined) attributes["cloudevents.event_source"] = source;
  if (id !== undefined) attributes["messaging.message.id"] = id;
  if (subscription !== undefined) {
    attributes["messaging.destination.subscription.name"] = subscription;
  }
  return attributes;
}

/** Goes on, whatever a span throws. */
function attempt(run: () => void): void {
  try {
    run();
  } catch (error) {
    report(error);
  }
}

function fail(span: SpanLike, type: string, message: string): void {
  span.setAttribute("error.type", type);
  span.setStatus({ code: ERROR, message });
}

/** Links to those of the traces that are valid. */
function links(...traces: (string | undefined)[]): SpanOptionsLike["links"] {
  return traces.map(parse).filter((context) => context !== undefined)
    .map((context) => ({ context }));
}

/** What a `traceparent` of W3C Trace Context says, if it is valid. */
function parse(trace: string | undefined): SpanContextLike | undefined {
  const [, traceId, spanId, flags] = TRACEPARENT.exec(trace ?? "") ?? [];
  if (traceId === undefined) return undefined;
  return { traceId, spanId, traceFlags: parseInt(flags, 16), isRemote: true };
}

/** The other way round. A tracer without an SDK has nothing to say. */
function format({ traceId, spanId, traceFlags }: SpanContextLike) {
  const flags = traceFlags.toString(16).padStart(2, "0");
  const trace = `00-${traceId}-${spanId}-${flags}`;
  return parse(trace) && trace;
}

/**
 * A `Context` of `@opentelemetry/api` in which a span from elsewhere is the
 * active one. The key is, by its own word, the same in all copies of the API.
 */
function contextOf(remote: SpanContextLike) {
  const key = Symbol.for("OpenTelemetry Context Key SPAN");
  const make = (values: ReadonlyMap<symbol, unknown>) => ({
    getValue: (key: symbol) => values.get(key),
    setValue: (key: symbol, value: unknown) =>
      make(new Map(values).set(key, value)),
    deleteValue: (key: symbol) => make(new Map(values).set(key, undefined)),
  });
  return make(new Map([[key, { spanContext: () => remote }]]));
}

// --------------------------------------------------------------- lists, text

/** Adds to the list that a map has for a key. */
function put<K, V>(lists: Map<K, V[]>, key: K, value: V): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [value]);
  else list.push(value);
}

/** Puts text on one line: what breaks it, or cannot be seen, becomes an escape. */
function plain(text: string): string {
  return text.replace(UNSEEN, (it) =>
    it === "\n" ? "\\n" : it.replace(
      /[^]/g,
      (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
    ));
}

/** All but what joins and varies emoji. */
const UNSEEN =
  /(?![\u200d\ufe00-\ufe0f])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/** As {@linkcode plain}, as a string of JSON. */
function quote(text: string): string {
  return `"${plain(text.replace(/["\\]/g, "\\$&"))}"`;
}
