// A queue beside its peers, in each shape of work that they can do.
//
// What is alike for all: a loop awaits what `send` returns for each number, and
// another reads by the library's own async iterator, or by its `receive`. The
// numbers are checked one by one as they come out. The loops are the same code
// for all, called through the object that `open` returns: each pays for that
// alike, us included, so that ratios to the floor are a little higher here than
// in queue_bench.ts.
//
// effect and ts-chan wait by `setImmediate`, as a rule or at times: in Deno,
// whoever takes the next turn after that runs at half of its speed. So they have
// groups of their own. ts-chan can be told not to (`setUnsafe`), its better
// figure: so told, it is among the others, too.

import process from "node:process";
import { pathToFileURL } from "node:url";
import { FixedBuffer, Repeater } from "@repeaterjs/repeater";
import { Channel as Csp, select as selectCsp } from "@thi.ng/csp";
import { Channel as AsyncChannel } from "async-channel";
import { Cause, Effect, Queue as EffectQueue } from "effect";
import { pushable, pushableV } from "it-pushable";
import { Chan, recv, Select } from "ts-chan";
import { Queue, select } from "../queue.ts";
import { Bare, bareCrowd, BareSlot, Crowd, once, SENT } from "./floor.ts";
import { check, type Group, group } from "./group.ts";

/** A queue of numbers, by whatever library. */
interface Channel<Received = unknown> {
  /** Its result is awaited. */
  send(value: number): unknown;
  receive(signal?: AbortSignal): Promise<Received>;
  /** The number in what `receive` resolves with. */
  numberIn(received: Received): number;
  close(): void;
  values(): AsyncIterable<number>;
  /** What its first sender has to wait for. */
  started?: Promise<unknown>;
}

/** Two channels, and the choice between them. */
interface Pair<Selected = unknown> {
  a: Channel;
  b: Channel;
  take(): Promise<Selected>;
  numberIn(selected: Selected): number;
}

/** What a library is benched by: its channels, or rounds written for it by hand. */
type Contender =
  & { cannot?: Partial<Record<Shape, string>> }
  & (
    | Channels
    | { rounds: Record<string, Round> }
  );

interface Channels {
  /** Holds so many numbers, or as near to that as it can. */
  open(capacity: number): Channel;
  /** Sends `BURST` numbers without waiting, and takes them all. */
  burst?(): number[] | Promise<number[]>;
  /** Each of the two holds so many numbers. */
  pair?(capacity: number): Pair;
}

type Round = () => void | Promise<void>;

type Shape =
  | "create"
  | "spsc"
  | "spsc, parked"
  | "rendezvous"
  | "mpmc"
  | "burst and drain"
  | "ping-pong"
  | "cancel storm"
  | "shared signal"
  | "select, at hand"
  | "select, parked";

const VALUES = 2_000;
const BURST = 1024;
const SELECTED = 1000;
const PINGS = 1_000;
const FOUR = [0, 1, 2, 3];

/** Type-checked here, looked at as `unknown` elsewhere. */
function channel<Received>(channel: Channel<Received>): Channel {
  return channel as Channel;
}

function pair<Selected>(pair: Pair<Selected>): Pair {
  return pair as Pair;
}

const same = (value: number) => value;

// Ours.

function openQueue(queue: Queue<number>): Channel {
  return channel<number>({
    send: (value) => queue.send(value),
    receive: (signal) => queue.receive({ signal }),
    numberIn: same,
    close: () => queue.close(),
    values: () => queue,
  });
}

const ours: Channels = {
  open: (capacity) => openQueue(new Queue({ capacity })),
  burst() {
    const queue = new Queue<number>({ capacity: BURST });
    for (let i = 0; i < BURST; i++) queue.trySend(i);
    return queue.drain();
  },
  pair(capacity) {
    const queues = {
      a: new Queue<number>({ capacity }),
      b: new Queue<number>({ capacity }),
    };
    return pair<{ value: number }>({
      a: openQueue(queues.a),
      b: openQueue(queues.b),
      take: () => select(queues),
      numberIn: ({ value }) => value,
    });
  },
};

// Theirs.

const NO_SIGNALS = "knows no signals";
const NO_SELECT = "has no select";

