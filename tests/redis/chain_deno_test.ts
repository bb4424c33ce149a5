// examples/chain_of_restaurants.ts, run as a program.
import { assert, assertEquals, assertMatch } from "@std/assert";
import { NO_SERVER } from "./_server.ts";

Deno.test({
  name:
    "chain_of_restaurants.ts serves every order, although a kitchen burns down",
  ignore: NO_SERVER,
  fn: async () => {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "-A", "examples/chain_of_restaurants.ts"],
        ...["--orders", "120", "--kitchens", "2"],
      ],
      cwd: new URL("../..", import.meta.url),
      env: { NO_COLOR: "1" },
    }).output();
    const err = new TextDecoder().decode(stderr);
    assertEquals(code, 0, err);
    const lines = new TextDecoder().decode(stdout).trimEnd().split("\n");
    assertEquals(lines.at(-1), "the totals match");
    assert(lines.includes("kitchen 1: burns down"));
    assert(lines.includes("front of house: 120 orders, 360 portions"));
    assert(lines.includes("bookkeeper: 120 orders, 360 portions"));
    assertMatch(lines.at(-2)!, /^kitchen 2: served \d\d+$/);
  },
});
