/**
 * Shows a live bus on a web page: who publishes, who subscribes, whose queue
 * holds publishers back, what becomes of each event.
 *
 * ```ts
 * import { Bus } from "@sauce/queues/bus";
 * import { inspector } from "@sauce/queues/inspector";
 * import { assertEquals } from "@std/assert";
 *
 * const bus = new Bus<{ order: string }>();
 * const inspect = inspector(bus);
 *
 * // Under any server: Deno.serve, Bun.serve, a Worker, Node's http.
 * function serve(request: Request): Response {
 *   const { pathname } = new URL(request.url);
 *   if (pathname.startsWith("/inspect/")) return inspect(request);
 *   return new Response("Hello\n");
 * }
 *
 * const page = serve(new Request("http://127.0.0.1/inspect/"));
 * assertEquals(page.headers.get("content-type"), "text/html; charset=utf-8");
 * ```
 *
 * Who can see the page sees what the bus does: mount it where only they can.
 *
 * @module
 */

import {
  checkCount,
  checkFunction,
  checkObject,
  describe,
  invalid,
  report,
} from "./_errors.ts";
import { randomId } from "./_id.ts";
import { page } from "./_inspector_page.ts";
import { hasAborted, Watch } from "./_line.ts";
import type {
  BusEvent,
  BusObserver,
  BusSnapshot,
  BusStep,
  SubscriptionSnapshot,
} from "./bus.ts";
import type { Serializer, SerializerSnapshot } from "./serializer.ts";
import type { Observable } from "./trace.ts";

export type { Observable };

/** What is needed of a serializer to show it: any `Serializer` or `WorkerSerializer` will do. */
export interface InspectableSerializer
  extends Pick<Serializer<unknown>, "waiting" | "running" | "closed"> {
  /** Without it, the age of the oldest request is not shown. */
  inspect?(): SerializerSnapshot;
}

/** What is to be shown, if it is not one bus alone. */
export interface Inspected {
  /** Buses. */
  readonly buses?: readonly Observable[];
  /** Serializers, by the names that they are shown with. */
  readonly serializers?: { readonly [name: string]: InspectableSerializer };
}

/** Options for {@linkcode inspector}. */
export interface InspectorOptions {
  /**
   * Whether the data of events is shown. By default only what kind of data it
   * is, and how much: a bus carries secrets. A function returns what is shown in
   * place of the data.
   *
   * @default {false}
   */
  showData?: boolean | ((event: BusEvent) => unknown);
  /**
   * Whether the messages of errors are shown: they may quote data. By default
   * only what kind of error it is.
   *
   * @default {false}
   */
  showErrors?: boolean;
  /**
   * By which host names the page may be reached, besides `localhost` and
   * addresses such as 127.0.0.1. Others are refused, since any web site can give
   * a machine of yours a name of its own, and read along in your browser.
   *
   * @default {[]}
   */
  hosts?: readonly string[];
  /**
   * How many pages may be open at a time, an integer from 1 or `Infinity`.
   * Further ones have to wait.
   *
   * @default {4}
   */
  maxPages?: number;
}

const TICK = 200; // ms between two frames
const STEPS = 2000; // in a frame: about 10,000 a second
const BEHIND = 4; // frames that a page may have not taken yet
const PATIENCE = 150; // frames, until a page that takes none is let go: 30 seconds
const SUBSCRIPTIONS = 200; // of a bus, in a frame
const TYPES = 20; // of a subscription
const NAME = 200; // characters of a name
const TEXT = 300; // characters of data, or of an error
const ITEMS = 20; // of an array or an object that is shown
const DEPTH = 3; // of what is shown

// The way of an event to a page:
//
//   bus ──steps──▶ Sample ──frame──▶ Page ──server-sent events──▶ the browser
//
// A Sample observes its bus until it has as many steps as a frame may have, and
// again once that frame is made: on a bus that is busier than that it looks at
// the beginning of each fifth of a second. Counts are those of the bus itself.
// All that is shown is put together in the browser; here is nothing between two
// frames but the steps of the next one.

/**
 * Returns what answers requests for a page that shows what goes on: a handler to
 * be mounted under any server, at a path that ends in a slash.
 *
 * - **Reads only:** it changes nothing.
 * - **Cost:** nothing while no page is open, as it observes only then. A page
 *   looks at some 10,000 steps a second at most, and says so if there are more;
 *   totals are exact.
 * - **Memory:** bounded: nothing is kept here but what a page has not taken yet.
 * - **Requests:** `GET` of the page, and of its `events`, by no other site, and
 *   by no host name that it has not been told; all others are refused.
 * - **Names:** may contain anything; 200 characters of each are shown.
 *
 * @throws {RangeError} If an option is out of range.
 * @throws {TypeError} If an argument has the wrong type.
 */