const asyncChannel: Contender = {
  open(capacity) {
    const chan = new AsyncChannel<number>(capacity);
    return channel<number>({
      send: (value) => chan.push(value),
      receive: () => chan.get(),
      numberIn: same,
      close: () => chan.close(),
      values: () => chan,
    });
  },
  burst() {
    const chan = new AsyncChannel<number>(BURST);
    for (let i = 0; i < BURST; i++) chan.push(i);
    return Promise.all(chan.clear());
  },
  cannot: {
    "cancel storm": NO_SIGNALS,
    "shared signal": NO_SIGNALS,
    "select, at hand": NO_SELECT,
    "select, parked": NO_SELECT,
  },
};

function openChan(chan: Chan<number>): Channel {
  return channel<IteratorResult<number, number | undefined>>({
    send: (value) => chan.send(value),
    receive: (signal) => chan.recv(signal),
    numberIn: ({ value }) => value as number,
    close: () => chan.close(),
    values: () => chan,
  });
}

function tsChan(unsafe: boolean): Contender {
  const make = (capacity: number) =>
    new Chan<number>(capacity).setUnsafe(unsafe);
  return {
    open: (capacity) => openChan(make(capacity)),
    burst() {
      const chan = make(BURST);
      for (let i = 0; i < BURST; i++) chan.trySend(i);
      const values: number[] = [];
      for (let next; (next = chan.tryRecv()) !== undefined;) {
        values.push(next.value as number);
      }
      return values;
    },
    pair(capacity) {
      const [a, b] = [make(capacity), make(capacity)];
      const both = new Select([recv(a), recv(b)]).setUnsafe(unsafe);
      return pair<number>({
        a: openChan(a),
        b: openChan(b),
        take: () => both.wait(),
        numberIn: (index) => both.recv(both.cases[index]).value as number,
      });
    },
  };
}

function openCsp(chan: Csp<number>): Channel {
  return channel<number | undefined>({
    send: (value) => chan.write(value),
    receive: () => chan.read(),
    numberIn: (value) => value!,
    close: () => chan.close(),
    values: () => chan,
  });
}

const csp: Contender = {
  // It has room for one at least. But its `write` always waits for a reader.
  open: (capacity) => openCsp(new Csp(Math.max(capacity, 1))),
  burst() {
    const chan = new Csp<number>(BURST);
    for (let i = 0; i < BURST; i++) chan.offer(i);
    const values: number[] = [];
    for (let value; (value = chan.poll()) !== undefined;) values.push(value);
    return values;
  },
  pair(capacity) {
    const a = new Csp<number>(Math.max(capacity, 1));
    const b = new Csp<number>(Math.max(capacity, 1));
    return pair<[number | undefined, unknown]>({
      a: openCsp(a),
      b: openCsp(b),
      take: () => selectCsp(a, b),
      numberIn: ([value]) => value!,
    });
  },
  cannot: { "cancel storm": NO_SIGNALS, "shared signal": NO_SIGNALS },
};

const itPushable: Contender = {
  open() {
    const source = pushable<number>({ objectMode: true });
    return channel<IteratorResult<number, void>>({
      send: (value) => source.push(value),
      receive: () => source.next(),
      numberIn: ({ value }) => value as number,
      close: () => source.end(),
      values: () => source,
    });
  },
  async burst() {
    const source = pushableV<number>({ objectMode: true });
    for (let i = 0; i < BURST; i++) source.push(i);
    return (await source.next()).value as number[];
  },
  cannot: {
    "rendezvous": "its senders never wait",
    "mpmc": "has one reader",
    "cancel storm": NO_SIGNALS,
    "shared signal": NO_SIGNALS,
    "select, at hand": NO_SELECT,
    "select, parked": NO_SELECT,
  },
};

const repeater: Contender = {
  open(capacity) {
    let push: (value: number) => Promise<unknown>;
    let stop: () => void;
    let start: () => void;
    const started = new Promise<void>((resolve) => start = resolve);
    const values = new Repeater<number>((...own) => {
      [push, stop] = own;
      start();
      return own[1];
    }, capacity === 0 ? undefined : new FixedBuffer(capacity));
    return channel<IteratorResult<number>>({
      send: (value) => push(value),
      receive: () => values.next(),
      numberIn: ({ value }) => value,
      close: () => stop(),
      values: () => values,
      started, // when the first value is asked for
    });
  },
  cannot: {
    "burst and drain": "starts when it is read",
    "cancel storm": NO_SIGNALS,
    "shared signal": NO_SIGNALS,
    "select, at hand": NO_SELECT,
    "select, parked": NO_SELECT,
  },
};

