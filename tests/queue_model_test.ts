import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  merge,
  type Overflow,
  Queue,
  QueueClosedError,
  QueueFullError,
  select,
} from "../queue.ts";
import { flush, probedController, range, ROUNDS } from "./_helpers.ts";

// Random schedules over two queues, step by step on the real thing and on a
// model of plain arrays. The two must agree on every size after every step, and
// on every promise after every flush. In between, nobody gets a turn but the
// steps themselves.

/** What is sent: known by `id`, ordered by `rank`. Nothing can be compared with a rank below 0. */
interface Item {
  readonly id: number;
  readonly rank: number;
}

interface Options {
  capacity: number;
  overflow: Overflow;
  order: "fifo" | "lifo" | "rank";
}

/** One step of a schedule; each operation looks at what it needs. */
interface Step {
  op: typeof OPERATIONS[number];
  /** Which queue. */
  queue: 0 | 1;
  /** Which queues of a `select` or `merge`: "ab" is `{ x: queues[0], y: queues[1] }`. */
  over: "a" | "ab" | "ba" | "aa";
  rank: number;
  max: number;
  /** Which signal, if any: 0 and 1 are alive until the next abort, 2 has aborted. */
  signal: 0 | 1 | 2 | undefined;
  /** Which iterator, counted from the one opened last. */
  iterator: number;
  /** What is done on an abort by a listener that came before all who wait. */
  first: "trySend" | "tryReceive" | "drain" | "close" | undefined;
}

const OPERATIONS = [
  ...["send", "send", "send", "trySend", "trySend"] as const,
  ...["receive", "receive", "tryReceive", "receiveMany", "drain"] as const,
  ...["select", "values", "batches", "merge"] as const,
  ...["next", "next", "next", "next", "return"] as const,
  ...["abort", "close", "fail", "flush", "flush"] as const,
];

/** What both the real thing and the model do. */
interface Subject {
  /** How each promise or result stands, in the order in which they were asked for. */
  readonly results: string[];
  perform(step: Step, item: Item): void;
  flush(): void | Promise<void>;
  /** For each queue how many values it holds and has dropped, and whether it is closed. */
  look(): unknown;
  /** How many listeners each of the living signals has. */
  listening(): number[];
}

// ── The real thing ──────────────────────────────────────────────────────────

const INCOMPARABLE = "cannot be compared";

function byRank(a: Item, b: Item): number {
  if (a.rank < 0 || b.rank < 0) throw INCOMPARABLE;
  return a.rank - b.rank;
}

function textOf(error: unknown): string {
  if (error instanceof QueueClosedError || error instanceof QueueFullError) {
    const value = error.value as Item | undefined;
    return value === undefined ? error.name : `${error.name} ${value.id}`;
  }
  return String(error);
}

class Real implements Subject {
  readonly results: string[] = [];
  readonly queues: Queue<Item>[];
  /** What has become of each item, by its id; must be one thing in the end. */
  readonly fates = new Map<number, string[]>();
  #aborts = 0;
  /** What the listener that came first does on an abort. */
  #first = () => {};
  readonly #controllers = range(2).map(() => this.#newController());
  readonly #aborted = AbortSignal.abort("aborted before");
  readonly #iterators: AsyncIterator<unknown>[] = [];

  constructor(options: Options[]) {
    this.queues = options.map(({ order, ...rest }) =>
      new Queue<Item>({
        ...rest,
        order: order === "rank" ? byRank : order,
        onDrop: ({ id }) => this.#note(id, "dropped"),
      })
    );
  }

