import { assert, assertEquals, assertFalse } from "@std/assert";
import fc from "fast-check";
import {
  Bus,
  type BusEvent,
  type BusObserver,
  type BusStep,
  type HandleOptions,
} from "../bus.ts";
import { type Overflow, QueueClosedError, QueueFullError } from "../queue.ts";
import { catchReports, flush, follow, range, ROUNDS } from "./_helpers.ts";
import { probedController, type Task } from "./_helpers.ts";

// What holds whatever is done, and from wherever: filters, observers, handlers
// and listeners of signals publish, subscribe, and end what they are told of.
// No model foretells what happens then (bus_model_test.ts has one for less);
// an observer writes it down, and the promises are checked in the end.

const REASON = new Error("called off");

type Events = Record<"a" | "b", number>;

type Action =
  | { do: "nothing" }
  | {
    do: "publish" | "tryPublish";
    type: keyof Events;
    signal: 0 | 1 | undefined;
  }
  | { do: "subscribe"; options: Options }
  | { do: "unsubscribe"; which: number }
  | { do: "call off"; signal: 0 | 1 }
  | { do: "close" | "abort" };

interface Options {
  /** Handlers, so many loops, or one event. */
  readonly way: "on" | 1 | 2 | "once";
  readonly types: (keyof Events)[] | "*";
  readonly overflow: Overflow;
  readonly capacity: 1 | 2 | 3;
  readonly concurrency: 1 | 2 | 3;
  /** How many turns a handler, or the body of a loop, takes. */
  readonly turns: number;
  /** Whether its handler waits for what it publishes. */
  readonly waits: boolean;
  readonly filtered: boolean;
  readonly signal: 0 | 1 | undefined;
}

interface Schedule {
  /** What is done from outside, and the turns in between. */
  readonly actions: (Action & { turns: number })[];
  /** What is done from inside: one thing at each opportunity, while there are any. */
  readonly reactions: Action[];
  readonly end: "close" | "abort";
}

const type = fc.constantFrom("a", "b");
const signal = fc.constantFrom(0, 1, undefined, undefined, undefined);

const action = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constantFrom("publish", "publish", "tryPublish"),
      type,
      signal,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("subscribe"),
      options: fc.record({
        way: fc.constantFrom("on", "on", "on", 1, 2, "once"),
        types: fc.constantFrom(["a"], ["b"], ["b", "a"], "*"),
        overflow: fc.constantFrom(
          ...["wait", "wait", "reject", "drop-oldest", "drop-newest"],
        ),
        capacity: fc.constantFrom(1, 2, 3),
        concurrency: fc.constantFrom(1, 2, 3),
        turns: fc.constantFrom(0, 0, 1, 9),
        waits: fc.boolean(),
        filtered: fc.boolean(),
        signal,
      }),
    }),
  },
  fc.record({ do: fc.constant("unsubscribe"), which: fc.nat(5) }),
  fc.record({ do: fc.constant("call off"), signal: fc.constantFrom(0, 1) }),
) as fc.Arbitrary<Action>;

const reaction = fc.oneof(
  { weight: 10, arbitrary: fc.constant<Action>({ do: "nothing" }) },
  { weight: 10, arbitrary: action },
  fc.record({
    do: fc.constantFrom("close", "abort"),
  }) as fc.Arbitrary<Action>,
);

/** A subscription, and what became of its events. */
class Reader {
  readonly name: string;
  readonly options: Options;
  /** By their steps, as an observer was told; and as it got them. */
  readonly queued = new Set<number>();
  readonly dropped = new Set<number>();
  readonly delivered: number[] = [];
  readonly got: number[] = [];
  overflown = 0;
  handled = 0;
  running = 0;
  unsubscribe = () => {};

  constructor(name: string, options: Options) {
    this.name = name;
    this.options = options;
  }
}

class World {
  readonly bus: Bus<Events>;
  readonly reactions: Action[];
  readonly readers: Reader[] = [];
  readonly controllers = [probedController(), probedController()];
  readonly published: number[] = [];
  readonly unheard: number[][] = [[], []]; // by `onUnheard`, by the observer
  readonly publishing: Task<unknown>[] = [];
  readonly loops: Task<unknown>[] = [];
  numbers = 0;

  constructor(reactions: readonly Action[]) {
    this.reactions = [...reactions];
    this.bus = new Bus({
      replay: { a: 2 },
      onUnheard: ({ data }) => {
        this.unheard[0].push(data);
        this.react();
      },
      onError: ({ cause }) => {
        throw cause; // the test finds it among the reports
      },
    });
    this.bus.observe(observer((what, step) => this.write(what, step)));
    this.bus.observe(observer(() => this.react()));
    for (const { signal } of this.controllers) {
      signal.addEventListener("abort", () => this.react());
    }
  }

