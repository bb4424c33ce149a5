// The example of an executor, run as a program.
import { assertEquals, assertMatch } from "@std/assert";

Deno.test("executor.ts says how late a timer is without an executor, and with one", async () => {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-read", "examples/executor.ts", "50"],
    cwd: new URL("..", import.meta.url),
    env: { NO_COLOR: "1" },
  }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  const lines = new TextDecoder().decode(stdout).trimEnd().split("\n");
  const late = /^(without|with) an executor: the timer was up to \d+ ms late$/;
  assertEquals(lines.map((line) => late.exec(line)?.[1]), ["without", "with"]);
  assertMatch(lines[0], / [1-9]\d* ms late$/);
});