  perform(step: Step, item: Item): void {
    const { op, max, iterator } = step;
    const queue = this.queues[step.queue];
    const signal = step.signal === undefined
      ? undefined
      : step.signal === 2
      ? this.#aborted
      : this.#controllers[step.signal].signal;
    switch (op) {
      case "send":
        this.fates.set(item.id, []);
        return this.#follow(
          queue.send(item, { signal }),
          () => "sent",
          () => this.#note(item.id, "refused"),
        );
      case "trySend":
        this.fates.set(item.id, []);
        return this.#now(() => {
          let sent = false;
          try {
            return sent = queue.trySend(item);
          } finally {
            if (!sent) this.#note(item.id, "refused");
          }
        });
      case "receive":
        return this.#follow(queue.receive({ signal }), this.#took);
      case "tryReceive":
        return this.#now(() => {
          const result = queue.tryReceive();
          return result.state === "ok"
            ? this.#took(result.value)
            : result.state;
        });
      case "receiveMany":
        return this.#follow(queue.receiveMany(max, { signal }), this.#took);
      case "drain":
        return this.#now(() => this.#took(queue.drain()));
      case "select":
        return this.#follow(select(this.#over(step), { signal }), this.#took);
      case "values":
        return void this.#iterators.unshift(queue.values({ signal }));
      case "batches":
        return void this.#iterators.unshift(queue.batches(max, { signal }));
      case "merge":
        return void this.#iterators.unshift(
          merge(this.#over(step), { signal }),
        );
      case "next":
      case "return": {
        const result = this.#iterators[iterator]?.[op]?.();
        if (result === undefined) return;
        return this.#follow(
          result,
          ({ done, value }) => done ? "done" : this.#took(value),
        );
      }
      case "abort":
        if (signal === this.#aborted || step.signal === undefined) return;
        this.#first = () => {
          if (step.first) this.perform({ ...step, op: step.first }, item);
        };
        this.#controllers[step.signal].abort(`abort ${this.#aborts++}`);
        this.#controllers[step.signal] = this.#newController();
        return;
      case "close":
        return queue.close();
      case "fail":
        return queue.close(`queue ${step.queue} failed`);
    }
  }

  flush(): Promise<void> {
    return flush();
  }

  look(): unknown {
    return this.queues.map(({ size, dropped, closed }) => [
      size,
      dropped,
      closed,
    ]);
  }

  listening(): number[] {
    return this.#controllers.map(({ listening }) => listening);
  }

  #newController() {
    const controller = probedController();
    const { addEventListener } = EventTarget.prototype; // is not counted
    addEventListener.call(controller.signal, "abort", () => this.#first());
    return controller;
  }

  #over({ over }: Step): Record<string, Queue<Item>> {
    const entries = [...over].map((queue, i) =>
      ["xy"[i], this.queues["ab".indexOf(queue)]] as const
    );
    return Object.fromEntries(entries);
  }

  /** Notes that items have come out. */
  #took = (value: unknown): string => {
    if (Array.isArray(value)) return `[${value.map(this.#took)}]`;
    if ("key" in (value as object)) {
      const { key, value: item } = value as { key: string; value: Item };
      return `${key}: ${this.#took(item)}`;
    }
    const { id } = value as Item;
    this.#note(id, "received");
    return String(id);
  };

  #note(id: number, fate: string): void {
    this.fates.get(id)!.push(fate);
  }

  #follow<T>(
    promise: Promise<T>,
    text: (value: T) => string,
    onError = () => {},
  ): void {
    const i = this.results.push("pending") - 1;
    promise.then((value) => this.results[i] = text(value), (error) => {
      onError();
      this.results[i] = textOf(error);
    });
  }

  #now(action: () => unknown): void {
    try {
      this.results.push(String(action()));
    } catch (error) {
      this.results.push(textOf(error));
    }
  }
}

// ── The model ───────────────────────────────────────────────────────────────

/** A task that waits, in one line or two. */
interface Waiting {
  signal: ModelSignal | undefined;
  /** Settles it. */
  settle(result: string): void;
}

interface ModelSignal {
  reason: string | undefined;
}

interface Sender extends Waiting {
  item: Item;
}

interface Receiver extends Waiting {
  /** Whether its iterator has been told to return. */
  left?: boolean;
  give(item: Item, key: string): void;
  end(reason: string | undefined): void;
}

interface ModelQueue extends Options {
  items: Item[]; // in the order in which they came
  senders: Sender[];
  receivers: { receiver: Receiver; key: string }[];
  dropped: number;
  closed: boolean;
  reason: string | undefined;
  moves: number; // how often values have gone to receivers
  selected: number;
}

