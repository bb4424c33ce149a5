import { assertEquals } from "@std/assert";
import { Bus } from "../bus.ts";
import { flush } from "./_helpers.ts";
import { Workers } from "./_workers.ts";

const silent = (action: string) =>
  `Cannot ${action}: its request has been silent, as if it had ended; if it has not, try again`;

/** A bus, and what happens to those who use it. */
function makeBus() {
  const log: string[] = [];
  const bus = new Bus<{ order: string }>();
  const tell = (name: string, promise: Promise<unknown>) =>
    void promise.then(
      () => log.push(`${name} done`),
      (error) => log.push(`${name}: ${error.message ?? error}`),
    );
  const publish = (dish: string) => tell(dish, bus.publish("order", dish));
  /** Reads, and takes as long over each event as `cook` does. */
  const read = (name: string, cook?: () => Promise<unknown>) => {
    const loop = async () => {
      for await (const { data } of bus.subscribe("order", { capacity: 1 })) {
        log.push(`${name} got ${data}`);
        await cook?.();
      }
    };
    tell(name, loop());
  };
  const saw = async (...lines: string[]) => {
    await flush();
    assertEquals(log.splice(0), lines);
  };
  return { bus, log, tell, publish, read, saw };
}

const never = () => new Promise<void>(() => {});

Deno.test("Bus on Cloudflare's workers: a loop that is lost while it waits holds up nobody", async () => {
  using workers = new Workers();
  const { bus, read, publish, saw } = makeBus();
  for (const name of "ab") await workers.request(name, () => read(name));
  assertEquals(workers.timers.map(({ request }) => request), ["a", "b"]);
  await workers.request("c", () => publish("soup"));
  await saw("a got soup", "b got soup", "soup done");
  workers.end("a");
  await workers.passAll(800);
  await saw(`a: ${silent("wait for events")}`); // if it is there after all
  assertEquals(bus.inspect().subscriptions.length, 1);
  await workers.request("c", () => publish("pie"));
  await saw("b got pie", "pie done");
  await bus.close();
  await saw("b done");
  await workers.passAll(100);
  assertEquals(workers.timers.length, 0);
});

Deno.test("Bus on Cloudflare's workers: a loop that is lost over an event holds up nobody", async () => {
  using workers = new Workers();
  const { bus, read, publish, saw } = makeBus();
  await workers.request("a", () => read("a", never));
  for (const dish of ["soup", "pie", "tart"]) {
    await workers.request(dish, () => publish(dish));
  }
  await saw("a got soup", "soup done", "pie done");
  workers.end("a");
  await workers.passAll(800);
  await saw("tart done");
  assertEquals(bus.inspect().subscriptions, []);
});

Deno.test("Bus on Cloudflare's workers: handlers that are lost hold up nobody, nor the end", async () => {
  using workers = new Workers();
  const { bus, log, tell, publish, saw } = makeBus();
  await workers.request("a", () => {
    bus.on("order", ({ data }, { signal }) => {
      log.push(`a got ${data}`);
      signal.addEventListener("abort", () => log.push("a told"));
      return never();
    }, { capacity: 1 });
  });
  for (const dish of ["soup", "pie", "tart"]) {
    await workers.request(dish, () => publish(dish));
  }
  await saw("a got soup", "soup done", "pie done");
  workers.end("a");
  await workers.passAll(800);
  await saw("a told", "tart done");
  tell("close", bus.close());
  await saw("close done");
});

Deno.test("Bus.close() on Cloudflare's workers: does not wait for handlers that are lost meanwhile", async () => {
  using workers = new Workers();
  const { bus, tell, publish, saw } = makeBus();
  await workers.request("a", () => void bus.on("order", never));
  await workers.request("b", () => publish("soup"));
  await saw("soup done");
  await workers.request("c", () => tell("close", bus.close()));
  await saw();
  workers.end("a");
  await workers.passAll(800);
  await saw("close done");
  await workers.passAll(100);
  assertEquals(workers.timers.length, 0);
});

Deno.test("Bus on Cloudflare's workers: handlers of outside any request belong to the first request that wakes them", async () => {
  using workers = new Workers();
  const { bus, log, publish, saw } = makeBus();
  bus.on("order", ({ data }) => void log.push(`got ${data}`));
  await flush();
  await workers.request("a", () => publish("soup"));
  await saw("soup done", "got soup");
  await workers.request("b", () => publish("pie"));
  await saw("pie done", "got pie");
  workers.end("a");
  await workers.request("b", () => void bus.once("order").catch(() => {}));
  await workers.passAll(800);
  assertEquals(bus.inspect().subscriptions.length, 1); // that of `once`
});

Deno.test("Bus.once() on Cloudflare's workers: who is lost waits no more", async () => {
  using workers = new Workers();
  const { bus, tell, saw } = makeBus();
  for (const name of "ab") {
    await workers.request(name, () => tell(name, bus.once("order")));
  }
  workers.end("a");
  await workers.passAll(800);
  await saw(`a: ${silent("wait for events")}`);
  await workers.request("c", () => void bus.tryPublish("order", "soup"));
  await saw("b done");
  assertEquals(bus.inspect().subscriptions, []);
  await workers.passAll(100);
  assertEquals(workers.timers.length, 0);
});

Deno.test("Bus.publish() on Cloudflare's workers: who is lost leaves the line, the next one is served", async () => {
  using workers = new Workers();
  const { bus, publish, saw } = makeBus();
  const orders = bus.subscribe("order", { capacity: 1 });
  for (const dish of ["soup", "pie", "tart"]) {
    await workers.request(dish, () => publish(dish));
  }
  await saw("soup done");
  workers.end("pie");
  await workers.passAll(800);
  await saw(`pie: ${silent("wait any longer")}`);
  const dishes: string[] = [];
  await workers.request("d", () => {
    (async () => {
      for await (const { data } of orders) dishes.push(data);
    })();
  });
  await saw("tart done");
  assertEquals(dishes, ["soup", "tart"]);
  await workers.passAll(100);
  assertEquals(workers.timers.map(({ request }) => request), ["d"]);
});

Deno.test("Bus sets no timer anywhere else", async () => {
  using workers = new Workers("Deno/2.9.5");
  const { bus, tell, read, publish, saw } = makeBus();
  await workers.request("a", () => read("a"));
  await workers.request("b", () => tell("b", bus.once("order")));
  await workers.request("c", () => void bus.on("order", () => {}));
  await workers.request("d", () => publish("soup"));
  await workers.request("e", () => publish("pie"));
  assertEquals(workers.timers.length, 0);
  await saw("a got soup", "soup done", "b done", "a got pie", "pie done");
});
