// Makes one object of each class that an entry point exports, for imports.mjs.

// deno-lint-ignore no-explicit-any
type Class = new (...args: any[]) => unknown;

const event = { id: "1", type: "order", source: "table 7", time: 0, data: 1 };
const bus = {
  observe: () => ({ [Symbol.dispose]: () => {} }),
  inspect: () => ({}),
};

const redis = { isReady: true, sendCommand: () => {}, duplicate: () => {} };

/** How to make them, by name. */
const recipes: Record<string, (Class: Class) => unknown> = {
  Bus: (Bus) => new Bus({ name: "bus", replay: { order: 1 } }),
  LinkClosedError: (Error) => new Error("closed"),
  LinkError: (Error) => new Error(event, "link bus", { state: "gap", lost: 1 }),
  PortClosedError: (Error) => new Error("closed"),
  PortMessageError: (Error) => new Error("refused", { value: 1 }),
  Queue: (Queue) => new Queue({ capacity: 8, order: "lifo" }),
  QueueClosedError: (Error) => new Error("closed", { value: 1 }),
  QueueFullError: (Error) => new Error("full", { value: 1 }),
  Recorder: (Recorder) => new Recorder(bus),
  RedisError: (Error) => new Error("away"),
  RedisQueue: (Queue) => new Queue(redis, "orders", { leaseTime: 1000 }),
  ReentrantRequestError: (Error) => new Error("re-entrant"),
  Serializer: (Serializer) => new Serializer({ open: () => 1 }),
  SubscriberError: (Error) => new Error(event, "kitchen"),
  Subscription: () => "abstract",
  WorkerDiedError: (Error) => new Error("dead", { value: 1 }),
  WorkerSerializer: (Serializer) => new Serializer("file:///none.js"),
};

/** Throws if there is a class that nobody has told how to make. */
export function makeEach(entry: object): void {
  for (const [name, value] of Object.entries(entry)) {
    const isClass = typeof value === "function" && value.prototype &&
      /^class\b/.test(Function.prototype.toString.call(value));
    if (!isClass) continue;
    if (!(name in recipes)) throw new Error(`make_each.ts has no ${name}`);
    recipes[name](value);
  }
}