interface ModelIterator {
  /** Its queues, by key; values and batches have one. */
  over: [key: string, queue: ModelQueue][];
  kind: "values" | "batches" | "merge";
  max: number;
  signal: ModelSignal | undefined;
  ended: boolean;
  parked: Receiver[];
}

class Model implements Subject {
  readonly results: string[] = [];
  readonly #queues: ModelQueue[];
  readonly #signals: ModelSignal[] = [
    { reason: undefined },
    { reason: undefined },
    { reason: "aborted before" },
  ];
  readonly #iterators: ModelIterator[] = [];
  #aborts = 0;
  #selections = 0;
  #handed: (() => void)[] = []; // batches that have their first value

  constructor(options: Options[]) {
    this.#queues = options.map((options) => ({
      ...options,
      items: [],
      senders: [],
      receivers: [],
      dropped: 0,
      closed: false,
      reason: undefined,
      moves: 0,
      selected: 0,
    }));
  }

  perform(step: Step, item: Item): void {
    const { op, max, iterator } = step;
    const queue = this.#queues[step.queue];
    const signal = step.signal === undefined
      ? undefined
      : this.#signals[step.signal];
    const one: ModelIterator["over"] = [["", queue]];
    const several = [...step.over].map((letter, i) =>
      ["xy"[i], this.#queues["ab".indexOf(letter)]] as [string, ModelQueue]
    );
    switch (op) {
      case "send":
        return this.#send(queue, item, signal);
      case "trySend": {
        const result = queue.closed ? "false" : this.#offer(queue, item);
        return void this.results.push(result === "sent" ? "true" : result);
      }
      case "receive":
        return this.#receive("values", one, 1, signal);
      case "tryReceive":
        return void this.results.push(
          ready(queue)
            ? String(this.#take(queue).id)
            : queue.closed
            ? "closed"
            : "empty",
        );
      case "receiveMany":
        return this.#receive("batches", one, max, signal);
      case "drain":
        return void this.results.push(this.#fill(queue, [], Infinity));
      case "select":
        return this.#receive("merge", several, 1, signal);
      case "values":
      case "batches":
      case "merge":
        return void this.#iterators.unshift({
          over: op === "merge" ? several : one,
          kind: op,
          max,
          signal,
          ended: false,
          parked: [],
        });
      case "next":
        return this.#next(this.#iterators[iterator]);
      case "return":
        return this.#return(this.#iterators[iterator]);
      case "abort":
        if (step.signal === undefined || step.signal === 2) return;
        this.#abort(step.signal);
        if (step.first) this.perform({ ...step, op: step.first }, item);
        return;
      case "close":
        return this.#close(queue, undefined);
      case "fail":
        return this.#close(queue, `queue ${step.queue} failed`);
    }
  }

  flush(): void {
    for (const deliver of this.#handed.splice(0)) deliver();
  }

  look(): unknown {
    return this.#queues.map(({ items, dropped, closed }) => [
      items.length,
      dropped,
      closed,
    ]);
  }

  listening(): number[] {
    return this.#signals.slice(0, 2).map((signal) =>
      this.#everyone().some((waiting) => waiting.signal === signal) ? 1 : 0
    );
  }

  #send(queue: ModelQueue, item: Item, signal?: ModelSignal): void {
    const settle = this.#ticket();
    if (signal?.reason !== undefined) return settle(signal.reason);
    if (queue.closed) return settle(`QueueClosedError ${item.id}`);
    const result = this.#offer(queue, item);
    if (result !== "false") return settle(result);
    if (queue.overflow === "reject") {
      return settle(`QueueFullError ${item.id}`);
    }
    queue.senders.push({ item, signal, settle });
  }

  /** "sent", "false" if there is no room, or why the item is refused. */
  #offer(queue: ModelQueue, item: Item): string {
    const first = queue.receivers[0];
    const full = queue.items.length >= queue.capacity;
    if (first !== undefined) first.receiver.give(item, first.key);
    else if (full && queue.overflow === "drop-newest") queue.dropped++;
    else if (full && queue.overflow !== "drop-oldest") return "false";
    else if (refuses(queue, item)) return INCOMPARABLE;
    else {
      queue.items.push(item);
      if (full) queue.items.shift();
      if (full) queue.dropped++;
    }
    return "sent";
  }

  #take(queue: ModelQueue): Item {
    queue.moves++;
    if (queue.items.length === 0) {
      const { item, settle } = queue.senders.shift()!;
      settle("sent");
      return item;
    }
    const [item] = queue.items.splice(nextIn(queue), 1);
    while (queue.items.length < queue.capacity && queue.senders.length > 0) {
      const { item, settle } = queue.senders.shift()!;
      if (refuses(queue, item)) settle(INCOMPARABLE);
      else {
        queue.items.push(item);
        settle("sent");
      }
    }
    return item;
  }

  #fill(queue: ModelQueue, batch: number[], max: number): string {
    while (ready(queue) && batch.length < max) {
      batch.push(this.#take(queue).id);
    }
    return `[${batch}]`;
  }

  #receive(
    kind: ModelIterator["kind"],
    over: ModelIterator["over"],
    max: number,
    signal?: ModelSignal,
  ): void {
    const settle = this.#ticket();
    if (signal?.reason !== undefined) return settle(signal.reason);
    const result = this.#takeFrom(kind, over, max);
    if (result !== undefined) return settle(result);
    const end = endOf(over);
    if (end !== undefined) return settle(end.reason ?? "QueueClosedError");
    this.#park(kind, over, max, {
      signal,
      settle,
      end: (reason) => settle(reason ?? "QueueClosedError"),
    });
  }

  #next(iterator: ModelIterator | undefined): void {
    if (iterator === undefined) return;
    const { kind, over, max, signal } = iterator;
    const settle = this.#ticket();
    const end = (result: string) => {
      iterator.ended = true;
      settle(result);
    };
    if (iterator.ended) return settle("done");
    if (signal?.reason !== undefined) return end(signal.reason);
    const result = this.#takeFrom(kind, over, max);
    if (result !== undefined) return settle(result);
    const ended = endOf(over);
    if (ended !== undefined) return end(ended.reason ?? "done");
    iterator.parked.push(this.#park(kind, over, max, {
      signal,
      settle: (result) => {
        if (result === signal?.reason) iterator.ended = true;
        settle(result);
      },
      end: (reason) => end(reason ?? "done"),
    }));
  }

  #return(iterator: ModelIterator | undefined): void {
    if (iterator === undefined) return;
    iterator.ended = true;
    const waiting = new Set<Waiting>(this.#everyone());
    for (const receiver of iterator.parked.splice(0)) {
      receiver.left = true;
      if (!waiting.has(receiver)) continue;
      this.#leave(receiver);
      receiver.end(undefined);
    }
    this.#ticket()("done");
  }

  /** What can be had now, as a result. */
  #takeFrom(
    kind: ModelIterator["kind"],
    over: ModelIterator["over"],
    max: number,
  ): string | undefined {
    if (failureOf(over) !== undefined) return;
    const candidates = over.filter(([_, queue]) => ready(queue));
    if (candidates.length === 0) return;
    const least = Math.min(...candidates.map(([_, { selected }]) => selected));
    const [key, queue] = candidates.find(([_, { selected }]) =>
      selected === least
    )!;
    if (kind === "batches") return this.#fill(queue, [], max);
    if (kind === "values") return String(this.#take(queue).id);
    const { id } = this.#take(queue);
    queue.selected = ++this.#selections;
    return `${key}: ${id}`;
  }

  #park(
    kind: ModelIterator["kind"],
    over: ModelIterator["over"],
    max: number,
    { signal, settle, end }: Omit<Receiver, "give">,
  ): Receiver {
    const receiver: Receiver = {
      signal,
      settle,
      end,
      give: (item, key) => {
        this.#leave(receiver);
        const [_, queue] = over.find((entry) => entry[0] === key)!;
        const moves = ++queue.moves;
        if (kind === "values") return settle(String(item.id));
        if (kind === "merge") {
          queue.selected = ++this.#selections;
          return settle(`${key}: ${item.id}`);
        }
        this.#handed.push(() => {
          const last = queue.moves === moves; // nobody was served since
          const stays = !receiver.left && signal?.reason === undefined;
          const most = last && stays ? max : 1;
          settle(this.#fill(queue, [item.id], most));
        });
      },
    };
    for (const [key, queue] of over) {
      if (!queue.closed) queue.receivers.push({ receiver, key });
    }
    return receiver;
  }

  #abort(i: number): void {
    const signal = this.#signals[i];
    signal.reason = `abort ${this.#aborts++}`;
    this.#signals[i] = { reason: undefined };
    for (const waiting of this.#everyone()) {
      if (waiting.signal !== signal) continue;
      this.#leave(waiting);
      waiting.settle(signal.reason);
    }
  }

  #close(queue: ModelQueue, reason: string | undefined): void {
    if (queue.closed) return;
    queue.closed = true;
    queue.reason = reason;
    for (const { item, settle } of queue.senders.splice(0)) {
      settle(`QueueClosedError ${item.id}`);
    }
    const receivers = new Set(
      queue.receivers.splice(0).map(({ receiver }) => receiver),
    );
    for (const receiver of receivers) {
      if (reason === undefined && this.#everyone().includes(receiver)) continue;
      this.#leave(receiver);
      receiver.end(reason);
    }
  }

  #everyone(): Waiting[] {
    const everyone = this.#queues.flatMap(({ senders, receivers }) => [
      ...senders,
      ...receivers.map(({ receiver }) => receiver),
    ]);
    return [...new Set(everyone)];
  }

  #leave(waiting: Waiting): void {
    for (const queue of this.#queues) {
      queue.senders = queue.senders.filter((sender) => sender !== waiting);
      queue.receivers = queue.receivers.filter(({ receiver }) =>
        receiver !== waiting
      );
    }
  }

  #ticket(): (result: string) => void {
    const i = this.results.push("pending") - 1;
    return (result) => void (this.results[i] = result);
  }
}

