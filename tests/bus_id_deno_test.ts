// Deno runs each file in an isolate of its own: here no event has an id yet.
import { assertEquals } from "@std/assert";
import { open } from "./_bus.ts";

Deno.test("Bus: ids stay unlike each other, also if randomness should fail", async () => {
  const { bus } = open();
  const ids = new Set<string>();
  const { getRandomValues } = crypto;
  crypto.getRandomValues = () => {
    throw new Error("not here");
  };
  try {
    for (let i = 0; i < 600; i++) {
      await bus.publish("n", i).then(
        ({ id }) => ids.add(id),
        () => ids.add(`${i}`),
      );
    }
  } finally {
    crypto.getRandomValues = getRandomValues;
  }
  for (let i = 0; i < 600; i++) ids.add((await bus.publish("n", i)).id);
  assertEquals(ids.size, 1200);
});
