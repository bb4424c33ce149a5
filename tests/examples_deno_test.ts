// The examples that print what becomes of things, run as programs.
import { assertEquals, assertMatch } from "@std/assert";

/** Runs an example; returns the lines that it prints. */
async function run(name: string, ...flags: string[]): Promise<string[]> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", ...flags, `examples/${name}`],
    cwd: new URL("..", import.meta.url),
    env: { NO_COLOR: "1" },
  }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trimEnd().split("\n");
}

Deno.test("sqlite.ts shows money go wrong without a serializer, and right with one", async () => {
  const [title, bare, loose, lock, forgotten, serializer] = await run(
    "sqlite.ts",
    "--allow-read",
    "--allow-write",
  );
  assertEquals(title, "100 transfers at once");
  assertMatch(bare, /^bare: 99 transfers refused/);
  assertMatch(
    loose,
    / 0 transfers refused, \d+ cents have (appeared|vanished)$/,
  );
  assertEquals(lock, "lock: 0 transfers refused, the sum is right");
  assertMatch(forgotten, /^lock, forgotten in one place: [1-9]\d* transfers/);
  assertEquals(serializer, "serializer: 0 transfers refused, the sum is right");
});

Deno.test("one_at_a_time.ts is refused without a serializer, and never with one", async () => {
  const [bare, serializer] = await run("one_at_a_time.ts", "--allow-net");
  assertMatch(bare, /^bare: [1-9]\d* of 20 calls refused$/);
  assertEquals(serializer, "serializer: 0 of 20 calls refused");
});
