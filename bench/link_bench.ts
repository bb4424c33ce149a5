// What it costs to reach another bus over a link, beside the raw medium that
// carries the same text in batches of the same size, and beside bare objects,
// as `postMessage` takes them. Both ends are in one thread, so that figures are
// those of both together.

import { Bus } from "../bus.ts";
import {
  broadcastLink,
  encodeEvent,
  type Link,
  type LinkEvent,
  portLink,
} from "../link.ts";
import { group } from "./group.ts";

/** How many events a round of many has. */
export const MANY = 10_000;
const BATCH = 256; // what a bus sends in one go
const ONE_BY_ONE = 200;

type Events = { order: { dish: string; n: number } };

const dish = "soup of the day, with bread";

/** A medium with two ends, each a link, or as it is. */
export interface Medium {
  links(): [Link, Link];
  raw(): [Raw, Raw];
}

/** An end of a medium, as it is. */
export interface Raw {
  postMessage(message: unknown): void;
  onmessage: ((event: MessageEvent) => void) | null;
}

let channels = 0;

/** What links go over. */
export const media: Record<string, Medium> = {
  "a MessagePort": {
    links() {
      const { port1, port2 } = new MessageChannel();
      return [portLink(port1), portLink(port2)];
    },
    raw() {
      const { port1, port2 } = new MessageChannel();
      return [port1, port2];
    },
  },
  "a BroadcastChannel": {
    links() {
      const name = `bench ${channels++}`; // each contender by itself
      return [broadcastLink(name), broadcastLink(name)];
    },
    raw() {
      const name = `bench ${channels++}`;
      return [new BroadcastChannel(name), new BroadcastChannel(name)];
    },
  },
};

let events = 0;

function made(n: number): LinkEvent {
  return {
    id: `0123456789abcdef0123456789abcdef-1-${events++}`,
    type: "order",
    source: "front of house",
    time: Date.now(),
    data: { dish, n },
    origin: "0123456789abcdef.1",
    seq: n + 1,
  };
}

/** Two connected buses; `round` sends, and resolves once all has come. */
async function connect(links: [Link, Link]) {
  const [here, there] = [new Bus<Events>(), new Bus<Events>()];
  await here.connect(links[0], { capacity: MANY });
  await there.connect(links[1], { capacity: MANY });
  let left = 0;
  let done = () => {};
  there.on("order", () => {
    if (--left === 0) done();
  }, { capacity: MANY });
  const send = async (count: number) => {
    left = count;
    const all = new Promise<void>((resolve) => done = resolve);
    for (let n = 0; n < count; n++) {
      here.publish("order", { dish, n }, { source: "front of house" });
    }
    await all;
  };
  return send;
}

/** Gives events to `post`, a batch at a time; `came` is to be called with each that has come. */
function inBatches(post: (batch: LinkEvent[]) => void) {
  let left = 0;
  let done = () => {};
  const came = ({ data }: { data: unknown }) => {
    if ((data as { n: number }).n >= 0 && --left === 0) done();
  };
  const send = async (count: number) => {
    left = count;
    const all = new Promise<void>((resolve) => done = resolve);
    for (let n = 0; n < count;) {
      const batch: LinkEvent[] = [];
      while (batch.length < BATCH && n < count) batch.push(made(n++));
      post(batch);
    }
    await all;
  };
  return { came, send };
}

/** A link by itself, without a bus at either end. */
async function between([near, far]: [Link, Link]) {
  const { came, send } = inBatches((batch) => near.send("orders", batch));
  await far.receive("orders", came);
  return send;
}

/** The same by hand: `write` makes a message of a batch, `read` a batch of a message. */
function byHand(
  [near, far]: [Raw, Raw],
  write: (batch: LinkEvent[]) => unknown,
  read: (message: never) => LinkEvent[],
) {
  const { came, send } = inBatches((batch) => near.postMessage(write(batch)));
  far.onmessage = ({ data }) => {
    for (const event of read(data as never)) came(event);
  };
  return send;
}

/** Sends so many events, and resolves once all have come. */
export type Send = (count: number) => Promise<void>;

/** Who is compared on a medium; the first one is the floor. */
export function contenders(
  medium: Medium,
): Record<string, () => Promise<Send> | Send> {
  return {
    "the same text by hand": () =>
      byHand(
        medium.raw(),
        (batch) => `[${batch.map((event) => encodeEvent(event)).join(",")}]`,
        (text) => JSON.parse(text),
      ),
    "bare objects by hand": () =>
      byHand(medium.raw(), (batch) => batch, (batch) => batch),
    "a link": () => between(medium.links()),
    "two buses and a link": () => connect(medium.links()),
  };
}

for (const [name, medium] of Object.entries(media)) {
  const benches = (round: (send: Send) => Promise<void>) =>
    Object.fromEntries(
      Object.entries(contenders(medium)).map(([name, make]) => {
        let send: Send | undefined;
        return [name, async () => round(send ??= await make())];
      }),
    );
  group({
    name: `over ${name}, many`,
    round:
      `publishes ${MANY} events on one bus, until another has handled them`,
    operations: MANY,
    aims: [{
      bench: "a link",
      of: "the same text by hand",
      atMost: 1.25,
    }],
    benches: benches((send) => send(MANY)),
  });
  group({
    name: `over ${name}, one by one`,
    round:
      `publishes ${ONE_BY_ONE} events, each once the one before has been handled`,
    operations: ONE_BY_ONE,
    benches: benches(async (send) => {
      for (let n = 0; n < ONE_BY_ONE; n++) await send(1);
    }),
  });
}
