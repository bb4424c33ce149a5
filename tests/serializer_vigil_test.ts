import { assertEquals } from "@std/assert";
import { Serializer } from "../serializer.ts";
import {
  catchReports,
  type Deferred,
  deferred,
  flush,
  follow,
  range,
  type Task,
} from "./_helpers.ts";
import { Workers } from "./_workers.ts";

/** A serializer whose handlers run until the test says so, and what happens to it. */
function makeOven(
  { close, ...options }: {
    close?: (oven: number) => Promise<void> | undefined;
    isFatal?: () => boolean;
    maxWaiting?: number;
    concurrency?: number;
    open?: () => number | Promise<number>;
  } = {},
) {
  const log: string[] = [];
  const baking: Record<string, Deferred<string>> = {};
  let opened = 0;
  const oven = new Serializer({
    open: () => ++opened,
    handle(oven, dish: string, { signal }) {
      log.push(`${dish} in ${oven}`);
      signal.addEventListener("abort", () => log.push(`${dish} told`));
      return (baking[dish] = deferred<string>()).promise;
    },
    close(oven) {
      log.push(`close ${oven}`);
      return close?.(oven);
    },
    name: "oven",
    ...options,
  });
  const ask = (dish: string) =>
    void oven.request(dish).then(
      () => log.push(`${dish} done`),
      (error) => log.push(`${dish}: ${error.message ?? error}`),
    );
  const saw = async (lines: string) => {
    await flush();
    assertEquals(log.splice(0).join(", "), lines);
  };
  return { oven, baking, ask, saw };
}

const LOST = "The caller of oven was gone before its turn had ended";

Deno.test("Serializer on Cloudflare's workers: a request that ends in its turn gives it to the next, with a new resource", async () => {
  using workers = new Workers();
  const { oven, baking, ask, saw } = makeOven();
  for (const dish of "abc") await workers.request(dish, () => ask(dish));
  await saw("a in 1");
  workers.end("a");
  await workers.passAll(400);
  await saw("");
  await workers.passAll(400);
  await saw(`a told, a: ${LOST}, b in 2`);
  assertEquals([oven.running, oven.waiting], [1, 1]);
  baking.b.resolve("b");
  await saw("b done, c in 2");
  baking.c.resolve("c");
  await saw("c done");
  await workers.passAll(100);
  assertEquals([workers.timers.length, oven.running], [0, 0]);
});

Deno.test("Serializer on Cloudflare's workers: a lost turn that comes back ends nobody else's, and its resource is closed", async () => {
  using workers = new Workers();
  for (const [i, settle] of (["resolve", "reject"] as const).entries()) {
    const { oven, baking, ask, saw } = makeOven();
    for (const dish of "abc") await workers.request(dish, () => ask(dish));
    await saw("a in 1");
    workers.end("a");
    await workers.passAll(800);
    await saw(`a told, a: ${LOST}, b in 2`);
    baking.a[settle]("late");
    await saw("close 1");
    assertEquals([oven.running, oven.waiting], [1, 1], `${i}`);
    baking.b.resolve("b");
    await saw("b done, c in 2");
    baking.c.resolve("c");
    await saw("c done");
    await oven.close();
    await saw("close 2");
  }
});

/** After how many beats of others a request that has ended is lost. */
async function beatsToLoss(): Promise<number> {
  using workers = new Workers();
  const { oven, ask } = makeOven();
  for (const dish of "abc") await workers.request(dish, () => ask(dish));
  workers.end("b");
  let beats = 0;
  for (; oven.waiting === 2 && beats < 100; beats++) await workers.pass(100);
  return beats;
}