function openTransform(capacity: number): Channel {
  const { readable, writable } = new TransformStream<number, number>(
    undefined,
    { highWaterMark: Math.max(capacity, 1) },
    { highWaterMark: 0 },
  );
  const writer = writable.getWriter();
  const reader = once(() => readable.getReader());
  return channel<ReadableStreamReadResult<number>>({
    send: (value) => writer.write(value),
    receive: () => reader().read(),
    numberIn: ({ value }) => value!,
    close: () => writer.close(),
    values: () => readable,
  });
}

const transformStream: Contender = {
  open: openTransform, // `write` waits for a reader, whatever the capacity
  async burst() {
    const stream = openTransform(BURST);
    for (let i = 0; i < BURST; i++) stream.send(i);
    const values: number[] = [];
    for (let i = 0; i < BURST; i++) {
      values.push(stream.numberIn(await stream.receive()));
    }
    return values;
  },
  cannot: {
    "mpmc": "has one reader",
    "cancel storm": NO_SIGNALS,
    "shared signal": NO_SIGNALS,
    "select, at hand": NO_SELECT,
    "select, parked": NO_SELECT,
  },
};

/** What we use of `Channel` of `@std/async`. */
interface StdChannel extends AsyncIterable<number> {
  send(value: number): Promise<void>;
  trySend(value: number): boolean;
  receive(options?: { signal?: AbortSignal }): Promise<number>;
  tryReceive(): { state: "ok"; value: number } | { state: "empty" | "closed" };
  close(): void;
}

/** As run.mjs has put it together: see there. */
const STD = pathToFileURL(`${process.cwd()}/node_modules/std_channel.js`);

function std(Channel: new (options: { capacity: number }) => StdChannel) {
  return {
    open(capacity: number) {
      const chan = new Channel({ capacity });
      return channel<number>({
        send: (value) => chan.send(value),
        receive: (signal) => chan.receive({ signal }),
        numberIn: same,
        close: () => chan.close(),
        values: () => chan,
      });
    },
    burst() {
      const chan = new Channel({ capacity: BURST });
      for (let i = 0; i < BURST; i++) chan.trySend(i);
      const values: number[] = [];
      for (let next; (next = chan.tryReceive()).state === "ok";) {
        values.push(next.value);
      }
      return values;
    },
    cannot: { "select, at hand": NO_SELECT, "select, parked": NO_SELECT },
  };
}

/** All but those that wait by `setImmediate`. */
const others: Record<string, Contender | string> = {
  queue: ours,
  "@std/async Channel": await import(STD.href).then(
    ({ Channel }) => std(Channel),
    () => "could not be loaded",
  ),
  "@repeaterjs/repeater": repeater,
  "@thi.ng/csp": csp,
  "async-channel": asyncChannel,
  "it-pushable": itPushable,
  TransformStream: transformStream,
  "ts-chan, unsafe": tsChan(true),
};

// effect runs in fibers, and so does each of its rounds.

type Program<T> = Effect.Effect<T, unknown>;
type Fifo = EffectQueue.Queue<number, Cause.Done>;

/** Runs all at once, in this order. */
function together(...programs: Program<unknown>[]): Promise<void> {
  return Effect.runPromise(
    Effect.all(programs, { concurrency: "unbounded", discard: true }),
  );
}

function offerAll(queue: Fifo, end = VALUES): Program<void> {
  return Effect.gen(function* () {
    for (let i = 0; i < end; i++) yield* EffectQueue.offer(queue, i);
  });
}

// Generators were faster here than `Effect.forever`, which the bus benches use.

function takeInOrder(queue: Fifo): Program<void> {
  return Effect.gen(function* () {
    for (let i = 0; i < VALUES; i++) check(yield* EffectQueue.take(queue), i);
  });
}

/** Takes until the end. */
function takeAll(queue: Fifo): Program<{ count: number; sum: number }> {
  let count = 0;
  let sum = 0;
  return Effect.gen(function* () {
    while (true) {
      sum += yield* EffectQueue.take(queue);
      count++;
    }
  }).pipe(
    Effect.catchIf(Cause.isDone, () => Effect.succeed({ count, sum })),
  );
}

function openEffect(capacity: number): Fifo {
  return Effect.runSync(EffectQueue.bounded<number, Cause.Done>(capacity));
}

