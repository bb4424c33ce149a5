// Runs the tests on other runtimes than Deno, counts, and prints what was skipped.
//
//   npm ci && node run.mjs [host…]     hosts: as below; without one, all
//
// A test file whose name ends in _deno_test.ts needs Deno and is left out.
// Chromium is Debian's, or CHROME=/path/to/it.
import { spawn } from "node:child_process";
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

const LIMIT = 600_000; // ms for a host; a test has its own limit, in shim.ts

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
  chromium,
};

process.chdir(import.meta.dirname);
const wanted = process.argv.slice(2);
const unknown = wanted.find((host) => !(host in hosts));
if (unknown) throw new Error(`No host ${unknown}, only ${Object.keys(hosts)}`);
if (!existsSync("node_modules")) throw new Error("Run npm ci in compat first");

await bundle();
const total = { passed: 0, failed: 0, skipped: 0 };
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
  for (const [skip] of output.matchAll(/^skip .+$/gm)) console.log(skip);
  if (!bad) continue;
  console.log(output.replace(/^(ok|skip) .+\n/gm, "").trim());
  console.log(`${host} FAILED: ${error ?? line}`);
}
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
  writeFileSync(
    "out/worker.ts",
    `${begin}export { default } from "../worker.ts";\n`,
  );
  await esbuild("out", [
    "out/main.ts",
    "out/page.ts",
    "out/worker.ts",
    "edge_worker.ts",
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

/** Runs a program of node_modules to its end. */
function start(program, args) {
  return new Promise((resolve) => {
    const child = spawn(join("node_modules", program), args, {
      stdio: ["ignore", "pipe", "pipe"],
      timeout: LIMIT,
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => output += text);
    }
    child.on("error", (error) => resolve({ output, error }));
    child.on("close", (code, signal) => {
      const error = code === 0 ? undefined : `ended with ${code ?? signal}`;
      resolve({ output, error });
    });
  });
}

/** Serves a page to a headless Chromium, until the page has posted its lines. */
async function chromium() {
  const program = process.env.CHROME ?? "/usr/bin/chromium";
  if (!existsSync(program)) {
    return { output: "", error: `${program} is missing: install chromium` };
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
  const child = spawn(program, [
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
  ], { stdio: ["ignore", "ignore", "pipe"] });
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
