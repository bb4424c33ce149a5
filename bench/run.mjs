// Runs the benches on Deno, Bun, Node 20 and Node 24, and compares.
//
//   deno run -A run.mjs [--on=deno,bun] [GROUP…]   prints tables; all groups, or those
//   deno run -A run.mjs --report [MODULE…]         writes results.json and README.md:
//                                                  all modules, or those anew
//
// Node will do in place of Deno, where a `deno` is on the PATH. What compat/ and
// bench/ install has to be there.
import { execFileSync, spawn } from "node:child_process";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";

const PROCESSES = 3; // for each group on each host, in turns; medians of all samples
const LIMIT = 120_000; // ms for one of them

process.chdir(import.meta.dirname);
const { values: { report, on }, positionals: only } = parseArgs({
  options: { report: { type: "boolean" }, on: { type: "string" } },
  allowPositionals: true,
});
const programs = "../compat/node_modules";
if (!existsSync(programs) || !existsSync("node_modules")) {
  throw new Error("Run npm ci in compat and in bench first");
}
const out = mkdtempSync(join(os.tmpdir(), "bench-"));
const deno = globalThis.Deno?.execPath() ?? "deno";

/** Each runs a script with the garbage collector at hand. */
const hosts = {
  Deno: [deno, "run", "--allow-read", "--v8-flags=--expose-gc"],
  Bun: [`${programs}/.bin/bun`, "--no-install"],
  "Node 20": [`${programs}/node20/bin/node`, "--expose-gc"], // strips no types: gets a bundle
  "Node 24": [`${programs}/node24/bin/node`, "--expose-gc"],
};
const names = Object.keys(hosts).filter((host) =>
  on === undefined ||
  on.split(",").includes(host.toLowerCase().replace(" ", ""))
);
const modules = readdirSync(".").sort().filter((file) =>
  file.endsWith("_bench.ts")
).map((file) => file.replace("_bench.ts", ""));
if (
  names.length === 0 ||
  (report && (on || only.some((module) => !modules.includes(module))))
) throw new Error("See the first lines of run.mjs");

try {
  execFileSync(`${programs}/.bin/esbuild`, [
    "measure.ts",
    "heap.ts",
    ...readdirSync("workers").map((file) => `workers/${file}`),
    `--outdir=${out}`,
    "--out-extension:.js=.mjs",
    "--bundle",
    "--format=esm",
    "--platform=node",
    "--target=es2022",
    // For peers that call `require`.
    `--banner:js=${
      'import { createRequire } from "node:module"; ' +
      "const require = createRequire(import.meta.url);"
    }`,
    "--external:piscina", // finds its own worker by where it is
    "--log-level=warning",
  ], { stdio: "inherit" });
  symlinkSync(join(process.cwd(), "node_modules"), join(out, "node_modules"));
  const results = []; // by module
  for (const module of modules) {
    if (report && only.length > 0 && !only.includes(module)) continue;
    const result = { module, ...machine(), groups: [] };
    console.log(`${module}: ${measuredOn(result)}\n`);
    for (const group of JSON.parse(await run(names[0], "measure", module))) {
      if (!report && only.length > 0 && !only.includes(group.name)) continue;
      result.groups.push(await measure(group, module));
      console.log(text(result.groups.at(-1)));
    }
    if (result.groups.length === 0) continue;
    if (module === "queue" && (report || only.length === 0)) {
      result.heap = await heap();
    }
    console.log(tables(result));
    results.push(result);
  }
  if (report) write(results);
  if (JSON.stringify(results).includes('"failed"')) process.exitCode = 1;
} finally {
  rmSync(out, { recursive: true });
}

/** Runs a script on a host; resolves with what it printed. */
function run(host, script, ...args) {
  const [program, ...flags] = hosts[host];
  const path = host === "Node 20" ? join(out, `${script}.mjs`) : `${script}.ts`;
  return new Promise((resolve, reject) => {
    const child = spawn(program, [...flags, path, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      timeout: LIMIT,
    });
    let output = "", errors = "";
    child.stdout.setEncoding("utf8").on("data", (text) => output += text);
    child.stderr.setEncoding("utf8").on("data", (text) => errors += text);
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (code === 0) resolve(output);
      else reject(new Error(`${host} ended with ${code ?? signal}\n${errors}`));
    });
  });
}

/** Measures a group on all hosts: medians in ns an operation, ratios to the baseline. */
async function measure({ name, round, operations, ...group }, module) {
  const samples = {}; // by host and bench; or why it failed
  for (let i = 0; i < PROCESSES; i++) {
    for (const host of names) {
      samples[host] ??= {};
      const measured = await run(host, "measure", module, name)
        .then(JSON.parse, (error) => error.message);
      for (const bench of group.benches) {
        const more = typeof measured === "string" ? measured : measured[bench];
        const all = samples[host][bench];
        if (all === undefined || !Array.isArray(more)) {
          samples[host][bench] = typeof all === "string" ? all : more;
        } else if (Array.isArray(all)) all.push(...more);
      }
    }
  }
  // Samples of one turn are compared with each other: noise hits them alike.
  const ratio = (host, bench, of) => {
    const [a, b] = [samples[host][bench], samples[host][of]];
    if (!Array.isArray(a) || !Array.isArray(b)) return undefined;
    return median(a.map((ns, i) => ns / b[i]));
  };
  const benches = group.benches.map((bench) => ({
    bench,
    ...byHost((host) => {
      const all = samples[host][bench];
      if (all === null) return { absent: true };
      if (typeof all === "string") return { failed: all.split("\n")[0] };
      const times = ratio(host, bench, group.benches[0]);
      return { ns: round3(median(all)), times: round3(times) };
    }),
  }));
  const aims = (group.aims ?? []).map((aim) => ({
    ...aim,
    ...byHost((host) => round3(ratio(host, aim.bench, aim.of))),
  }));
  return { name, round, operations, benches, aims };
}