function effectThrough(capacity: number, parked: boolean): Round {
  return () => {
    const queue = openEffect(capacity);
    const tasks = [offerAll(queue), takeInOrder(queue)];
    return together(...parked ? tasks.reverse() : tasks);
  };
}

function effectPingPong(): Promise<void> {
  const [ping, pong] = [openEffect(1), openEffect(1)];
  return together(
    Effect.gen(function* () {
      for (let i = 0; i < PINGS; i++) {
        yield* EffectQueue.offer(ping, i);
        check(yield* EffectQueue.take(pong), i);
      }
    }),
    Effect.gen(function* () {
      for (let i = 0; i < PINGS; i++) {
        yield* EffectQueue.offer(pong, yield* EffectQueue.take(ping));
      }
    }),
  );
}

async function effectMpmc(): Promise<void> {
  const queue = openEffect(2);
  const readers = FOUR.map(() => Effect.runPromise(takeAll(queue)));
  await together(...FOUR.map(() => offerAll(queue, VALUES / 4)));
  Effect.runSync(EffectQueue.end(queue));
  checkMpmc(await Promise.all(readers));
}

function effectBurst(): void {
  const queue = openEffect(BURST);
  for (let i = 0; i < BURST; i++) EffectQueue.offerUnsafe(queue, i);
  checkBurst(Effect.runSync(EffectQueue.clear(queue)));
}

function effectSelect(capacity: number): Round {
  return () => {
    const [a, b] = [openEffect(capacity), openEffect(capacity)];
    const offer = Effect.gen(function* () {
      for (let i = 0; i < SELECTED; i++) {
        yield* EffectQueue.offer(i % 2 === 0 ? a : b, i);
      }
    });
    const take = Effect.gen(function* () {
      let sum = 0;
      for (let i = 0; i < SELECTED; i++) {
        sum += yield* Effect.race(EffectQueue.take(a), EffectQueue.take(b));
      }
      check(sum, SELECTED * (SELECTED - 1) / 2);
    });
    return capacity > 0
      ? Effect.runPromise(Effect.andThen(offer, take))
      : together(take, offer);
  };
}

const effectStorm = once(() => {
  const queue = openEffect(1);
  return new Crowd(
    100,
    50,
    (signal) => Effect.runPromise(EffectQueue.take(queue), { signal }),
  );
});

const effect: Contender = {
  rounds: {
    "create": creates(openEffect),
    "spsc": effectThrough(1024, false),
    "spsc, parked": effectThrough(1024, true),
    "rendezvous": effectThrough(0, false),
    "mpmc": effectMpmc,
    "burst and drain": effectBurst,
    "ping-pong": effectPingPong,
    "cancel storm": () => effectStorm().storm(),
    "select, at hand": effectSelect(SELECTED),
    "select, parked": effectSelect(0),
  },
  cannot: { "shared signal": "a signal makes a fiber of its own" },
};

/** Who is measured beside whom. */
const FIELDS: Record<string, Record<string, Contender | string>> = {
  "others": others,
  "effect and ts-chan": { queue: ours, effect, "ts-chan": tsChan(false) },
};

// The shapes.

function creates(make: (capacity: number) => unknown): Round {
  return () => {
    const all = [];
    for (let i = 0; i < 1000; i++) all.push(make(16));
    check(all.length, 1000);
  };
}

async function sendAll(channel: Channel): Promise<void> {
  await channel.started;
  for (let i = 0; i < VALUES; i++) await channel.send(i);
  channel.close();
}

async function readAll(values: AsyncIterable<number>): Promise<void> {
  let next = 0;
  for await (const value of values) check(value, next++);
  check(next, VALUES);
}

async function senderFirst(channel: Channel): Promise<void> {
  await Promise.all([sendAll(channel), readAll(channel.values())]);
}

async function receiverFirst(channel: Channel): Promise<void> {
  await Promise.all([readAll(channel.values()), sendAll(channel)]);
}

async function receiveAll(
  channel: Channel,
  signal?: AbortSignal,
): Promise<void> {
  for (let i = 0; i < VALUES; i++) {
    check(channel.numberIn(await channel.receive(signal)), i);
  }
}

function checkMpmc(tallies: { count: number; sum: number }[]): void {
  check(tallies.reduce((all, { count }) => all + count, 0), VALUES);
  const each = VALUES / 4;
  check(
    tallies.reduce((all, { sum }) => all + sum, 0),
    4 * each * (each - 1) / 2,
  );
}

