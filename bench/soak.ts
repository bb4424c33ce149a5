// A soak: 10 million deliveries through one bus to 1,000 subscribers, half of
// whom read by `for await` and half handle; some leave and come back all the time.
// Prints the heap as it goes, and fails if it has grown. Needs the runtime's
// garbage collector at hand:
//
//   deno run --v8-flags=--expose-gc --allow-read bench/soak.ts
//   node --expose-gc, bun: likewise

import { Bus, type Subscription } from "../bus.ts";
import { check } from "./group.ts";
import { print, used } from "./used.ts";

const SUBSCRIBERS = 1_000;
const EVENTS = 10_000;
const CHAPTER = 2_000; // events between two looks at the heap
const SLACK = 300_000; // bytes; what the runtime itself does

type Events = { tick: number };

const bus = new Bus<Events>();
let delivered = 0;

function join(i: number): Subscription {
  if (i % 2 === 0) return bus.on("tick", () => void delivered++);
  const events = bus.subscribe("tick");
  (async () => {
    for await (const _ of events) delivered++;
  })();
  return events;
}

const subscriptions = Array.from({ length: SUBSCRIBERS }, (_, i) => join(i));
let oldest = 0;

/** Publishes so many events, and waits until all have all of them. */
async function publish(events: number): Promise<void> {
  const expected = delivered + events * SUBSCRIBERS;
  for (let i = 0; i < events; i++) {
    await bus.publish("tick", i);
    if (i % 10 === 0) await leaveAndComeBack();
  }
  for (let before = -1; delivered < expected;) {
    if (delivered === before) check(delivered, expected); // some are lost
    before = delivered;
    await new Promise((resolve) => setTimeout(resolve));
  }
  check(delivered, expected);
}

/** The oldest subscriber goes, once it has all its events, and a new one comes. */
async function leaveAndComeBack(): Promise<void> {
  while (subscriptions[oldest].size > 0) await null;
  subscriptions[oldest].unsubscribe();
  subscriptions[oldest] = join(oldest);
  oldest = (oldest + 1) % SUBSCRIBERS;
}

await publish(EVENTS / 2); // warm-up
const before = await used();
print("0 deliveries by a bus to 1,000 subscribers: heap", before);
for (let events = CHAPTER; events <= EVENTS; events += CHAPTER) {
  await publish(CHAPTER);
  const after = await used();
  const deliveries = (events * SUBSCRIBERS).toLocaleString("en");
  print(`…after ${deliveries}`, after, before + SLACK);
  if (after > before + SLACK) {
    throw new Error(`The heap has grown by ${after - before} bytes`);
  }
}
