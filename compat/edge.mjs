// Requests to a service on workerd, whose serializers stand at module level:
// none may wait for one that has ended. Prints like the hosts of run.mjs.
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { get } from "node:http";
import process from "node:process";

process.chdir(import.meta.dirname);
writeFileSync(
  "out/edge.capnp",
  `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "main", worker = (
    modules = [ (name = "worker", esModule = embed "edge_worker.js") ],
    compatibilityDate = "2026-08-01",
  )) ],
  sockets = [ (name = "http", address = "127.0.0.1:0", http = (), service = "main") ],
);
`,
);
const child = spawn("node_modules/.bin/workerd", [
  "serve",
  "--control-fd=3",
  "out/edge.capnp",
], { stdio: ["ignore", "ignore", "inherit", "pipe"] });
const port = await new Promise((resolve, reject) => {
  child.stdio[3].once("data", (line) => resolve(JSON.parse(line).port));
  child.on("exit", () => reject(new Error("workerd did not start")));
});

/** Resolves with an answer, or what became of it; the client may leave after some ms. */
function ask(path, leaveAfter) {
  return new Promise((resolve) => {
    const request = get({ port, host: "127.0.0.1", path, agent: false });
    request.on("response", async (response) => {
      const chunks = await response.setEncoding("utf8").toArray();
      resolve(`${response.statusCode} ${chunks.join("")}`);
    });
    request.on("error", () => resolve(leaveAfter ? "left" : "failed"));
    request.setTimeout(10_000, () => {
      resolve("no answer in 10 s");
      request.destroy();
    });
    if (leaveAfter) {
      setTimeout(() => request.socket.resetAndDestroy(), leaveAfter);
    }
  });
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let passed = 0, failed = 0;

async function test(name, answers, expected) {
  const lines = (await Promise.all(answers())).join(", ");
  if (lines === expected) passed++;
  else failed++, console.log(`not ok ${name}\n  ${expected}, got ${lines}`);
}

const asks = (n, path) => Array.from({ length: n }, () => ask(path));
await test(
  "four at once",
  () => asks(4, "/?ms=20"),
  "200 1, 200 1, 200 1, 200 1",
);
for (const n of [1, 2, 3]) {
  await test(`one after another, ${n}`, () => asks(1, "/?ms=20"), "200 1");
}
await test(
  "a client leaves in the middle of its turn; the next ones get a new resource",
  () => [ask("/?ms=60000", 50), ...asks(4, "/?ms=20")],
  "left, 200 2, 200 2, 200 2, 200 2",
);
await test(
  "clients leave while they wait",
  () => [
    ask("/?ms=900"),
    ask("/?ms=20", 60),
    ask("/?ms=20", 60),
    pause(20).then(() => ask("/?ms=20")),
  ],
  "200 2, left, left, 200 2",
);
await test(
  "a request ends while its broken resource is being closed",
  () => [ask("/break"), pause(100).then(() => ask("/break"))],
  "200 broken, 200 broken",
);
await test(
  "never two handlers with one resource",
  () => asks(1, "/most"),
  "200 1",
);
child.removeAllListeners("exit");
child.kill();
console.log(`${passed} passed, ${failed} failed, 0 skipped`);
process.exitCode = failed > 0 ? 1 : 0;
