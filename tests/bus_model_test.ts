import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import fc from "fast-check";
import {
  Bus,
  type BusEvent,
  type BusObserver,
  type BusStep,
  type SubscribeOptions,
  type Subscription,
} from "../bus.ts";
import { type Overflow, QueueClosedError, QueueFullError } from "../queue.ts";
import { gate } from "./_bus.ts";
import {
  flush,
  follow,
  probedController,
  range,
  ROUNDS,
  type Task,
} from "./_helpers.ts";

// Random schedules on a bus and on a model of plain arrays. The model foretells
// what each step of the bus must be, and an observer holds the two together. In
// between, readers and handlers get as many turns as the schedule says.

const REASON = new Error("called off");

type Type = "a" | "b";

/** What an event carries: its number, and how many events led to it. */
interface Data {
  readonly n: number;
  readonly depth: number;
}

type Events = Record<Type, Data>;

interface Schedule {
  readonly steps: Step[];
  readonly end: "close" | "abort";
  readonly replay: Partial<Record<Type, number>>;
}

type Step =
  | { op: "subscribe"; options: Options }
  | { op: "publish" | "tryPublish"; type: Type; signal: 0 | 1 | undefined }
  | { op: "unsubscribe" | "let go"; which: number }
  | { op: "abort"; signal: 0 | 1 }
  | { op: "turns"; turns: number }
  | { op: "observe" }
  | { op: "flush" };

interface Options {
  /** Read by a loop, or by a handler that returns at once or takes its time. */
  readonly way: "loop" | "quick" | "slow";
  readonly types: Type[] | "*";
  readonly overflow: Overflow;
  readonly capacity: 1 | 2 | 3;
  /** Only even or odd numbers. */
  readonly parity: 0 | 1 | undefined;
  readonly signal: 0 | 1 | undefined;
  /** After how many events it leaves by itself. */
  readonly patience: number;
  /** What its handler publishes for each event. */
  readonly echo: Type | undefined;
}

const type = fc.constantFrom<Type>("a", "b");
const signal = fc.constantFrom(0 as const, 1 as const, undefined, undefined);

const subscribe = fc.record({
  op: fc.constant("subscribe" as const),
  options: fc.record({
    way: fc.constantFrom("loop", "quick", "slow"),
    types: fc.constantFrom<Type[] | "*">(["a"], ["b"], ["b", "a"], "*"),
    overflow: fc.constantFrom<Overflow>(
      "wait",
      "wait",
      "reject",
      "drop-oldest",
      "drop-newest",
    ),
    capacity: fc.constantFrom(1, 2, 3),
    parity: fc.constantFrom(0, 1, undefined, undefined),
    signal,
    patience: fc.constantFrom(1, 3, Infinity, Infinity),
    echo: fc.constantFrom<Type | undefined>("a", "b", undefined, undefined),
  }) as fc.Arbitrary<Options>,
});

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: subscribe },
  {
    weight: 10,
    arbitrary: fc.record({
      op: fc.constantFrom("publish", "publish", "tryPublish"),
      type,
      signal,
    }) as fc.Arbitrary<Step>,
  },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constantFrom("unsubscribe", "let go", "let go", "let go"),
      which: fc.nat(5),
    }) as fc.Arbitrary<Step>,
  },
  fc.record({
    op: fc.constant("abort" as const),
    signal: fc.constantFrom(0 as const, 1 as const),
  }),
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant("turns" as const),
      turns: fc.nat(8),
    }),
  },
  fc.constant({ op: "observe" as const }),
  fc.constant({ op: "flush" as const }),
);

/** A subscription, and what the model knows of it. */
class Reader {
  readonly name: string;
  readonly options: Options;
  open = true;
  /** The numbers of the events in its queue, and of those whose publishers wait. */
  queue: number[] = [];
  line: number[] = [];
  /** What the observer must be told next. */
  due: string[] = [];
  /** With "drop-newest": how many were dropped before each in the queue. */
  readonly gaps: number[] = [];
  lost = 0;
  dropped = 0;
  missed = 0;
  /** Those that were delivered, those that got there, and how many were handled. */
  readonly delivered: number[] = [];
  readonly seen: number[] = [];
  handled = 0;
  /** Whether it has its hands full. */
  busy = false;
  letGo = gate();
  /** What ends it, if anything. */
  signal: AbortSignal | undefined = undefined;
  subscription!: Subscription;

  constructor(name: string, options: Options) {
    this.name = name;
    this.options = options;
  }

  wants({ type, n }: Published): boolean {
    const { types, parity } = this.options;
    return this.open && (types === "*" || types.includes(type)) &&
      (parity === undefined || n % 2 === parity);
  }

