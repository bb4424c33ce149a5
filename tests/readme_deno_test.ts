import { assert, assertEquals } from "@std/assert";

// The README's examples are there to be pasted, so they print instead of assert:
// `console.log(…); // what it prints`.

const readme = await Deno.readTextFile(
  new URL("../README.md", import.meta.url),
);
const examples = [...readme.matchAll(/^```ts\n(.*?)^```/gms)].map(([_, code]) =>
  code
);

/** What a program prints. */
async function run(code: string): Promise<string> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--config=deno.json", "-"],
    cwd: new URL("..", import.meta.url),
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const stdin = child.stdin.getWriter();
  await stdin.write(new TextEncoder().encode(code));
  await stdin.close();
  const { success, stdout } = await child.output();
  assert(success, code);
  return new TextDecoder().decode(stdout);
}

Deno.test("README shows what its examples print", async () => {
  let prints = 0;
  for (const code of examples) {
    const expected = [...code.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)];
    assertEquals(
      await run(code),
      expected.map(([_, line]) => `${line}\n`).join(""),
    );
    prints += expected.length;
  }
  assertEquals(prints, 4); // of a queue, a serializer, a bus and a link
});
