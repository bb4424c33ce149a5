// The tests of tests/redis/ on Node 20, Node 24 and Bun, each with the clients of
// Redis as npm has them, and servers that they start. Prints like the hosts of
// run.mjs. On Deno they are a part of `task test`.
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import process from "node:process";
import { build } from "esbuild";
import { start } from "./start.mjs";

process.chdir(import.meta.dirname);
const lines = readdirSync("../tests/redis").sort()
  .filter((name) => name.endsWith("_test.ts"))
  .filter((name) => !name.endsWith("_deno_test.ts"))
  .map((name) =>
    `await file("${name}", () => import("../../tests/redis/${name}"));\n`
  );
mkdirSync("out", { recursive: true });
writeFileSync(
  "out/redis_tests.ts",
  `import { file } from "../shim.ts";\n${lines.join("")}`,
);
writeFileSync(
  "out/redis.ts",
  `import "./redis_tests.ts";\nawait import("../main.ts");\n`,
);
await build({
  entryPoints: ["out/redis.ts"],
  outfile: "out/redis.js",
  bundle: true,
  format: "esm",
  platform: "node",
  target: "es2022", // lowers `using`
  tsconfig: "tsconfig.json",
  external: ["redis", "ioredis", "ioredis-5", "iovalkey"],
  sourcemap: "inline",
  logLevel: "warning",
});

const hosts = {
  node20: () =>
    start("node20/bin/node", ["--enable-source-maps", "out/redis.js"]),
  node24: () =>
    start("node24/bin/node", ["--enable-source-maps", "out/redis.js"]),
  bun: () => start(".bin/bun", ["--no-install", "out/redis.js"]),
};
const total = { passed: 0, failed: 0, skipped: 0 };
// At once: they have servers of their own, and most of the time they wait.
const runs = Object.entries(hosts).map(([host, run]) => [host, run()]);
for (const [host, run] of runs) {
  const { output, error } = await run;
  const [, ...counts] = [
    ...output.matchAll(/^(\d+) passed, (\d+) failed, (\d+) skipped$/gm),
  ].at(-1) ?? [0, 0, 0, 0];
  const [passed, failed, skipped] = counts.map(Number);
  total.passed += passed;
  total.failed += error === undefined ? failed : Math.max(failed, 1);
  total.skipped += skipped;
  const rest = output.replace(/^ok .+\n/gm, "").trim();
  console.log(
    `${host}: ${error ?? "went well"}\n${
      rest.replace(/^skip /gm, `skip ${host}: `)
    }`,
  );
}
const { passed, failed, skipped } = total;
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed > 0 || passed + skipped === 0 ? 1 : 0;
