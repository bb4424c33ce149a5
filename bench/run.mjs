// Runs the benches on Deno, Bun, Node 20 and Node 24, and compares.
//
//   deno run -A run.mjs [--on=deno,bun] [GROUP…]   prints tables; all groups, or those
//   deno run -A run.mjs --report [MODULE…]         writes results.json, README.md and
//                                                  docs/bench.svg: all modules, or
//                                                  those anew; "others": Go and Python
//
// Node will do in place of Deno, where a `deno` is on the PATH. What bench/
// installs has to be there, and what compat/ installs for all but Deno.
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

process.chdir(import.meta.dirname);
const { values: { report, on }, positionals: only } = parseArgs({
  options: { report: { type: "boolean" }, on: { type: "string" } },
  allowPositionals: true,
});
// For each group on each host, in turns; medians of all samples.
const PROCESSES = report ? 2 : 1;
const LIMIT = 120_000; // ms for one of them
const OTHERS = "others"; // reported like a module
/** Ours for the shapes of other languages. */
const OURS = {
  spsc: ["queue", "spsc", "sender first"],
  rendezvous: ["queue", "rendezvous", "receiver first"],
  request: ["serializer", "one after another, synchronous", "trust"],
};

const programs = "../compat/node_modules";
const { devDependencies } = JSON.parse(readFileSync("package.json", "utf8"));
/** Whom we want to be ahead of: by these names, or by longer ones that start so. */
const PEERS = [
  ...Object.keys(devDependencies),
  "@std/async",
  "events.on",
  "TransformStream",
];
const isPeer = (bench) => PEERS.some((peer) => bench.startsWith(peer));

const out = mkdtempSync(join(os.tmpdir(), "bench-"));
const deno = globalThis.Deno?.execPath() ?? "deno";

/** Each runs a script with the garbage collector at hand. */
const hosts = {
  Deno: [deno, "run", "--allow-read", "--allow-env", "--v8-flags=--expose-gc"],
  Bun: [`${programs}/.bin/bun`, "--no-install"],
  "Node 20": [`${programs}/node20/bin/node`, "--expose-gc"], // strips no types: gets a bundle
  "Node 24": [`${programs}/node24/bin/node`, "--expose-gc"],
};
const names = Object.keys(hosts).filter((host) =>
  on === undefined ||
  on.split(",").includes(host.toLowerCase().replace(" ", ""))
);
const modules = readdirSync(".").sort().filter((file) =>
  file.endsWith("_bench.ts") && file !== "redis_bench.ts" // it needs a server
).map((file) => file.replace("_bench.ts", ""));
if (
  names.length === 0 ||
  (report &&
    (on || only.some((name) => ![...modules, OTHERS].includes(name))))
) throw new Error("See the first lines of run.mjs");
const needed = ["node_modules"];
if (names.some((host) => host !== "Deno")) needed.push(programs);
for (const folder of needed) {
  if (!existsSync(folder)) throw new Error(`Run npm ci for ${folder} first`);
}
assembleStdChannel();

try {
  if (names.includes("Node 20")) bundle();
  const results = []; // by module
  for (const module of modules) {
    if (report && only.length > 0 && !only.includes(module)) continue;
    const groups = JSON.parse(await run(names[0], "measure", module))
      .filter(({ name }) => report || only.length === 0 || only.includes(name));
    if (groups.length === 0) continue;
    const result = { module, ...machine(), groups: [] };
    console.log(`${module}: ${measuredOn(result)}\n`);
    for (const group of groups) {
      result.groups.push(await measure(group, module));
      console.log(text(result.groups.at(-1)));
    }
    if (module === "queue" && (report || only.length === 0)) {
      result.heap = await heap();
    }
    if (module === "link" && (report || only.length === 0)) {
      result.latency = await latency();
    }
    console.log(tables(result));
    results.push(result);
    if (report) write(results);
  }
  if (only.length === 0 || only.includes(OTHERS)) {
    const others = measureOthers();
    console.log(othersTable(others, results));
    if (report) write(results, others);
  }
  if (report) await import("./picture.mjs"); // draws it
  if (results.some(oursFailed)) process.exitCode = 1;
} finally {
  rmSync(out, { recursive: true });
}

