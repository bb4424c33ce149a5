// How large the package is in a bundle: minified by esbuild, and gzipped.
//
//   deno task size          measures ours; fails if one exceeds its limit, or if
//                           the table in README.md says something else
//   deno task size:report   measures the others, too, and writes that table
import { Buffer } from "node:buffer";
import { readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { gzipSync } from "node:zlib";
import { build, stop } from "esbuild";

/** How many bytes a module may have, or what is imported from mod.ts alone. */
const LIMITS = {
  "mod.ts": 15_600,
  "queue.ts": 5_800,
  "serializer.ts": 5_200,
  "bus.ts": 9_700,
  "trace.ts": 5_300,
  "inspector.ts": 20_800,
  "link.ts": 4_600,
  "port.ts": 10_400,
  "redis.ts": 16_500,
  "worker.ts": 12_800,
  "_bridge.ts": 3_500, // loaded by the first `connect` of a bus
  "Queue": 5_300,
  "Serializer": 5_200,
  "Bus": 9_700,
};

/** How many it should have. */
const AIMS = { "mod.ts": 6_000, "queue.ts": 3_000 };

/** What others have to offer, and what it takes to use it. */
const OTHERS = {
  "p-queue": `export { default } from "p-queue"`,
  "async-mutex": `export { Mutex, Semaphore } from "async-mutex"`,
  "emittery": `export { default } from "emittery"`,
  "effect, a queue":
    `export { bounded, offer, shutdown, take } from "effect/Queue";
     export { runPromise } from "effect/Effect"`,
  "effect, a pubsub":
    `export { bounded, publish, shutdown, subscribe, take } from "effect/PubSub";
     export { runPromise, scoped } from "effect/Effect"`,
};

const [START, END] = ["<!-- size -->", "<!-- /size -->"];

process.chdir(import.meta.dirname + "/..");
const report = process.argv.includes("--report");
const { exports } = JSON.parse(readFileSync("deno.json", "utf8"));
const problems = [];
for (const path of Object.values(exports)) {
  if (!(path.slice(2) in LIMITS)) {
    problems.push(`${path} has no limit in bench/size.mjs`);
  }
  const { minified } = await measure(`import "${path}"`, ".");
  if (minified > 0) {
    problems.push(
      `${path} leaves ${minified} bytes where nothing of it is used`,
    );
  }
}
const rows = [];
for (const [name, limit] of Object.entries(LIMITS)) {
  const isModule = name.endsWith(".ts");
  const size = await measure(
    isModule
      ? `export * from "./${name}"`
      : `export { ${name} } from "./mod.ts"`,
    ".",
  );
  if (size.gzipped > limit) {
    problems.push(`${name} has ${size.gzipped} bytes, more than ${limit}`);
  }
  const aim = AIMS[name];
  if (size.gzipped > aim) {
    console.log(`${name} misses its aim: ${size.gzipped} bytes, not ${aim}`);
  }
  rows.push([isModule ? `all of \`${name}\`` : `\`${name}\``, ...shown(size)]);
}
const ours = rows.length;
if (report) {
  const { devDependencies } = JSON.parse(
    readFileSync("bench/package.json", "utf8"),
  );
  for (const [name, program] of Object.entries(OTHERS)) {
    const [library, what = ""] = name.split(/(?=,)/);
    const label = `${library} ${devDependencies[library]}${what}`;
    rows.push([label, ...shown(await measure(program, "bench"))]);
  }
}
await stop();

const lines = table(["kB", "minified", "gzipped"], rows);
console.log(lines.join("\n"));
const readme = readFileSync("README.md", "utf8");
const [before, rest] = readme.split(START);
const [between, after] = rest?.split(END) ?? [];
if (after === undefined) {
  const missing = `README.md has no ${START} … ${END} for this table`;
  if (report) problems.push(missing);
  else console.log(missing);
} else if (report) {
  const text = [START, "", ...lines, "", END].join("\n");
  writeFileSync("README.md", before + text + after);
} else if (!rows.slice(0, ours).every((row) => has(between, row))) {
  problems.push("README.md says something else: deno task size:report");
}
for (const problem of problems) console.log(problem);
process.exitCode = problems.length > 0 ? 1 : 0;

/** Bundles a program, and measures what is loaded at its start. */
async function measure(contents, resolveDir) {
  const { outputFiles, metafile } = await build({
    stdin: { contents, resolveDir, sourcefile: "program.ts" },
    bundle: true,
    splitting: true,
    outdir: "out",
    metafile: true,
    treeShaking: true,
    minify: true,
    format: "esm",
    target: "es2022",
    write: false,
  });
  const loaded = new Set(
    Object.keys(metafile.outputs).filter((path) =>
      metafile.outputs[path].entryPoint?.endsWith("program.ts")
    ),
  );
  for (const path of loaded) { // it grows
    for (const { path: next, kind } of metafile.outputs[path].imports) {
      if (kind === "import-statement") loaded.add(next);
    }
  }
  const parts = outputFiles.filter(({ path }) =>
    [...loaded].some((end) => path.endsWith(end))
  ).map(({ contents }) => contents);
  return {
    minified: parts.reduce((sum, { length }) => sum + length, 0),
    gzipped: gzipSync(Buffer.concat(parts), { level: 9 }).length,
  };
}

function shown({ minified, gzipped }) {
  return [minified, gzipped].map((bytes) => (bytes / 1000).toFixed(1));
}

/** Whether a table has a row, however wide. */
function has(table, row) {
  return table.replace(/ +/g, " ").includes(`| ${row.join(" | ")} |`);
}

/** A table of Markdown, as `deno fmt` writes it. */
function table(head, rows) {
  const widths = head.map((_, column) =>
    Math.max(...[head, ...rows].map((row) => row[column].length))
  );
  const pad = (row) =>
    row.map((cell, i) => i ? cell.padStart(widths[i]) : cell.padEnd(widths[i]));
  const rule = widths.map((width, i) =>
    i ? `${"-".repeat(width - 1)}:` : "-".repeat(width)
  );
  return [pad(head), rule, ...rows.map(pad)]
    .map((cells) => `| ${cells.join(" | ")} |`);
}