  /** Writes a step down. */
  write(what: keyof BusObserver, step: BusStep): void {
    const n = step.event.data as number;
    if (what === "published") return void this.published.push(n);
    if (what === "unheard") return void this.unheard[1].push(n);
    const reader = this.readers.find(({ name }) => name === step.subscription)!;
    const over = reader.dropped.has(n) || reader.delivered.includes(n);
    if (what === "handled") reader.handled++;
    else assertFalse(over, `${n} ${what} to ${reader.name}, after its fate`);
    if (what === "queued") reader.queued.add(n);
    if (what === "delivered") reader.delivered.push(n);
    if (what !== "dropped") return;
    reader.dropped.add(n);
    if (step.reason === "overflow") reader.overflown++;
  }

  react(): Promise<unknown> | undefined {
    const action = this.reactions.shift();
    return action && this.perform(action);
  }

  perform(action: Action): Promise<unknown> | undefined {
    switch (action.do) {
      case "publish":
        return this.publish(action.type, action.signal);
      case "tryPublish":
        this.bus.tryPublish(action.type, this.numbers++, {
          signal: this.signal(action.signal),
        });
        return;
      case "subscribe":
        return this.subscribe(action.options);
      case "unsubscribe":
        return void this.readers[action.which]?.unsubscribe();
      case "call off":
        return void this.controllers[action.signal].abort(REASON);
      case "close":
      case "abort":
        this.loops.push(follow(this.bus[action.do](REASON)));
    }
  }

  signal(which: 0 | 1 | undefined): AbortSignal | undefined {
    return which === undefined ? undefined : this.controllers[which].signal;
  }

  publish(type: keyof Events, which: 0 | 1 | undefined): Promise<unknown> {
    const signal = this.signal(which);
    const promise = this.bus.publish(type, this.numbers++, { signal });
    this.publishing.push(follow(promise));
    return promise.catch(() => {}); // for who waits for it
  }

  subscribe(options: Options): undefined {
    const { way, types, filtered, turns, waits, ...rest } = options;
    const name = way === "once" ? "a" : `s${this.readers.length}`;
    const reader = new Reader(name, options);
    const all: HandleOptions<BusEvent<keyof Events, number>> = {
      ...rest,
      name,
      signal: this.signal(options.signal),
    };
    if (filtered) {
      all.filter = ({ data }) => {
        this.react();
        return data % 3 > 0;
      };
    }
    if (way === "once") {
      if (this.readers.some(({ name }) => name === "a")) return; // it has no name of its own
      this.readers.push(reader);
      const { signal, filter } = all;
      const once = this.bus.once("a", { signal, filter });
      this.loops.push(follow(once.then(({ data }) => reader.got.push(data))));
      return;
    }
    this.readers.push(reader);
    if (way === "on") {
      const listen = () => this.react();
      const on = this.bus.on(types, ({ data }, { signal }) => {
        reader.got.push(data);
        assert(++reader.running <= options.concurrency);
        // One listener, however many events: the signal is the subscription's.
        if (turns > 0) signal.addEventListener("abort", listen);
        const reacting = this.react();
        return work(turns, waits ? reacting : undefined, () => {
          reader.running--;
        });
      }, all);
      reader.unsubscribe = () => on.unsubscribe();
      return;
    }
    const subscription = this.bus.subscribe(types, all);
    reader.unsubscribe = () => subscription.unsubscribe();
    for (const _ of range(way)) {
      const events = subscription[Symbol.asyncIterator]();
      const read = async () => {
        for (let one; !(one = await events.next()).done;) {
          reader.got.push(one.value.data);
          await work(turns, this.react(), () => {});
        }
      };
      this.loops.push(follow(read()));
    }
  }

  /** Compares the state of the bus with what was written down. */
  inspect(): void {
    const { published, subscriptions } = this.bus.inspect();
    assertEquals(published, this.published.length);
    for (const shown of subscriptions) {
      const { queued, dropped, delivered, overflown, options } = this.readers
        .find(({ name }) => name === shown.name)!;
      assertEquals([shown.delivered, shown.dropped], [
        delivered.length,
        overflown,
      ]);
      const over = delivered.length +
        [...dropped].filter((n) => queued.has(n)).length;
      assertEquals(shown.size + shown.waiting, queued.size - over);
      const lossy = options.overflow.startsWith("drop");
      if (lossy) assert(shown.size <= options.capacity && shown.waiting === 0);
      if (options.overflow === "reject") assertEquals(shown.waiting, 0);
    }
  }