/** The figures of heap.ts: what, bytes by host, and the most that it may be. */
async function heap() {
  const rows = [];
  for (const host of names) {
    const lines = (await run(host, "heap")).trim().split("\n");
    lines.forEach((line, i) => {
      const [what, bytes, atMost] = line.split("\t");
      rows[i] ??= { what };
      rows[i][host] = { bytes: Number(bytes) };
      if (atMost) rows[i][host].atMost = Number(atMost);
    });
  }
  return rows;
}

/** Writes results.json, and the tables between the markers of README.md. */
function write(measured) {
  const { modules: before } = JSON.parse(readFileSync("results.json", "utf8"));
  const results = modules.map((module) =>
    [...measured, ...before].find((result) => result.module === module)
  ).filter((result) => result !== undefined);
  writeFileSync(
    "results.json",
    JSON.stringify({ modules: results }, undefined, 2),
  );
  const readme = readFileSync("README.md", "utf8");
  const [start, end] = ["<!-- results -->", "<!-- end of results -->"];
  const [head] = readme.split(start);
  const [_, tail] = readme.split(end);
  const pages = results.map((result) =>
    [
      `## ${result.module}`,
      measuredOn(result),
      tables(result),
      ...result.groups.map(text),
    ].join("\n\n")
  );
  writeFileSync(
    "README.md",
    `${head}${start}\n\n${pages.join("\n\n")}\n\n${end}${tail}`,
  );
  execFileSync(deno, ["fmt", "--quiet", "results.json", "README.md"]);
}

/** What a module is held to, and what it takes. */
function tables({ groups, heap }) {
  const aims = groups.flatMap(({ name, aims }) =>
    aims.map((aim) => ({ group: name, ...aim }))
  );
  return [
    ...aims.length > 0 ? ["### Aims", aimTable(aims)] : [],
    ...heap === undefined ? [] : ["### Memory", heapTable(heap)],
  ].join("\n\n");
}

function text({ name, round, benches }) {
  const rows = benches.map(({ bench, ...by }) => [
    bench,
    ...names.map((host) => {
      const { ns, times, failed, absent } = by[host];
      if (absent) return "–";
      if (failed) return `**FAILED** ${failed}`;
      return `${number(ns)} ns, ${times ?? "?"}×`;
    }),
  ]);
  return `### ${name}\n\nOne round ${round}.\n\n${
    table(["", ...names], rows)
  }\n`;
}

function aimTable(aims) {
  const rows = aims.map(({ group, bench, of, atMost, ...by }) => [
    `${group}: ${bench} ≤ ${atMost}× ${of}`,
    ...names.map((host) => {
      if (by[host] === undefined) return "**FAILED**";
      return by[host] > atMost ? `**${by[host]}×, missed**` : `${by[host]}×`;
    }),
  ]);
  return table(["", ...names], rows);
}

function heapTable(rows) {
  return table(
    ["bytes", ...names],
    rows.map(({ what, ...by }) => [
      what,
      ...names.map((host) => {
        const { bytes, atMost } = by[host];
        return bytes > atMost ? `**${number(bytes)}, missed**` : number(bytes);
      }),
    ]),
  );
}

/** A table of Markdown: the first column to the left, the others to the right. */
function table(head, rows) {
  const widths = head.map((_, column) =>
    Math.max(4, ...[head, ...rows].map((row) => row[column].length))
  );
  const line = (cells) => `| ${cells.join(" | ")} |`;
  const pad = (row) =>
    row.map((cell, i) =>
      i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])
    );
  const rule = widths.map((width, i) =>
    "-".repeat(width - 1) + (i ? ":" : "-")
  );
  return [pad(head), rule, ...rows.map(pad)].map(line).join("\n");
}

function machine() {
  const git = (...args) =>
    execFileSync("git", args, { encoding: "utf8" }).trim();
  const changed = git("status", "--porcelain", "--", "../*.ts", "*.ts");
  const commit = git("rev-parse", "--short", "HEAD") +
    (changed ? ", with changes" : "");
  const date = new Date().toISOString().slice(0, 10);
  const versions = byHost((host) =>
    execFileSync(hosts[host][0], ["--version"], { encoding: "utf8" })
      .match(/\d+\.\d+\.\d+/)[0]
  );
  const [{ model }] = os.cpus();
  const computer =
    `${model.trim()}, ${os.cpus().length} cores, ${os.type()} ${os.arch()}`;
  return { date, commit, computer, versions };
}

function measuredOn({ date, commit, computer, versions }) {
  const runtimes = Object.entries(versions).map(([host, version]) =>
    `${host.split(" ")[0]} ${version}`
  );
  return `Measured on ${date} at commit ${commit}; ${computer}; ${
    runtimes.join(", ")
  }.`;
}

function byHost(get) {
  return Object.fromEntries(names.map((host) => [host, get(host)]));
}

function median(values) {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** Three digits. */
function round3(value) {
  return value === undefined ? undefined : Number(value.toPrecision(3));
}

function number(value) {
  return value.toLocaleString("en", { maximumSignificantDigits: 21 });
}