for (const copy of ["open", "shut"]) {
  Deno.test(`Serializer on Cloudflare's workers: a request that is lost before its turn has begun hands on its copy (${copy})`, async () => {
    const beats = await beatsToLoss();
    using workers = new Workers();
    const { oven, baking, ask, saw } = makeOven({ isFatal: () => true });
    for (const dish of "abc") await workers.request(dish, () => ask(dish));
    await saw("a in 1");
    workers.end("b");
    for (let beat = 1; beat < beats; beat++) await workers.pass(100);
    workers.end("a"); // it is c who will notice
    if (copy === "open") baking.a.resolve("a");
    else baking.a.reject("fire");
    while (oven.waiting === 2) await undefined;
    workers.pass(100);
    assertEquals([oven.running, oven.waiting], [1, 0]);
    await saw(
      copy === "open"
        ? `a done, b: ${LOST}, c in 1`
        : `a: fire, close 1, b: ${LOST}, c in 2`,
    );
    baking.c.resolve("c");
    await saw("c done");
    await oven.close();
    await saw(copy === "open" ? "close 1" : "close 2");
  });
}

Deno.test("Serializer on Cloudflare's workers: once the request with the only copy that could be opened is lost, one is opened for the next in line", async () => {
  using workers = new Workers();
  let opened = 0;
  const slow = deferred<number>();
  const { oven, ask, saw } = makeOven({
    concurrency: 2,
    open() {
      if (++opened > 1 && opened < 5) throw "cold";
      return opened === 1 ? 1 : slow.promise;
    },
  });
  for (const dish of "abcdefg") await workers.request(dish, () => ask(dish));
  await saw("a in 1, b: cold, c: cold, d: cold");
  assertEquals([oven.running, oven.waiting], [1, 3]);
  workers.end("a");
  await workers.passAll(800);
  await saw(`a told, a: ${LOST}`);
  assertEquals([opened, oven.running, oven.waiting], [5, 1, 2]);
  slow.resolve(5);
  await saw("e in 5, f in 5"); // now that one can be opened, so can the next
});

Deno.test("Serializer on Cloudflare's workers: lost requests in line are passed over, also a crowd of them", async () => {
  using workers = new Workers();
  const { baking, ask, saw } = makeOven();
  for (const dish of "abcdefg") await workers.request(dish, () => ask(dish));
  await saw("a in 1");
  for (const dish of "bcdf") workers.end(dish);
  await workers.passAll(800);
  await saw([..."bcdf"].map((dish) => `${dish}: ${LOST}`).join(", "));
  baking.a.resolve("a");
  await saw("a done, e in 1");
  baking.e.resolve("e");
  await saw("e done, g in 1");
});

Deno.test("Serializer on Cloudflare's workers: the next request takes over when all others are lost", async () => {
  using workers = new Workers();
  const { ask, saw } = makeOven();
  for (const dish of "ab") await workers.request(dish, () => ask(dish));
  for (const dish of "ab") workers.end(dish);
  await workers.passAll(10_000);
  await saw("a in 1");
  await workers.request("c", () => ask("c"));
  await workers.passAll(800);
  await saw(`a told, a: ${LOST}, b: ${LOST}, c in 2`);
});

Deno.test("Serializer on Cloudflare's workers: who is late because the thread was busy is not lost", async () => {
  using workers = new Workers();
  const { baking, ask, saw } = makeOven();
  for (const dish of "abc") await workers.request(dish, () => ask(dish));
  for (const _ of range(20)) await workers.pass(60_000);
  await saw("a in 1");
  for (const dish of "abc") {
    baking[dish].resolve(dish);
    await flush();
  }
  await saw("a done, b in 1, b done, c in 1, c done");
});

Deno.test("Serializer on Cloudflare's workers: who is late because there is too much to do is not lost", async () => {
  using workers = new Workers();
  const { oven, ask, saw } = makeOven();
  for (const dish of range(30).map(String)) {
    await workers.request(dish, () => ask(dish));
    await workers.strain(90); // new requests come before timers
  }
  for (const _ of range(200)) await workers.strain(50);
  await saw("0 in 1");
  assertEquals(oven.waiting, 29);
});