function ready({ items, senders }: ModelQueue): boolean {
  return items.length > 0 || senders.length > 0;
}

function refuses({ order }: ModelQueue, { rank }: Item): boolean {
  return order === "rank" && rank < 0;
}

/** The index of the item to be taken next. */
function nextIn({ order, items }: ModelQueue): number {
  if (order === "fifo") return 0;
  if (order === "lifo") return items.length - 1;
  const least = Math.min(...items.map(({ rank }) => rank));
  return items.findIndex(({ rank }) => rank === least);
}

/** The reason of the first queue that has failed and is empty. */
function failureOf(over: ModelIterator["over"]): string | undefined {
  const failed = ([_, queue]: [string, ModelQueue]) =>
    queue.reason !== undefined && !ready(queue);
  return over.find(failed)?.[1].reason;
}

/** Whether there will be no more, and why. */
function endOf(
  over: ModelIterator["over"],
): { reason: string | undefined } | undefined {
  const reason = failureOf(over);
  const all = over.every(([_, { closed }]) => closed);
  return all || reason !== undefined ? { reason } : undefined;
}

// ── The properties ──────────────────────────────────────────────────────────

const anyOptions: fc.Arbitrary<Options> = fc.oneof(
  fc.record({
    capacity: fc.constantFrom(1, 2, 3, Infinity),
    overflow: fc.constantFrom(
      "wait",
      "wait",
      "reject",
      "drop-oldest",
      "drop-newest",
    ),
    order: fc.constantFrom("fifo", "lifo", "rank", "rank"),
  }),
  fc.record({
    capacity: fc.constant(0),
    overflow: fc.constantFrom("wait", "wait", "reject"),
    order: fc.constant("fifo"),
  }),
);

