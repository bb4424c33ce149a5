// The examples that print what becomes of things, run as programs.
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";

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
  assertMatch(bare, /^bare: 100 transfers refused, [1-9]\d* balances wrong/);
  assertMatch(
    loose,
    / 0 transfers refused, [1-9]\d* balances wrong, \d+ cents have (appeared|vanished)$/,
  );
  const right = "0 transfers refused, 0 balances wrong, the sum is right";
  assertEquals(lock, `lock: ${right}`);
  assertMatch(
    forgotten,
    /^lock, forgotten in one place: [1-9]\d* transfers refused, [1-9]\d* balances wrong/,
  );
  assertEquals(serializer, `serializer: ${right}`);
});

Deno.test("one_at_a_time.ts is refused without a serializer, and never with one", async () => {
  const lines = await run("one_at_a_time.ts", "--allow-net");
  const [bare, serializer, givenUp] = lines;
  assertMatch(bare, /^bare: [1-9]\d* of 20 calls refused$/);
  assertEquals(serializer, "serializer: 0 of 20 calls refused");
  assertEquals(
    givenUp,
    "serializer, one caller gives up: 0 of 19 other calls refused",
  );
});

Deno.test("inspect_node.ts shows a restaurant on a page, for this machine alone", async () => {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-net=127.0.0.1", "examples/inspect_node.ts"],
    cwd: new URL("..", import.meta.url),
    stdout: "piped",
    stderr: "null",
  }).spawn();
  let out = "";
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    out += text;
    if (out.includes("\n")) break;
  }
  const url = /^Inspect the restaurant at (http:\/\/127\.0\.0\.1:\d+\/)\n$/
    .exec(out)![1];
  const page = await fetch(url);
  assertStringIncludes(await page.text(), "<title>Inspector</title>");
  const { port } = new URL(url);
  const connection = await Deno.connect({ hostname: "127.0.0.1", port: +port });
  await connection.write(
    new TextEncoder().encode(
      `GET /events HTTP/1.0\r\nhost: evil.example\r\n\r\n`,
    ),
  );
  const answer = await new Response(connection.readable).text();
  assertMatch(answer, /^HTTP\/1\.1 403 /);
  child.kill();
  await child.status;
});
