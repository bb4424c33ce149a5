import {
  assert,
  assertEquals,
  assertFalse,
  assertInstanceOf,
  assertStrictEquals,
  assertStringIncludes,
} from "@std/assert";
import { Bus, SubscriberError, type Subscription } from "../bus.ts";
import { QueueClosedError } from "../queue.ts";
import { BOOM, type Events, open, publishAll, settled } from "./_bus.ts";
import { catchReports, flush, follow } from "./_helpers.ts";

Deno.test("A handler that throws what cannot be looked at stops nobody", async () => {
  const { bus, errors, seen } = open();
  const { proxy, revoke } = Proxy.revocable(new Error(), {});
  revoke();
  const nameless = Object.assign(new Error(), { message: Symbol("odd") });
  bus.on("n", ({ data }) => {
    seen.push(data);
    throw [proxy, nameless][data];
  });
  await bus.publish("n", 0);
  await bus.publish("n", 1);
  await flush();
  assertEquals(seen, [0, 1]);
  assertEquals(errors.map(({ message }) => message.split(": ").at(-1)), [
    "an error that cannot be shown",
    "Symbol(odd)",
  ]);
});

Deno.test("A failing handler or filter stops nobody, and onError is told all", async () => {
  const { bus, errors, seen } = open();
  bus.on("n", () => {
    throw BOOM;
  }, { name: "throws" });
  bus.on("n", () => Promise.reject("no error"), { name: "rejects" });
  const filtered = bus.subscribe("n", {
    name: "filters",
    filter() {
      throw BOOM;
    },
  });
  bus.on("n", ({ data }) => seen.push(data));
  const order = await bus.publish("s", "order");
  const event = await bus.publish("n", 1, { source: "table 1", cause: order });
  await bus.publish("n", 2);
  await flush();
  assertEquals(seen, [1, 2]);
  assertEquals([filtered.size, filtered.missed], [0, 0]);
  assertEquals(errors.length, 6);
  for (const [name, cause] of [["throws", BOOM], ["rejects", "no error"]]) {
    const [error, plain] = errors.filter((one) => one.subscription === name);
    assertInstanceOf(error, SubscriberError);
    assertEquals(error.name, "SubscriberError");
    assertStrictEquals(error.event, event);
    assertStrictEquals(error.cause, cause);
    const told = ["n", event.id, "table 1", order.id, name as string];
    const why = cause === BOOM ? "boom" : '"no error"';
    for (const part of [...told, why]) {
      assertStringIncludes(error.message, part);
    }
    assertFalse(plain.message.includes("caused by"), plain.message);
  }
  assertEquals(
    errors.filter((one) => one.subscription === "filters").length,
    2,
  );
});

Deno.test("A failure says who published the event that led to it", async () => {
  const { bus, errors } = open();
  bus.on("n", () => {
    throw BOOM;
  }, { name: "kitchen" });
  const order = await bus.publish("s", "soup", { source: "table 7" });
  const source = "front of house";
  const event = await bus.publish("n", 1, { source, cause: order });
  await flush();
  assertEquals(
    errors[0].message,
    `Subscription "kitchen" failed on event "n" (${event.id}) from "front of house", ` +
      `caused by "s" (${order.id}) from "table 7": boom`,
  );
  // of a copy, say one from another process, only what can be seen is known
  const copy = new SubscriberError({ ...event }, "kitchen");
  assertEquals(
    copy.message,
    `Subscription "kitchen" failed on event "n" (${event.id}) from "front of house", caused by ${order.id}`,
  );
  // what is known besides belongs to nobody else
  const json = JSON.parse(JSON.stringify(event));
  assertEquals(json, { ...event });
  assertEquals(Object.keys(event).sort(), [
    ...["cause", "data", "id", "source", "time", "type"],
  ]);
});

Deno.test("A failure says what was thrown, on one line, and of which kind if it is a special one", async () => {
  const { bus, errors } = open();
  const thrown = [
    new Error("line 1\nline 2\u2028\x1b[31m"),
    new TypeError("no function"),
    new RangeError(""),
    new Error(),
    "salt",
  ];
  bus.on("n", ({ data }) => {
    throw thrown[data];
  });
  for (const [i] of thrown.entries()) await bus.publish("n", i);
  await flush();
  assertEquals(
    errors.map(({ message }) => message.split('"unknown": ').at(-1)),
    [
      "line 1\\u000aline 2\\u2028\\u001b[31m",
      "TypeError: no function",
      "RangeError",
      "Error",
      '"salt"',
    ],
  );
});

Deno.test("An error is one line, whatever the names of events and subscriptions", async () => {
  const { bus, errors } = open();
  const odd = "a\nin type=order \u001b[31m";
  const all = bus as unknown as Bus;
  const cause = { ...await all.publish(odd, 1, { source: odd }), id: odd };
  all.on(odd, () => {
    throw BOOM;
  }, { name: odd });
  all.subscribe(odd, { name: odd, capacity: 1, overflow: "reject" });
  const event = await all.publish(odd, 1, { source: odd, cause });
  const full = follow(all.publish(odd, 2));
  await flush();
  const copy = new SubscriberError({ ...event }, odd, { cause: BOOM });
  for (const error of [errors[0], copy, full.error as Error]) {
    assertFalse(/\p{Cc}/u.test(error.message), error.message);
    assertStringIncludes(error.message, JSON.stringify(odd));
  }
});

