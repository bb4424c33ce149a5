// Spans as the SDK of OpenTelemetry exports them.
import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
} from "@std/assert";
import {
  context,
  createContextKey,
  SpanKind,
  SpanStatusCode,
  trace,
  type Tracer,
} from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import {
  AlwaysOffSampler,
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
  type SpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import { type SpanLike, toOpenTelemetry, type TracerLike } from "../trace.ts";
import { open } from "./_bus.ts";
import { catchReports, deferred, flush } from "./_helpers.ts";

context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());

/** A bus with a tracer, and the spans that have ended. */
function traced(
  { onStart, ...options }: {
    tracer?: Tracer;
    onStart?: SpanProcessor["onStart"];
  } = {},
) {
  const exporter = new InMemorySpanExporter();
  const processor = new SimpleSpanProcessor(exporter);
  if (onStart !== undefined) processor.onStart = onStart;
  const spanProcessors = [processor];
  const provider = new BasicTracerProvider({ spanProcessors });
  const tracer = options.tracer ?? provider.getTracer("test");
  const setting = open();
  const tracing = toOpenTelemetry(setting.bus, tracer);
  const spans = () => exporter.getFinishedSpans();
  const named = (name: string) => spans().filter((span) => span.name === name);
  return { ...setting, tracer, tracing, spans, named };
}

/** The context of a span as a `traceparent`. */
function parent(span: ReadableSpan | undefined): string {
  const { traceId, spanId } = span!.spanContext();
  return `00-${traceId}-${spanId}-01`;
}

/** Where the links of a span lead to. */
function linked(span: ReadableSpan): string[] {
  return span.links.map(({ context: { traceId, spanId } }) =>
    `00-${traceId}-${spanId}-01`
  );
}

const REMOTE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

Deno.test("toOpenTelemetry() names, attributes and links its spans by the conventions", async () => {
  const { bus, named } = traced();
  bus.on("n", () => {}, { name: "kitchen" });
  const reader = bus.subscribe("n", { name: "board" })[Symbol.asyncIterator]();
  const event = await bus.publish("n", 1, { source: "table 7" });
  await reader.next();
  await flush();
  const [publish] = named("publish n");
  const [process] = named("process n");
  const [receive] = named("receive n");
  assertEquals(publish.kind, SpanKind.PRODUCER);
  assertEquals(process.kind, SpanKind.CONSUMER);
  assertEquals(receive.kind, SpanKind.CLIENT);
  const common = {
    "messaging.system": "sauce",
    "messaging.destination.name": "n",
    "messaging.message.id": event.id,
    "cloudevents.event_source": "table 7",
  };
  assertEquals(publish.attributes, {
    ...common,
    "messaging.operation.name": "publish",
    "messaging.operation.type": "send",
  });
  assertEquals(process.attributes, {
    ...common,
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
    "messaging.destination.subscription.name": "kitchen",
  });
  assertEquals(receive.attributes, {
    ...common,
    "messaging.operation.name": "receive",
    "messaging.operation.type": "receive",
    "messaging.destination.subscription.name": "board",
  });
  assertEquals(event.trace, parent(publish));
  assertEquals(publish.links, []);
  for (const span of [process, receive]) {
    assertEquals(linked(span), [event.trace!]);
    assertEquals(span.links[0].context.isRemote, true);
    assertEquals(span.parentSpanContext, undefined);
    assertNotEquals(span.spanContext().traceId, publish.spanContext().traceId);
    assertEquals(span.status.code, SpanStatusCode.UNSET);
  }
});

Deno.test("toOpenTelemetry() makes a chain of two hops", async () => {
  const { bus, named } = traced();
  bus.on("n", async (event) => {
    await flush(); // the span is still the active one
    await bus.publish("s", "served", { source: "kitchen", cause: event });
  });
  bus.on("s", () => {});
  await bus.publish("n", 1);
  await flush();
  await flush();
  const [[publish], [process]] = [named("publish n"), named("process n")];
  const [[effect], [end]] = [named("publish s"), named("process s")];
  assertEquals(linked(process), [parent(publish)]);
  assertEquals(effect.parentSpanContext?.spanId, process.spanContext().spanId);
  assertEquals(linked(effect), [parent(publish)]); // the cause
  assertEquals(linked(end), [parent(effect)]);
  assertEquals(end.parentSpanContext, undefined);
});

