/**
 * Where a queue keeps its values until someone takes them.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

import { invalid } from "./_errors.ts";

/** Values in the order in which they will be taken. */
export interface Buffer<T> {
  /** How many values are kept. */
  readonly size: number;
  /** Keeps one more value. If it throws, nothing has changed. */
  push(value: T): void;
  /** Takes the next value; only while `size > 0`. If it throws, nothing has changed. */
  shift(): T;
  /** Takes some of the next values, from 1 up to `max`; only while `size > 0`. If it throws, nothing has changed. */
  shiftSome(max: number): T[];
  /** Keeps `value` and gives up the one kept longest; only while `size > 0`. If it throws, nothing has changed. */
  replaceOldest(value: T): T;
}

/** The fewest slots of a ring in use; a power of two. */
const FEWEST_SLOTS = 16;

/** Shared by all rings to which nothing was ever pushed. */
const NO_SLOTS: never[] = [];

/** First in, first out: a ring that doubles when full and halves when three quarters are empty. */
export class Ring<T> implements Buffer<T> {
  size = 0;
  #slots: (T | undefined)[] = NO_SLOTS; // until the first push, then a power of two
  #mask = -1; // slots - 1
  #few = -1; // with no more values than these, slots are given back
  #head = 0;

  push(value: T): void {
    if (this.size > this.#mask) this.#resize(2 * this.size || FEWEST_SLOTS);
    this.#slots[(this.#head + this.size) & this.#mask] = value;
    this.size++;
  }

  shift(): T {
    const value = this.#clear(this.#head);
    this.#head = (this.#head + 1) & this.#mask;
    if (this.size <= this.#few) this.#giveBack();
    return value;
  }

  /** Takes those up to the end of the slots, by `slice`, which beats a loop. */
  shiftSome(max: number): T[] {
    const slots = this.#slots;
    const start = this.#head;
    const end = Math.min(start + Math.min(this.size, max), slots.length);
    const values = slots.slice(start, end) as T[];
    slots.fill(undefined, start, end);
    this.size -= values.length;
    this.#head = end & this.#mask;
    if (this.size <= this.#few) this.#giveBack();
    return values;
  }

  /** Takes the value pushed last; only while `size > 0`. */
  pop(): T {
    const value = this.#clear((this.#head + this.size - 1) & this.#mask);
    if (this.size <= this.#few) this.#giveBack();
    return value;
  }

  replaceOldest(value: T): T {
    const oldest = this.#clear(this.#head);
    this.#head = (this.#head + 1) & this.#mask;
    this.push(value);
    return oldest;
  }

  /** Empties a slot, so that a value handed out is not kept alive here. */
  #clear(slot: number): T {
    const value = this.#slots[slot] as T;
    this.#slots[slot] = undefined;
    this.size--;
    return value;
  }

  #giveBack(): void {
    let slots = this.#mask + 1;
    while (slots > FEWEST_SLOTS && this.size <= slots / 4) slots /= 2;
    this.#resize(slots);
  }

  #resize(slots: number): void {
    const resized = new Array<T | undefined>(slots);
    for (let i = 0; i < this.size; i++) {
      resized[i] = this.#slots[(this.#head + i) & this.#mask];
    }
    this.#slots = resized;
    this.#mask = slots - 1;
    this.#few = slots > FEWEST_SLOTS ? slots / 4 : -1;
    this.#head = 0;
  }
}

/** Last in, first out. */
export class Stack<T> extends Ring<T> {
  override shift(): T {
    return this.pop();
  }

  override shiftSome(): T[] {
    return [this.pop()];
  }
}

/** A value in a heap, and when it came. */
interface Entry<T> {
  readonly value: T;
  readonly turn: number;
}

/**
 * Smallest first; among equals the one that came first. A binary heap.
 *
 * Every change first finds its place by comparing, which may throw, and only
 * then moves entries. Each value is compared on its way in, if need be with
 * itself, so that one which cannot be compared is refused at the door.
 */
export class Heap<T> implements Buffer<T> {
  readonly #order: (a: T, b: T) => number;
  readonly #entries: Entry<T>[] = [];
  #turn = 0;
  #comparing = false;

  constructor(order: (a: T, b: T) => number) {
    this.#order = order;
  }

  get size(): number {
    return this.#entries.length;
  }

  push(value: T): void {
    const entry = { value, turn: this.#turn++ };
    if (this.size === 0) this.#before(entry, entry);
    const hole = this.size;
    this.#raise(hole, this.#up(hole, entry), entry);
  }

  shift(): T {
    const top = this.#entries[0];
    const last = this.#entries[this.size - 1];
    const place = this.#down(0, last, this.size - 1);
    this.#entries.pop();
    if (this.size > 0) this.#sink(0, place, last);
    return top.value;
  }

  shiftSome(): T[] {
    return [this.shift()];
  }

  replaceOldest(value: T): T {
    let hole = 0; // found by looking at all: rare, and never more than the capacity
    this.#entries.forEach(({ turn }, i) => {
      if (turn < this.#entries[hole].turn) hole = i;
    });
    const oldest = this.#entries[hole];
    const entry = { value, turn: this.#turn++ };
    if (this.size === 1) this.#before(entry, entry);
    const above = this.#up(hole, entry);
    if (above < hole) this.#raise(hole, above, entry);
    else this.#sink(hole, this.#down(hole, entry, this.size), entry);
    return oldest.value;
  }

  #before(a: Entry<T>, b: Entry<T>): boolean {
    const order = this.#order;
    if (this.#comparing) {
      throw new TypeError(
        "Cannot compare values: order(a, b) must leave its queue alone",
      );
    }
    this.#comparing = true;
    let sign: unknown;
    try {
      sign = order(a.value, b.value);
    } finally {
      this.#comparing = false;
    }
    if (typeof sign !== "number" || Number.isNaN(sign)) {
      throw new TypeError(
        invalid("compare values", "what order(a, b) returns", "a number", sign),
      );
    }
    return sign < 0 || (sign === 0 && a.turn < b.turn);
  }

  /** Where `entry` belongs between `hole` and the top. */
  #up(hole: number, entry: Entry<T>): number {
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      if (!this.#before(entry, this.#entries[parent])) break;
      hole = parent;
    }
    return hole;
  }

  /** Where `entry` belongs below `hole`, among the first `size` entries. */
  #down(hole: number, entry: Entry<T>, size: number): number {
    for (let child; (child = 2 * hole + 1) < size; hole = child) {
      const right = child + 1;
      if (
        right < size && this.#before(this.#entries[right], this.#entries[child])
      ) child = right;
      if (!this.#before(this.#entries[child], entry)) break;
    }
    return hole;
  }

  /** Puts `entry` at `place`; those from there down to `hole` come down by one. */
  #raise(hole: number, place: number, entry: Entry<T>): void {
    for (; hole > place; hole = (hole - 1) >> 1) {
      this.#entries[hole] = this.#entries[(hole - 1) >> 1];
    }
    this.#entries[place] = entry;
  }

  /** Puts `entry` at `place`; those from there up to `hole` go up by one. */
  #sink(hole: number, place: number, entry: Entry<T>): void {
    for (; place > hole; place = (place - 1) >> 1) {
      const displaced = this.#entries[place];
      this.#entries[place] = entry;
      entry = displaced;
    }
    this.#entries[hole] = entry;
  }
}