const anyStep: fc.Arbitrary<Step> = fc.record({
  op: fc.constantFrom(...OPERATIONS),
  queue: fc.constantFrom(0, 0, 1),
  over: fc.constantFrom("a", "ab", "ba", "aa"),
  rank: fc.integer({ min: -1, max: 2 }),
  max: fc.constantFrom(1, 2, 3, Infinity),
  signal: fc.constantFrom(undefined, undefined, 0, 0, 1, 2),
  iterator: fc.nat(3),
  first: fc.constantFrom(undefined, "trySend", "tryReceive", "drain", "close"),
});

Deno.test("Queue agrees with a model, whatever the schedule", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.tuple(anyOptions, anyOptions),
      fc.array(anyStep, { maxLength: 100, size: "max" }),
      async (options, steps) => {
        const real = new Real(options);
        const model = new Model(options);
        const compare = async () => {
          model.flush();
          await real.flush();
          assertEquals(real.results, model.results);
          assertEquals(real.listening(), model.listening());
        };
        for (const [id, step] of steps.entries()) {
          if (step.op === "flush") await compare();
          real.perform(step, { id, rank: step.rank });
          model.perform(step, { id, rank: step.rank });
          assertEquals(real.look(), model.look());
        }
        await compare();

        for (const queue of real.queues) queue.close();
        await flush();
        assertEquals(real.results.filter((result) => result === "pending"), []);
        assertEquals(real.listening(), [0, 0]);
        for (const queue of real.queues) {
          for (const { id } of queue.drain()) real.fates.get(id)!.push("left");
        }
        const several = [...real.fates].filter(([_, { length }]) =>
          length !== 1
        );
        assertEquals(several, []); // each value has one fate
      },
    ),
    { numRuns: ROUNDS },
  );
});

