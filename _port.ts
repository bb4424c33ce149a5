/**
 * The ports that messages go through, whatever runtime they come from.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

import { describe, invalid, show } from "./_errors.ts";

/** A `MessagePort`, a `Worker`, a worker's own scope, or their likes in Node's `worker_threads`. */
export interface PortLike {
  /** Sends a message to the other end. */
  postMessage(message: unknown, transfer?: object[]): void;
}

/** What a port may have besides; which of it tells what kind of port it is. */
interface Port extends PortLike {
  addEventListener?(type: string, listener: (event: Event) => void): void;
  removeEventListener?(type: string, listener: (event: Event) => void): void;
  on?(type: string, listener: (detail: unknown) => void): void;
  off?(type: string, listener: (detail: unknown) => void): void;
  terminate?(): unknown;
  start?(): void;
}

/** Who hears what comes through a port; functions that need no `this`. */
export interface Hearer {
  /** A message has come. */
  readonly message: (data: unknown) => void;
  /** A message has come that could not be read here. */
  readonly unreadable: () => void;
  /** The other end is gone: `why`, in half a sentence, and the error that tells of it, if any. */
  readonly died: (why: string, cause?: unknown) => void;
  /** Not to be told of that before all that the other end has said has come. */
  readonly patient?: boolean;
}

/** One party's use of a port, which others may use, too. */
export class Wire {
  readonly #port: Port;
  readonly #hearer: Hearer;

