import { assertEquals, assertInstanceOf } from "@std/assert";
import { ReentrantRequestError, Serializer } from "../serializer.ts";
import { flush, follow, replaceGlobals } from "./_helpers.ts";

// As in a page, where there is no AsyncLocalStorage. The runtime is asked once,
// so this is a file of its own: in Deno each has its own copy of the library.

const open = () => 1;

/** What a promise fails with. */
function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(() => undefined, (error) => error);
}

Deno.test("Serializer.request() refuses a handler of its own until its first await, where there is no AsyncLocalStorage", async () => {
  using _ = replaceGlobals({ process: undefined });
  const later = () => Promise.resolve(1); // the first handler has another stack
  for (const opening of [open, later]) {
    const oven = new Serializer({ open: opening });
    const till = new Serializer({ open });
    const asks = [
      () => oven.run(open),
      () => till.run(() => oven.run(open)),
    ];
    for (const ask of asks) {
      const task = follow(oven.run(() => errorOf(ask())));
      await flush();
      assertInstanceOf(task.value, ReentrantRequestError);
    }
    const fails = () => {
      throw "left";
    };
    await oven.run(() => errorOf(till.run(fails)));
    assertEquals(await oven.run(open), 1); // nobody is inside any more
  }

  const oven = new Serializer({ open });
  const late = follow(oven.run(() => flush().then(() => oven.run(open))));
  await flush();
  await flush();
  assertEquals([late.state, oven.running, oven.waiting], ["pending", 1, 1]);
  await oven.abort("stop"); // frees it
  assertEquals([late.state, late.error], ["rejected", "stop"]);
});