Deno.test("toOpenTelemetry() publishes within the span that is active, and handles outside of it", async () => {
  const { bus, tracer, named } = traced();
  await tracer.startActiveSpan("startup", async (span) => {
    bus.on("n", () => tracer.startSpan("query").end());
    await bus.publish("n", 1);
    await flush();
    span.end();
  });
  const [[startup], [publish]] = [named("startup"), named("publish n")];
  const [[process], [query]] = [named("process n"), named("query")];
  assertEquals(publish.parentSpanContext?.spanId, startup.spanContext().spanId);
  assertEquals(process.parentSpanContext, undefined);
  assertEquals(query.parentSpanContext?.spanId, process.spanContext().spanId);
});

Deno.test("toOpenTelemetry() leaves a trace from elsewhere in the event, and joins it", async () => {
  const { bus, named } = traced();
  bus.on("n", () => {});
  const event = await bus.publish("n", 1, { trace: REMOTE });
  await flush();
  const [[publish], [process]] = [named("publish n"), named("process n")];
  assertEquals(event.trace, REMOTE);
  assertEquals(publish.kind, SpanKind.CLIENT);
  assertEquals(publish.spanContext().traceId, REMOTE.slice(3, 35));
  assertEquals(publish.parentSpanContext?.spanId, REMOTE.slice(36, 52));
  assertEquals(publish.parentSpanContext?.isRemote, true);
  assertEquals([publish, process].map(linked), [[REMOTE], [REMOTE]]);
});

Deno.test("toOpenTelemetry() gives processors of spans a context as the API has it", async () => {
  const spans: unknown[] = [];
  const key = createContextKey("test");
  const { bus } = traced({
    onStart(_, parent) {
      const marked = parent.setValue(key, 1);
      spans.push(
        trace.getSpanContext(parent)?.spanId,
        parent.getValue(key),
        [marked.getValue(key), trace.getSpanContext(marked)?.spanId],
        marked.deleteValue(key).getValue(key),
        trace.getSpan(trace.deleteSpan(marked)),
      );
    },
  });
  await bus.publish("n", 1, { trace: REMOTE });
  const id = REMOTE.slice(36, 52);
  assertEquals(spans, [id, undefined, [1, id], undefined, undefined]);
});

Deno.test("toOpenTelemetry() replaces a trace that is not valid", async () => {
  const { bus, named } = traced();
  const invalid = [
    "",
    "a trace",
    `${REMOTE}-more`,
    REMOTE.replace("00-", "ff-"),
    REMOTE.toUpperCase(),
    `00-${"0".repeat(32)}-b7ad6b7169203331-01`,
    `00-0af7651916cd43dd8448eb211c80319c-${"0".repeat(16)}-01`,
  ];
  for (const trace of invalid) {
    const event = await bus.publish("n", 1, { trace });
    const publish = named("publish n").at(-1);
    assertEquals(event.trace, parent(publish));
    assertEquals(publish?.parentSpanContext, undefined);
  }
  const later = REMOTE.replace("00-", "cc-") + "-more"; // a later version may be longer
  assertEquals((await bus.publish("n", 1, { trace: later })).trace, later);
});

Deno.test("toOpenTelemetry() records what handlers throw, and filters do not disturb", async () => {
  const { bus, spans, named } = traced();
  class InkError extends Error {
    override name = "InkError";
  }
  bus.on("n", () => {
    throw new InkError("no ink");
  }, { name: "throws" });
  bus.on("n", () => Promise.reject("no error"), { name: "rejects" });
  bus.subscribe("n", {
    filter() {
      throw new InkError("no filter");
    },
  });
  await bus.publish("n", 1);
  await flush();
  const [thrown, rejected] = named("process n");
  assertEquals(thrown.status, {
    code: SpanStatusCode.ERROR,
    message: "InkError: no ink",
  });
  assertEquals(thrown.attributes["error.type"], "InkError");
  assertEquals(thrown.events[0].name, "exception");
  assertEquals(thrown.events[0].attributes?.["exception.message"], "no ink");
  assertEquals(rejected.status, {
    code: SpanStatusCode.ERROR,
    message: '"no error"',
  });
  assertEquals(rejected.attributes["error.type"], "_OTHER");
  assertEquals(spans().length, 3);
});