/** Sends and takes in bursts, so that the buffer grows and shrinks; compares with an array. */
function burstsAgree(
  queue: Queue<Item>,
  bursts: number[],
  next: (items: Item[]) => number,
): void {
  const items: Item[] = [];
  let id = 0;
  for (const burst of bursts) {
    if (burst > 0) {
      for (const _ of range(burst)) {
        const item = { id, rank: id * 7919 % 5 }; // a few ranks, well mixed
        items.push(item);
        queue.trySend(item);
        id++;
      }
    } else {
      for (const _ of range(-burst)) {
        const expected = items.splice(next(items), 1);
        const found = queue.tryReceive();
        assertEquals(found.state === "ok" ? [found.value] : [], expected);
      }
    }
    assertEquals(queue.size, items.length);
  }
  const rest = range(items.length).flatMap(() => items.splice(next(items), 1));
  assertEquals(queue.drain(), rest);
}

const ORDERS = {
  fifo: () => 0,
  lifo: (items: Item[]) => items.length - 1,
  rank: (items: Item[]) =>
    items.reduce(
      (least, item, i) => item.rank < items[least].rank ? i : least,
      0,
    ),
};

for (const [name, next] of Object.entries(ORDERS)) {
  const order = name === "rank" ? byRank : name as "fifo" | "lifo";

  Deno.test(`Queue keeps order ${name} while it grows and shrinks`, () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: -150, max: 150 }), { maxLength: 12 }),
        (bursts) =>
          burstsAgree(new Queue({ capacity: Infinity, order }), bursts, next),
      ),
      { numRuns: 60 },
    );
  });

  Deno.test(`Queue keeps order ${name} while it drops the oldest`, () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.array(fc.nat(4), { maxLength: 150 }),
        (capacity, ranks) => {
          const dropped: Item[] = [];
          const queue = new Queue<Item>({
            capacity,
            order,
            overflow: "drop-oldest",
            onDrop: (item) => dropped.push(item),
          });
          const items = ranks.map((rank, id) => ({ id, rank }));
          for (const item of items) queue.trySend(item);
          const oldest = items.splice(0, Math.max(0, items.length - capacity));
          assertEquals(dropped, oldest);
          const kept = range(items.length)
            .flatMap(() => items.splice(next(items), 1));
          assertEquals(queue.drain(), kept);
        },
      ),
      { numRuns: 100 },
    );
  });
}
