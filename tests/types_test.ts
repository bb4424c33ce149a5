import { assert } from "@std/assert";
import {
  merge,
  type Overflow,
  Queue,
  QueueClosedError,
  QueueFullError,
  type QueueOptions,
  type ReceiveResult,
  select,
  type Selected,
  type WaitOptions,
} from "../queue.ts";

// What must not compile: `deno check` complains about an @ts-expect-error above
// a line without an error. Nothing in here is ever called.

/** Compiles only where both types are the same; `any` is the same as `any` alone. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends
  (<T>() => T extends B ? 1 : 2) ? true : false;

/** Asserts a type that is known to be `true`. */
function holds<_ extends true>(): void {}

interface Order {
  dish: string;
}

interface LateOrder extends Order {
  minutes: number;
}

const uncalled: ((...args: never[]) => unknown)[] = [];

// ── Values ──────────────────────────────────────────────────────────────────

uncalled.push(async (queue = new Queue<Order>()) => {
  await queue.send({ dish: "soup" });
  // @ts-expect-error a number is no order
  await queue.send(1);
  // @ts-expect-error an order has a dish
  await queue.send({});
  // @ts-expect-error a value is needed
  await queue.send();
  // @ts-expect-error a number is no order
  queue.trySend(1);
  // @ts-expect-error trySend does not wait, so it has no signal
  queue.trySend({ dish: "soup" }, {});
});

uncalled.push(async (queue = new Queue<Order>()) => {
  holds<Same<Awaited<ReturnType<typeof queue.send>>, void>>();
  const order = await queue.receive();
  holds<Same<typeof order, Order>>();
  const orders = await queue.receiveMany(2);
  holds<Same<typeof orders, Order[]>>();
  const drained = queue.drain();
  holds<Same<typeof drained, Order[]>>();
  for await (const order of queue) holds<Same<typeof order, Order>>();
  for await (const order of queue.values()) holds<Same<typeof order, Order>>();
  for await (const batch of queue.batches(2)) {
    holds<Same<typeof batch, Order[]>>();
  }
  const streams: [ReadableStream<Order>, WritableStream<Order>] = [
    queue.toReadableStream(),
    queue.toWritableStream(),
  ];
  // @ts-expect-error a queue of orders makes no stream of numbers
  const wrong: ReadableStream<number> = queue.toReadableStream();
  // @ts-expect-error a max is needed
  queue.receiveMany();
  // @ts-expect-error a max is needed
  queue.batches();
  return [streams, wrong];
});

uncalled.push(async () => {
  const nothing = new Queue<void>();
  await nothing.send();
  await nothing.send(undefined);
  // @ts-expect-error a queue without values takes none
  await nothing.send(1);

  const unknown = new Queue();
  await unknown.send(1);
  const value = await unknown.receive();
  holds<Same<typeof value, unknown>>();

  // deno-lint-ignore no-explicit-any
  const anything = new Queue<any>();
  await anything.send(1);
  (await anything.receive()).whatever();
});

uncalled.push((queue = new Queue<Order>()) => {
  // @ts-expect-error its size can only be looked at
  queue.size = 1;
  // @ts-expect-error its capacity is fixed
  queue.capacity = 1;
  // @ts-expect-error it is closed by close()
  queue.closed = true;
  // @ts-expect-error drops are counted by the queue
  queue.dropped = 0;
  // @ts-expect-error no private names
  queue.senders;
});

uncalled.push((result: ReceiveResult<Order | undefined>) => {
  // @ts-expect-error there may be no value
  result.value;
  if (result.state === "ok") {
    const { value } = result;
    holds<Same<typeof value, Order | undefined>>();
  } else {
    // @ts-expect-error there is no value
    result.value;
    const { state } = result;
    holds<Same<typeof state, "empty" | "closed">>();
  }
  // @ts-expect-error there is no such state
  return result.state === "full";
});

// ── A queue for one kind of task ────────────────────────────────────────────

uncalled.push((orders = new Queue<Order>(), late = new Queue<LateOrder>()) => {
  const readers: AsyncIterable<Order>[] = [orders, late];
  // deno-lint-ignore no-explicit-any
  const anyQueue: Queue<any> = orders;
  const disposables: (Disposable & AsyncDisposable)[] = [orders];
  // @ts-expect-error who receives late orders cannot do with any order
  const lateReader: AsyncIterable<LateOrder> = orders;
  // @ts-expect-error orders without minutes would come out as late orders
  const lateQueue: Queue<LateOrder> = orders;
  return [readers, anyQueue, disposables, lateReader, lateQueue];
});

// ── Options ─────────────────────────────────────────────────────────────────

uncalled.push(() => {
  new Queue<Order>({ capacity: 1, order: (a, b) => a.dish < b.dish ? -1 : 1 });
  new Queue<Order>({ onDrop: ({ dish }) => console.log(dish) });
  // @ts-expect-error a typo
  new Queue({ capcity: 1 });
  // @ts-expect-error the capacity is an option, not the argument
  new Queue(1);
  // @ts-expect-error the capacity is a number
  new Queue({ capacity: "1" });
  // @ts-expect-error null is no capacity
  new Queue({ capacity: null });
  // @ts-expect-error a typo
  new Queue({ overflow: "dropoldest" });
  // @ts-expect-error a policy has a name
  new Queue({ overflow: true });
  // @ts-expect-error no such order
  new Queue({ order: "priority" });
  // @ts-expect-error a comparison compares values of the queue
  new Queue<Order>({ order: (a: number, b: number) => a - b });
  // @ts-expect-error a comparison returns a number
  new Queue<Order>({ order: (a, b) => a.dish > b.dish });
  // @ts-expect-error orders are what is dropped
  new Queue<Order>({ onDrop: (value: number) => value });
  // @ts-expect-error only what waits has a signal
  new Queue({ signal: AbortSignal.timeout(1) });

  holds<
    Same<Overflow, "wait" | "reject" | "drop-oldest" | "drop-newest">
  >();
  const options: QueueOptions<Order> = {};
  const waiting: WaitOptions = { signal: undefined };
  return [options, waiting];
});