Deno.test("toOpenTelemetry() tells handlers of one name apart", async () => {
  const { bus, named } = traced();
  const gate = deferred();
  const who = (name: string) =>
    trace.getActiveSpan()!.setAttribute("who", name);
  bus.on("n", async () => {
    who("good");
    await gate.promise;
  });
  bus.on("n", async () => {
    who("bad");
    await undefined;
    throw new Error("boom");
  });
  await bus.publish("n", 1);
  await flush();
  gate.resolve();
  await flush();
  assertEquals(
    named("process n").map(({ attributes, status }) => [
      attributes.who,
      status.code,
    ]),
    [["bad", SpanStatusCode.ERROR], ["good", SpanStatusCode.UNSET]],
  );
});

Deno.test("toOpenTelemetry() takes no publish for another, whatever traces say", async () => {
  const { bus, named } = traced();
  const given = "00-" + "a".repeat(32) + "-" + "b".repeat(16) + "-01";
  bus.subscribe("n", {
    capacity: 1,
    overflow: "reject",
    filter: ({ data }) => data === 2,
  });
  bus.tryPublish("n", 2);
  bus.subscribe("n", {
    filter: ({ data }) => {
      if (data === 1) bus.tryPublish("n", 2, { source: "inner", trace: given });
      return data === 1;
    },
  });
  using _ = bus.observe({ trace: () => undefined }); // which nobody gets to see
  const outer = await bus.publish("n", 1, { source: "outer", trace: given });
  await flush();
  const spans = named("publish n").slice(1).map(({ attributes, status }) => [
    attributes["cloudevents.event_source"],
    attributes["messaging.message.id"],
    status.code,
  ]);
  assertEquals(spans, [
    ["outer", outer.id, SpanStatusCode.UNSET],
    ["inner", undefined, SpanStatusCode.ERROR],
  ]);
});

Deno.test("toOpenTelemetry() ends the span of an error that cannot be looked at", async () => {
  using reports = catchReports();
  const { bus, named, errors } = traced();
  const { proxy, revoke } = Proxy.revocable(new Error(), {});
  revoke();
  bus.on("n", () => Promise.reject(proxy));
  bus.on("n", () => {
    throw Object.assign(new Error(), { name: Symbol("odd") });
  });
  await bus.publish("n", 1);
  await flush();
  const types = named("process n").map(({ attributes }) =>
    attributes["error.type"]
  );
  assertEquals(types.toSorted(), ["Symbol(odd)", undefined]);
  assertEquals([reports.errors.length > 0, errors.length > 0], [true, true]);
});

Deno.test("toOpenTelemetry() marks a publish that is refused, also within another", async () => {
  const { bus, named } = traced();
  bus.subscribe("n", {
    capacity: 1,
    overflow: "reject",
    filter: ({ data }) => {
      if (data > 1) bus.tryPublish("s", `before ${data}`);
      return true;
    },
  });
  await bus.publish("n", 1, { trace: REMOTE });
  await bus.publish("n", 2, { trace: REMOTE }).catch(() => {});
  assertEquals(bus.tryPublish("n", 3, { trace: REMOTE }), undefined);
  await flush();
  const [taken, ...refused] = named("publish n");
  assertEquals(taken.status.code, SpanStatusCode.UNSET);
  assertEquals(refused.length, 2);
  for (const span of refused) {
    assertEquals(span.status.code, SpanStatusCode.ERROR);
    assertEquals(span.attributes["error.type"], "refused");
    assert(!("messaging.message.id" in span.attributes));
  }
  for (const span of named("publish s")) {
    assertEquals(span.status.code, SpanStatusCode.UNSET);
  }
});

Deno.test("toOpenTelemetry() knows which of two was refused in one go", async () => {
  const { bus, named } = traced();
  const full = bus.subscribe("n", { capacity: 1, overflow: "reject" });
  const publish = (source: string) =>
    bus.tryPublish("n", 1, { source, trace: REMOTE });
  publish("first");
  publish("second"); // refused
  full.unsubscribe();
  publish("third");
  await flush();
  const refused = named("publish n").filter(({ status }) =>
    status.code === SpanStatusCode.ERROR
  );
  assertEquals(
    refused.map(({ attributes }) => attributes["cloudevents.event_source"]),
    ["second"],
  );
});

