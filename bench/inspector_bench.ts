// What an open page costs a bus: 100,000 events in a second, of which the page
// takes five frames. Beside the same bus without a page, and one whose every
// step is recorded.

import { Bus } from "../bus.ts";
import { inspector } from "../inspector.ts";
import { Recorder } from "../trace.ts";
import { check, group } from "./group.ts";

const EVENTS = 100_000;
const FRAMES = 5; // a second
const BURST = 200;

type Events = { order: number };

/** Called where a fifth of a second has passed. */
type Tick = () => void;

/** Opens a page whose timer is ours, and reads what it is sent. */
function openPage(bus: Bus<Events>): Tick {
  const { setInterval } = globalThis;
  let tick: Tick = () => {};
  let ticks = 0;
  let frames = -2; // its greeting, and how things stand
  try {
    Object.assign(globalThis, {
      setInterval: (body: Tick) => void (tick = body),
    });
    const request = new Request("http://127.0.0.1/events");
    const { body } = inspector(bus)(request);
    (async () => {
      const reader = body!.getReader();
      while (!(await reader.read()).done) frames++;
    })();
  } finally {
    Object.assign(globalThis, { setInterval });
  }
  return () => {
    check(frames, ticks++); // it has all those before
    tick();
  };
}

/** Records each step. */
function record(bus: Bus<Events>): Tick {
  new Recorder(bus);
  return () => {};
}

/** A round of so many events to `n` handlers. */
function bench(
  n: number,
  look: (bus: Bus<Events>) => Tick = () => () => {},
): () => Promise<void> {
  const bus = new Bus<Events>();
  let sum = 0;
  for (let i = 0; i < n; i++) bus.on("order", ({ data }) => void (sum += data));
  let tick: Tick | undefined;
  return async () => {
    tick ??= look(bus);
    sum = 0;
    for (let frame = 0; frame < FRAMES; frame++) {
      for (let i = 0; i < EVENTS / FRAMES / BURST; i++) {
        let last;
        for (let j = 0; j < BURST; j++) last = bus.publish("order", 1);
        await last;
      }
      await new Promise((later) => setTimeout(later)); // for handlers, and the reader
      tick();
    }
    check(sum, n * EVENTS);
  };
}

for (const n of [1, 4]) {
  group({
    name: `a page looks on, ${n}`,
    round: `publishes 100,000 events to ${n} handler${n === 1 ? "" : "s"}. ` +
      "`page open` makes, and sends, the five frames that a page gets in a second; " +
      "so a ratio is that of what both do where a second has 100,000 events",
    operations: EVENTS,
    aims: [{ bench: "page open", of: "no page", atMost: 2 }],
    benches: {
      "no page": bench(n),
      "page open": bench(n, openPage),
      "Recorder": bench(n, record),
    },
  });
}
