import { assertEquals, assertStrictEquals } from "@std/assert";
import { isWithin, Stay } from "../_context.ts";

Deno.test("Stay forgets those around it that are over, however many there were", () => {
  const [root, host] = [{}, {}];
  const first = new Stay(root, undefined);
  let stay = first;
  for (let i = 0; i < 100_000; i++) {
    const next = new Stay(host, stay);
    if (stay !== first) stay.over = true;
    stay = next;
  }
  assertStrictEquals(stay.parent, first);
  assertEquals([isWithin(root, stay), isWithin({}, stay)], [true, false]);
  first.over = true;
  assertEquals([isWithin(root, stay), stay.parent], [false, undefined]);
});

Deno.test("isWithin() sees all hosts around a stay, but none whose handler has ended", () => {
  const hosts = ["a", "b", "c"];
  const stays: Stay[] = [];
  for (const host of hosts) stays.push(new Stay(host, stays.at(-1)));
  const within = () => hosts.filter((host) => isWithin(host, stays[2]));
  assertEquals(within(), ["a", "b", "c"]);
  stays[1].over = true;
  assertEquals(within(), ["a", "c"]);
  stays[2].over = true;
  assertEquals(within(), ["a"]);
});
