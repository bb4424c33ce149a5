// Runs the tests on other runtimes than Deno, counts, and prints what was skipped.
//
//   npm ci && node run.mjs [host…]     hosts: as below; without one, all
//   node run.mjs --write               writes what was seen into the README
//
// A test file whose name ends in _deno_test.ts needs Deno and is left out.
// Chromium is Debian's, or CHROME=/path/to/it.
import { execFileSync, spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { findDeno, LIMIT, start } from "./start.mjs";

const CHROME = process.env.CHROME ?? "/usr/bin/chromium";

/** Each resolves with what the host printed, and an error unless all went well. */
const hosts = {
  // Node 20 strips no types and does not know `using`: it gets a bundle.
  node20: () =>
    start("node20/bin/node", ["--enable-source-maps", "out/main.js"]),
  node24: () =>
    start("node24/bin/node", [
      "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON", // there is none to type
      "--import=./hooks.mjs",
      "out/main.ts",
    ]),
  bun: () =>
    start(".bin/bun", [
      "--no-install", // else it asks the registry for names it cannot resolve
      "--tsconfig-override=tsconfig.json",
      "out/main.ts",
    ]),
  workerd: () => start(".bin/workerd", ["test", "workerd.capnp"]),
  edge: () => start("node24/bin/node", ["edge.mjs"]), // requests to a workerd
  imports: () => start("node24/bin/node", ["imports.mjs"]), // do nothing
  pack: () => start("node24/bin/node", ["pack.mjs"]), // as others get it
  redis: () => start("node24/bin/node", ["redis.mjs"]), // on three hosts
  service: () => start("node24/bin/node", ["service.mjs"]), // clients of examples/edge.ts
  inspector: () => start("node24/bin/node", ["inspector.mjs"]), // its page in Chromium
  chromium: () => chromium({ isolated: true }),
  page: () => chromium({ isolated: false }), // as most are: shares no memory with its workers
};

process.chdir(import.meta.dirname);
const write = process.argv[2] === "--write";
const wanted = process.argv.slice(write ? 3 : 2);
const unknown = wanted.find((host) => !(host in hosts));
if (unknown) throw new Error(`No host ${unknown}, only ${Object.keys(hosts)}`);
if (!existsSync("node_modules")) throw new Error("Run npm ci in compat first");

await bundle();
const total = { passed: 0, failed: 0, skipped: 0 };
const skips = {}; // by host, by name
for (const host of wanted.length > 0 ? wanted : Object.keys(hosts)) {
  const since = performance.now();
  const { output, error } = await hosts[host]()
    .catch((error) => ({ output: "", error }));
  const [line, ...counts] = [
    ...output.matchAll(/^(\d+) passed, (\d+) failed, (\d+) skipped$/gm),
  ].at(-1) ?? ["no summary", 0, 0, 0];
  const [passed, failed, skipped] = counts.map(Number);
  const bad = error !== undefined || failed > 0 || passed === 0;
  total.passed += passed;
  total.failed += bad ? Math.max(failed, 1) : 0;
  total.skipped += skipped;
  const seconds = ((performance.now() - since) / 1000).toFixed(2);
  console.log(`${host.padEnd(9)} ${seconds.padStart(6)} s  ${line}`);
  skips[host] = skipsIn(output);
  for (const name of skips[host]) console.log(`skip ${name}`);
  if (!bad) continue;
  console.log(output.replace(/^(ok|skip) .+\n/gm, "").trim());
  console.log(`${host} FAILED: ${error ?? line}`);
}
if (wanted.length === 0 && total.failed === 0 && !recorded()) total.failed++;
const { passed, failed, skipped } = total;
console.log(`compat: ${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed > 0 ? 1 : 0;

/** Writes the entry points, which import every test file, and bundles them. */
async function bundle() {
  rmSync("out", { recursive: true, force: true });
  mkdirSync("out");
  const files = readdirSync("../tests").sort()
    .filter((name) => name.endsWith("_test.ts"));
  const left = files.filter((name) => name.endsWith("_deno_test.ts"));
  if (left.length > 0) console.log(`left out, need Deno: ${left.join(", ")}`);
  const lines = files.filter((name) => !left.includes(name)).map((name) =>
    `await file("${name}", () => import("../../tests/${name}"));\n`
  );
  writeFileSync(
    "out/tests.ts",
    `import { file } from "../shim.ts";\n${lines.join("")}`,
  );
  const begin = `import "./tests.ts";\n`;
  writeFileSync("out/main.ts", `${begin}await import("../main.ts");\n`);
  writeFileSync("out/page.ts", `${begin}await import("../page.ts");\n`);
  writeFileSync("out/ignored.ts", `${begin}await import("../ignored.ts");\n`);
  writeFileSync(
    "out/worker.ts",
    `${begin}export { default } from "../worker.ts";\n`,
  );
  await esbuild("out", [
    "out/main.ts",
    "out/page.ts",
    "out/worker.ts",
    "out/ignored.ts",
    "edge_worker.ts",
    "inspected.ts",
    "module_state.ts",
    "../examples/edge.ts",
  ]);
  const workers = readdirSync("../tests/workers");
  await esbuild(
    "out/workers",
    workers.map((name) => `../tests/workers/${name}`),
  );
}

async function esbuild(outdir, entries) {
  const { output, error } = await start(".bin/esbuild", [
    ...entries,
    `--outdir=${outdir}`,
    "--entry-names=[name]",
    "--bundle",
    "--format=esm",
    "--platform=neutral",
    "--target=es2022", // lowers `using`
    "--external:node:*",
    "--sourcemap=inline",
    "--tsconfig=tsconfig.json",
    "--log-level=warning",
  ]);
  // Without a bundle, the hosts that need it fail for themselves.
  if (output || error) console.log(`${output}\nbundle: ${error ?? "warnings"}`);
}

/**
 * Serves a page to a headless Chromium, until the page has posted its lines. It
 * shares memory with its workers if it is isolated.
 */
async function chromium({ isolated }) {
  if (!existsSync(CHROME)) {
    return { output: "", error: `${CHROME} is missing: install chromium` };
  }
  const page = `<!doctype html><link rel="icon" href="data:,"><script>
    addEventListener("error", (event) => { // the tests could not even start
      const body = "page.js: " + (event.message ?? "could not be loaded");
      if (!globalThis.Deno) fetch("/result", { method: "POST", body });
    }, true);
    </script><script type="module" src="/page.js"></script>`;
  let answer;
  const result = new Promise((resolve) => answer = resolve);
  const server = createServer((request, response) => {
    if (isolated) {
      response.setHeader("cross-origin-opener-policy", "same-origin")
        .setHeader("cross-origin-embedder-policy", "require-corp");
    }
    if (request.url === "/") {
      response.setHeader("content-type", "text/html").end(page);
    } else if (
      /^\/(page|workers\/\w+)\.js$/.test(request.url) &&
      existsSync(`out${request.url}`)
    ) {
      response.setHeader("content-type", "text/javascript")
        .end(readFileSync(`out${request.url}`));
    } else if (request.url === "/result") {
      let output = "";
      request.setEncoding("utf8").on("data", (text) => output += text);
      request.on("end", () => {
        response.end();
        answer({ output });
      });
    } else {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const profile = mkdtempSync(join(tmpdir(), "chromium-"));
  const child = spawn(CHROME, [
    "--headless",
    "--no-sandbox", // it refuses to run as root otherwise
    "--disable-gpu",
    // It shall talk to this server only.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    `--user-data-dir=${profile}`,
    `http://127.0.0.1:${server.address().port}/`,
  ], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, TMPDIR: profile }, // it leaves things behind
  });
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (text) => errors += text);
  const late = setTimeout(
    () => answer({ output: errors, error: "no result in time" }),
    LIMIT,
  );
  const gone = new Promise((resolve) => {
    child.on("error", (error) => resolve(answer({ output: "", error })));
    child.on("close", (code, signal) => {
      const error = `ended early with ${code ?? signal}`;
      resolve(answer({ output: errors, error })); // in vain after a result
    });
  });
  try {
    return await result;
  } finally {
    clearTimeout(late);
    child.kill();
    await gone;
    server.close();
    server.closeAllConnections();
    // Its helper processes may outlive it, and write here, for some ms.
    rmSync(profile, { recursive: true, maxRetries: 20, retryDelay: 50 });
  }
}

