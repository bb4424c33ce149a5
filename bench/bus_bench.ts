// What a delivery through a bus costs: beside one plain queue, beside those who
// also keep events for their readers, and, for scale, beside those who only
// call functions.
//
// What is alike for all of them: each reader and handler is a closure of its
// own that counts a number; the bench subscribes them in its first round, a
// warm-up, and keeps them; a round is over when all deliveries are counted.
// Where there is a capacity, it is 256. The others hand out the bare number, or
// put it into an object or array; the bus makes a frozen event with time,
// source and id of it.

import { EventEmitter, on } from "node:events";
import process from "node:process";
import { Effect, PubSub, Scope } from "effect";
import Emittery from "emittery";
import { EventEmitter as EventEmitter3 } from "eventemitter3";
import mittModule, { type Emitter } from "mitt";
import { Subject } from "rxjs";
import { Bus } from "../bus.ts";
import { Queue } from "../queue.ts";
import { Recorder } from "../trace.ts";
import { check, group } from "./group.ts";

// Emittery reads `process.env.DEBUG` for each event. In Deno and Node that nearly
// doubles the cost of its `emit`, and in Deno it needs a permission. Here it
// finds a plain object, the better of its two figures.
process.env = {};

// Emittery asks for Node 22. This is all that Node 20 lacks for it.
Promise.withResolvers ??= <T>() => {
  let resolve!: (value: T | PromiseLike<T>) => void;
  let reject!: (reason?: unknown) => void;
  const promise = new Promise<T>((...both) => [resolve, reject] = both);
  return { promise, resolve, reject };
};

// Its types are those of a CommonJS module, which it is not.
const mitt = mittModule as unknown as <Events>() => Emitter<
  Events & Record<string | symbol, unknown>
>;

const DELIVERIES = 10_000; // a round
const CAPACITY = 256;
const BURST = 100;

type Events = { order: number };

/** Counts deliveries. One that is lost lets its round, and so the process, end without a result. */
class Tally {
  #left = 0;
  #sum = 0;
  #resolve: ((sum: number) => void) | undefined;