/**
 * Makes node_modules/std_channel.js, which is `Channel` of `@std/async`: JSR has
 * it as TypeScript, the npm package deno-std as JavaScript, but with an import
 * that leads nowhere.
 */
function assembleStdChannel() {
  const source = readFileSync("node_modules/deno-std/async/channel.js", "utf8");
  writeFileSync(
    "node_modules/std_channel.js",
    source.replace(
      'from "../data-structures/',
      'from "./deno-std/data_structures/',
    ),
  );
}

/** What Node 20 runs. */
function bundle() {
  execFileSync(`${programs}/.bin/esbuild`, [
    "measure.ts",
    "heap.ts",
    "latency.ts",
    "soak.ts",
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
async function measure({ name, round, operations, cannot, ...group }, module) {
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
  return { name, round, operations, benches, cannot, aims };
}

/** The figures of heap.ts and soak.ts: what, bytes by host, and the most that it may be. */
async function heap() {
  const rows = [];
  for (const host of names) {
    for (const script of ["heap", "soak"]) {
      const lines = await run(host, script).catch((error) => {
        console.error(error.message);
        process.exitCode = 1;
        return "";
      });
      for (const line of lines.split("\n").filter(Boolean)) {
        const [what, bytes, atMost] = line.split("\t");
        let row = rows.find((row) => row.what === what);
        if (row === undefined) rows.push(row = { what });
        row[host] = { bytes: Number(bytes) };
        if (atMost) row[host].atMost = Number(atMost);
      }
    }
  }
  return rows;
}

/** The figures of latency.ts: what, and those of each host. */
async function latency() {
  const rows = [];
  for (const host of names) {
    const lines = await run(host, "latency").catch((error) => {
      console.error(error.message);
      process.exitCode = 1;
      return "";
    });
    for (const line of lines.split("\n").filter(Boolean)) {
      const [what, p50, p99, rate] = line.split("\t");
      let row = rows.find((row) => row.what === what);
      if (row === undefined) rows.push(row = { what });
      row[host] = { p50: Number(p50), p99: Number(p99), rate: Number(rate) };
    }
  }
  return rows;
}

/** What the same shapes take in other languages, as far as those are installed. */
function measureOthers() {
  const go = ["go", ["run", "others/queue.go"]];
  const languages = {
    "Go, on one processor": { run: go, env: { GOMAXPROCS: "1" } },
    Go: { run: go, version: ["go", ["version"]] },
    Python: {
      run: ["python3", ["others/queue.py"]],
      version: ["python3", ["--version"]],
    },
  };
  const others = { ...machine(), versions: {}, rows: {} };
  for (
    const [language, { run: [program, args], env, version }] of Object.entries(
      languages,
    )
  ) {
    const call = (program, args) =>
      execFileSync(program, args, {
        encoding: "utf8",
        env: { ...process.env, ...env },
        stdio: ["ignore", "pipe", "pipe"],
        timeout: LIMIT,
      });
    const samples = {};
    try {
      if (version) {
        others.versions[language] = call(...version).match(/\d+(\.\d+)+/)[0];
      }
      for (let i = 0; i < PROCESSES; i++) {
        for (const line of call(program, args).trim().split("\n")) {
          const [shape, ns] = line.split("\t");
          (samples[shape] ??= []).push(Number(ns));
        }
      }
    } catch (error) {
      console.log(`${language} left out: ${error.message}`);
      continue;
    }
    for (const [shape, all] of Object.entries(samples)) {
      (others.rows[shape] ??= {})[language] = round3(median(all));
    }
  }
  return others;
}

function othersTable({ rows }, results) {
  const languages = [...new Set(Object.values(rows).flatMap(Object.keys))];
  return table(
    ["ns", ...names, ...languages],
    Object.entries(OURS).map(([shape, [module, name, bench]]) => {
      const ours = results.find((result) => result.module === module)
        ?.groups.find((group) => group.name === name)
        ?.benches.find((one) => one.bench === bench);
      return [
        shape,
        ...names.map((host) => figure(ours?.[host]?.ns)),
        ...languages.map((language) => figure(rows[shape]?.[language])),
      ];
    }),
  );
}

/** Writes results.json, and the tables between the markers of README.md. */
function write(measured, othersMeasured) {
  const before = JSON.parse(readFileSync("results.json", "utf8"));
  const results = modules.map((module) =>
    [...measured, ...before.modules].find((result) => result.module === module)
  ).filter((result) => result !== undefined);
  const others = othersMeasured ?? before.others;
  writeFileSync(
    "results.json",
    JSON.stringify({ modules: results, others }, undefined, 2),
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
  if (others) {
    pages.push(
      ["## Other languages", measuredOn(others), othersTable(others, results)]
        .join("\n\n"),
    );
  }
  writeFileSync(
    "README.md",
    `${head}${start}\n\n${pages.join("\n\n")}\n\n${end}${tail}`,
  );
  execFileSync(deno, ["fmt", "--quiet", "results.json", "README.md"]);
}

/** What a module is held to, how far it is ahead of its peers, and what it takes. */
function tables({ groups, heap, latency }) {
  const all = groups.flatMap(({ name, aims }) =>
    aims.map((aim) => ({ group: name, ...aim }))
  );
  const isRace = ({ of, atMost }) => atMost === 1 && isPeer(of);
  const aims = all.filter((aim) => !isRace(aim));
  const races = all.filter(isRace);
  return [
    ...aims.length > 0 ? ["### Aims", aimTable(aims)] : [],
    ...races.length > 0 ? ["### Beside the best peer", raceTable(races)] : [],
    ...heap === undefined ? [] : ["### Memory", heapTable(heap)],
    ...latency === undefined
      ? []
      : ["### Latency and throughput", latencyTable(latency)],
  ].join("\n\n");
}

/** A row for each bench of ours in each group: its ratio to the fastest of its peers. */
function raceTable(races) {
  const row = ({ group, bench }) => `${group}: ${bench}`;
  return table(
    ["", ...names],
    [...new Set(races.map(row))].map((name) => [
      name,
      ...names.map((host) => {
        const [best] = races
          .filter((race) => row(race) === name && race[host] !== undefined)
          .toSorted((a, b) => b[host] - a[host]);
        if (best === undefined) return "–";
        const cell = `${best[host]}× ${best.of}`;
        return best[host] > 1 ? `**${cell}**` : cell;
      }),
    ]),
  );
}

/** Whether something failed that is not a peer's doing. */
function oursFailed({ groups }) {
  return groups.some(({ benches }) =>
    benches.some(({ bench, ...by }) =>
      !isPeer(bench) && names.some((host) => by[host].failed)
    )
  );
}

function text({ name, round, benches, cannot = {} }) {
  const rows = benches.map(({ bench, ...by }) => [
    bench,
    ...names.map((host) => {
      const { ns, times, failed, absent } = by[host];
      if (absent) return "–";
      if (failed) return `**failed: ${failed}**`;
      return `${number(ns)} ns, ${times ?? "?"}×`;
    }),
  ]);
  for (const bench of Object.keys(cannot)) {
    rows.push([bench, ...names.map(() => "–")]);
  }
  const why = Object.entries(cannot).map(([bench, why]) => `${bench} ${why}`);
  return [
    `### ${name}`,
    `One round ${round}.`,
    table(["", ...names], rows),
    ...why.length > 0 ? [`–: ${why.join("; ")}.`] : [],
  ].join("\n\n") + "\n";
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

function latencyTable(rows) {
  return table(
    ["p50 / p99, µs; events/s", ...names],
    rows.map(({ what, ...by }) => [
      what,
      ...names.map((host) => {
        const { p50, p99, rate } = by[host] ?? {};
        if (p50 === undefined) return "–";
        return `${p50} / ${p99}; ${number(Math.round(rate / 1000))}k`;
      }),
    ]),
  );
}

function heapTable(rows) {
  return table(
    ["bytes", ...names],
    rows.map(({ what, ...by }) => [
      what,
      ...names.map((host) => {
        const { bytes, atMost } = by[host] ?? {};
        if (bytes === undefined) return "–";
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
  const runtimes = Object.entries(versions).map(([name, version]) =>
    `${name.split(" ")[0]} ${version}`
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

function figure(value) {
  return value === undefined ? "–" : number(value);
}

function number(value) {
  return value.toLocaleString("en", { maximumSignificantDigits: 21 });
}