uncalled.push(async (signal: AbortSignal, queue = new Queue<number>()) => {
  await queue.send(1, { signal });
  // @ts-expect-error the signal is an option, not the argument
  await queue.send(1, signal);
  // @ts-expect-error the signal is an option, not the argument
  await queue.receive(signal);
  // @ts-expect-error the signal is an option, not the argument
  await queue.receiveMany(1, signal);
  // @ts-expect-error the signal is an option, not the argument
  queue.values(signal);
  // @ts-expect-error the signal is an option, not the argument
  queue.batches(1, signal);
  // @ts-expect-error the signal is an option, not the argument
  await select({ queue }, signal);
  // @ts-expect-error the signal is an option, not the argument
  merge({ queue }, signal);
  // @ts-expect-error the signal is an option, not the argument
  Queue.from([1], signal);
  // @ts-expect-error a typo
  await queue.receive({ sginal: signal });
  // @ts-expect-error no signal
  await queue.receive({ signal: null });
  // @ts-expect-error a for await loop passes no options
  queue[Symbol.asyncIterator]({ signal });
  await queue.receive(new AbortController()); // it has a signal
});

// ── Queue.from() ────────────────────────────────────────────────────────────

uncalled.push((async: AsyncIterable<Order>, signal: AbortSignal) => {
  holds<Same<typeof numbers, Queue<number>>>();
  const numbers = Queue.from([1, 2], { capacity: 2, signal });
  holds<Same<typeof orders, Queue<Order>>>();
  const orders = Queue.from(async);
  // @ts-expect-error a promise in a synchronous source stays a promise
  const awaited: Queue<number> = Queue.from([Promise.resolve(1)]);
  // @ts-expect-error a number is not iterable
  Queue.from(1);
  // @ts-expect-error a promise of an array is not iterable
  Queue.from(Promise.resolve([1]));
  // @ts-expect-error orders cannot be compared as numbers
  Queue.from<Order>(async, { order: (a: number, b: number) => a - b });
  // @ts-expect-error a typo
  Queue.from([1], { capcity: 1 });
  return [numbers, orders, awaited];
});

// ── select() and merge() ────────────────────────────────────────────────────

uncalled.push(
  async (orders = new Queue<Order>(), shutdown = new Queue<Date>()) => {
    const selected = await select({ orders, shutdown });
    holds<
      Same<
        typeof selected,
        { key: "orders"; value: Order } | { key: "shutdown"; value: Date }
      >
    >();
    // @ts-expect-error it may be a date
    selected.value.dish;
    if (selected.key === "orders") {
      const { value } = selected;
      holds<Same<typeof value, Order>>();
    } else {
      const { value } = selected;
      holds<Same<typeof value, Date>>();
    }
    // @ts-expect-error no such key
    if (selected.key === "order") return;
    switch (selected.key) {
      case "orders":
        return selected.value.dish;
      case "shutdown":
        return selected.value.getTime();
    }
  },
);

uncalled.push(
  async (orders = new Queue<Order>(), shutdown = new Queue<Date>()) => {
    for await (const event of merge({ orders, shutdown })) {
      holds<
        Same<
          typeof event,
          { key: "orders"; value: Order } | { key: "shutdown"; value: Date }
        >
      >();
      if (event.key === "shutdown") return event.value.getTime();
      // @ts-expect-error it is an order
      event.value.getTime();
    }
  },
);

uncalled.push(async (orders = new Queue<Order>()) => {
  const lines: Record<string, Queue<number>> = {};
  const selected = await select(lines);
  holds<Same<typeof selected, { key: string; value: number }>>();
  // deno-lint-ignore no-explicit-any
  const anyQueue = new Queue<any>();
  const anything = await select({ orders, anyQueue });
  if (anything.key === "anyQueue") anything.value.whatever();
  // @ts-expect-error an order has no minutes, whatever the other queue has
  else anything.value.minutes;
  // @ts-expect-error nothing but queues
  await select({ orders, other: [1] });
  // @ts-expect-error nothing but queues
  merge({ orders, other: undefined });
  // @ts-expect-error queues have names
  await select(orders);
  // @ts-expect-error queues are needed
  await select();
  holds<
    Same<
      Selected<{ orders: Queue<Order> }>,
      { key: "orders"; value: Order }
    >
  >();
});

// ── Errors ──────────────────────────────────────────────────────────────────

uncalled.push((error: unknown) => {
  if (error instanceof QueueClosedError || error instanceof QueueFullError) {
    const { value, message } = error;
    holds<Same<typeof value, unknown>>();
    holds<Same<typeof message, string>>();
    // @ts-expect-error the value is that of the sender
    error.value = 1;
    // @ts-expect-error it may be anything
    error.value.dish;
  }
  new QueueClosedError("no", { cause: error, value: 1 });
  // @ts-expect-error a message is needed
  new QueueFullError();
  // @ts-expect-error the value is an option, not the argument
  new QueueFullError("no", 1);
});

Deno.test("Types are checked before the tests run", () => {
  assert(uncalled.length > 0);
});
