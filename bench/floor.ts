/**
 * What the language charges for loops and promises without a library: the floors
 * of the benches of queues.
 *
 * @module
 */

import { check } from "./group.ts";

/** How many numbers go through a queue in a round. */
export const VALUES = 10_000;

/** The floor of a sender: nothing to wait for. */
export const SENT = Promise.resolve();

/** The floor of a receiver: the numbers from 0, at hand. */
export class Bare implements AsyncIterableIterator<number> {
  #next = 0;
  #end: number;

  constructor(end = VALUES) {
    this.#end = end;
  }

  receive(): Promise<number> {
    return Promise.resolve(this.#next++);
  }

  next(): Promise<IteratorResult<number>> {
    return Promise.resolve(
      this.#next < this.#end
        ? { value: this.#next++, done: false }
        : { value: undefined, done: true },
    );
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/** The floor of a receiver that is there first: a promise for each value, resolved by the sender. */
export class BareSlot implements AsyncIterableIterator<number> {
  #resolve: ((result: IteratorResult<number>) => void) | undefined;

  send(value: number): Promise<void> {
    this.#resolve!({ value, done: false });
    return SENT;
  }

  close(): void {
    this.#resolve!({ value: undefined, done: true });
  }

  next(): Promise<IteratorResult<number>> {
    return new Promise((resolve) => this.#resolve = resolve);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/** Makes something when it is first asked for. */
export function once<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => (made ??= { value: make() }).value;
}

/** Waiters with a signal each; again and again one near the end of the line is aborted. */
export class Crowd {
  readonly #wait: (signal: AbortSignal) => Promise<unknown>;
  // The end of the line, as a ring: whoever is aborted is the first of them,
  // and waits again as the last.
  readonly #end: { controller: AbortController; left: Promise<void> }[] = [];
  #first = 0;
  #aborted = 0;

  /** A line of `size`, where an abort always leaves `after` waiters behind the one that goes. */
  constructor(
    size: number,
    after: number,
    wait: (signal: AbortSignal) => Promise<unknown>,
  ) {
    this.#wait = wait;
    while (size-- > after) this.#join();
    while (after-- > 0) this.#end.push(this.#join());
  }

  async storm(): Promise<void> {
    this.#aborted = 0;
    for (let i = 0; i < 1000; i++) {
      const { controller, left } = this.#end[this.#first];
      controller.abort("enough"); // a reason: without one, an error is made
      await left;
      this.#end[this.#first] = this.#join();
      this.#first = (this.#first + 1) % this.#end.length;
    }
    check(this.#aborted, 1000);
  }

  #join() {
    const controller = new AbortController();
    const left = this.#wait(controller.signal)
      .then(() => {}, () => void this.#aborted++);
    return { controller, left };
  }
}

/** A crowd without a queue: a listener each. */
export function bareCrowd(size: number, after: number): Crowd {
  return new Crowd(size, after, (signal) =>
    new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason));
    }));
}