/** The names of the tests that were skipped, by what a host has printed. */
function skipsIn(output) {
  return [...output.matchAll(/^skip (.+)$/gm)].map(([_, name]) => name);
}

/** What Deno would print of those; it runs the tests elsewhere. */
function ignoredByDeno() {
  const args = ["run", "--no-config", "-A", "out/ignored.js"];
  return execFileSync(findDeno(), args, { encoding: "utf8" });
}

/** Whether the README shows what was seen; with `--write`, sees to it. */
function recorded() {
  const { devDependencies: pinned } = JSON.parse(
    readFileSync("package.json", "utf8"),
  );
  const readme = readFileSync("../README.md", "utf8");
  const [, deno] = readme.match(/deno@([\d.]+)/);
  const version = (name) => pinned[name].replace("npm:node@", "");
  const rows = [
    ["Deno", deno, "as it is", skipsIn(ignoredByDeno())],
    ["Bun", version("bun"), "as it is", skips.bun],
    ["Node 24", version("node24"), "as it is", skips.node24],
    ["Node 20", version("node20"), "bundled", skips.node20],
    ["Cloudflare's workerd", version("workerd"), "bundled", skips.workerd],
    ["Chromium", chromiumVersion(), "bundled", skips.chromium],
  ];
  const table = [
    "| Runtime | Tested with | The TypeScript | Tests skipped |",
    "| --- | --- | --- | --- |",
    ...rows.map(([name, version, how, skipped]) =>
      `| ${name} | ${version} | ${how} | ${skipped.length || "none"} |`
    ),
  ].join("\n");
  const [start, end] = ["<!-- runtimes -->", "<!-- /runtimes -->"];
  const [before, rest] = readme.split(start);
  const [found, after] = rest.split(end);
  // Its format, and the Chromium of this machine, do not matter.
  const gist = (text) =>
    text.replace(/^(\| Chromium +\|)[^|]+/m, "$1").replace(/[\s-]+/g, "");
  if (gist(found) === gist(table)) return true;
  if (write) {
    const shown = `${before}${start}\n\n${table}\n\n${end}${after}`;
    writeFileSync("../README.md", shown);
    console.log("README.md written; format it");
    return true;
  }
  console.log(
    `README.md shows other runtimes; run node run.mjs --write:\n${table}`,
  );
  return false;
}

/** Of the Chromium that the tests run in. */
function chromiumVersion() {
  const text = execFileSync(CHROME, ["--version"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  return text.match(/\d+/)[0];
}
