// Requests to a service on workerd, whose serializers, queues and bus stand at
// module level: none may wait for one that has ended. Prints like the hosts of run.mjs.
import process from "node:process";
import { answerTo, Server } from "./server.mjs";

process.chdir(import.meta.dirname);
const server = new Server([
  "node_modules/.bin/workerd",
  "serve",
  "--control-fd=1",
  "edge.capnp",
]);
await server.start();

/** Resolves with an answer, or what became of it; the client may leave after some ms, or once a promise resolves. */
async function ask(path, leave) {
  const sent = server.send("GET", path);
  const late = setTimeout(() => sent.destroy(new Error("late")), 10_000);
  if (leave) {
    const leaves = typeof leave === "number" ? pause(leave) : leave;
    leaves.then(() => sent.socket.resetAndDestroy());
  }
  try {
    const { status, text } = await answerTo(sent);
    return `${status} ${text}`;
  } catch (error) {
    return error.message === "late"
      ? "no answer in 10 s"
      : leave
      ? "left"
      : "failed";
  } finally {
    clearTimeout(late);
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const later = (ms, path) => pause(ms).then(() => ask(path));

/** Resolves once as many requests run or wait at the serializer. */
async function inLine(count) {
  while (Number((await ask("/inLine")).replace("200 ", "")) < count);
}

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
  () => [
    ask("/?ms=60000", inLine(5)),
    ...Array.from({ length: 4 }, () => inLine(1).then(() => ask("/?ms=20"))),
  ],
  "left, 200 2, 200 2, 200 2, 200 2",
);
await test(
  "clients leave while they wait",
  () => [
    ask("/?ms=900"),
    inLine(1).then(() => ask("/?ms=20", inLine(4))),
    inLine(1).then(() => ask("/?ms=20", inLine(4))),
    inLine(1).then(() => ask("/?ms=20")),
  ],
  "200 2, left, left, 200 2",
);
await test(
  "a request ends while its broken resource is being closed",
  () => [ask("/break"), later(100, "/break")],
  "200 broken, 200 broken",
);
await test(
  "never two handlers with one resource",
  () => asks(1, "/most"),
  "200 1",
);
for (
  const [verb, answer] of [
    ["receive", "x"],
    ["receiveMany", "x"],
    ["stream", "xyz"],
    ["iterate", "x,y,z"],
    ["batches", "x + y"],
  ]
) {
  await test(
    `${verb} waits in one request, others send`,
    () => [
      ask(`/${verb}?with=${verb}9`),
      ...[..."xyz"].map((value, i) =>
        later(100 * (i + 1), `/send?with=${verb}9&value=${value}`)
      ),
      later(350, `/close?with=${verb}9`),
    ],
    `200 ${answer}, 200 sent, 200 sent, 200 sent, 200 closed`,
  );
}
await test(
  "select waits in one request, another one sends",
  () => [
    ask("/select?with=hot+cold"),
    later(100, "/send?with=cold&value=x"),
  ],
  "200 x from cold, 200 sent",
);
await test(
  "a receiver waits for long",
  () => [ask("/receive?with=long"), later(2000, "/send?with=long&value=x")],
  "200 x, 200 sent",
);
await test(
  "several receivers and senders at once",
  () => [
    ...asks(4, "/receive?with=many"),
    ...asks(8, "/send?with=many&value=x"),
    ...asks(4, "/receive?with=many"),
  ],
  [
    ...Array(4).fill("200 x"),
    ...Array(8).fill("200 sent"),
    ...Array(4).fill("200 x"),
  ].join(", "),
);
await test(
  "senders wait for room, also those of a stream",
  () => [
    ask("/write?with=room1&value=xy"),
    later(50, "/send?with=room1&value=z"),
    later(150, "/receive?with=room1"),
    later(200, "/receive?with=room1"),
    later(250, "/receive?with=room1"),
  ],
  "200 written, 200 sent, 200 x, 200 y, 200 z",
);
await test(
  "a client leaves while it waits, then four more come",
  () => [
    ask("/receive?with=left", 50),
    ...[..."abcd"].map((_, i) => later(100 + 50 * i, "/receive?with=left")),
    ...[..."abcd"].map((value, i) =>
      later(1000 + 50 * i, `/send?with=left&value=${value}`)
    ),
  ],
  "left, 200 a, 200 b, 200 c, 200 d, 200 sent, 200 sent, 200 sent, 200 sent",
);
await test(
  "clients leave, and nobody is there to notice",
  () => [
    ask("/receive?with=alone1", 50),
    ask("/iterate?with=alone1", 50),
    ask("/select?with=alone1+other", 50),
    later(1300, "/trySend?with=alone1&value=x"),
    later(1400, "/receive?with=alone1"),
    later(1500, "/trySend?with=other&value=x"),
  ],
  "left, left, left, 200 true, 200 x, 200 false",
);
await test(
  "a receiver listens to its request's signal, and leaves at once",
  () => [
    ask("/receiveWhileHere?with=signal", 50),
    later(200, "/trySend?with=signal&value=x"),
  ],
  "left, 200 false",
);
await test(
  "a sender leaves while it waits for room; its value is not sent",
  () => [
    ask("/send?with=sender&value=dead", 50),
    later(100, "/send?with=sender&value=alive"),
    later(1000, "/receive?with=sender"),
  ],
  "left, 200 sent, 200 alive",
);
await test(
  "a sender leaves, and nobody is there to notice",
  () => [
    ask("/send?with=ghost&value=dead", 50),
    later(1300, "/receive?with=ghost"),
    later(1400, "/send?with=ghost&value=alive"),
  ],
  "left, 200 alive, 200 sent",
);
await test(
  "a request hands a hundred thousand values to itself",
  () => asks(1, "/rendezvous?with=0&value=100000"),
  "200 4999950000",
);
await test(
  "a request hands values to itself, with other awaits in between",
  () => asks(1, "/rendezvous?with=40&value=20000"),
  "200 199990000",
);
await test(
  "short waits elsewhere hide nobody who has left",
  () => [
    ask("/receive?with=hidden", 50),
    ...Array.from({ length: 15 }, (_, i) => later(100 + 160 * i, "/?ms=150")),
    later(2300, "/trySend?with=hidden&value=x"),
  ],
  ["left", ...Array(15).fill("200 2"), "200 false"].join(", "),
);
await test(
  "a Durable Object that is held up loses nobody, whatever others do",
  () => [
    ask("/object?with=one&value=bake"),
    ask("/object?with=two&value=receive", 4500),
    later(100, "/object?with=one&value=block"),
    later(200, "/object?with=one&value=bake"),
  ],
  "200 1 at once, left, 200 unblocked, 200 1 at once",
);
await test(
  "a loop over a subscription and once() wait in one request, others publish",
  () => [
    ask("/subscribe?with=order"),
    ask("/once?with=order"),
    ...[..."xyz"].map((value, i) =>
      later(100 * (i + 1), `/publish?with=order&value=${value}`)
    ),
  ],
  "200 x,y,z, 200 x, 200 x, 200 y, 200 z",
);
await test(
  "subscribers leave; publishers who wait for them go on",
  () => [
    ask("/subscribe?with=bill", 50),
    ask("/once?with=bill", 50),
    ask("/on?with=bill"), // its handler ends with its request
    ...[..."xyz"].map((value, i) =>
      later(100 * (i + 1), `/publish?with=bill&value=${value}`)
    ),
  ],
  "left, left, 200 listens, 200 x, 200 y, 200 z",
);
await test(
  "a handler of outside any request ends with the first one that publishes, and holds up nobody",
  () => [
    ...[..."xyz"].map((value, i) =>
      later(100 * i, `/publish?with=global&value=${value}`)
    ),
    later(1000, "/heard?with=global"),
  ],
  "200 x, 200 y, 200 z, 200 x",
);
console.log(`${passed} passed, ${failed} failed, 0 skipped`);
process.exit(failed > 0 ? 1 : 0); // with the server