Deno.test("toOpenTelemetry() keeps handlers apart that run at the same time", async () => {
  const { bus, named, passed, go } = traced();
  bus.on("n", () => passed, { name: "twin", concurrency: 3 });
  bus.on("n", ({ data }) => {
    if (data === 2) throw new Error("boom");
  }, { name: "twin" });
  for (const n of [1, 2, 3]) await bus.publish("n", n);
  await flush();
  assertEquals(named("process n").length, 3);
  go();
  await flush();
  const spans = named("process n");
  const failed = spans.filter(({ status }) =>
    status.code === SpanStatusCode.ERROR
  );
  assertEquals([spans.length, failed.length], [6, 1]);
  const [, second] = named("publish n");
  assertEquals(linked(failed[0]), [parent(second)]);
});

Deno.test("toOpenTelemetry() ends with what it returns, which ends the spans that are open", async () => {
  const { bus, named, spans, tracing, passed, go } = traced();
  bus.on("n", () => passed);
  await bus.publish("n", 1);
  await flush();
  assertEquals(named("process n").length, 0);
  tracing[Symbol.dispose]();
  assertEquals(named("process n").length, 1);
  go();
  const event = await bus.publish("n", 2);
  await flush();
  assertEquals(event.trace, undefined);
  assertEquals(spans().length, 2);
});

Deno.test("toOpenTelemetry() ends each span once", async () => {
  const ended: string[] = [];
  const bus = open().bus;
  const inner: TracerLike = new BasicTracerProvider().getTracer("test");
  const probe = (span: SpanLike, name: string) => {
    const { end } = span;
    span.end = () => (ended.push(name), end.call(span));
    return span;
  };
  const tracing = toOpenTelemetry(bus, {
    startSpan: (name, ...rest) => probe(inner.startSpan(name, ...rest), name),
    startActiveSpan: (name, options, run) =>
      inner.startActiveSpan(name, options, (span) => run(probe(span, name))),
  });
  for (const name of ["a", "b"]) bus.on("n", () => {}, { name });
  bus.on("n", () => Promise.reject("no"));
  const reader = bus.subscribe("s", { capacity: 1 });
  await bus.publish("n", 1);
  bus.tryPublish("s", "taken");
  bus.tryPublish("s", "refused");
  await flush();
  await reader[Symbol.asyncIterator]().next();
  tracing[Symbol.dispose]();
  assertEquals(ended.toSorted(), [
    ...["process n", "process n", "process n", "publish n"],
    ...["publish s", "publish s", "receive s"],
  ]);
});

Deno.test("toOpenTelemetry() carries no trace without an SDK, and one that is not sampled as such", async () => {
  const silent = traced({ tracer: trace.getTracer("no SDK") });
  silent.bus.on("n", ({ data }) => silent.see(data));
  assertEquals((await silent.bus.publish("n", 1)).trace, undefined);
  for (const trace of [REMOTE, "not valid"]) {
    assertEquals((await silent.bus.publish("n", 1, { trace })).trace, trace);
  }
  await flush();
  assertEquals(silent.seen, [1, 1, 1]);

  const provider = new BasicTracerProvider({ sampler: new AlwaysOffSampler() });
  const { bus } = traced({ tracer: provider.getTracer("off") });
  assertMatch((await bus.publish("n", 1)).trace!, /^00-.{32}-.{16}-00$/);
});

Deno.test("toOpenTelemetry() disturbs nothing if its tracer fails", async () => {
  using reports = catchReports();
  const boom = () => {
    throw new Error("boom");
  };
  const tracer = { startSpan: boom, startActiveSpan: boom } as unknown;
  const { bus, seen, see } = traced({ tracer: tracer as Tracer });
  bus.on("n", ({ data }) => see(data));
  await bus.publish("n", 1);
  await flush();
  assertEquals(seen, [1]);
  assertEquals(reports.errors.length, 2);
});
