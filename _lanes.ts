/**
 * Waiting requests in the order of their priorities.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

import { Line, type Link } from "./_line.ts";

/** Who waits in a lane. */
interface Waits<W extends Waits<W>> extends Link<W> {
  /** Higher ones are served first. */
  readonly priority: number;
  /** Whether its signal has aborted, but not called its listeners yet; aborts it if so. */
  lapse(): boolean;
}

/** Waiting requests, a line for each priority. */
export class Lanes<W extends Waits<W>> {
  /** How many requests wait. */
  size = 0;
  readonly #lanes: Lane<W>[] = []; // highest priority last

  /** Lets a request wait in the lane of its priority. */
  add(request: W): void {
    this.#of(request.priority).add(request);
  }

  /** Lets a request wait before all others of its priority. */
  putBack(request: W): void {
    this.#of(request.priority).putBack(request);
  }

  /** The next to be served. */
  peek(): W | undefined {
    for (let at = this.#lanes.length; at-- > 0;) {
      const request = this.#lanes[at].peek(); // may take this lane out
      if (request !== undefined) return request;
    }
    return undefined;
  }

  /** Takes out a lane. */
  delete(lane: Lane<W>): void {
    this.#lanes.splice(this.#find(lane.priority), 1);
  }

  #of(priority: number): Lane<W> {
    const at = this.#find(priority);
    if (this.#lanes[at]?.priority !== priority) {
      this.#lanes.splice(at, 0, new Lane(priority, this));
    }
    return this.#lanes[at];
  }

  /** Where the lane of a priority is, or belongs. */
  #find(priority: number): number {
    let low = 0;
    for (let high = this.#lanes.length; low < high;) {
      const middle = (low + high) >> 1;
      if (this.#lanes[middle].priority < priority) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Waiting requests of one priority. There is no empty lane but that of priority 0. */
class Lane<W extends Waits<W>> extends Line<W> {
  readonly priority: number;
  readonly lanes: Lanes<W>;

  constructor(priority: number, lanes: Lanes<W>) {
    super();
    this.priority = priority;
    this.lanes = lanes;
  }

  override add(request: W): void {
    super.add(request);
    this.lanes.size++;
  }

  override putBack(request: W): void {
    super.putBack(request);
    this.lanes.size++;
  }

  override remove(request: W): void {
    super.remove(request);
    this.lanes.size--;
    if (this.first === undefined && this.priority !== 0) {
      this.lanes.delete(this);
    }
  }
}
