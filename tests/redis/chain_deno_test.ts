// examples/chain_of_restaurants.ts, run as a program.
import { assert, assertEquals, assertMatch } from "@std/assert";
import { NO_SERVER } from "./_server.ts";

/** Runs it, and returns what it says. */
async function run(...options: string[]): Promise<string[]> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "examples/chain_of_restaurants.ts", ...options],
    cwd: new URL("../..", import.meta.url),
    env: { NO_COLOR: "1" },
    signal: AbortSignal.timeout(60_000),
  }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trimEnd().split("\n");
}

Deno.test({
  name:
    "chain_of_restaurants.ts serves every order, although a kitchen burns down",
  ignore: NO_SERVER,
  fn: async () => {
    const lines = await run("--orders", "120", "--kitchens", "2");
    assertEquals(lines.at(-1), "the totals match");
    assert(lines.includes("kitchen 1: burns down"));
    assert(lines.includes("front of house: 120 orders, 360 portions"));
    assert(lines.includes("bookkeeper: 120 orders, 360 portions"));
    assertMatch(lines.at(-2)!, /^kitchen 2: served \d\d+$/);
  },
});

Deno.test({
  name: "chain_of_restaurants.ts closes, although there was nothing to do",
  ignore: NO_SERVER,
  fn: async () => {
    const lines = await run("--orders", "0", "--kitchens", "1");
    assert(lines.includes("bookkeeper: 0 orders, 0 portions"));
    assertEquals(lines.at(-1), "the totals match");
  },
});
