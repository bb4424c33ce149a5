/**
 * What has come over a link: tells what comes twice, and counts what does not
 * come.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

/** How many of the last numbers of an origin are remembered: a multiple of 32. */
export const WIDTH = 1024;

/** How many origins, and how many ids, make a generation. */
export const ORIGINS = 512;
export const IDS = 4096;

/**
 * The numbers of one origin. It looks at the last 1,024 of them:
 *
 *     … nothing known │ seen, or missing yet │ to come …
 *                     └─ high - WIDTH        └─ high
 *
 * What is below the first number that came is not missed, since it may have been
 * sent before anybody listened. If it does come, it is seen like any other.
 */
export class Window {
  /** How many numbers in the window have not come. */
  missing = 0;
  readonly #first: number;
  #high: number;
  readonly #bits = new Uint32Array(WIDTH / 32);

  constructor(first: number) {
    this.#first = first;
    this.#high = first - 1;
  }

  /**
   * A number has come. Returns how many are lost, because the window has moved
   * past them; or `undefined`, if it has come before. If it is too late to know
   * that, nothing changes.
   */
  add(seq: number): number | undefined {
    let lost = 0;
    if (seq > this.#high) lost = this.#moveTo(seq);
    else if (seq <= this.#high - WIDTH) return 0;
    else if (this.#has(seq)) return undefined;
    else if (seq >= this.#first) this.missing--;
    this.#bits[slot(seq)] |= 1 << (seq & 31);
    return lost;
  }

  /** A number that has come is to come again. */
  remove(seq: number): void {
    if (seq <= this.#high - WIDTH || !this.#has(seq)) return;
    this.#clear(seq);
    if (seq >= this.#first) this.missing++;
  }

  #moveTo(seq: number): number {
    const steps = seq - this.#high;
    let lost = 0;
    if (steps >= WIDTH) { // it may be 2 ** 53
      lost = this.missing + steps - WIDTH;
      this.#bits.fill(0);
    } else {
      for (let next = this.#high + 1; next <= seq; next++) {
        const past = next - WIDTH;
        if (past >= this.#first && !this.#has(past)) lost++;
        this.#clear(past);
      }
    }
    this.missing += steps - 1 - lost;
    this.#high = seq;
    return lost;
  }

  #has(seq: number): boolean {
    return (this.#bits[slot(seq)] & (1 << (seq & 31))) !== 0;
  }

  #clear(seq: number): void {
    this.#bits[slot(seq)] &= ~(1 << (seq & 31));
  }
}

function slot(seq: number): number {
  return ((seq % WIDTH) + WIDTH) % WIDTH >>> 5;
}

/**
 * The windows of the last 512 to 1,024 origins. There may be any number of
 * origins, and somebody may invent one for each event: so those of which nothing
 * was heard for longest are forgotten, in generations.
 */
export class Windows {
  #young = new Map<string, Window>();
  #old = new Map<string, Window>();
  // Many events in a row are of one origin.
  #last: Window | undefined;
  #lastOrigin = "";

  /** How many origins are remembered. */
  get size(): number {
    return this.#young.size + this.#old.size;
  }

  /** How many events have not come yet. */
  get missing(): number {
    let missing = 0;
    for (const window of this.#young.values()) missing += window.missing;
    for (const window of this.#old.values()) missing += window.missing;
    return missing;
  }

  /** The window of an origin, which has just sent `seq`. `onForgotten` is told what other windows still missed. */
  of(
    origin: string,
    seq: number,
    onForgotten: (origin: string, missing: number) => void,
  ): Window {
    if (this.#last !== undefined && origin === this.#lastOrigin) {
      return this.#last;
    }
    let window = this.#young.get(origin);
    if (window === undefined) {
      window = this.#old.get(origin) ?? new Window(seq);
      this.#old.delete(origin);
      if (this.#young.size >= ORIGINS) {
        const forgotten = this.#old;
        this.#old = this.#young;
        this.#young = new Map();
        for (const [origin, { missing }] of forgotten) {
          if (missing > 0) onForgotten(origin, missing);
        }
      }
      this.#young.set(origin, window);
    }
    this.#lastOrigin = origin;
    return this.#last = window;
  }

  /** Forgets all of them, and returns how many events have not come. */
  clear(): number {
    const { missing } = this;
    this.#young.clear();
    this.#old.clear();
    this.#last = undefined;
    return missing;
  }
}

/** The last 4,096 to 8,192 ids. */
export class Ids {
  #young = new Set<string>();
  #old = new Set<string>();

  /** Whether an id is new; it is not, after that. */
  add(id: string): boolean {
    if (this.#young.has(id) || this.#old.has(id)) return false;
    if (this.#young.size >= IDS) {
      this.#old = this.#young;
      this.#young = new Set();
    }
    this.#young.add(id);
    return true;
  }

  /** It is to come again. */
  remove(id: string): void {
    this.#young.delete(id);
    this.#old.delete(id);
  }
}