  async end(how: "close" | "abort"): Promise<void> {
    const ended = follow(this.bus[how](REASON));
    for (const _ of range(10)) await flush();
    this.reactions.length = 0;
    assertEquals(ended.state, "resolved");
    const { closed, subscriptions } = this.bus.inspect();
    assertEquals([closed, subscriptions], [true, []]);
    for (const { state, error } of [...this.loops, ...this.publishing]) {
      assert(state !== "pending");
      if (state === "resolved" || error === REASON) continue;
      assert(
        error instanceof QueueClosedError || error instanceof QueueFullError,
      );
    }
    assertEquals(new Set(this.published).size, this.published.length);
    for (const reader of this.readers) {
      const { name, queued, dropped, delivered, got, options } = reader;
      for (const n of queued) {
        assert(dropped.has(n) || delivered.includes(n), `${n} to ${name}`);
      }
      assertEquals(got, delivered, name);
      if (options.way === "on") assertEquals(reader.handled, got.length);
      const theirs = new Set(delivered);
      const order = this.published.filter((n) => theirs.has(n));
      assertEquals(delivered, order, name);
    }
    const told = this.unheard[1];
    const heard = this.unheard[0];
    assertEquals(heard, told.filter((n) => heard.includes(n))); // but its own
    for (const controller of this.controllers) {
      assertEquals(controller.listening, 1); // our own
    }
  }
}

/** Takes so many turns, and waits for something, or does neither. */
function work(
  turns: number,
  waits: Promise<unknown> | undefined,
  done: () => void,
): Promise<void> | undefined {
  if (turns > 0 || waits !== undefined) {
    return (async () => {
      await waits;
      for (const _ of range(turns)) await undefined;
      done();
    })();
  }
  done();
}

function observer(
  tell: (what: keyof BusObserver, step: BusStep) => void,
): BusObserver {
  return Object.fromEntries(
    [
      ...["published", "queued", "dropped", "delivered"] as const,
      ...["handled", "failed", "unheard"] as const,
    ].map((what) => [what, (step: BusStep) => tell(what, step)]),
  );
}

Deno.test("Bus keeps its promises, whatever is done from inside", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        actions: fc.array(
          fc.tuple(action, fc.nat(9)).map(([action, turns]) => ({
            ...action,
            turns,
          })),
          { maxLength: 30, size: "max" },
        ),
        reactions: fc.array(reaction, { maxLength: 40, size: "max" }),
        end: fc.constantFrom("close", "abort"),
      }) as fc.Arbitrary<Schedule>,
      async ({ actions, reactions, end }) => {
        using reports = catchReports();
        const world = new World(reactions);
        for (const { turns, ...action } of actions) {
          world.perform(action);
          for (const _ of range(turns)) await undefined;
          world.inspect();
        }
        await flush();
        world.inspect();
        await world.end(end);
        assertEquals(reports.errors, []);
      },
    ),
    { numRuns: ROUNDS },
  );
});

const { process } = globalThis as {
  process?: { getBuiltinModule?(name: string): unknown };
};

Deno.test({
  name: "Handlers that wait for their own queue never all wait for each other",
  ignore: !process?.getBuiltinModule?.("node:async_hooks"), // they cannot be told from others
  async fn() {
    const behaviour = fc.record({
      publishes: fc.nat(3),
      atOnce: fc.boolean(),
      turns: fc.nat(5),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 4 }),
        fc.array(behaviour, { minLength: 1, maxLength: 40, size: "max" }),
        async (capacity, concurrency, behaviours) => {
          const bus = new Bus<Events>();
          const publishing: Task<unknown>[] = [];
          let numbers = 0;
          let running = 0;
          const publish = () => {
            const promise = bus.publish("a", numbers++);
            publishing.push(follow(promise));
            return promise.catch((error) => {
              assert(error instanceof QueueFullError);
            });
          };
          bus.on("a", async ({ data }) => {
            const { publishes, atOnce, turns } = behaviours[data] ??
              { publishes: 0, atOnce: false, turns: 1 };
            running++;
            for (const _ of range(turns)) await undefined;
            if (atOnce) await Promise.all(range(publishes).map(publish));
            else for (const _ of range(publishes)) await publish();
            running--;
          }, { capacity, concurrency });
          for (const _ of range(behaviours.length >> 2)) publish();
          for (const _ of range(30)) await flush();
          const [{ size, waiting }] = bus.inspect().subscriptions;
          assertEquals([running, size, waiting], [0, 0, 0]);
          assertFalse(publishing.some(({ state }) => state === "pending"));
          await bus.close();
        },
      ),
      { numRuns: ROUNDS },
    );
  },
});
