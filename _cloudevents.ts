/**
 * The form in which events leave the process, and come back: CloudEvents 1.0.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

import { describe, invalid, show } from "./_errors.ts";
import { MAX_NAME, MAX_ORIGIN } from "./_limits.ts";
import type { BusEvent } from "./bus.ts";

/** What a `traceparent` of W3C Trace Context is. */
export const TRACEPARENT =
  /^(?!ff|00.{53}.)[\da-f]{2}-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-([\da-f]{2})(?:-.*)?$/;

/** An event as CloudEvents 1.0 has it, in the structured form of its JSON format. */
export interface CloudEvent {
  /** The version of the specification. */
  readonly specversion: "1.0";
  /** The event's `id`. */
  readonly id: string;
  /** The event's `source`, as a reference to a URI. */
  readonly source: string;
  /** The event's `type`. */
  readonly type: string;
  /** The event's `time`, as RFC 3339 has it. */
  readonly time: string;
  /** What `data` is; absent without data. */
  readonly datacontenttype?: "application/json" | "application/octet-stream";
  /** The event's `data`, if it is not binary. */
  readonly data?: unknown;
  /** The event's `data` in base64, if it is a `Uint8Array`. */
  readonly data_base64?: string;
  /** The event's `trace`: the extension "Distributed Tracing". */
  readonly traceparent?: string;
  /** The event's `cause`: the extension "Correlation". */
  readonly causationid?: string;
}

/**
 * Turns an event into a CloudEvent, ready for `JSON.stringify`.
 *
 * - **Source:** a URI stays as it is. Any other name becomes a relative
 *   reference: `front of house` becomes `front%20of%20house`.
 * - **Data:** is not copied. What JSON has no form for is lost, or throws, when
 *   it is stringified; a `Uint8Array` becomes `data_base64`.
 * - **Trace:** one that is not valid is left out, as W3C Trace Context demands.
 *
 * ```ts
 * import { Bus } from "@sauce/queues/bus";
 * import { toCloudEvent } from "@sauce/queues/trace";
 * import { assertEquals } from "@std/assert";
 *
 * const bus = new Bus<{ order: { dish: string } }>();
 * const event = await bus.publish("order", { dish: "soup" }, { source: "table 7" });
 * assertEquals(toCloudEvent(event), {
 *   specversion: "1.0",
 *   id: event.id,
 *   source: "table%207",
 *   type: "order",
 *   time: new Date(event.time).toISOString(),
 *   datacontenttype: "application/json",
 *   data: { dish: "soup" },
 * });
 * ```
 *
 * @throws {RangeError} If `id`, `source` or `type` is empty, or has a character
 * that CloudEvents forbids.
 */
export function toCloudEvent(event: BusEvent): CloudEvent {
  const { id, type, source, data, cause, trace } = event;
  return {
    specversion: "1.0",
    id: attribute("id", id),
    source: reference(attribute("source", source)),
    type: attribute("type", type),
    time: new Date(event.time).toISOString(),
    ...content(data),
    ...trace !== undefined && TRACEPARENT.test(trace) && { traceparent: trace },
    ...cause !== undefined && { causationid: attribute("cause", cause) },
  };
}

/** Refuses what cannot be the value of an attribute. */
function attribute(name: string, value: string): string {
  if (/^[^\p{Cc}\p{Cs}\p{Noncharacter_Code_Point}]+$/u.test(value)) {
    return value;
  }
  const takes = "a string that is not empty, without control characters";
  throw new RangeError(invalid("make a CloudEvent", name, takes, value));
}

