import { assertEquals } from "@std/assert";
import { broadcastLink, portLink } from "../link.ts";
import {
  cases,
  linkConformance,
  type Medium,
  runCase,
} from "./link_conformance.ts";
import { ALL, type Flaw, FLAWS, MemoryMedium } from "./_memory_link.ts";
import { nodePorts, realPorts } from "./_ports.ts";

const NONE = {
  durable: false,
  acks: false,
  groups: false,
  backpressure: false,
  confirms: false,
};

const garbage = { protocol: "@sauce/queues/link", version: 1, events: "{oops" };

linkConformance("a link in memory", () => new MemoryMedium(), {
  caps: ALL,
  dedupes: true,
  garbles: true,
  kills: true,
});

linkConformance("portLink()", () => {
  const [near, far] = realPorts();
  const left = [near, far];
  return {
    link: () => portLink(left.shift()!),
    garble: (topic) => near.postMessage({ ...garbage, topic }),
    dispose: () => near.close(),
  };
}, { caps: NONE, garbles: true, twoEnds: true });

linkConformance("portLink(), as Node has ports", () => {
  const [near, far] = nodePorts();
  const left = [near, far];
  return {
    link: () => portLink(left.shift()!),
    garble: (topic) => near.postMessage({ ...garbage, topic }),
  };
}, { caps: NONE, garbles: true, twoEnds: true });

let channels = 0;
const hasChannels = typeof BroadcastChannel === "function";

linkConformance("broadcastLink()", (): Medium => {
  const name = `conformance ${channels++}`;
  return {
    link: () => broadcastLink(name),
    garble(topic) {
      const channel = new BroadcastChannel(name);
      channel.postMessage({ ...garbage, topic });
      setTimeout(() => channel.close(), 100);
    },
  };
}, {
  caps: NONE,
  garbles: true,
  skip: hasChannels ? {} : Object.fromEntries(
    cases.map(({ name }) => [name, "no BroadcastChannel"]),
  ),
});

// ---------------------------------------------------------- of the suite itself

/** Which case notices which flaw. */
const NOTICED: Record<Flaw, string> = {
  "lies about acks": "says what it can do",
  "loses the source": "carries all fields of 100 events, in order",
  "turns undefined into null":
    "carries any data that JSON has a form for, and bytes",
  "reverses batches": "carries all fields of 100 events, in order",
  "lets sends overtake each other":
    "keeps the order of 2,000 sends that nobody awaits",
  "mixes topics": "keeps topics apart",
  "gives each event to one receiver of a link":
    "gives each receiver all events, on one link",
  "gives each event to one link":
    "gives each receiver all events, on several links",
  "shares nothing within a group":
    "shares events within a group, each group gets all",
  "acknowledges before the sink has":
    "delivers again what the sink rejects, and says how often",
  "counts no attempts":
    "delivers again what the sink rejects, and says how often",
  "takes a throw for done": "delivers again what the sink throws at",
  "never gives up":
    "gives up an event that is always rejected, tells of it, and goes on",
  "gives up without a word":
    "gives up an event that is always rejected, tells of it, and goes on",
  "falls silent after garbage":
    "refuses what is no event, tells of it, and goes on",
  "takes garbage for an event":
    "refuses what is no event, tells of it, and goes on",
  "rejects a batch for one event":
    "leaves out what cannot be sent, tells of it, and sends the rest",
  "leaves out without a word":
    "leaves out what cannot be sent, tells of it, and sends the rest",
  "minds no maxInFlight": "has no more than maxInFlight events with the sink",
  "forgets what was sent before":
    "delivers what was sent before, if that is asked for, or not",
  "always begins at the beginning":
    "delivers what was sent before, if that is asked for, or not",
  "loses what a receiver has when it stops":
    "loses nothing when a receiver of a group stops midway",
  "loses what a dead receiver had":
    "hands over what a dead receiver of a group had",
  "close waits for sinks":
    "closes twice while a sink hangs; refuses what comes after that",
  "sends after close":
    "closes twice while a sink hangs; refuses what comes after that",
  "calls a sink after stop": "calls no sink after stop(), and keeps the others",
  "ends a batch after stop":
    "calls no sink after stop(), not even in the midst of a batch",
  "ends a batch after close":
    "calls no sink after close(), not even in the midst of a batch",
  "never answers a send": "carries all fields of 100 events, in order",
  "never closes": "says what it can do",
  "stops all receivers at once":
    "calls no sink after stop(), and keeps the others",
  "keeps repeats": "keeps an event that is sent twice once",
  "cuts what is large": "carries an event of 400 kB",
  "ends with a sink that throws": "lets a sink that fails stop nobody else",
};

for (const flaw of FLAWS) {
  Deno.test(`linkConformance() notices a link that ${flaw}`, async () => {
    const one = cases.find(({ name }) => name === NOTICED[flaw])!;
    const outcome = await runCase(one, () => new MemoryMedium(flaw), {
      caps: ALL,
      patience: 100,
    }).then(() => "passed", () => "failed");
    assertEquals(outcome, "failed");
  });
}

Deno.test("linkConformance() has no case that nothing can fail", () => {
  const noticing = new Set(Object.values(NOTICED));
  assertEquals(cases.filter(({ name }) => !noticing.has(name)), []);
});

Deno.test("linkConformance() registers cases with any runner, and skips by name", () => {
  const calls: string[] = [];
  const test = Object.assign((name: string) => calls.push(name), {
    skip: (name: string) => calls.push(`skip ${name}`),
  });
  const options = { caps: NONE, test };
  linkConformance("it", () => new MemoryMedium(), options);
  assertEquals(calls.length, cases.length);
  assertEquals(calls[0], "it: says what it can do");
  assertEquals(
    calls.find((call) => call.includes("maxInFlight")),
    "skip it: has no more than maxInFlight events with the sink " +
      "(skipped: it has no backpressure)",
  );
});