  /** Resolves with the sum of so many numbers. */
  expect(deliveries: number): Promise<number> {
    check(this.#left, 0);
    this.#left = deliveries;
    this.#sum = 0;
    return new Promise((resolve) => this.#resolve = resolve);
  }

  count(value: number): void {
    this.#sum += value;
    if (--this.#left === 0) this.#resolve!(this.#sum);
  }
}

/** Publishes the numbers from 0. */
type Publish = (events: number) => void | Promise<unknown>;

/** Subscribes `n` readers or handlers; returns what publishes to them. */
type Subscribe = (tally: Tally, n: number) => Publish | Promise<Publish>;

/** A round of so many events to `n` subscribers, in bursts if `burst` says so. */
function bench(
  n: number,
  subscribe: Subscribe,
  burst = DELIVERIES / n,
): () => Promise<void> {
  const tally = new Tally();
  let publish: Publish | undefined;
  return async () => {
    publish ??= await subscribe(tally, n);
    for (let left = DELIVERIES; left > 0; left -= n * burst) {
      const counted = tally.expect(n * burst);
      await publish(burst);
      check(await counted, n * burst * (burst - 1) / 2);
    }
  };
}

/** Waits after each event for what its publisher is told to wait for, if only for its turn. */
function oneByOne(publish: (value: number) => unknown): Publish {
  return async (events) => {
    for (let i = 0; i < events; i++) await publish(i);
  };
}

/** Does not wait. */
function atOnce(publish: (value: number) => unknown): Publish {
  return (events) => {
    for (let i = 0; i < events; i++) publish(i);
  };
}

/**
 * The floor of an event: what `publish` owes its readers, whoever makes it. The
 * time is one reading of the clock, the id two strings that are joined when
 * somebody looks.
 */
function bareEvent(data: number) {
  const id = PREFIX + made++ % 256;
  const time = Date.now();
  return Object.freeze({ id, type: "order", source: "unknown", time, data });
}

const PREFIX = crypto.randomUUID();
let made = 0;

/** What a round does. */
function publishesTo(n: number): string {
  const [events, to] = [DELIVERIES / n, n].map((n) => n.toLocaleString("en"));
  const subscribers = n === 1 ? "subscriber" : "subscribers";
  return `publishes ${events} events to ${to} ${subscribers}: 10,000 deliveries. `;
}

/** Calls `make` so many times. */
function times<T>(n: number, make: () => T): T[] {
  return Array.from({ length: n }, make);
}

// Read by `for await`.

function readQueue(tally: Tally, capacity = CAPACITY): Queue<number> {
  const queue = new Queue<number>({ capacity });
  (async () => {
    for await (const value of queue) tally.count(value);
  })();
  return queue;
}

/** Queues that are filled by hand with the event that a bus would make. */
function readEvents(tally: Tally, n: number): (value: number) => object {
  const queues = times(n, () => {
    const queue = new Queue<{ data: number }>({ capacity: CAPACITY });
    (async () => {
      for await (const { data } of queue) tally.count(data);
    })();
    return queue;
  });
  return (value) => {
    const event = bareEvent(value);
    for (const queue of queues) queue.trySend(event);
    return event;
  };
}

function readBus(tally: Tally, n: number): Bus<Events> {
  const bus = new Bus<Events>();
  times(n, async () => {
    const events = bus.subscribe("order", { capacity: CAPACITY });
    for await (const { data } of events) tally.count(data);
  });
  return bus;
}

function readEmitter(tally: Tally, n: number): EventEmitter {
  const emitter = new EventEmitter().setMaxListeners(0);
  times(n, async () => {
    for await (const [value] of on(emitter, "order")) tally.count(value);
  });
  return emitter;
}

function readEmittery(tally: Tally, n: number): Emittery<Events> {
  const emittery = new Emittery<Events>();
  times(n, async () => {
    for await (const { data } of emittery.events("order")) tally.count(data);
  });
  return emittery;
}

/** In the form of a loop that was the fastest of those tried. */
function readPubSub(
  tally: Tally,
  n: number,
): Promise<PubSub.PubSub<number>> {
  return Effect.runPromise(
    Effect.gen(function* () {
      const pubsub = yield* PubSub.bounded<number>(CAPACITY);
      for (let i = 0; i < n; i++) {
        const subscription = yield* PubSub.subscribe(pubsub);
        yield* PubSub.take(subscription).pipe(
          Effect.map((value) => tally.count(value)),
          Effect.forever({ disableYield: true }),
          Effect.forkDetach,
        );
      }
      return pubsub;
    }).pipe(Scope.provide(Scope.makeUnsafe())),
  );
}

for (const n of [1, 10, 100, 1_000]) {
  group({
    name: `for await, ${n}`,
    round: publishesTo(n) + "The readers have started first. The publisher " +
      "awaits each `publish` (or `emit`, also where that returns no promise). " +
      "`queue`: one plain queue, `await send` for each delivery, one reader " +
      "that waits for each. `queues`: one for each reader, filled by hand. " +
      "`floor`: the same with a frozen object for each event, with the time and " +
      "an id, and a resolved promise to await",
    operations: DELIVERIES,
    aims: [
      { bench: "bus", of: "queue", atMost: 1.5 },
      { bench: "bus", of: "events.on", atMost: 1 },
    ],
    benches: {
      queue: bench(1, (tally) => {
        const queue = readQueue(tally);
        return oneByOne((value) => queue.send(value));
      }),
      queues: bench(n, (tally) => {
        const queues = times(n, () => readQueue(tally));
        return oneByOne((value) => {
          for (const queue of queues) queue.trySend(value);
        });
      }),
      floor: bench(n, (tally) => {
        const send = readEvents(tally, n);
        return oneByOne((value) => Promise.resolve(send(value)));
      }),
      bus: bench(n, (tally) => {
        const bus = readBus(tally, n);
        return oneByOne((value) => bus.publish("order", value));
      }),
      "events.on": bench(n, (tally) => {
        const emitter = readEmitter(tally, n);
        return oneByOne((value) => emitter.emit("order", value));
      }),
      "emittery events()": bench(n, (tally) => {
        const emittery = readEmittery(tally, n);
        return oneByOne((value) => emittery.emit("order", value));
      }),
    },
  });
}

for (const n of [1, 10, 100, 1_000]) {
  const burst = Math.min(BURST, DELIVERIES / n);
  group({
    name: `for await in bursts, ${n}`,
    round: publishesTo(n) +
      `Every ${burst} events the publisher waits until all readers have them, ` +
      "not in between (`tryPublish`, `emit`). `queue`: one plain queue with as " +
      "many numbers by `trySend` as there are deliveries in a burst, drained " +
      "by one reader. `queues`: one for each reader, filled by hand. `floor`: " +
      "the same with an event like that of the bus",
    operations: DELIVERIES,
    aims: [
      { bench: "bus", of: "queue", atMost: 1.5 },
      { bench: "bus", of: "events.on", atMost: 1 },
    ],
    benches: {
      queue: bench(1, (tally) => {
        const queue = readQueue(tally, n * burst);
        return atOnce((value) => queue.trySend(value));
      }, n * burst),
      queues: bench(n, (tally) => {
        const queues = times(n, () => readQueue(tally));
        return atOnce((value) => {
          for (const queue of queues) queue.trySend(value);
        });
      }, burst),
      floor: bench(n, (tally) => atOnce(readEvents(tally, n)), burst),
      bus: bench(n, (tally) => {
        const bus = readBus(tally, n);
        return atOnce((value) => bus.tryPublish("order", value));
      }, burst),
      "events.on": bench(n, (tally) => {
        const emitter = readEmitter(tally, n);
        return atOnce((value) => emitter.emit("order", value));
      }, burst),
      "emittery events()": bench(n, (tally) => {
        const emittery = readEmittery(tally, n);
        return atOnce((value) => emittery.emit("order", value));
      }, burst),
    },
  });
}

// Effect has groups of its own, because it parks by `setImmediate`: in Deno,
// whoever takes the next turn after that runs at a half or third of its speed.
for (const n of [1, 10, 100, 1_000]) {
  const burst = Math.min(BURST, DELIVERIES / n);
  group({
    name: `for await, effect, ${n}`,
    round: publishesTo(n) +
      "The publisher awaits each `publish` (effect's in " +
      "a fiber); or, in bursts, none (`tryPublish`, `publishUnsafe`), and every " +
      `${burst} of them it waits until all readers have them`,
    operations: DELIVERIES,
    aims: [
      { bench: "bus", of: "effect PubSub", atMost: 1 },
      { bench: "bus in bursts", of: "effect PubSub in bursts", atMost: 1 },
    ],
    benches: {
      "effect PubSub": bench(n, async (tally) => {
        const pubsub = await readPubSub(tally, n);
        return (events) =>
          Effect.runPromise(Effect.gen(function* () {
            for (let i = 0; i < events; i++) yield* PubSub.publish(pubsub, i);
          }));
      }),
      "effect PubSub in bursts": bench(n, async (tally) => {
        const pubsub = await readPubSub(tally, n);
        return atOnce((value) => PubSub.publishUnsafe(pubsub, value));
      }, burst),
      bus: bench(n, (tally) => {
        const bus = readBus(tally, n);
        return oneByOne((value) => bus.publish("order", value));
      }),
      "bus in bursts": bench(n, (tally) => {
        const bus = readBus(tally, n);
        return atOnce((value) => bus.tryPublish("order", value));
      }, burst),
    },
  });
}

// Handled by functions.

function handleBus(tally: Tally, n: number): Bus<Events> {
  const bus = new Bus<Events>();
  const options = { capacity: CAPACITY };
  times(n, () => bus.on("order", ({ data }) => tally.count(data), options));
  return bus;
}

/** Handlers that are called at once with the event that a bus would make. */
function callHandlers(tally: Tally, n: number): (value: number) => object {
  const handlers = times(
    n,
    () => ({ data }: { data: number }) => tally.count(data),
  );
  return (value) => {
    const event = bareEvent(value);
    for (const handler of handlers) handler(event);
    return event;
  };
}

function handleEmittery(tally: Tally, n: number): Emittery<Events> {
  const emittery = new Emittery<Events>();
  times(n, () => emittery.on("order", ({ data }) => tally.count(data)));
  return emittery;
}

for (const n of [1, 10, 100, 1_000]) {
  const burst = Math.min(BURST, DELIVERIES / n);
  const atMost = n === 1 ? 1 / 4 : 1 / 2;
  group({
    name: `on, ${n}`,
    round: publishesTo(n) +
      "Handlers are synchronous. With emittery and the bus " +
      "the publisher awaits each event; or, in bursts, none (`tryPublish`, " +
      `\`emit\`), and every ${burst} of them it waits until they are handled. ` +
      "The others have no queues: they call the handlers, and there is nothing " +
      "to wait for; so does `floor`, with an event like that of the bus and a " +
      "resolved promise to await",
    operations: DELIVERIES,
    aims: [
      { bench: "bus", of: "emittery", atMost },
      { bench: "bus in bursts", of: "emittery in bursts", atMost },
    ],
    benches: {
      emittery: bench(n, (tally) => {
        const emittery = handleEmittery(tally, n);
        return oneByOne((value) => emittery.emit("order", value));
      }),
      "emittery in bursts": bench(n, (tally) => {
        const emittery = handleEmittery(tally, n);
        return atOnce((value) => emittery.emit("order", value));
      }, burst),
      floor: bench(n, (tally) => {
        const call = callHandlers(tally, n);
        return oneByOne((value) => Promise.resolve(call(value)));
      }),
      bus: bench(n, (tally) => {
        const bus = handleBus(tally, n);
        return oneByOne((value) => bus.publish("order", value));
      }),
      "bus in bursts": bench(n, (tally) => {
        const bus = handleBus(tally, n);
        return atOnce((value) => bus.tryPublish("order", value));
      }, burst),
      mitt: bench(n, (tally) => {
        const emitter = mitt<Events>();
        times(n, () => emitter.on("order", (value) => tally.count(value)));
        return atOnce((value) => emitter.emit("order", value));
      }),
      eventemitter3: bench(n, (tally) => {
        const emitter = new EventEmitter3();
        times(n, () => emitter.on("order", (value) => tally.count(value)));
        return atOnce((value) => emitter.emit("order", value));
      }),
      "rxjs Subject": bench(n, (tally) => {
        const subject = new Subject<number>();
        times(n, () => subject.subscribe((value) => tally.count(value)));
        return atOnce((value) => subject.next(value));
      }),
      EventTarget: bench(n, (tally) => {
        const target = new EventTarget();
        times(
          n,
          () =>
            target.addEventListener(
              "order",
              (event) => tally.count((event as CustomEvent<number>).detail),
            ),
        );
        return atOnce((value) =>
          target.dispatchEvent(new CustomEvent("order", { detail: value }))
        );
      }),
    },
  });
}

group({
  name: "one at a time",
  round: publishesTo(1) + "The publisher waits until each has been delivered " +
    "before it publishes the next: who wakes its readers late, to let them find " +
    "more than one event, gains nothing here, and pays",
  operations: DELIVERIES,
  benches: {
    queue: bench(1, (tally) => {
      const queue = readQueue(tally);
      return atOnce((value) => queue.trySend(value));
    }, 1),
    "bus, for await": bench(1, (tally, n) => {
      const bus = readBus(tally, n);
      return atOnce((value) => bus.tryPublish("order", value));
    }, 1),
    "events.on": bench(1, (tally, n) => {
      const emitter = readEmitter(tally, n);
      return atOnce((value) => emitter.emit("order", value));
    }, 1),
    "emittery events()": bench(1, (tally, n) => {
      const emittery = readEmittery(tally, n);
      return atOnce((value) => emittery.emit("order", value));
    }, 1),
    "bus, on": bench(1, (tally, n) => {
      const bus = handleBus(tally, n);
      return atOnce((value) => bus.tryPublish("order", value));
    }, 1),
    "emittery, on": bench(1, (tally, n) => {
      const emittery = handleEmittery(tally, n);
      return atOnce((value) => emittery.emit("order", value));
    }, 1),
  },
});
for (const n of [1, 100]) {
  group({
    name: `recorder, ${n}`,
    round: publishesTo(n) + "Each is awaited; handlers are synchronous. " +
      "Nobody observes, or a Recorder keeps the last 1,024 steps: it is told one " +
      "an event and three a delivery",
    operations: DELIVERIES,
    aims: [{ bench: "recorded", of: "bus", atMost: 3 }],
    benches: {
      bus: bench(n, (tally) => {
        const bus = handleBus(tally, n);
        return oneByOne((value) => bus.publish("order", value));
      }),
      recorded: bench(n, (tally) => {
        const bus = handleBus(tally, n);
        const recorder = new Recorder(bus, { size: 1024 });
        const publish = oneByOne((value) => bus.publish("order", value));
        let steps = 0;
        return (events) => {
          check(recorder.size + recorder.dropped, steps); // of the rounds before
          steps += events + 3 * DELIVERIES;
          return publish(events);
        };
      }),
    },
  });
}

// Nobody listens.

const bus = new Bus<Events>();
const emittery = new Emittery<Events>();
const emitter = new EventEmitter();
const pubsub = Effect.runSync(PubSub.bounded<number>(CAPACITY));
const target = new EventTarget();

/** Publishes 10,000 events. Only a bus can tell that it was done. */
function publishes(publish: Publish, bus?: Bus<Events>): () => Promise<void> {
  return async () => {
    const before = bus?.inspect().published ?? 0;
    await publish(DELIVERIES);
    if (bus) check(bus.inspect().published, before + DELIVERIES);
  };
}

group({
  name: "publish, nobody listens",
  round:
    "publishes 10,000 events that nobody listens to, awaited where there is a " +
    "promise to await. The floor: an event like that of the bus, and a " +
    "resolved promise",
  operations: DELIVERIES,
  benches: {
    floor: publishes(
      oneByOne((value) => Promise.resolve(bareEvent(value))),
    ),
    publish: publishes(oneByOne((value) => bus.publish("order", value)), bus),
    tryPublish: publishes(
      atOnce((value) => bus.tryPublish("order", value)),
      bus,
    ),
    emittery: publishes(oneByOne((value) => emittery.emit("order", value))),
    "effect PubSub": publishes((events) =>
      Effect.runPromise(Effect.gen(function* () {
        for (let i = 0; i < events; i++) yield* PubSub.publish(pubsub, i);
      }))
    ),
    EventEmitter: publishes(atOnce((value) => emitter.emit("order", value))),
    EventTarget: publishes(
      atOnce((value) =>
        target.dispatchEvent(new CustomEvent("order", { detail: value }))
      ),
    ),
  },
});