  /** Whether publishers wait for it, or are refused. */
  get full(): boolean {
    const { overflow, capacity } = this.options;
    return !overflow.startsWith("drop") && this.queue.length >= capacity;
  }

  publish(n: number): void {
    if (this.full) {
      this.line.push(n);
      this.due.push(`queued ${n}`);
    } else this.put(n);
  }

  put(n: number): void {
    const { overflow, capacity } = this.options;
    const newest = overflow === "drop-newest";
    if (overflow.startsWith("drop") && this.queue.length >= capacity) {
      this.dropped++;
      this.lost++;
      const lost = newest ? n : this.queue.shift();
      this.due.push(`dropped ${lost} overflow`);
      if (newest) return;
    }
    this.queue.push(n);
    this.due.push(`queued ${n}`);
    if (!newest) return;
    this.gaps.push(this.lost);
    this.lost = 0;
  }

  take(n: number): void {
    assertEquals(this.queue.shift(), n, `${this.name}: order`);
    this.delivered.push(n);
    const { overflow, capacity } = this.options;
    if (overflow === "drop-oldest") {
      this.missed = this.lost;
      this.lost = 0;
    } else if (overflow === "drop-newest") this.missed = this.gaps.shift()!;
    while (this.line.length > 0 && this.queue.length < capacity) {
      this.queue.push(this.line.shift()!);
    }
  }

  /** A publisher gives up. */
  withdraw(n: number): void {
    if (!this.line.includes(n)) return;
    this.line = this.line.filter((one) => one !== n);
    this.due.push(`dropped ${n} withdrawn`);
  }

  /** It gets no more than it has. */
  finish(): void {
    this.open = false;
    this.queue.push(...this.line.splice(0));
  }

  /** It gets nothing any more. */
  end(): void {
    this.finish();
    for (const n of this.queue.splice(0)) this.due.push(`dropped ${n} ended`);
  }
}

/** An event, whether it was published or not. */
interface Published {
  readonly n: number;
  readonly type: Type;
  readonly audience: number;
}

/** A call of `publish`, and what is known of its end. */
interface Publisher {
  readonly n: number;
  readonly signal: AbortSignal | undefined;
  readonly task: Task<unknown>;
  refused: "full" | "closed" | undefined;
  calledOff: boolean;
}

class Run {
  readonly bus: Bus<Events>;
  readonly replay: Schedule["replay"];
  readonly readers: Reader[] = [];
  readonly controllers = [probedController(), probedController()];
  readonly published: Published[] = [];
  readonly publishers: Publisher[] = [];
  readonly loops: Task<unknown>[] = [];
  numbers = 0;
  ended = false;
  /** Whose handler is being called. */
  within: Reader | undefined;
  /** How many events the observer was told of as published, and as unheard. */
  told = 0;
  unheard = 0;
  /** "5 to s1" for each event that was delivered or dropped. */
  readonly fates = new Set<string>();
  /** What the observer was told while there was another one, and what that was. */
  readonly lines: [string[], string[]] = [[], []];
  other: Disposable | undefined;
  readonly errors: unknown[] = [];

