// Requests to a service on workerd, whose serializers, queues and bus stand at
// module level: none may wait for one that has ended. Prints like the hosts of run.mjs.
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
/** Asks after some ms, so that those before it have begun to wait. */
const later = (ms, path, leaveAfter) =>
  pause(ms).then(() => ask(path, leaveAfter));

for (
  const [verb, answer] of [
    ["receive", "x"],
    ["receiveMany", "x"],
    ["stream", "xyz"],
    ["iterate", "x,y,z"],
    ["batches", "x + y"],
  ]
) {
  const values = [..."xyz"];
  await test(
    `${verb} waits in one request, others send`,
    () => [
      ask(`/${verb}?queue=${verb}9`),
      ...values.map((value, i) =>
        later(100 * (i + 1), `/send?queue=${verb}9&value=${value}`)
      ),
      later(350, `/close?queue=${verb}9`),
    ],
    `200 ${answer}, 200 sent, 200 sent, 200 sent, 200 closed`,
  );
}
await test(
  "select waits in one request, another one sends",
  () => [
    ask("/select?queue=hot+cold"),
    later(100, "/send?queue=cold&value=x"),
  ],
  "200 x from cold, 200 sent",
);
await test(
  "a receiver waits for long",
  () => [ask("/receive?queue=long"), later(2000, "/send?queue=long&value=x")],
  "200 x, 200 sent",
);
await test(
  "several receivers and senders at once",
  () => [
    ...asks(4, "/receive?queue=many"),
    ...asks(8, "/send?queue=many&value=x"),
    ...asks(4, "/receive?queue=many"),
  ],
  [
    ...Array(4).fill("200 x"),
    ...Array(8).fill("200 sent"),
    ...Array(4).fill("200 x"),
  ]
    .join(", "),
);
await test(
  "senders wait for room, also those of a stream",
  () => [
    ask("/write?queue=room1&value=xy"),
    later(50, "/send?queue=room1&value=z"),
    later(150, "/receive?queue=room1"),
    later(200, "/receive?queue=room1"),
    later(250, "/receive?queue=room1"),
  ],
  "200 written, 200 sent, 200 x, 200 y, 200 z",
);
await test(
  "a client leaves while it waits, then four more come",
  () => [
    ask("/receive?queue=left", 50),
    ...["a", "b", "c", "d"].map(() => later(100, "/receive?queue=left")),
    ...["a", "b", "c", "d"].map((value, i) =>
      later(1000 + 50 * i, `/send?queue=left&value=${value}`)
    ),
  ],
  "left, 200 a, 200 b, 200 c, 200 d, 200 sent, 200 sent, 200 sent, 200 sent",
);
await test(
  "clients leave, and nobody is there to notice",
  () => [
    ask("/receive?queue=alone1", 50),
    ask("/iterate?queue=alone1", 50),
    ask("/select?queue=alone1+other", 50),
    later(1300, "/trySend?queue=alone1&value=x"),
    later(1400, "/receive?queue=alone1"),
    later(1500, "/trySend?queue=other&value=x"),
  ],
  "left, left, left, 200 true, 200 x, 200 false",
);
await test(
  "a sender leaves while it waits for room; its value is not sent",
  () => [
    ask("/send?queue=sender&value=dead", 50),
    later(100, "/send?queue=sender&value=alive"),
    later(1000, "/receive?queue=sender"),
  ],
  "left, 200 sent, 200 alive",
);
await test(
  "a sender leaves, and nobody is there to notice",
  () => [
    ask("/send?queue=ghost&value=dead", 50),
    later(1300, "/receive?queue=ghost"),
    later(1400, "/send?queue=ghost&value=alive"),
  ],
  "left, 200 alive, 200 sent",
);
await test(
  "a request hands a hundred thousand values to itself",
  () => asks(1, "/rendezvous?queue=self&value=100000"),
  "200 4999950000",
);
await test(
  "a loop over a subscription and once() wait in one request, others publish",
  () => [
    ask("/subscribe?type=order"),
    ask("/once?type=order"),
    ...["x", "y", "z"].map((value, i) =>
      later(100 * (i + 1), `/publish?type=order&value=${value}`)
    ),
  ],
  "200 x,y,z, 200 x, 200 x, 200 y, 200 z",
);
await test(
  "subscribers leave; publishers who wait for them go on",
  () => [
    ask("/subscribe?type=bill", 50),
    ask("/once?type=bill", 50),
    ask("/on?type=bill"), // its handler ends with its request
    ...["x", "y", "z"].map((value, i) =>
      later(100 * (i + 1), `/publish?type=bill&value=${value}`)
    ),
  ],
  "left, left, 200 listens, 200 x, 200 y, 200 z",
);
child.removeAllListeners("exit");
child.kill();
console.log(`${passed} passed, ${failed} failed, 0 skipped`);
process.exitCode = failed > 0 ? 1 : 0;