export function inspector(
  target: Observable | Inspected,
  options: InspectorOptions = {},
): (request: Request) => Response {
  const inspected = checkInspected(target);
  checkObject("inspect", "options", options);
  const { showData = false, showErrors = false, hosts = [], maxPages = 4 } =
    options;
  if (typeof showData !== "boolean" && typeof showData !== "function") {
    const takes = "a boolean or a function";
    throw new TypeError(invalid("inspect", "showData", takes, showData));
  }
  if (typeof showErrors !== "boolean") {
    throw new TypeError(
      invalid("inspect", "showErrors", "a boolean", showErrors),
    );
  }
  if (!Array.isArray(hosts) || hosts.some((host) => typeof host !== "string")) {
    throw new TypeError(
      invalid("inspect", "hosts", "an array of strings", hosts),
    );
  }
  const names = new Set(hosts.map((host) => host.toLowerCase()));
  checkCount("inspect", "maxPages", maxPages, 1);
  const shows: Shows = { data: showData, errors: showErrors };
  const pages = new Set<Page>();
  let session: string | undefined; // ids begin anew with it

  return (request) => {
    const { method, headers, signal } = request;
    const { pathname: path, hostname, host } = new URL(request.url);
    if (!isOurs(hostname) && !names.has(hostname)) {
      return refuse(403, "Not by this host name: it is not among the `hosts`");
    }
    const isPage = path.endsWith("/");
    if (!isPage && !path.endsWith("/events")) {
      return refuse(
        404,
        "Not found: the page is at a path that ends in a slash",
      );
    }
    if (method !== "GET") {
      return refuse(405, "Takes GET only", { allow: "GET" });
    }
    if (isPage) return pageResponse();
    const site = headers.get("sec-fetch-site") ?? "none"; // by https and to localhost
    const origin = headers.get("origin") ?? `http://${host}`; // of other sites, if they can read
    if (
      !/^(same-origin|none)$/.test(site) ||
      origin.replace(/^https?:\/\//, "") !== host
    ) {
      return refuse(403, "Not for other sites");
    }
    if (signal !== undefined && hasAborted(signal)) {
      return refuse(499, "You have left");
    }
    if (pages.size >= maxPages) {
      return refuse(503, "Too many pages are open", { "retry-after": "5" });
    }
    session ??= randomId();
    const page: Page = new Page(inspected, shows, session, () => {
      pages.delete(page);
    });
    pages.add(page);
    return new Response(page.open(signal), {
      headers: {
        ...HEADERS,
        "content-type": "text/event-stream",
        "x-accel-buffering": "no", // or nginx keeps it back
      },
    });
  };
}

const HEADERS = {
  "cache-control": "no-store",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
};

/** Whether no web site can have made up this name for a machine. */
function isOurs(hostname: string): boolean {
  return /^(\d+\.\d+\.\d+\.\d+|\[.*\]|(.*\.)?localhost)$/.test(hostname);
}

function refuse(
  status: number,
  why: string,
  headers?: Record<string, string>,
): Response {
  return new Response(`${why}\n`, {
    status,
    headers: { ...HEADERS, "content-type": "text/plain", ...headers },
  });
}

function pageResponse(): Response {
  const nonce = randomId(16);
  const policy = {
    "default-src": "'none'",
    "script-src": `'nonce-${nonce}'`,
    "style-src": `'nonce-${nonce}'`,
    "connect-src": "'self'",
    "img-src": "data:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
  };
  return new Response(page(nonce), {
    headers: {
      ...HEADERS,
      "content-type": "text/html; charset=utf-8",
      "content-security-policy": Object.entries(policy)
        .map(([directive, value]) => `${directive} ${value}`).join("; "),
    },
  });
}

/** What may be shown of what passes. */
interface Shows {
  readonly data: Required<InspectorOptions>["showData"];
  readonly errors: boolean;
}

/** What is shown, whichever way it was given. */
interface Sources {
  readonly buses: readonly Observable[];
  readonly serializers: readonly (readonly [string, InspectableSerializer])[];
}

function checkInspected(target: Observable | Inspected): Sources {
  const action = "inspect";
  const takes = "a Bus, or an object";
  checkObject(action, "what is shown", target, takes);
  if (Array.isArray(target)) {
    throw new TypeError(invalid(action, "what is shown", takes, target));
  }
  const { buses = [], serializers = {} } = "observe" in target
    ? { buses: [target] }
    : target;
  if (!Array.isArray(buses)) {
    throw new TypeError(invalid(action, "buses", "an array", buses));
  }
  for (const bus of buses) {
    checkObject(action, "each of buses", bus, "a Bus");
    checkFunction(action, "observe of each of buses", bus.observe);
    checkFunction(action, "inspect of each of buses", bus.inspect);
  }
  checkObject(action, "serializers", serializers);
  const named = Object.entries(serializers);
  for (const [name, serializer] of named) {
    checkObject(action, `serializers.${name}`, serializer, "a Serializer");
  }
  return { buses: [...new Set(buses)], serializers: named };
}

/** One open page: it observes from `open` until it is over. */
class Page {
  readonly #samples: readonly Sample[];
  readonly #serializers: Sources["serializers"];
  readonly #session: string;
  readonly #onEnd: () => void;
  #client: ReadableStreamDefaultController<Uint8Array> | undefined; // until it is over
  #timer: ReturnType<typeof setInterval> | undefined;
  #watch: Watch | undefined;
  #behind = 0; // frames that were not made, one after the other

  constructor(
    { buses, serializers }: Sources,
    shows: Shows,
    session: string,
    onEnd: () => void,
  ) {
    const most = Math.ceil(STEPS / Math.max(1, buses.length));
    this.#samples = buses.map((bus) => new Sample(bus, most, shows));
    this.#serializers = serializers;
    this.#session = session;
    this.#onEnd = onEnd;
  }

  /** Begins; what it returns is the body of the response. It ends when that is cancelled, or `signal` aborts. */
  open(signal: AbortSignal | undefined): ReadableStream<Uint8Array> {
    return new ReadableStream({
      start: (client) => {
        this.#client = client;
        if (signal !== undefined) {
          this.#watch = new Watch(signal, { abort: () => this.#end() });
        }
        client.enqueue(
          encode(
            `retry: 1000\nevent: hello\n${dataOf({ session: this.#session })}`,
          ),
        );
        this.#send(client);
        if (this.#client !== undefined) {
          this.#timer = setInterval(() => this.#tick(), TICK);
        }
      },
      cancel: () => this.#end(),
    }, { highWaterMark: BEHIND });
  }

  #tick(): void {
    const client = this.#client;
    if (client === undefined) return;
    if (client.desiredSize! > 0) {
      this.#behind = 0;
      this.#send(client);
    } else if (++this.#behind > PATIENCE) this.#end();
  }

  /** Sends a frame. */
  #send(client: ReadableStreamDefaultController<Uint8Array>): void {
    try {
      const frame = {
        at: Date.now(),
        buses: numbered(this.#samples.map((sample) => sample.take())),
        serializers: this.#serializers.map(lookAt),
      };
      if (this.#client !== undefined) client.enqueue(encode(dataOf(frame)));
    } catch (error) { // something that is inspected does not let itself be
      this.#end();
      report(error);
    }
    if (this.#client === undefined) this.#stop(); // it may have ended in the middle of that
  }

  #stop(): void {
    for (const sample of this.#samples) sample.end();
  }

  #end(): void {
    const client = this.#client;
    if (client === undefined) return;
    this.#client = undefined;
    clearInterval(this.#timer);
    this.#watch?.end();
    this.#stop();
    this.#onEnd();
    try {
      client.close();
    } catch { // it is cancelled
    }
  }
}

const encode = (text: string) => new TextEncoder().encode(text);

/** A message of server-sent events; JSON has no line breaks of its own. */
const dataOf = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`;

/** Tells those of one name apart. */
function numbered<T extends { name: string }>(all: readonly T[]): T[] {
  const times = new Map<string, number>();
  return all.map((one) => {
    const time = (times.get(one.name) ?? 0) + 1;
    times.set(one.name, time);
    return time === 1 ? one : { ...one, name: `${one.name} (${time})` };
  });
}

function lookAt([name, serializer]: Sources["serializers"][number]) {
  const { waiting, running, closed } = serializer;
  const oldestSince = serializer.inspect?.().oldestSince ?? null;
  return { name: clip(name), waiting, running, closed, oldestSince };
}

/** The methods of an observer that are told a step; a frame has their places in this. */
const KINDS = [
  "published",
  "queued",
  "dropped",
  "delivered",
  "handled",
  "failed",
  "unheard",
] as const satisfies readonly (keyof BusObserver)[];

/** What subscriptions have counted. */
interface Counts {
  delivered: number;
  dropped: number;
  failed: number;
}

/** What a page sees of a bus. */
class Sample {
  readonly #bus: Observable;
  readonly #most: number;
  readonly #shows: Shows;
  readonly #observer: BusObserver;
  #observing: Disposable | undefined;
  #kinds: number[] = [];
  #steps: BusStep[] = [];
  #last: Map<number, Counts> | undefined; // by subscription, at the last frame
  readonly #total: Counts = { delivered: 0, dropped: 0, failed: 0 };

  constructor(bus: Observable, most: number, shows: Shows) {
    this.#bus = bus;
    this.#most = most;
    this.#shows = shows;
    this.#observer = Object.fromEntries(
      KINDS.map((name, kind) => [
        name,
        (step: BusStep) => this.#note(kind, step),
      ]),
    );
  }

  #note(kind: number, step: BusStep): void {
    this.#kinds.push(kind);
    this.#steps.push(step);
    if (this.#steps.length >= this.#most) this.end(); // enough for this frame
  }

  /** Stops to observe. */
  end(): void {
    this.#observing?.[Symbol.dispose]();
    this.#observing = undefined;
  }

  /** What there is to tell since the last time; goes on to observe. */
  take() {
    const [kinds, steps] = [this.#kinds, this.#steps];
    this.#kinds = [];
    this.#steps = [];
    const snapshot = this.#bus.inspect();
    const { name, closed, published, subscriptions, links = [] } = snapshot;
    const whole = this.#observing !== undefined || this.#last === undefined;
    this.#count(snapshot, kinds, steps);
    this.#observing ??= this.#bus.observe(this.#observer);
    const events = new Map<BusEvent, number>();
    const placeOf = (event: BusEvent) => {
      let place = events.get(event);
      if (place === undefined) events.set(event, place = events.size);
      return place;
    };
    const shown = subscriptions.length <= SUBSCRIPTIONS
      ? subscriptions
      : [...subscriptions].sort(byTrouble).slice(0, SUBSCRIPTIONS);
    return {
      name: clip(name),
      closed,
      published,
      ...this.#total,
      held: subscriptions.filter(({ waiting }) => waiting > 0).length,
      subscriptions: shown.map(shownSubscription),
      more: subscriptions.length - shown.length,
      links: links.map(({ name, state, sent, received, lost }) => (
        { name: clip(name), state, sent, received, lost }
      )),
      /** Whether all that has happened is here. */
      whole,
      steps: steps.map((step, i) => this.#shownStep(kinds[i], step, placeOf)),
      events: [...events.keys()].map((event) => this.#shownEvent(event)),
    };
  }

  /** Adds up what subscriptions have counted; of those that have gone, what was seen since. */
  #count(
    { subscriptions }: BusSnapshot,
    kinds: readonly number[],
    steps: readonly BusStep[],
  ): void {
    const total = this.#total;
    const last = this.#last;
    this.#last = new Map();
    for (const { id, delivered, dropped, failed } of subscriptions) {
      const before = last?.get(id);
      total.delivered += delivered - (before?.delivered ?? 0);
      total.dropped += dropped - (before?.dropped ?? 0);
      total.failed += failed - (before?.failed ?? 0);
      this.#last.set(id, { delivered, dropped, failed });
    }
    steps.forEach(({ subscriptionId: id, reason = "overflow" }, i) => {
      const kind = KINDS[kinds[i]];
      if (kind !== "delivered" && kind !== "dropped" && kind !== "failed") {
        return;
      }
      if (id === undefined || this.#last!.has(id)) return;
      if (reason === "overflow") total[kind]++;
    });
  }

  #shownEvent(event: BusEvent) {
    const { id, type, source, time, cause, trace, origin } = event;
    return {
      id: clip(id),
      type: clip(type),
      source: clip(source),
      time,
      cause: cause === undefined ? undefined : clip(cause),
      trace: trace === undefined ? undefined : clip(trace),
      origin: origin === undefined ? undefined : clip(origin),
      data: this.#shownData(event),
    };
  }

  #shownData(event: BusEvent): string {
    const { data: showData, errors } = this.#shows;
    if (showData === false) return kindOf(event.data);
    try {
      return preview(showData === true ? event.data : showData(event));
    } catch (error) {
      return clip(`showData has failed: ${said(error, errors)}`, TEXT);
    }
  }

  /** A step as a frame has it: kind, event, subscription, its name, when, waited, depth, and what else there is. */
  #shownStep(
    kind: number,
    step: BusStep,
    placeOf: (event: BusEvent) => number,
  ): unknown[] {
    const { event, subscriptionId, subscription, at, waited, depth } = step;
    return [
      kind,
      placeOf(event),
      subscriptionId,
      subscription === undefined ? undefined : clip(subscription),
      exact(at),
      exact(waited),
      depth,
      "error" in step
        ? said(step.error, this.#shows.errors)
        : step.reason ?? step.handler,
    ];
  }
}

/** Those first that publishers wait for, then those that fail, or get most. */
function byTrouble(a: SubscriptionSnapshot, b: SubscriptionSnapshot): number {
  return b.waiting - a.waiting || b.failed - a.failed ||
    b.delivered - a.delivered;
}

function shownSubscription(subscription: SubscriptionSnapshot) {
  const { name, types } = subscription;
  return {
    ...subscription,
    name: clip(name),
    types: types.slice(0, TYPES).map((type) => clip(type)),
    moreTypes: Math.max(0, types.length - TYPES),
  };
}

/** Milliseconds, to the microsecond. */
function exact(milliseconds: number | undefined): number | undefined {
  return milliseconds && Math.round(milliseconds * 1000) / 1000;
}

/** The beginning of a text, without what would turn around the text beside it, such as U+202E. */
function clip(text: string, most: number = NAME): string {
  const short = text.length <= most
    ? text
    : `${text.slice(0, most - 1).replace(/[\ud800-\udbff]$/, "")}…`;
  return short.replace(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

/** What was thrown, as text: all of it, or only what kind of thing it is. */
function said(error: unknown, showErrors: boolean): string {
  if (showErrors) {
    return clip(
      describe(typeof error === "string" ? clip(error) : error),
      TEXT,
    );
  }
  try {
    if (error instanceof Error) return clip(String(error.name));
  } catch { // it is a proxy, say
  }
  return kindOf(error);
}

/** What kind of data it is, and how much, if that is known at once. */
function kindOf(data: unknown): string {
  try {
    if (typeof data === "string") {
      return count("string", data.length, "character");
    }
    if (typeof data !== "object") return typeof data;
    if (data === null) return "null";
    if (Array.isArray(data)) return count("array", data.length, "item");
    if (ArrayBuffer.isView(data) || data instanceof ArrayBuffer) {
      return count("bytes", data.byteLength, "byte");
    }
    if (data instanceof Map) return count("map", data.size, "entry", "entries");
    if (data instanceof Set) return count("set", data.size, "item");
  } catch { // it is a proxy, say
  }
  return "object";
}

function count(kind: string, size: number, one: string, many = `${one}s`) {
  return `${kind}, ${size} ${size === 1 ? one : many}`;
}

/** The beginning of a value, as text. Looks at values only, and calls no getter but those of errors. */
function preview(value: unknown): string {
  let text = "";
  const write = (part: string) => text += clip(part, TEXT);
  const show = (value: unknown, depth: number): void => {
    if (text.length > TEXT) return;
    if (typeof value === "string") write(JSON.stringify(clip(value, TEXT)));
    else if (typeof value === "bigint") {
      const isShort = BigInt.asIntN(64, value) === value; // others may take long to write
      write(isShort ? `${value}n` : "a large bigint");
    } else if (typeof value === "function") write("a function");
    else if (typeof value !== "object" || value === null) write(String(value));
    else if (value instanceof Error) write(describe(value));
    else if (value instanceof Date) write(`${Number(value)} ms`);
    else if (
      ArrayBuffer.isView(value) || value instanceof ArrayBuffer
    ) write(kindOf(value));
    else if (depth >= DEPTH) write(kindOf(value));
    else if (value instanceof Map || value instanceof Set) {
      write(`${kindOf(value)}: `);
      const items: unknown[] = [];
      for (const item of value) {
        items.push(item);
        if (items.length > ITEMS) break;
      }
      showAll(items, depth);
    } else showAll(value, depth);
  };
  const showAll = (value: object, depth: number) => {
    const isArray = Array.isArray(value);
    write(isArray ? "[" : "{");
    const keys: Iterable<string> = isArray
      ? Array.from(
        { length: Math.min(value.length, ITEMS + 1) },
        (_, i) => `${i}`,
      )
      : Object.keys(value);
    let items = 0;
    for (const key of keys) {
      if (text.length > TEXT) return;
      if (items > 0) write(", ");
      if (items++ >= ITEMS) {
        write("…");
        break;
      }
      if (!isArray) write(`${clip(key)}: `);
      const found = Object.getOwnPropertyDescriptor(value, key);
      if (found === undefined || "value" in found) {
        show(found?.value, depth + 1);
      } else write("a getter");
    }
    write(isArray ? "]" : "}");
  };
  try {
    show(value, 0);
  } catch { // it is a proxy, say
    write("cannot be shown");
  }
  return clip(text, TEXT);
}