  constructor(replay: Schedule["replay"]) {
    this.replay = replay;
    const onError = (error: unknown) => void this.errors.push(error);
    this.bus = new Bus({ replay, onError });
    this.bus.observe(this.#observer((what, step) => {
      if (this.other !== undefined) this.#note(0, what, step);
      this.#check(what, step);
    }));
  }

  observe(): void {
    if (this.other === undefined) {
      this.other = this.bus.observe(
        this.#observer((what, step) => this.#note(1, what, step)),
      );
    } else {
      this.other[Symbol.dispose]();
      this.other = undefined;
    }
  }

  #observer(tell: (what: keyof BusObserver, step: BusStep) => void) {
    const observer: {
      -readonly [What in keyof BusObserver]: BusObserver[What];
    } = {};
    for (const what of STEPS) {
      observer[what] = (step) => {
        try {
          tell(what, step);
        } catch (error) {
          this.errors.push(error); // the bus would report it
        }
      };
    }
    return observer;
  }

  #note(of: 0 | 1, what: string, { event, subscription }: BusStep): void {
    this.lines[of].push(`${what} ${(event.data as Data).n} ${subscription}`);
  }

  /** Compares a step of the bus with what the model has foretold. */
  #check(what: keyof BusObserver, step: BusStep): void {
    const { n } = step.event.data as Data;
    if (what === "published") {
      assertEquals(n, this.published[this.told++].n);
    } else if (what === "unheard") {
      this.unheard++;
      assertEquals(this.published[this.told - 1].audience, 0);
    } else {
      const reader = this.readers.find((one) => one.name === step.subscription);
      assert(reader);
      if (what === "queued" || what === "dropped") {
        const why = step.reason === undefined ? "" : ` ${step.reason}`;
        const due = reader.due.indexOf(`${what} ${n}${why}`);
        // An abort ends readers and calls off publishers, in any order.
        if (step.reason !== "withdrawn" && step.reason !== "ended") {
          assertEquals(due, 0, `${reader.name}: ${what} ${n}${why}`);
        } else assert(due >= 0, `${reader.name}: ${what} ${n}${why}`);
        reader.due.splice(due, 1);
      }
      if (what === "delivered" || what === "dropped") {
        const fate = `${n} to ${reader.name}`;
        assert(!this.fates.has(fate), fate);
        this.fates.add(fate);
      }
      if (what === "delivered") {
        reader.take(n);
        assertEquals(step.depth, reader.queue.length);
      } else if (what === "handled") reader.handled++;
      else assert(what !== "failed");
    }
  }

  subscribe(options: Options): void {
    const { way, types, parity, signal, echo, ...rest } = options;
    const reader = new Reader(`s${this.readers.length}`, options);
    this.readers.push(reader);
    if (signal !== undefined) reader.signal = this.controllers[signal].signal;
    for (const event of this.#kept()) {
      if (reader.wants(event)) reader.put(event.n);
    }
    const all: SubscribeOptions<BusEvent<Type, Data>> = {
      ...rest,
      name: reader.name,
      signal: reader.signal,
    };
    if (parity !== undefined) all.filter = ({ data }) => data.n % 2 === parity;

    let { patience } = options;
    /** Looks at an event; returns whether it was the last one. */
    const see = ({ data }: BusEvent<Type, Data>) => {
      const { missed, dropped } = reader.subscription;
      if (way === "quick") { // nothing can have happened since
        assertEquals([missed, dropped], [reader.missed, reader.dropped]);
      }
      reader.seen.push(data.n);
      return --patience === 0;
    };
    if (way === "loop") {
      const subscription = this.bus.subscribe(types, all);
      reader.subscription = subscription;
      const loop = async () => {
        for await (const event of subscription) {
          if (see(event)) {
            reader.end();
            break;
          }
          await this.#work(reader);
        }
      };
      this.loops.push(follow(loop()));
    } else {
      reader.subscription = this.bus.on(types, (event) => {
        const last = see(event);
        this.within = reader;
        const depth = event.data.depth + 1;
        if (echo !== undefined && depth < 3) this.publish(echo, depth);
        this.within = undefined;
        if (last) this.unsubscribe(reader);
        return way === "slow" ? this.#work(reader) : undefined;
      }, all);
    }
    assertEquals(reader.due, []);
  }

  async #work(reader: Reader): Promise<void> {
    reader.busy = true;
    await reader.letGo.passed;
    reader.busy = false;
  }

  /** What is kept for newcomers, in the order in which it was published. */
  #kept(): Published[] {
    const kept = { a: this.replay.a ?? 0, b: this.replay.b ?? 0 };
    return this.published.toReversed()
      .filter(({ type }) => kept[type]-- > 0).toReversed();
  }

  publish(type: Type, depth = 0, signal?: AbortSignal, tries = false): void {
    const n = this.numbers++;
    const data = { n, depth };
    const readers = this.readers.filter((one) =>
      one.wants({ n, type, audience: 0 })
    );
    const full = readers.some((reader) =>
      reader.full && (tries || reader.options.overflow === "reject" ||
        reader === this.within)
    );
    const refused = this.ended ? "closed" : full ? "full" : undefined;
    if (refused === undefined) {
      this.published.push({ n, type, audience: readers.length });
      for (const reader of readers) reader.publish(n);
    }
    if (tries) {
      const event = this.bus.tryPublish(type, data, { signal });
      assertEquals(event === undefined, refused !== undefined);
    } else {
      const task = follow(this.bus.publish(type, data, { signal }));
      this.publishers.push({ n, signal, task, refused, calledOff: false });
    }
    for (const { due, name } of readers) assertEquals(due, [], name);
  }

  unsubscribe(reader: Reader): void {
    reader.end();
    reader.subscription.unsubscribe();
    assertEquals(reader.due, []);
  }

  abort(i: 0 | 1): void {
    const controller = this.controllers[i];
    for (const publisher of this.publishers) {
      if (publisher.signal !== controller.signal) continue;
      publisher.calledOff ||= this.#waits(publisher);
      for (const reader of this.readers) reader.withdraw(publisher.n);
    }
    for (const reader of this.readers) {
      if (reader.signal === controller.signal) reader.end();
    }
    controller.abort(REASON);
    for (const { due, name } of this.readers) assertEquals(due, [], name);
    assertEquals(controller.listening, 0);
    this.controllers[i] = probedController();
  }

  #waits({ n }: Publisher): boolean {
    return this.readers.some(({ line }) => line.includes(n));
  }

  /** Compares all that can be seen, once everything has had its turn. */
  async settle(): Promise<void> {
    await flush();
    const { published, subscriptions } = this.bus.inspect();
    assertEquals([published, this.told], [this.published.length, published]);
    for (const shown of subscriptions) {
      const reader = this.readers.find(({ name }) => name === shown.name)!;
      assertEquals([shown.size, shown.waiting], [
        reader.queue.length,
        reader.line.length,
      ]);
      assertEquals([shown.delivered, shown.dropped], [
        reader.delivered.length,
        reader.dropped,
      ]);
      assertEquals(shown.heldSince === null, reader.line.length === 0);
      assert(shown.peak >= shown.size);
    }
    for (const { busy, queue, name } of this.readers) {
      assert(busy || queue.length === 0, `${name} sleeps`);
    }
    for (const publisher of this.publishers) {
      const { n, task: { state, error }, refused, calledOff } = publisher;
      if (refused === "full") assert(error instanceof QueueFullError);
      else if (refused === "closed") assert(error instanceof QueueClosedError);
      else if (calledOff) assertStrictEquals(error, REASON);
      else {
        const expected = this.#waits(publisher) ? "pending" : "resolved";
        assertEquals(state, expected, `${n}`);
      }
    }
    const unheard = this.published.filter(({ audience }) => audience === 0);
    assertEquals(this.unheard, unheard.length);
    assertEquals(this.lines[0], this.lines[1]);
    assertEquals(this.errors, []);
  }

  async end(how: "close" | "abort"): Promise<void> {
    if (how === "abort") {
      for (const publisher of this.publishers) {
        publisher.calledOff ||= this.#waits(publisher);
      }
    }
    for (const reader of this.readers) {
      if (how === "close") reader.finish();
      else reader.end();
    }
    this.ended = true;
    const ended = follow(this.bus[how](REASON));
    for (const { due, name } of this.readers) assertEquals(due, [], name);
    for (const reader of this.readers) reader.letGo.open();
    for (const _ of range(10)) await flush();

    assertEquals(ended.state, "resolved");
    assertEquals(this.bus.inspect().subscriptions, []);
    for (const { state, error } of this.loops) {
      assert(state !== "pending");
      if (state === "rejected") assertStrictEquals(error, REASON);
    }
    for (const reader of this.readers) {
      const { name, queue, due, delivered, handled, options: { way } } = reader;
      assertEquals([queue, due], [[], []], name);
      assertEquals(reader.seen, delivered, name);
      if (way !== "loop") assertEquals(handled, delivered.length, name);
    }
    await this.settle();
    assert(this.publishers.every(({ task }) => task.state !== "pending"));
    assertEquals(this.controllers.map(({ listening }) => listening), [0, 0]);
  }

  async perform(step: Step): Promise<void> {
    switch (step.op) {
      case "subscribe":
        return this.subscribe(step.options);
      case "publish":
      case "tryPublish": {
        const signal = step.signal === undefined
          ? undefined
          : this.controllers[step.signal].signal;
        return this.publish(step.type, 0, signal, step.op === "tryPublish");
      }
      case "unsubscribe":
      case "let go": {
        const reader = this.readers[step.which];
        if (reader === undefined) return;
        if (step.op === "unsubscribe") return this.unsubscribe(reader);
        reader.letGo.open();
        reader.letGo = gate();
        return;
      }
      case "abort":
        return this.abort(step.signal);
      case "turns":
        for (const _ of range(step.turns)) await undefined;
        return;
      case "observe":
        return this.observe();
      case "flush":
        return await this.settle();
    }
  }
}

const STEPS = [
  ...["published", "queued", "dropped", "delivered"] as const,
  ...["handled", "failed", "unheard"] as const,
];

Deno.test("Bus does as the model does", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        steps: fc.array(step, { maxLength: 50, size: "max" }),
        end: fc.constantFrom("close", "abort"),
        replay: fc.constantFrom({}, {}, { a: 2 }, { a: 1, b: 4 }),
      }) as fc.Arbitrary<Schedule>,
      async ({ steps, end, replay }) => {
        const run = new Run(replay);
        for (const step of steps) await run.perform(step);
        await run.settle();
        await run.end(end);
      },
    ),
    { numRuns: ROUNDS },
  );
});