async function mpmc(channel: Channel): Promise<void> {
  const readers = FOUR.map(async () => {
    let count = 0;
    let sum = 0;
    for await (const value of channel.values()) {
      count++;
      sum += value;
    }
    return { count, sum };
  });
  await Promise.all(FOUR.map(async () => {
    await channel.started;
    for (let i = 0; i < VALUES / 4; i++) await channel.send(i);
  }));
  channel.close();
  checkMpmc(await Promise.all(readers));
}

function checkBurst(values: number[]): void {
  check(values.length, BURST);
  check(values[0], 0);
  check(values[BURST - 1], BURST - 1);
}

async function pingPong(ping: Channel, pong: Channel): Promise<void> {
  const player = async () => {
    await ping.started;
    for (let i = 0; i < PINGS; i++) {
      await ping.send(i);
      check(pong.numberIn(await pong.receive()), i);
    }
  };
  const other = async () => {
    for (let i = 0; i < PINGS; i++) {
      const value = ping.numberIn(await ping.receive());
      await pong.started;
      await pong.send(value);
    }
  };
  await Promise.all([player(), other()]);
}

async function takeSelected({ take, numberIn }: Pair): Promise<void> {
  let sum = 0;
  for (let i = 0; i < SELECTED; i++) sum += numberIn(await take());
  check(sum, SELECTED * (SELECTED - 1) / 2);
}

/** Registers a shape, with all that can do it. */
function shape(
  name: Shape,
  { floor, ...about }: Pick<Group, "round" | "operations"> & { floor: Round },
  bench: (channels: Channels) => Round,
): void {
  for (const [beside, contenders] of Object.entries(FIELDS)) {
    const benches: Record<string, Round> = { floor };
    const cannot: Record<string, string> = {};
    for (const [who, contender] of Object.entries(contenders)) {
      const why = typeof contender === "string"
        ? contender
        : contender.cannot?.[name];
      if (why !== undefined) cannot[who] = why;
      else if (typeof contender !== "string") {
        benches[who] = "rounds" in contender
          ? contender.rounds[name]
          : bench(contender);
      }
    }
    const peers = Object.keys(benches).slice(2);
    group({
      name: `${name}, beside ${beside}`,
      ...about,
      benches,
      cannot,
      aims: peers.map((of) => ({ bench: "queue", of, atMost: 1 })),
    });
  }
}

shape("create", {
  round: "makes 1,000 channels for 16 numbers and keeps them until the next " +
    "round. The floor: 1,000 objects with an array",
  operations: 1000,
  floor: creates((capacity) => ({ capacity, values: [] })),
}, ({ open }) => creates(open));

shape(
  "spsc",
  {
    round: "2,000 numbers, one sender, one reader, who starts second; " +
      "capacity 1024. The floor: the same two loops over a resolved promise " +
      "and a bare iterator. it-pushable has no bound: nobody waits to send",
    operations: VALUES,
    async floor() {
      const sent = async () => {
        for (let i = 0; i < VALUES; i++) await SENT;
      };
      await Promise.all([sent(), readAll(new Bare(VALUES))]);
    },
  },
  ({ open }) => () => senderFirst(open(1024)),
);

async function floorParked(): Promise<void> {
  const slot = new BareSlot();
  const sent = async () => {
    for (let i = 0; i < VALUES; i++) await slot.send(i);
    slot.close();
  };
  await Promise.all([readAll(slot), sent()]);
}

shape("spsc, parked", {
  round:
    "as spsc, but the reader starts first, and so is a step ahead all the " +
    "time. The floor: a promise for each number, resolved by the sender",
  operations: VALUES,
  floor: floorParked,
}, ({ open }) => () => receiverFirst(open(1024)));

shape("rendezvous", {
  round: "as spsc, without a capacity: each number goes from hand to hand. " +
    "@thi.ng/csp and TransformStream have room for one number, but hold their " +
    "senders until it is read. The floor: a promise for each number, resolved " +
    "by the sender",
  operations: VALUES,
  floor: floorParked,
}, ({ open }) => () => senderFirst(open(0)));

