// What is said in several files has to agree: modules and versions.
import { assert, assertEquals } from "@std/assert";

const read = (path: string) => Deno.readTextFileSync(path);
const json = (path: string) => JSON.parse(read(path));

/** The paths of all files that people have written. */
function* files(folder = "."): Generator<string> {
  const skipped = /^(\.git|node_modules|out|cov|.*-lock\.json|deno\.lock)$/;
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    if (skipped.test(name)) continue;
    if (isDirectory) yield* files(`${folder}/${name}`);
    else yield `${folder}/${name}`;
  }
}

const modules = [...files()].filter((path) => /^\.\/\w+\.ts$/.test(path));
const { devDependencies: compat } = json("compat/package.json");

Deno.test("deno.json exports each module, and publishes internals with them", () => {
  const { exports, publish } = json("deno.json");
  assertEquals(
    Object.values<string>(exports).sort(),
    modules.filter((path) => !path.startsWith("./_")).sort(),
  );
  assertEquals(
    publish.include.filter((path: string) => path.endsWith(".ts")).sort(),
    modules.map((path) => path.slice(2)).sort(),
  );
});

Deno.test("versions of runtimes are those of .tool-versions and compat/package.json", () => {
  const tools = read(".tool-versions");
  const [node, deno] = /^nodejs (.+)\ndeno (.+)\n$/.exec(tools)!.slice(1);
  assertEquals(compat.node20, `npm:node@${node}`);
  const allowed = [
    `deno@${deno}`,
    `bun@${compat.bun}`,
    `workerd@${compat.workerd}`,
  ];
  const found = [...files()].filter((path) =>
    /\.(c?[jt]s|mjs|jsonc?|md|ya?ml|html)$|\/run$/.test(path)
  ).flatMap((path) =>
    (read(path).match(/\b(deno|bun|workerd)@\d[\w.]*\w/g) ?? [])
      .map((spelled) => ({ path, spelled }))
  );
  assert(found.length > 0);
  assertEquals(found.filter(({ spelled }) => !allowed.includes(spelled)), []);
});

Deno.test("versions of libraries agree", () => {
  const { imports } = json("deno.json");
  const { imports: assertions } = json("tests/std/assert/deno.json");
  const { devDependencies: bench } = json("bench/package.json");
  for (
    const name of ["esbuild", "fast-check", "ioredis", "iovalkey", "redis"]
  ) {
    assertEquals(imports[name], `npm:${name}@${compat[name]}`);
  }
  assertEquals(imports["ioredis-5"], compat["ioredis-5"]);
  assertEquals(imports.redis, `npm:redis@${bench.redis}`);
  assertEquals(assertions["deno-std/"], `npm:/deno-std@${compat["deno-std"]}/`);
});