Deno.test("A filter's failure is also told when nobody waits", async () => {
  const { bus, errors } = open();
  const filter = () => {
    throw BOOM;
  };
  bus.subscribe("n", { filter, capacity: 1 });
  assert(bus.tryPublish("n", 1));
  follow(bus.once("n", { filter }));
  assert(bus.tryPublish("n", 2));
  await flush();
  assertEquals(errors.map(({ cause }) => cause), [BOOM, BOOM, BOOM]);
});

Deno.test("A failure is reported as uncaught where there is no onError", async () => {
  using reports = catchReports();
  const bus = new Bus<Events>();
  const seen: unknown[] = [];
  bus.on("n", ({ data }) => {
    seen.push(data);
    throw data === 1 ? BOOM : undefined;
  });
  publishAll(bus, [1, 2]);
  await flush();
  const [first, second] = reports.errors as SubscriberError[];
  assertInstanceOf(first, SubscriberError);
  assertStrictEquals(first.cause, BOOM);
  assert("cause" in second);
  assertEquals([second.cause, seen.length], [undefined, 2]);
});

for (const [way, cause] of [["handler", BOOM], ["filter", "no error"]]) {
  Deno.test(`A throwing onError, told of a ${way}, is reported and stops nobody`, async () => {
    using reports = catchReports();
    const failure = new TypeError("onError failed");
    const { bus } = open({
      onError() {
        throw failure;
      },
    });
    const fail = () => {
      throw cause;
    };
    if (way === "filter") bus.subscribe("n", { filter: fail });
    else bus.on("n", fail);
    const seen: unknown[] = [];
    bus.on("n", ({ data }) => seen.push(data));
    publishAll(bus, [1, 2]);
    await flush();
    assertEquals(seen, [1, 2]);
    assertEquals(
      reports.errors.filter((error) => error === failure).length,
      2,
    );
  });
}

Deno.test("A throwing onError does not make the failure disappear that it was told of", async () => {
  using reports = catchReports();
  const { bus } = open({
    onError() {
      throw new TypeError("onError failed");
    },
  });
  bus.on("n", () => {
    throw BOOM;
  });
  await bus.publish("n", 1);
  await flush();
  const told = new Set<unknown>();
  const add = (error: unknown) => {
    told.add(error);
    if (!(error instanceof Error)) return;
    [error.cause, (error as SuppressedError).suppressed]
      .filter((cause) => cause !== undefined).forEach(add);
    if (error instanceof AggregateError) error.errors.forEach(add);
  };
  reports.errors.forEach(add);
  assert(told.has(BOOM));
});

for (const [way, fails] of [["handler", "on"], ["filter", "subscribe"]]) {
  Deno.test(`An event that onError publishes about a ${way} comes after its cause`, async () => {
    const { bus, seen, see } = open({
      onError({ event }) {
        if (event.type === "n") bus.publish("s", "failed", { cause: event });
      },
    });
    const fail = () => {
      throw BOOM;
    };
    if (fails === "on") bus.on("n", fail);
    else bus.subscribe("n", { filter: fail });
    bus.on("*", ({ data }) => see(data));
    await bus.publish("n", 1);
    await flush();
    assertEquals(seen, [1, "failed"]);
  });
}

// A filter, or onError, may end what is just being published to.
const ENDING_FILTERS: Record<
  string,
  (own: Subscription, bus: Bus<Events>) => unknown
> = {
  "unsubscribes its own": (own) => own.unsubscribe(),
  "closes the bus": (_, bus) => bus.close(),
  "aborts the bus": (_, bus) => bus.abort(BOOM),
};
for (const [what, end] of Object.entries(ENDING_FILTERS)) {
  for (const way of ["publish", "tryPublish"] as const) {
    Deno.test(`Bus.${way}() survives a filter that ${what}`, async () => {
      const { bus, errors } = open();
      const others = [0, 1].map(() => bus.subscribe("n"));
      const own: Subscription = bus.subscribe("n", {
        filter: () => (end(own, bus), true),
      });
      const publish = async () => await bus[way]("n", 1);
      const { value, error } = await settled(publish());
      const sizes = others.map(({ size }) => size);
      const isOpen = what === "unsubscribes its own";
      assertEquals(sizes, isOpen ? [1, 1] : [0, 0]); // all or nobody
      assertEquals([value !== undefined, errors], [isOpen, []]);
      if (error !== undefined && error !== BOOM) {
        assertInstanceOf(error, QueueClosedError);
        assertEquals(error.value, 1);
      }
    });
  }
}

Deno.test("Bus.inspect() counts the failures of handlers and filters, also if nobody observes", async () => {
  const { bus } = open();
  const fail = () => {
    throw BOOM;
  };
  bus.on("n", fail, { name: "handler" });
  bus.on("n", () => Promise.reject(BOOM), { name: "later" });
  bus.subscribe("n", { name: "filter", filter: fail });
  bus.on("n", () => {}, { name: "good" });
  publishAll(bus, [1, 2]);
  await flush();
  const { subscriptions } = bus.inspect();
  assertEquals(subscriptions.map(({ name, failed }) => [name, failed]), [
    ["handler", 2],
    ["later", 2],
    ["filter", 2],
    ["good", 0],
  ]);
});