shape("mpmc", {
  round: "2,000 numbers, four senders, four readers, capacity 2. The floor: " +
    "the same eight loops over resolved promises and bare iterators",
  operations: VALUES,
  async floor() {
    const readers = FOUR.map(async () => {
      let count = 0;
      let sum = 0;
      for await (const value of new Bare(VALUES / 4)) {
        count++;
        sum += value;
      }
      return { count, sum };
    });
    await Promise.all(FOUR.map(async () => {
      for (let i = 0; i < VALUES / 4; i++) await SENT;
    }));
    checkMpmc(await Promise.all(readers));
  },
}, ({ open }) => () => mpmc(open(2)));

shape("burst and drain", {
  round: "1024 numbers without waiting, then all of them by the shortest way " +
    "that the library has; some of them need an `await` for that. The floor: " +
    "an array",
  operations: BURST,
  floor() {
    const values: number[] = [];
    for (let i = 0; i < BURST; i++) values.push(i);
    checkBurst(values.splice(0));
  },
}, ({ burst }) => async () => checkBurst(await burst!()));

shape("ping-pong", {
  round: "1,000 numbers there and back through two channels for one number " +
    "each: sent, received, sent back, received. The floor: two promises, " +
    "each resolved by the other side",
  operations: PINGS,
  async floor() {
    const [ping, pong] = [new BareSlot(), new BareSlot()];
    const other = async () => {
      for (let i = 0; i < PINGS; i++) pong.send((await ping.next()).value);
    };
    const player = async () => {
      for (let i = 0; i < PINGS; i++) {
        const answer = pong.next();
        ping.send(i);
        check((await answer).value, i);
      }
    };
    await Promise.all([other(), player()]);
  },
}, ({ open }) => () => pingPong(open(1), open(1)));

const bare = once(() => bareCrowd(100, 50));

shape("cancel storm", {
  round:
    "1,000 times: aborts one of 100 waiting receivers, waits until it is " +
    "told, and lets a new one join, with a signal of its own. The floor: a " +
    "promise and a listener for each",
  operations: 1000,
  floor: () => bare().storm(),
}, ({ open }) => {
  const crowd = once(() => {
    const { receive } = open(1);
    return new Crowd(100, 50, receive);
  });
  return () => crowd().storm();
});

shape("shared signal", {
  round: "2,000 numbers to a receiver who waits for each under one signal, " +
    "which ten others wait under, too. The floor: a promise for each number, " +
    "without a signal",
  operations: VALUES,
  floor: floorParked,
}, ({ open }) => {
  const shared = once(() => {
    const { signal } = new AbortController();
    const others = open(1);
    for (let i = 0; i < 10; i++) others.receive(signal);
    return signal;
  });
  return async () => {
    const channel = open(1024);
    await Promise.all([receiveAll(channel, shared()), sendAll(channel)]);
  };
});

shape("select, at hand", {
  round: "1,000 numbers sent to two channels in turn without waiting, then " +
    "each by a `select` of both. The floor: resolved promises of " +
    "`{ key, value }`",
  operations: SELECTED,
  async floor() {
    let sum = 0;
    for (let value = 0; value < SELECTED; value++) {
      const key = value % 2 === 0 ? "a" : "b";
      sum += (await Promise.resolve({ key, value })).value;
    }
    check(sum, SELECTED * (SELECTED - 1) / 2);
  },
}, ({ pair }) => async () => {
  const both = pair!(SELECTED);
  for (let i = 0; i < SELECTED; i++) (i % 2 === 0 ? both.a : both.b).send(i);
  await takeSelected(both);
});

shape("select, parked", {
  round: "1,000 numbers sent to two channels in turn, to one who has started " +
    "first and waits for each by a `select` of both. The floor: a promise for " +
    "each number, resolved by the sender",
  operations: SELECTED,
  async floor() {
    const slot = new BareSlot();
    const sent = async () => {
      for (let i = 0; i < SELECTED; i++) await slot.send(i);
    };
    let sum = 0;
    const taken = async () => {
      for (let i = 0; i < SELECTED; i++) sum += (await slot.next()).value;
    };
    await Promise.all([taken(), sent()]);
    check(sum, SELECTED * (SELECTED - 1) / 2);
  },
}, ({ pair }) => async () => {
  const both = pair!(0);
  const sent = async () => {
    for (let i = 0; i < SELECTED; i++) {
      await (i % 2 === 0 ? both.a : both.b).send(i);
    }
  };
  await Promise.all([takeSelected(both), sent()]);
});
