/**
 * Lines of waiting tasks: how they join and leave, and the only code that listens
 * to an `AbortSignal`.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

import { invalid } from "./_errors.ts";
import {
  losesTasks,
  lost,
  type Member,
  type Party,
  watchOver,
} from "./_vigil.ts";

/** What stands in a {@linkcode List}. It knows its neighbours, so that leaving is O(1). */
export interface Link<L extends Link<L>> {
  /** The list it stands in, if any. */
  list: List<L> | undefined;
  /** The one before it. */
  previous: L | undefined;
  /** The one after it. */
  next: L | undefined;
}

/** A doubly linked list. */
export class List<L extends Link<L>> {
  /** The link that has stood here longest. */
  first: L | undefined = undefined;
  #last: L | undefined = undefined;

  /** Appends `link`, which stands in no list. */
  add(link: L): void {
    link.list = this;
    link.previous = this.#last;
    if (this.#last === undefined) this.first = link;
    else this.#last.next = link;
    this.#last = link;
  }

  /** Puts `link`, which stands in no list, before `next`, which stands here. */
  insert(link: L, next: L): void {
    const { previous } = next;
    link.list = this;
    link.previous = previous;
    link.next = next;
    if (previous === undefined) this.first = link;
    else previous.next = link;
    next.previous = link;
  }

  /** Takes out `link`, which stands in this list. */
  remove(link: L): void {
    const { previous, next } = link;
    if (previous === undefined) this.first = next;
    else previous.next = next;
    if (next === undefined) this.#last = previous;
    else next.previous = previous;
    link.list = link.previous = link.next = undefined;
  }
}

/** Whom the abort of a signal concerns. */
export interface Abortable {
  /** Called once, when the signal aborts; the watch is over by then. */
  abort(reason: unknown): void;
}

/** Everyone who watches one signal, behind the one listener that it gets. */
// `private`, not `#`: many signals are watched but once, and each gets one of these.
class Watchers extends List<Watch> {
  readonly signal: AbortSignal;

  constructor(signal: AbortSignal) {
    super();
    if (typeof signal.addEventListener !== "function") refuse(signal);
    this.signal = signal;
  }

  join(watch: Watch): void {
    if (this.first === undefined) {
      this.signal.addEventListener("abort", this.onAbort);
    }
    this.add(watch);
  }

  leave(watch: Watch): void {
    this.remove(watch);
    if (this.first !== undefined) return;
    this.signal.removeEventListener("abort", this.onAbort);
    if (latest === this) latest = undefined;
  }

  private readonly onAbort = () => {
    for (let watch; (watch = this.first) !== undefined;) {
      watch.end();
      watch.who.abort(this.signal.reason);
    }
  };
}

const watchersOf = new WeakMap<AbortSignal, Watchers>();

// Those of the latest signal come into the map only if they are still there when
// the next signal comes: to be in it costs as much as to add a listener.
let latest: Watchers | undefined;

function watchersOn(signal: AbortSignal): Watchers {
  if (latest?.signal === signal) return latest;
  let watchers = watchersOf.get(signal);
  if (watchers === undefined) {
    if (latest !== undefined) watchersOf.set(latest.signal, latest);
    latest = watchers = new Watchers(signal);
  }
  return watchers;
}

/** One party's watch over a signal. It lasts until it is ended or the signal aborts. */
export class Watch implements Link<Watch> {
  list: List<Watch> | undefined = undefined;
  previous: Watch | undefined = undefined;
  next: Watch | undefined = undefined;
  readonly #watchers: Watchers;
  /** Whom an abort concerns. */
  readonly who: Abortable;

  /** Begins to watch `signal`, which has not aborted. */
  constructor(signal: AbortSignal, who: Abortable) {
    this.#watchers = watchersOn(signal);
    this.who = who;
    this.#watchers.join(this);
  }

  /** The signal. */
  get signal(): AbortSignal {
    return this.#watchers.signal;
  }

  /** Whether the signal has aborted, but not called its listeners yet; tells of it if so. */
  lapse(): boolean {
    const { signal } = this;
    if (signal.aborted) this.who.abort(signal.reason);
    return signal.aborted;
  }

