// A worker whose handler does whatever a request says, good or bad.
import { serve, transfer } from "../../worker.ts";

/** What it is asked for. Ports let the test follow a handler, and steer it. */
export type Order =
  | { do: "count" } // how many it has counted; those that are refused do not count
  | { do: "return"; value: unknown }
  | { do: "return a function" }
  | { do: "transfer"; bytes: Uint8Array }
  | { do: "throw"; what: string }
  | { do: "throw later" | "exit" }
  | {
    do:
      | "hold"
      | "block"
      | "block later"
      | "eat"
      | "exit after"
      | "throw after"
      | "reject after"
      | "tell of close";
    port: MessagePort;
  }
  | { do: "break close" | "opened" }; // how many resources there have been

class OvenError extends RangeError {
  override name = "OvenError";
  readonly code = "E_OVEN";
  readonly callback = () => {};
  readonly inner = new TypeError("inside");
}

/** Throws all kinds of errors. */
const THROWS: Record<string, () => unknown> = {
  plain: () => new Error("plain"),
  custom: () =>
    new OvenError("too hot", {
      cause: new SyntaxError("no fan", { cause: 7 }),
    }),
  unnamed: () => new (class NoName extends Error {})("no name"),
  aggregate: () =>
    new AggregateError(
      [new TypeError("one"), "two", new OvenError("three")],
      "all",
    ),
  dom: () => new DOMException("gone", "NotFoundError"),
  circular: () => {
    const error = new Error("circle");
    error.cause = error;
    return error;
  },
  getter: () =>
    Object.defineProperty(new Error("getter"), "bad", {
      enumerable: true,
      get() {
        throw 1;
      },
    }),
  string: () => "a string",
  nothing: () => undefined,
  function: () => () => {},
};

const { process } = globalThis as {
  process?: { exit(code: number): void };
};

/** Ends the worker; in a page the rest of the task would still be done. */
function exit(): Promise<never> {
  if (process?.exit !== undefined && !("Deno" in globalThis)) process.exit(3);
  else globalThis.close();
  return never();
}

function never(): Promise<never> {
  return new Promise(() => {});
}

function throwLater(): void {
  setTimeout(() => {
    throw new TypeError("thrown later");
  });
}

/** Lets the test know that the handler has begun, and waits for its word. */
function hold(port: MessagePort, signal: AbortSignal): Promise<unknown> {
  return new Promise((resolve, reject) => {
    port.onmessage = ({ data }) => {
      port.close();
      if (data === "fail") reject(new Error("told to fail"));
      else resolve(data);
    };
    signal.addEventListener("abort", () => {
      const { reason } = signal;
      port.postMessage({ aborted: reason?.name ?? reason }); // Node 20 clones no DOMException
    });
    port.postMessage("begun");
  });
}

let opened = 0;

const kitchen = serve({
  open: () => ({
    number: ++opened,
    served: 0,
    busy: false,
    ends: [] as MessagePort[],
    broken: false,
  }),
  async handle(kitchen, order: Order, { signal }): Promise<unknown> {
    if (kitchen.busy) throw new Error("two handlers at once");
    kitchen.busy = true;
    try {
      return await serveOrder(kitchen, order, signal);
    } finally {
      kitchen.busy = false;
    }
  },
  close(kitchen) {
    if (kitchen.broken) throw new OvenError("cannot close");
    for (const port of kitchen.ends) {
      port.postMessage("closed");
      port.close();
    }
  },
  isFatal: (error) => (error as Error | undefined)?.message === "fatal",
});

export type Kitchen = typeof kitchen;

type Resource = Awaited<ReturnType<Kitchen["open"]>>;

function serveOrder(
  kitchen: Resource,
  order: Order,
  signal: AbortSignal,
): unknown {
  switch (order.do) {
    case "count":
      return ++kitchen.served;
    case "return":
      return order.value;
    case "return a function":
      return () => {};
    case "transfer": {
      const { bytes } = order;
      const copy = Uint8Array.from(bytes, (byte) => byte + 1);
      return transfer(copy, [copy.buffer]);
    }
    case "throw":
      throw order.what === "fatal" ? new Error("fatal") : THROWS[order.what]();
    case "throw later":
      throwLater();
      return "will throw";
    case "exit":
      return exit();
    case "exit after":
      return hold(order.port, signal).then(exit);
    case "throw after":
      return hold(order.port, signal).then(throwLater).then(never);
    case "reject after":
      return hold(order.port, signal)
        .then(() => void Promise.reject(new TypeError("rejected")))
        .then(never);
    case "hold":
      return hold(order.port, signal);
    case "block":
      order.port.postMessage("begun");
      for (;;);
    case "block later":
      setTimeout(() => {
        order.port.postMessage("begun");
        for (;;);
      });
      return "will block";
    case "eat":
      order.port.postMessage("begun");
      for (const all: unknown[] = [];;) all.push(new Array(1e5).fill(0.5));
    case "tell of close":
      kitchen.ends.push(order.port);
      return;
    case "opened":
      return kitchen.number;
    case "break close":
      kitchen.broken = true;
  }
}
