// Importing does nothing, and neither do constructors: each entry point of the
// package on its own, where timers, random values and the like are refused: at
// workerd's global scope, on Node and on Bun. Prints like the hosts of run.mjs.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { build } from "esbuild";
import { start } from "./start.mjs";

process.chdir(import.meta.dirname);
const { exports } = JSON.parse(readFileSync("../deno.json", "utf8"));
const programs = {}; // by name, what each is to import

for (const path of Object.values(exports)) {
  programs[path.slice(2, -3)] = `import * as entry from "../../../${path}";
    import { makeEach } from "../../make_each.ts";
    makeEach(entry);`;
}
const good = Object.keys(programs);
// What is refused really is: these must fail.
programs.timer = "setTimeout(() => {}, 0)";
programs.random = "crypto.getRandomValues(new Uint8Array(1))";

mkdirSync("out/import", { recursive: true });
for (const [name, program] of Object.entries(programs)) {
  writeFileSync(
    `out/import/${name}.ts`,
    `${program}\nexport default { test() {} };`,
  );
  writeFileSync(
    `out/import/${name}.capnp`,
    `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "main", worker = (
    modules = [ (name = "worker", esModule = embed "${name}.js") ],
    compatibilityDate = "2026-08-01",
  )) ],
);
`,
  );
}
await build({
  entryPoints: Object.keys(programs).map((name) => `out/import/${name}.ts`),
  outdir: "out/import",
  bundle: true,
  format: "esm",
  target: "es2022",
  logLevel: "warning",
});

const hosts = {
  workerd: (name) =>
    start(".bin/workerd", ["test", `out/import/${name}.capnp`], limit),
  node20: (name) => start("node20/bin/node", ["import.mjs", file(name)], limit),
  node24: (name) => start("node24/bin/node", ["import.mjs", file(name)], limit),
  bun: (name) =>
    start(".bin/bun", ["--no-install", "import.mjs", file(name)], limit),
};
const limit = { timeout: 20_000 }; // an idle object keeps no process alive
const file = (name) => `./out/import/${name}.js`;

let passed = 0, failed = 0;
for (const [host, run] of Object.entries(hosts)) {
  for (const name of Object.keys(programs)) {
    const { output, error } = await run(name);
    if (good.includes(name) === (error === undefined)) passed++;
    else failed++, console.log(`not ok ${host}, ${name}: ${error}\n${output}`);
  }
}
console.log(`${passed} passed, ${failed} failed, 0 skipped`);
process.exitCode = failed > 0 ? 1 : 0;