  /** Ends the watch, if it is not over yet. */
  end(): void {
    if (this.list !== undefined) this.#watchers.leave(this);
  }
}

/**
 * Whether `signal` has aborted.
 *
 * @throws {TypeError} If it is no `AbortSignal`.
 */
export function hasAborted(signal: AbortSignal): boolean {
  const aborted: unknown = signal?.aborted;
  return typeof aborted === "boolean" ? aborted : refuse(signal);
}

function refuse(signal: unknown): never {
  throw new TypeError(invalid("wait", "signal", "an AbortSignal", signal));
}

/** What makes somebody leave. */
interface Guard {
  /** Whether it should have done so by now; does it then. */
  lapse(): boolean;
  /** Needs to do so no more. */
  end(): void;
}

/** A watch over a signal, if there is one, and over the request of who waits, where that may end without a word. */
class Vigil implements Guard, Member {
  over = false;
  readonly #who: Abortable;
  readonly #watch: Guard | undefined;
  readonly #party: Party | undefined;

  constructor(who: Abortable, place: object, watch: Guard | undefined) {
    this.#who = who;
    this.#watch = watch;
    this.#party = watchOver(this, place);
  }

  lapse(): boolean {
    if (this.#watch?.lapse()) return true;
    if (!this.#party?.silent) return false;
    this.lose();
    return true;
  }

  end(): void {
    this.over = true;
    this.#watch?.end();
  }

  lose(): void {
    this.#who.abort(lost("wait any longer"));
  }
}

/** On whose behalf a task waits, and who knows what to do when its signal aborts. */
export interface Owner {
  /** The signal of `waiter` has aborted: rejects it. */
  abort(waiter: Waiter, reason: unknown): void;
}

/** The owner of a waiter that has no other. */
export const ITSELF: Owner = {
  abort: (waiter, reason) => waiter.reject(reason),
};

/**
 * A task that waits: for a place, a value, an answer.
 *
 * It is settled by whoever serves it, by its signal, or by the end of what it
 * waits for. Whichever comes first takes it out of its line, then settles it,
 * so that nobody is served twice.
 */
// One class without heirs: in V8 each level of inheritance adds an eighth to
// the cost of a wait.
export class Waiter<Value = unknown, By extends Owner = Owner>
  implements Link<Waiter<Value, By>>, Abortable {
  list: List<Waiter<Value, By>> | undefined = undefined;
  previous: Waiter<Value, By> | undefined = undefined;
  next: Waiter<Value, By> | undefined = undefined;
  /** What it brings along. */
  readonly value: Value;
  /** On whose behalf it waits. */
  readonly owner: By;
  #watch: Guard | undefined = undefined;
  #resolve: ((result: never) => void) | undefined = undefined;
  #reject: ((reason: unknown) => void) | undefined = undefined;

  constructor(value: Value, owner: By) {
    this.value = value;
    this.owner = owner;
  }

  /** Whether it stands in a line. */
  get waiting(): boolean {
    return this.list !== undefined;
  }

  /** Joins the end of `line`, until `signal` aborts. */
  join(line: List<Waiter<Value, By>>, signal: AbortSignal | undefined): void {
    this.watch(signal, line);
    line.add(this);
  }

  /** Waits until `signal` aborts; others wait at the same `place`. */
  watch(signal: AbortSignal | undefined, place: object): void {
    if (signal !== undefined) this.#watch = new Watch(signal, this);
    if (losesTasks()) this.#watch = new Vigil(this, place, this.#watch);
  }

  /** What the task gets; to be asked for once, before anything else can happen. */
  promise<R>(): Promise<R> {
    return new Promise<R>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Goes away without being settled. */
  leave(): void {
    if (this.list !== undefined) this.list.remove(this);
    if (this.#watch !== undefined) this.#watch.end();
  }

  /** Goes away, with `result`. */
  resolve(result: unknown): void {
    this.leave();
    this.#resolve!(result as never);
  }

  /** Goes away, with an error. */
  reject(reason: unknown): void {
    this.leave();
    this.#reject!(reason);
  }

  /** Its signal has aborted. */
  abort(reason: unknown): void {
    this.owner.abort(this, reason);
  }

  /** Whether its signal has aborted, but not called its listeners yet; aborts it if so. */
  lapse(): boolean {
    return this.#watch !== undefined && this.#watch.lapse();
  }
}

/** Who waits, in the order in which they came. */
export class Line<W extends Link<W> & { lapse(): boolean }> extends List<W> {
  /** The one to be served next. */
  peek(): W | undefined {
    while (this.first !== undefined && this.first.lapse());
    return this.first;
  }
}
