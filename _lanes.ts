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

/**
 * Waiting requests, a lane for each priority.
 *
 * The lanes of unusual priorities are a binary heap: the one at `i` is higher
 * than those at `2i + 1` and `2i + 2`. None of them is empty.
 */
export class Lanes<W extends Waits<W>> {
  /** How many requests wait. */
  size = 0;
  readonly #usual = new Lane(0, this); // in no heap, since it comes and goes most often
  readonly #heap: Lane<W>[] = [];
  #laneOf: Map<number, Lane<W>> | undefined = undefined; // of the unusual ones

  /** Lets a request wait in the lane of its priority. */
  add(request: W): void {
    this.#lane(request.priority).add(request);
  }

  /** Lets requests that have waited before, in order, take their places again. */
  putBack(
    requests: readonly W[],
    isBefore: (request: W, other: W) => boolean,
  ): void {
    let last: W | undefined; // where it is, there is the next one's place, too, or later
    for (const request of requests) {
      const lane = this.#lane(request.priority);
      let next = last?.list === lane ? last.next : lane.first;
      while (next !== undefined && isBefore(next, request)) next = next.next;
      if (next === undefined) lane.add(request);
      else lane.insert(request, next);
      last = request;
    }
  }

  /** The next to be served. */
  peek(): W | undefined {
    for (let lane; (lane = this.#highest()) !== undefined;) {
      const request = lane.peek(); // may empty this lane
      if (request !== undefined) return request;
    }
    return undefined;
  }

  /** The first of each lane. */
  firsts(): W[] {
    return [this.#usual, ...this.#heap].flatMap(({ first }) => first ?? []);
  }

  /** Takes out a lane that is empty. */
  delete(lane: Lane<W>): void {
    if (lane === this.#usual) return;
    this.#laneOf!.delete(lane.priority);
    const last = this.#heap.pop()!;
    if (last === lane) return;
    this.#put(last, lane.place);
    this.#lower(last);
    this.#raise(last);
  }

  #highest(): Lane<W> | undefined {
    const first = this.#heap.length > 0 ? this.#heap[0] : undefined;
    if (this.#usual.first === undefined) return first;
    return first !== undefined && first.priority > 0 ? first : this.#usual;
  }

  #lane(priority: number): Lane<W> {
    if (priority === 0) return this.#usual;
    const laneOf = this.#laneOf ??= new Map();
    let lane = laneOf.get(priority);
    if (lane === undefined) {
      laneOf.set(priority, lane = new Lane(priority, this));
      this.#put(lane, this.#heap.length);
      this.#raise(lane);
    }
    return lane;
  }

  #put(lane: Lane<W>, place: number): void {
    this.#heap[place] = lane;
    lane.place = place;
  }

  /** Moves a lane up while the one above it is lower. */
  #raise(lane: Lane<W>): void {
    while (lane.place > 0) {
      const above = this.#heap[(lane.place - 1) >> 1];
      if (above.priority > lane.priority) return;
      this.#swap(above, lane);
    }
  }

  /** Moves a lane down while one below it is higher. */
  #lower(lane: Lane<W>): void {
    for (let below; (below = this.#higherBelow(lane)) !== undefined;) {
      if (below.priority < lane.priority) return;
      this.#swap(lane, below);
    }
  }

  #higherBelow({ place }: Lane<W>): Lane<W> | undefined {
    const [left, right] = [2 * place + 1, 2 * place + 2];
    if (right >= this.#heap.length) return this.#heap[left];
    const [a, b] = [this.#heap[left], this.#heap[right]];
    return a.priority > b.priority ? a : b;
  }

  #swap(above: Lane<W>, below: Lane<W>): void {
    const { place } = above;
    this.#put(above, below.place);
    this.#put(below, place);
  }
}

/** Waiting requests of one priority. */
class Lane<W extends Waits<W>> extends Line<W> {
  readonly priority: number;
  readonly lanes: Lanes<W>;
  place = -1; // in the heap

  constructor(priority: number, lanes: Lanes<W>) {
    super();
    this.priority = priority;
    this.lanes = lanes;
  }

  override add(request: W): void {
    super.add(request);
    this.lanes.size++;
  }

  override insert(request: W, next: W): void {
    super.insert(request, next);
    this.lanes.size++;
  }

  override remove(request: W): void {
    super.remove(request);
    this.lanes.size--;
    if (this.first === undefined) this.lanes.delete(this);
  }
}