/** What RFC 3986 takes for a URI: scheme, perhaps an IP address in brackets, the rest, a fragment. */
const URI =
  /^[a-z][\da-z+.-]*:(?=.)(\/\/([\w\-.~!$&'()*+,;=:]*@)?\[[\da-f:.]+\](:\d*)?)?([\w\-.~!$&'()*+,;=:@/?]|%[\da-f]{2})*(#([\w\-.~!$&'()*+,;=:@/?]|%[\da-f]{2})*)?$/i;

/** A URI as it is, anything else as a path. */
function reference(source: string): string {
  return URI.test(source)
    ? source
    : source.split("/").map(encodeURIComponent).join("/");
}

function content(
  data: unknown,
): Pick<CloudEvent, "datacontenttype" | "data" | "data_base64"> {
  if (data === undefined) return {};
  if (!(data instanceof Uint8Array)) {
    return { datacontenttype: "application/json", data };
  }
  let binary = ""; // in steps: a call takes a limited number of arguments
  for (const byte of data) binary += String.fromCharCode(byte);
  return {
    datacontenttype: "application/octet-stream",
    data_base64: btoa(binary),
  };
}

// ---------------------------------------------------------------- on a link

/** An event as it crosses a link. */
export interface LinkEvent<Type extends string = string, Data = unknown>
  extends BusEvent<Type, Data> {
  /**
   * Its number among the events that its `origin` has sent on this topic, an
   * integer from 1; absent if it comes from something that is no bus of ours.
   */
  readonly seq?: number;
}

/** How many characters an event may have as JSON, if nobody says otherwise. */
export const MAX_SIZE = 1_048_576;

/** How many it has at least: `{"specversion":"1.0","id":"i","source":"s","type":"t"}`. */
export const MIN_SIZE = 54;

const SEQ_DIGITS = 16; // of the largest safe integer

/**
 * Writes an event as a CloudEvent in JSON, with its `origin` and, as
 * `sequence`, its `seq`, if it has these.
 *
 * @throws {RangeError} If something in it is empty, too long, or has a character
 * that CloudEvents forbids; or if all of it has more than `maxSize` characters.
 * @throws {TypeError} If its data has no form in JSON.
 */
export function encodeEvent(
  event: LinkEvent,
  { maxSize = MAX_SIZE }: { maxSize?: number } = {},
): string {
  try {
    return encode(event, maxSize);
  } catch (cause) {
    const { type, id, source } = event;
    const which = `${show(brief(type))} (${brief(id)}) from ` +
      show(brief(source));
    const own = cause instanceof RangeError || cause instanceof TypeError;
    const why = own ? cause.message : describe(cause);
    const Kind = cause instanceof RangeError ? RangeError : TypeError;
    throw new Kind(`Cannot send event ${which}: ${why}`, { cause });
  }
}

function encode(event: LinkEvent, maxSize: number): string {
  const { id, type, source, time, data, cause, trace, origin, seq } = event;
  let text = '{"specversion":"1.0","id":' + quote("id", id) +
    sources.of(source) + types.of(type) + timeOf(time);
  if (data instanceof Uint8Array) {
    const { datacontenttype, data_base64 } = content(data);
    text += `,"datacontenttype":"${datacontenttype}",` +
      `"data_base64":"${data_base64}"`;
  } else if (data !== undefined) {
    const json: string | undefined = JSON.stringify(data);
    if (json === undefined) {
      throw new TypeError(`JSON has no form for ${show(data)}`);
    }
    text += ',"datacontenttype":"application/json","data":' + json;
  }
  if (trace !== undefined && TRACEPARENT.test(trace)) {
    text += ',"traceparent":' + quote("trace", trace);
  }
  if (cause !== undefined) text += ',"causationid":' + quote("cause", cause);
  if (origin !== undefined) {
    text += ',"origin":' + quote("origin", origin, MAX_ORIGIN);
    if (seq !== undefined) {
      text += `,"sequence":"${String(seq).padStart(SEQ_DIGITS, "0")}"`;
    }
  }
  text += "}";
  if (text.length > maxSize) {
    throw new RangeError(
      `as JSON it may have ${maxSize} characters, it has ${text.length}`,
    );
  }
  return text;
}

function quote(name: string, value: string, most = MAX_NAME): string {
  if (value.length > most) {
    throw new RangeError(
      `${name} may have ${most} characters, it has ${value.length}`,
    );
  }
  return JSON.stringify(attribute(name, value));
}

/** What was made of names lately: most events have one of a few. */
class Memo {
  readonly #made = new Map<string, string>();
  readonly #make: (name: string) => string;

  constructor(make: (name: string) => string) {
    this.#make = make;
  }

  of(name: string): string {
    let made = this.#made.get(name);
    if (made === undefined) {
      made = this.#make(name);
      if (this.#made.size >= 256) this.#made.clear();
      this.#made.set(name, made);
    }
    return made;
  }
}

const types = /* @__PURE__ */ new Memo((type) =>
  ',"type":' + quote("type", type)
);
const sources = /* @__PURE__ */ new Memo((source) => {
  quote("source", source);
  return ',"source":' + JSON.stringify(reference(source));
});

let lastTime = NaN;
let lastText = "";

/** To make the text is dear, and many events have the same time. */
function timeOf(time: number): string {
  if (time !== lastTime) {
    lastText = `,"time":"${new Date(time).toISOString()}"`;
    lastTime = time;
  }
  return lastText;
}

/**
 * Reads an event that {@linkcode encodeEvent} has written, or any other
 * CloudEvent in JSON, after it has checked it: its size, its form, the type of
 * each field, and that `data` has no field by which the prototype of an object
 * could be changed.
 *
 * @throws {RangeError} If it has more than `maxSize` characters.
 * @throws {TypeError} If it is no such event; the message says why.
 */
export function decodeEvent(
  text: string,
  { maxSize = MAX_SIZE }: { maxSize?: number } = {},
): LinkEvent {
  return fromCloudEvent(parseJson(text, maxSize));
}

/** Reads JSON that comes from elsewhere. */
export function parseJson(text: unknown, maxSize: number): unknown {
  if (typeof text !== "string") {
    throw new TypeError(
      `Cannot read event: it must be text, got ${show(text)}`,
    );
  }
  if (text.length > maxSize) {
    throw new RangeError(
      `Cannot read event: it may have ${maxSize} characters, ` +
        `it has ${text.length}`,
    );
  }
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch { // what the runtime says of it may quote it
    throw new TypeError("Cannot read event: it is no JSON");
  }
  if (SUSPECT.test(text) && hasTrap(found)) {
    throw new TypeError(
      "Cannot read event: it has a field that would change a prototype",
    );
  }
  return found;
}

/** `__proto__` and `prototype`, or letters of them in disguise. */
const SUSPECT = /proto|\\u00[5-7]/i;

/** Whether a merge into another object would change a prototype. */
function hasTrap(found: unknown): boolean {
  const left = [found];
  while (left.length > 0) {
    const thing = left.pop();
    if (typeof thing !== "object" || thing === null) continue;
    if (Object.hasOwn(thing, "__proto__")) return true;
    const { constructor } = thing as { constructor: unknown };
    if (
      typeof constructor === "object" && constructor !== null &&
      Object.hasOwn(constructor, "prototype")
    ) return true;
    for (const part of Object.values(thing)) left.push(part);
  }
  return false;
}

/**
 * Makes an event of what should be a CloudEvent.
 *
 * @throws {TypeError} If it is none.
 */
export function fromCloudEvent(found: unknown): LinkEvent {
  if (typeof found !== "object" || found === null || Array.isArray(found)) {
    refuse("it", "an object", found);
  }
  const {
    specversion,
    id,
    source,
    type,
    time,
    data,
    data_base64,
    traceparent,
    causationid,
    origin,
    sequence,
  } = found as Record<string, unknown>;
  if (specversion !== "1.0") refuse("specversion", '"1.0"', specversion);
  checkName("id", id);
  checkName("source", source, 9 * MAX_NAME); // a character may be `%E6%97%A9`
  checkName("type", type);
  const name = names.of(source);
  checkName("source", name);
  const event: { -readonly [K in keyof LinkEvent]: LinkEvent[K] } = {
    id,
    type,
    source: name,
    time: time === undefined ? Date.now() : millisecondsOf(time),
    data: data_base64 === undefined ? data : bytesOf(data_base64),
  };
  if (causationid !== undefined) {
    checkName("causationid", causationid);
    event.cause = causationid;
  }
  if (traceparent !== undefined) {
    checkName("traceparent", traceparent);
    event.trace = traceparent;
  }
  if (origin !== undefined) {
    checkName("origin", origin, MAX_ORIGIN);
    event.origin = origin;
    if (sequence !== undefined) event.seq = seqOf(sequence);
  }
  return event;
}

function refuse(name: string, takes: string, found: unknown): never {
  throw new TypeError(invalid("read event", name, takes, brief(found)));
}

/** Not all of it, be it large. */
function brief(found: unknown): unknown {
  return typeof found === "string" && found.length > 50
    ? `${found.slice(0, 50)}…`
    : found;
}

function checkName(
  name: string,
  found: unknown,
  most = MAX_NAME,
): asserts found is string {
  if (typeof found === "string" && found.length > 0 && found.length <= most) {
    return;
  }
  refuse(name, `a string of 1 to ${most} characters`, found);
}

/** The other way round than `reference`. */
function nameOf(source: string): string {
  if (!source.includes("%") || URI.test(source)) return source;
  try {
    return source.split("/").map(decodeURIComponent).join("/");
  } catch { // it is not one of ours
    return source;
  }
}

const names = /* @__PURE__ */ new Memo(nameOf);

const RFC3339 =
  /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/i;

let lastRead = "";
let lastMilliseconds = 0;

function millisecondsOf(time: unknown): number {
  if (time === lastRead) return lastMilliseconds;
  const read = typeof time === "string" && RFC3339.test(time)
    ? Date.parse(time.toUpperCase())
    : NaN;
  if (Number.isNaN(read)) refuse("time", "a time as RFC 3339 has it", time);
  lastRead = time as string;
  return lastMilliseconds = read;
}

function bytesOf(base64: unknown): Uint8Array {
  try {
    if (typeof base64 !== "string") throw 0;
    return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  } catch {
    refuse("data_base64", "bytes in base64", base64);
  }
}

function seqOf(sequence: unknown): number {
  const seq = typeof sequence === "string" && /^\d{1,16}$/.test(sequence)
    ? Number(sequence)
    : 0;
  if (!Number.isSafeInteger(seq) || seq < 1) {
    refuse("sequence", "an integer from 1 in a string", sequence);
  }
  return seq;
}
