import { assertEquals } from "@std/assert";
import { Ring, Stack } from "../_buffer.ts";
import { replaceGlobals } from "./_helpers.ts";

// What a queue cannot tell: how much memory its values take. The order of the
// values, whatever grows or shrinks, is tested in queue_model_test.ts.

/** Runs `use` and returns the arrays that were made with a length meanwhile. */
function arraysMadeBy(use: () => void): unknown[][] {
  const arrays: unknown[][] = [];
  const { Array } = globalThis;
  using _ = replaceGlobals({
    Array: function (length: number) {
      const array = new Array(length);
      arrays.push(array);
      return array;
    },
  });
  use();
  return arrays;
}

function slots(arrays: unknown[][]): number[] {
  return arrays.map(({ length }) => length);
}

for (const Buffer of [Ring, Stack]) {
  Deno.test(`${Buffer.name} makes nothing before the first value`, () => {
    assertEquals(slots(arraysMadeBy(() => void new Buffer())), []);
  });

  Deno.test(`${Buffer.name} doubles while it grows, and gives the memory of a burst back`, () => {
    const buffer = new Buffer<number>();
    const growing = arraysMadeBy(() => {
      for (let i = 0; i < 1000; i++) buffer.push(i);
    });
    assertEquals(slots(growing), [16, 32, 64, 128, 256, 512, 1024]);
    const shrinking = arraysMadeBy(() => {
      for (let i = 0; i < 1000; i++) buffer.shift();
    });
    assertEquals(slots(shrinking), [512, 256, 128, 64, 32, 16]);
  });

  Deno.test(`${Buffer.name} halves when three quarters are empty`, () => {
    const buffer = new Buffer<number>();
    for (let i = 0; i < 64; i++) buffer.push(i);
    const shifts = (n: number) => () => {
      for (let i = 0; i < n; i++) buffer.shift();
    };
    assertEquals(slots(arraysMadeBy(shifts(47))), []);
    assertEquals(slots(arraysMadeBy(shifts(1))), [32]);
    assertEquals(buffer.size, 16);
    assertEquals(slots(arraysMadeBy(shifts(7))), []);
  });

  Deno.test(`${Buffer.name} that goes up and down makes nothing new, and never grows`, () => {
    for (const most of [16, 32, 64]) {
      const buffer = new Buffer<number>();
      const arrays = arraysMadeBy(() => {
        for (let i = 0; i < most; i++) buffer.push(i);
      });
      const more = arraysMadeBy(() => {
        for (let round = 0; round < 100; round++) {
          for (let i = 0; i < most / 2; i++) buffer.shift();
          for (let i = 0; i < most / 2; i++) buffer.push(i);
        }
      });
      assertEquals(slots(more), []);
      assertEquals(slots(arrays).at(-1), most); // nor has it been written beyond
    }
  });

  Deno.test(`${Buffer.name} forgets what it has given away`, () => {
    const buffer = new Buffer<string>();
    const [kept] = arraysMadeBy(() => buffer.push("a"));
    const held = () => kept.filter((value) => value !== undefined).sort();
    for (const value of "bcde") buffer.push(value);
    assertEquals(held(), [..."abcde"]);
    assertEquals(buffer.replaceOldest("f"), "a");
    assertEquals(held(), [..."bcdef"]);
    const taken = [buffer.shift(), buffer.shift()];
    assertEquals(
      held(),
      [..."bcdef"].filter((value) => !taken.includes(value)),
    );
    while (buffer.size > 0) buffer.shift();
    assertEquals(held(), []);
  });
}

Deno.test("Ring gives memory back, and forgets, also when it gives many at once", () => {
  const ring = new Ring<object>();
  const arrays = arraysMadeBy(() => {
    for (let i = 0; i < 1000; i++) ring.push({});
  });
  const shrunk = arraysMadeBy(() => {
    ring.shiftSome(500);
    assertEquals(
      arrays.at(-1)!.filter((slot) => slot !== undefined).length,
      500,
    );
    ring.shiftSome(Infinity);
  });
  assertEquals(ring.size, 0);
  assertEquals(slots(shrunk), [16]);
});