Deno.test("Serializer on Cloudflare's workers: a request that ends while its broken resource is being closed holds up nobody", async () => {
  using workers = new Workers();
  const never = deferred();
  const { oven, baking, ask, saw } = makeOven({
    close: () => never.promise,
    isFatal: () => true,
  });
  for (const dish of "ab") await workers.request(dish, () => ask(dish));
  baking.a.reject("fire");
  await saw("a in 1, a: fire, close 1");
  workers.end("a"); // it has its answer
  await workers.passAll(800);
  await saw("b in 2");
  assertEquals([oven.running, oven.waiting], [1, 0]);
  never.resolve();
  await workers.request("c", () => ask("c"));
  await saw(""); // it waits for b, not for what a has left behind
  baking.b.resolve("b");
  await saw("b done, c in 2");
});

Deno.test("Serializer on Cloudflare's workers: a request that ends after its answer is told nothing", async () => {
  using workers = new Workers();
  const { baking, ask, saw } = makeOven();
  for (const dish of "ab") await workers.request(dish, () => ask(dish));
  baking.a.resolve("a");
  workers.end("a");
  await workers.passAll(800);
  await saw("a in 1, a done, b in 1");
});

Deno.test("Serializer on Cloudflare's workers: nobody is lost while one request asks for long without a pause", async () => {
  using workers = new Workers();
  const { oven, ask, saw } = makeOven();
  await workers.request("a", () => ask("a"));
  await workers.request("b", () => {
    for (const dish of "bcdefghijk") {
      ask(dish);
      workers.hold(1000);
    }
  });
  await workers.passAll(800);
  await saw("a in 1");
  assertEquals(oven.waiting, 10);
});

Deno.test("Serializer on Cloudflare's workers: requests that are refused notice that the others are lost, too", async () => {
  for (const maxWaiting of [0, 2]) {
    using workers = new Workers();
    const { oven, ask, saw } = makeOven({ maxWaiting });
    const lost = [..."abc"].slice(0, maxWaiting + 1);
    for (const dish of lost) await workers.request(dish, () => ask(dish));
    await saw("a in 1");
    for (const dish of lost) workers.end(dish);
    const refused: Task<number>[] = [];
    for (let i = 0; i < 20; i++) {
      await workers.request("x", () => refused.push(follow(oven.run(() => i))));
      workers.hold(1100);
    }
    const answers = refused.map(({ state, error }) =>
      state === "resolved" ? "answered" : (error as Error).name
    );
    assertEquals(answers.slice(0, 4), Array(4).fill("QueueFullError"));
    assertEquals(answers.slice(7), Array(13).fill("answered"));
    await saw(["a told", ...lost.map((dish) => `${dish}: ${LOST}`)].join(", "));
    assertEquals([oven.running, oven.waiting], [0, 0]);
  }
});

Deno.test("Serializer on Cloudflare's workers: requests that give up soon notice that another one is lost, too", async () => {
  using workers = new Workers();
  const { oven, ask, saw } = makeOven();
  await workers.request("a", () => ask("a"));
  workers.end("a");
  const states: Task<number>[] = [];
  for (let i = 0; i < 12; i++) {
    const controller = new AbortController();
    const { signal } = controller;
    await workers.request(
      `${i}`,
      () => states.push(follow(oven.run(() => i, { signal }))),
    );
    workers.hold(1100);
    await workers.request(`${i}`, () => controller.abort());
  }
  assertEquals(states[0].state, "rejected");
  assertEquals(states.at(-1)!.state, "resolved");
  await saw(`a in 1, a told, a: ${LOST}`);
});

Deno.test("Serializer on Cloudflare's workers: outside of any request, where no timer may be set, requests are answered", async () => {
  using _ = new Workers();
  const { baking, ask, saw } = makeOven();
  ask("a");
  ask("b");
  await saw("a in 1");
  baking.a.resolve("a");
  await saw("a done, b in 1");
});

Deno.test("Serializer on Cloudflare's workers: a clock that is set back delays nothing", async () => {
  using workers = new Workers();
  const { ask, saw } = makeOven();
  for (const dish of "ab") await workers.request(dish, () => ask(dish));
  await workers.pass(100);
  workers.setBack(3_600_000);
  workers.end("a");
  await workers.passAll(800);
  await saw(`a in 1, a told, a: ${LOST}, b in 2`);
});