  /**
   * Begins to listen.
   *
   * @throws {TypeError} If `port` is none.
   */
  constructor(action: string, port: PortLike, hearer: Hearer) {
    this.#port = checkPort(action, port);
    this.#hearer = hearer;
    let ear = ears.get(this.#port);
    if (ear === undefined) ears.set(this.#port, ear = new Ear(this.#port));
    ear.add(hearer);
    this.#port.start?.();
  }

  /** Sends a message; throws if it, or what is to be transferred, cannot be sent. */
  post(message: unknown, transfer?: object[]): void {
    if (transfer === undefined) this.#port.postMessage(message);
    else this.#port.postMessage(message, transfer);
  }

  /** Listens no more. */
  end(): void {
    ears.get(this.#port)?.remove(this.#hearer);
  }
}

/** For how many turns, at most, what a worker has said may come after its failure. */
const SETTLING = 1000;

/** Listens to a port for all who use it: Node warns of many listeners. */
class Ear {
  readonly #port: Port;
  /** Who listens, each with its number, in this order. */
  readonly #hearers = new Map<Hearer, number>();
  #nextNumber = 0;
  readonly #listening: (() => void)[] = [];
  /** Why it has failed, and the error that tells of it, until that is told. */
  #failure: [why: string, cause: unknown] | undefined;
  /** How many messages have come. */
  #heard = 0;

  constructor(port: Port) {
    this.#port = port;
  }

  add(hearer: Hearer): void {
    this.#hearers.set(hearer, this.#nextNumber++);
    if (this.#hearers.size > 1) return;
    if (this.#port.on !== undefined) this.#listenAsNode();
    else this.#listenAsWeb();
  }

  remove(hearer: Hearer): void {
    if (!this.#hearers.delete(hearer) || this.#hearers.size > 0) return;
    for (const stop of this.#listening.splice(0)) stop();
  }

  /** Tells those who listen now, unless they end meanwhile. */
  #tell(what: (hearer: Hearer) => void): void {
    const next = this.#nextNumber;
    for (const [hearer, number] of this.#hearers) {
      if (number >= next) return; // it has come meanwhile
      what(hearer);
    }
  }

  #message(data: unknown): void {
    this.#heard++;
    this.#tell((hearer) => hearer.message(data));
  }

  readonly #unreadable = () => this.#tell((hearer) => hearer.unreadable());

  /** It has failed; what it has said before may still be on its way. */
  #failed(why: string, cause: unknown): void {
    this.#failure ??= [why, cause];
    this.#tell((hearer) => hearer.patient || hearer.died(why, cause));
  }

  /** Nothing comes any more. */
  #died(why: string): void {
    const [reason, cause] = this.#failure ?? [why];
    this.#failure = undefined; // in a page it lives on, and may fail again
    this.#tell((hearer) => hearer.died(reason, cause));
  }

  // Node's ports have `addEventListener` as well, which makes an event for each
  // message; its workers have `on` alone.
  #listenAsNode(): void {
    const port = this.#port;
    const listen = (type: string, listener: (detail: unknown) => void) => {
      port.on!(type, listener);
      this.#listening.push(() => port.off!(type, listener));
    };
    listen("message", (data) => this.#message(data));
    listen("messageerror", this.#unreadable);
    // What is no worker has errors of this thread, if any: Deno's `parentPort`.
    if (port.terminate !== undefined) {
      listen(
        "error",
        (error) => this.#failed(`it failed with ${describe(error)}`, error),
      );
    }
    // A worker ends with this, and says nothing after it.
    listen("exit", (code) => this.#died(`it ended, with exit code ${code}`));
    listen("close", () => this.#died("the port was closed"));
  }

  #listenAsWeb(): void {
    const port = this.#port;
    const listen = (type: string, listener: (event: never) => void) => {
      port.addEventListener!(type, listener as (event: Event) => void);
      this.#listening.push(() =>
        port.removeEventListener!(type, listener as (event: Event) => void)
      );
    };
    listen("message", ({ data }: MessageEvent) => this.#message(data));
    listen("messageerror", this.#unreadable);
    if (port as unknown === globalThis) return; // its errors are our own
    listen("error", (event: ErrorEvent) => {
      event.preventDefault(); // Deno would end this thread as well
      const { message, error } = event;
      if (message) {
        this.#failed(`it failed with ${message}`, error ?? new Error(message));
      } else this.#failed("it could not be loaded", undefined);
      this.#diesWhenQuiet(SETTLING);
    });
    // Workers end with this in Bun alone: elsewhere they end without a word, or,
    // in a page, do not end at all when they have failed.
    listen("close", () => this.#died("the port was closed"));
  }

  /** Takes it for dead once nothing has come for a turn, unless that is told before. */
  #diesWhenQuiet(turns: number): void {
    const [failure, heard] = [this.#failure, this.#heard];
    setTimeout(() => {
      if (this.#failure !== failure) return;
      if (this.#heard === heard || turns === 0) this.#died("");
      else this.#diesWhenQuiet(turns - 1);
    });
  }
}

const ears = new WeakMap<Port, Ear>();

function checkPort(action: string, found: PortLike): Port {
  const port = found as Port | null | undefined;
  if (
    typeof port?.postMessage === "function" &&
    (typeof port.on === "function" ||
      typeof port.addEventListener === "function")
  ) return port;
  throw new TypeError(
    invalid(action, "port", "a MessagePort, a Worker or alike", found),
  );
}

/** What a message looks like, for an error. */
export function outline(message: unknown): string {
  if (typeof message !== "object" || message === null) return brief(message);
  const keys = Object.keys(message).slice(0, 5).map((key) =>
    /^\w{1,50}$/.test(key) ? key : brief(key)
  );
  const what = keys.length === 0 ? "nothing in it" : keys.join(", ");
  return `${show(message)} with ${what}`;
}

/** A value from elsewhere: a text may be long. */
function brief(found: unknown): string {
  return typeof found === "string" && found.length > 50
    ? `${show(found.slice(0, 50))}…`
    : show(found);
}

const transfers = new WeakMap<object, readonly object[]>();

/**
 * Marks a value: what is in `list` will be moved to the other side along with
 * it, and is of no more use here; without, it would be copied.
 *
 * @returns `value`.
 * @throws {TypeError} If `value` is no object, or `list` no array.
 */
export function transfer<T extends object>(
  value: T,
  list: readonly object[],
): T {
  if (typeof value !== "object" || value === null) {
    throw new TypeError(invalid("transfer", "value", "an object", value));
  }
  if (!Array.isArray(list)) {
    throw new TypeError(invalid("transfer", "list", "an array", list));
  }
  transfers.set(value, list);
  return value;
}

/** What is to be moved along with `values`; nothing, for most. */
export function transferListOf(
  values: readonly unknown[],
): object[] | undefined {
  let list: object[] | undefined;
  for (const value of values) {
    if (typeof value !== "object" || value === null) continue;
    const more = transfers.get(value);
    if (more !== undefined) (list ??= []).push(...more);
  }
  return list;
}