Deno.test("Serializer on Cloudflare's workers: what closing throws for a lost request is reported, if close() has ended", async () => {
  using workers = new Workers();
  using reports = catchReports();
  const broken = deferred();
  const { oven, baking, ask, saw } = makeOven({
    close: (oven) => oven === 1 ? broken.promise : undefined,
    isFatal: () => true,
  });
  for (const dish of "ab") await workers.request(dish, () => ask(dish));
  baking.a.reject("fire");
  workers.end("a");
  await workers.passAll(800);
  baking.b.resolve("b");
  await saw("a in 1, a: fire, close 1, b in 2, b done");
  await oven.close();
  broken.reject("stuck");
  await saw("close 2");
  assertEquals(reports.errors, ["stuck"]);
});

Deno.test("Serializer on Cloudflare's workers: what a lost turn's resource throws on closing is reported", async () => {
  using workers = new Workers();
  using reports = catchReports();
  const { baking, ask, saw } = makeOven({
    close: () => Promise.reject("stuck"),
  });
  for (const dish of "ab") await workers.request(dish, () => ask(dish));
  workers.end("a");
  await workers.passAll(800);
  await saw(`a in 1, a told, a: ${LOST}, b in 2`);
  baking.a.resolve("late");
  await saw("close 1");
  assertEquals(reports.errors, ["stuck"]);
});

Deno.test("Serializer on Cloudflare's workers: one timer for requests made in one go, none for those answered at once, none left over", async () => {
  using workers = new Workers();
  const { oven, baking, ask } = makeOven();
  await workers.request("burst", () => range(1000).forEach((i) => ask(`${i}`)));
  assertEquals(workers.timers.length, 1);
  await workers.request("other", () => ask("other"));
  assertEquals(workers.timers.length, 2);
  await workers.request("burst", () => void oven.abort());
  for (const { resolve } of Object.values(baking)) resolve("");
  await workers.passAll(100);
  assertEquals(workers.timers.length, 0);
  const quick = new Serializer({
    open: () => 1,
    handle: (n, m: number) => n + m,
  });
  await workers.request("quick", () => void quick.request(1));
  assertEquals(workers.timers.length, 0);
});

Deno.test("Serializer sets no timer anywhere else", async () => {
  using workers = new Workers("Deno/2.9.5");
  const { baking, ask, saw } = makeOven();
  for (const dish of "ab") await workers.request(dish, () => ask(dish));
  assertEquals(workers.timers.length, 0);
  baking.a.resolve("a");
  await saw("a in 1, a done, b in 1");
});

Deno.test("Serializer on Cloudflare's workers: timers that are held up for long lose nobody, whoever else beats", async () => {
  using workers = new Workers();
  const { oven, baking, ask, saw } = makeOven();
  await workers.request("a", () => ask("a"));
  await workers.request("b", () => ask("b"));
  const elsewhere = new Serializer({ open: () => 1 });
  await workers.request("c", () => {
    for (const _ of "cc") elsewhere.run(() => new Promise<void>(() => {}));
  });
  const held = workers.timers.filter(({ request }) => request !== "c");
  for (const request of "ab") workers.end(request);
  await workers.passAll(3000); // as in a Durable Object that waits for its storage
  workers.timers.push(...held);
  await workers.request("d", () => ask("d"));
  await workers.passAll(1000);
  await saw("a in 1");
  assertEquals([oven.running, oven.waiting], [1, 2]);
  baking.a.resolve("a");
  await saw("a done, b in 1");
});

Deno.test("Serializer on Cloudflare's workers: who misses some rounds now and then is not lost", async () => {
  using workers = new Workers();
  const { oven, baking, ask, saw } = makeOven();
  for (const dish of "ab") await workers.request(dish, () => ask(dish));
  for (const _ of range(5)) {
    const held = workers.timers.filter(({ request }) => request === "a");
    workers.end("a");
    await workers.passAll(450);
    workers.timers.push(...held);
    await workers.passAll(200);
  }
  await saw("a in 1");
  baking.a.resolve("a");
  await saw("a done, b in 1");
  assertEquals([oven.running, oven.waiting], [1, 0]);
});
