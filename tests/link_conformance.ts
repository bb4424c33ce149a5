/**
 * Tests a {@linkcode Link}: what every driver has to do, and what it has to do if
 * it says that it can (`caps`). For drivers of this package, and for yours:
 *
 *     import { linkConformance } from "./link_conformance.ts";
 *
 *     linkConformance("my link", () => {
 *       const room = crypto.randomUUID(); // a medium of its own for each case
 *       return { link: () => new MyLink(room) };
 *     }, { caps: MyLink.caps });
 *
 * The cases are registered with `Deno.test`, or with the global `test`, or with a
 * `test` that is given: `node:test`, `bun:test`, vitest and jest will do. What a
 * driver can't do is skipped by name. Needs nothing but `link.ts`.
 *
 * @module
 */

import type {
  Delivery,
  Link,
  LinkCapabilities,
  LinkEvent,
  LinkState,
} from "../link.ts";

/** What a case works with: a medium that nobody else uses. */
export interface Medium {
  /** Makes another link to it, as another process would. */
  link(): Link | Promise<Link>;
  /** Puts something on a topic that is no event. */
  garble?(topic: string): void | Promise<void>;
  /** Ends a link as a crash of its process would. */
  kill?(link: Link): void | Promise<void>;
  /** Called at the end of the case, after all links were closed. */
  dispose?(): void | Promise<void>;
}

/** Options for {@linkcode linkConformance}. */
export interface ConformanceOptions {
  /** What the links say they can do; that they do say so is the first case. */
  caps: LinkCapabilities;
  /** Whether the same event, sent twice, is there once. */
  dedupes?: boolean;
  /** Whether a medium has two ends only, as a port has. */
  twoEnds?: boolean;
  /** Whether `garble` and `kill` are there. */
  garbles?: boolean;
  kills?: boolean;
  /** Cases to skip: by name, why. */
  skip?: Readonly<Record<string, string>>;
  /**
   * How long a case waits for what must come, in milliseconds; by default 20,000.
   * All of it may take three times that.
   */
  patience?: number;
  /** What registers a test. */
  test?: Register;
}

/** What registers a test, in most runners; with a way to skip one. */
export interface Register {
  // deno-lint-ignore no-explicit-any
  (name: string, fn: () => Promise<void>): any;
  // deno-lint-ignore no-explicit-any
  skip?: (name: string, fn: () => Promise<void>) => any;
}

/** What a case may need of a driver. */
export type Need =
  | keyof LinkCapabilities
  | "dedupes"
  | "garbles"
  | "kills"
  | "many ends";

/** A case. */
export interface Case {
  readonly name: string;
  readonly needs: readonly Need[];
  run(bench: Bench): Promise<void>;
}

/** Registers a test for each case. */
export function linkConformance(
  name: string,
  makeMedium: () => Medium | Promise<Medium>,
  options: ConformanceOptions,
): void {
  const { skip = {} } = options;
  const known = new Set(cases.map(({ name }) => name));
  for (const name of Object.keys(skip)) {
    if (!known.has(name)) throw new RangeError(`There is no case "${name}"`);
  }
  for (const one of cases) {
    const lacks = one.needs.filter((need) => !has(options, need));
    const why = skip[one.name] ??
      (lacks.length > 0 ? `it has no ${lacks.join(", no ")}` : undefined);
    register(
      options.test,
      `${name}: ${one.name}` + (why === undefined ? "" : ` (skipped: ${why})`),
      why !== undefined,
      () => runCase(one, makeMedium, options),
    );
  }
}

/** Runs one case; rejects if the driver fails it. */
export async function runCase(
  one: Case,
  makeMedium: () => Medium | Promise<Medium>,
  options: ConformanceOptions,
): Promise<void> {
  const medium = await makeMedium();
  const bench = new Bench(medium, options);
  try {
    await bench.inTime(one.run(bench), "the end of the case");
  } finally {
    await bench.inTime(bench.end(), "close() of all links returns");
    await medium.dispose?.();
  }
}

function has(options: ConformanceOptions, need: Need): boolean {
  switch (need) {
    case "dedupes":
    case "garbles":
    case "kills":
      return options[need] ?? false;
    case "many ends":
      return !options.twoEnds;
    default:
      return options.caps[need];
  }
}

function register(
  given: Register | undefined,
  name: string,
  ignore: boolean,
  fn: () => Promise<void>,
): void {
  const { Deno, test = given } = globalThis as {
    Deno?: {
      test?: (definition: object) => void;
    };
    test?: Register;
  };
  if (given === undefined && Deno?.test !== undefined) {
    return Deno.test({ name, ignore, fn });
  }
  const register = given ?? test;
  if (register === undefined) {
    throw new TypeError("Cannot register cases: give a `test`");
  }
  if (!ignore) register(name, fn);
  else if (register.skip !== undefined) register.skip(name, fn);
  else register(name, () => Promise.resolve());
}

/** What a case is given. */
export class Bench {
  readonly medium: Medium;
  readonly options: ConformanceOptions;
  readonly #links: Link[] = [];
  readonly #patience: number;

  constructor(medium: Medium, options: ConformanceOptions) {
    this.medium = medium;
    this.options = options;
    this.#patience = options.patience ?? 20_000;
  }

  /** Another link, which notes what it tells. */
  async link(): Promise<[link: Link, states: LinkState[]]> {
    const link = await this.medium.link();
    this.#links.push(link);
    const states: LinkState[] = [];
    link.onState = (state) => void states.push(state);
    return [link, states];
  }

  /** One that sends, and one that receives. */
  async pair(): Promise<
    { sender: Link; receiver: Link; sent: LinkState[]; received: LinkState[] }
  > {
    const [sender, sent] = await this.link();
    const [receiver, received] = await this.link();
    return { sender, receiver, sent, received };
  }

  /** Receives all events of a topic. */
  async collect(
    link: Link,
    topic: string,
    options: Parameters<Link["receive"]>[2] = {},
    sink: (event: LinkEvent, meta: Delivery) => void | Promise<void> = () => {},
  ): Promise<Collected> {
    const collected = new Collected();
    collected.stop = await link.receive(topic, (event, meta) => {
      collected.events.push(event as LinkEvent);
      return sink(event as LinkEvent, meta);
    }, options);
    return collected;
  }

  /** Waits until something holds. */
  async until(holds: () => boolean, what: string): Promise<void> {
    const end = Date.now() + this.#patience;
    while (!holds()) {
      if (Date.now() > end) {
        throw new Error(`In ${this.#patience} ms it did not happen: ${what}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  /** Waits for what a driver has to do, which takes several steps. */
  async inTime(done: Promise<void>, what: string): Promise<void> {
    const most = 3 * this.#patience;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      const error = new Error(`In ${most} ms it did not happen: ${what}`);
      timer = setTimeout(() => reject(error), most);
    });
    await Promise.race([done, late]).finally(() => clearTimeout(timer));
  }

  /** Waits until so many events have come. */
  count({ events }: Collected, count: number): Promise<void> {
    return this.until(() => events.length >= count, `${count} events come`);
  }

  /** Gives what should not happen a chance to do so. */
  async aWhile(): Promise<void> {
    for (let i = 0; i < 5; i++) {
      await new Promise((resolve) => setTimeout(resolve, 4));
    }
  }

  async end(): Promise<void> {
    await Promise.all(this.#links.map((link) => link.close()));
  }
}

/** What has come. */
export class Collected {
  readonly events: LinkEvent[] = [];
  stop: () => Promise<void> = () => Promise.resolve();

  get data(): unknown[] {
    return this.events.map(({ data }) => data);
  }
}

let made = 0;

function event(data: unknown, seq = ++made): LinkEvent {
  return {
    id: `conformance-${++made}`,
    type: "order",
    source: "table 7",
    time: 1_700_000_000_000 + made,
    data,
    origin: "conformance",
    seq,
  };
}

function events(count: number, from = 0): LinkEvent[] {
  return Array.from({ length: count }, (_, i) => event(from + i));
}

function range(count: number, from = 0): number[] {
  return Array.from({ length: count }, (_, i) => from + i);
}

function equal(actual: unknown, expected: unknown, what: string): void {
  const [a, b] = [shown(actual), shown(expected)];
  if (a !== b) {
    throw new Error(`${what}: expected ${brief(b)}, got ${brief(a)}`);
  }
}

function shown(value: unknown): string {
  return JSON.stringify(value, (_, part) => {
    if (part instanceof Uint8Array) return { bytes: [...part] };
    if (typeof part !== "object" || part === null || Array.isArray(part)) {
      return part === undefined ? "undefined" : part;
    }
    // the order of fields does not matter, nor do those without a value
    return Object.fromEntries(
      Object.entries(part).filter(([, value]) => value !== undefined).sort(
        ([a], [b]) => a < b ? -1 : 1,
      ),
    );
  }) ?? "undefined";
}

function brief(text: string): string {
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

async function rejects(promise: Promise<unknown>, what: string): Promise<void> {
  const settled = await promise.then(() => false, () => true);
  check(settled, what);
}

/** What every link has to do. */
export const cases: readonly Case[] = [
  {
    name: "says what it can do",
    needs: [],
    async run(bench) {
      const [{ caps }] = await bench.link();
      const { durable, acks, groups, backpressure, confirms } = caps;
      equal(
        { durable, acks, groups, backpressure, confirms },
        bench.options.caps,
        "caps",
      );
    },
  },
  {
    name: "carries all fields of 100 events, in order",
    needs: [],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      const got = await bench.collect(receiver, "t");
      const sent = range(100).map((n): LinkEvent => ({
        id: `id-${n}`,
        type: n % 2 ? "order" : 'ordér: "new"',
        source: n % 3 ? "table 7" : "https://example.com/tables?n=7#seat",
        time: 1_700_000_000_000 + n,
        data: { n, dish: "süß \u2028 \u{1f35c}", list: [1, null, true, ""] },
        origin: "a1b2c3",
        seq: n + 1,
        ...n % 5 === 0 && { cause: `id-${n - 1}` },
        ...n % 7 === 0 && {
          trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        },
      }));
      await sender.send("t", sent);
      await bench.count(got, 100);
      equal(got.events, sent, "the events");
    },
  },
  {
    name: "carries any data that JSON has a form for, and bytes",
    needs: [],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      const got = await bench.collect(receiver, "t");
      const data = [
        undefined,
        null,
        0,
        false,
        "",
        [],
        {},
        [[[]]],
        Uint8Array.of(0, 127, 128, 255),
        new Uint8Array(0),
      ];
      await sender.send("t", data.map((data) => event(data)));
      await bench.count(got, data.length);
      equal(got.data, data, "the data");
    },
  },
  {
    name: "keeps the order of 2,000 sends that nobody awaits",
    needs: [],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      const got = await bench.collect(receiver, "t");
      await Promise.all(
        events(2000).map((event) => sender.send("t", [event])),
      );
      await bench.count(got, 2000);
      equal(got.data, range(2000), "the order");
    },
  },
  {
    name: "keeps topics apart",
    needs: [],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      const topics = range(20).map((n) => n === 0 ? "" : `topic:${n}`);
      const got = await Promise.all(
        topics.map((topic) => bench.collect(receiver, topic)),
      );
      await Promise.all(
        topics.map((topic) => sender.send(topic, [event(topic)])),
      );
      for (const [i, one] of got.entries()) {
        await bench.count(one, 1);
        equal(one.data, [topics[i]], `what comes on "${topics[i]}"`);
      }
    },
  },
  {
    name: "gives each receiver all events, on one link",
    needs: [],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      const got = await Promise.all(
        range(5).map(() => bench.collect(receiver, "t")),
      );
      await sender.send("t", events(50));
      for (const one of got) {
        await bench.count(one, 50);
        equal(one.data, range(50), "what a receiver gets");
      }
    },
  },
  {
    name: "gives each receiver all events, on several links",
    needs: ["many ends"],
    async run(bench) {
      const [sender] = await bench.link();
      const got: Collected[] = [];
      for (let i = 0; i < 4; i++) {
        const [receiver] = await bench.link();
        got.push(await bench.collect(receiver, "t"));
      }
      await sender.send("t", events(50));
      for (const one of got) {
        await bench.count(one, 50);
        equal(one.data, range(50), "what a receiver gets");
      }
    },
  },
  {
    name: "shares events within a group, each group gets all",
    needs: ["groups"],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      const [other] = await bench.link();
      const join = (link: Link, group: string) =>
        bench.collect(link, "t", { group, maxInFlight: 1 }, bench.aWhile);
      const [a1, a2] = [await join(receiver, "a"), await join(other, "a")];
      const b = await bench.collect(other, "t", { group: "b" });
      await sender.send("t", events(20));
      await bench.until(
        () => a1.events.length + a2.events.length >= 20,
        "the group gets all",
      );
      await bench.count(b, 20);
      const both = [...a1.data, ...a2.data] as number[];
      equal(both.sort((a, b) => a - b), range(20), "what group a gets");
      check(a1.events.length > 0, "one receiver got nothing");
      check(a2.events.length > 0, "one receiver got nothing");
      equal(b.data, range(20), "what group b gets");
    },
  },
  {
    name: "delivers again what the sink rejects, and says how often",
    needs: ["acks"],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      const attempts: number[] = [];
      const got = await bench.collect(
        receiver,
        "t",
        { group: "g" },
        ({ data }, { attempt }) => {
          if (data !== 1) return;
          attempts.push(attempt);
          if (attempts.length < 3) return Promise.reject(new Error("again"));
        },
      );
      await sender.send("t", events(3));
      await bench.until(() => attempts.length === 3, "a third attempt");
      await bench.aWhile();
      equal(attempts, [1, 2, 3], "the attempts");
      const rest = got.data.filter((data) => data !== 1);
      equal(rest, [0, 2], "the others");
    },
  },
  {
    name: "delivers again what the sink throws at",
    needs: ["acks"],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      let calls = 0;
      await bench.collect(receiver, "t", { group: "g" }, () => {
        if (++calls === 1) throw new Error("again");
      });
      await sender.send("t", [event("soup")]);
      await bench.until(() => calls === 2, "a second attempt");
      await bench.aWhile();
      equal(calls, 2, "how often it came");
    },
  },
  {
    name: "gives up an event that is always rejected, tells of it, and goes on",
    needs: ["acks"],
    async run(bench) {
      const { sender, receiver, received } = await bench.pair();
      let attempts = 0;
      const got = await bench.collect(
        receiver,
        "t",
        { group: "g" },
        ({ data }) => {
          if (data === "poison") {
            attempts++;
            return Promise.reject(new Error("never"));
          }
        },
      );
      await sender.send("t", [event("poison"), event("soup")]);
      await bench.until(
        () => received.some(({ state }) => state === "bad"),
        'it tells "bad"',
      );
      const before = attempts;
      await sender.send("t", [event("steak")]);
      await bench.until(
        () => got.data.includes("soup") && got.data.includes("steak"),
        "the others come",
      );
      await bench.aWhile();
      equal(attempts, before, "the attempts");
    },
  },
  {
    name: "refuses what is no event, tells of it, and goes on",
    needs: ["garbles"],
    async run(bench) {
      const { sender, receiver, received } = await bench.pair();
      const got = await bench.collect(receiver, "t");
      await sender.send("t", [event(0)]);
      await bench.count(got, 1);
      await bench.medium.garble!("t");
      await bench.until(
        () => received.some(({ state }) => state === "bad"),
        'it tells "bad"',
      );
      await sender.send("t", [event(1)]);
      await bench.count(got, 2);
      equal(got.data, [0, 1], "the events");
    },
  },
  {
    name: "leaves out what cannot be sent, tells of it, and sends the rest",
    needs: [],
    async run(bench) {
      const { sender, receiver, sent } = await bench.pair();
      const got = await bench.collect(receiver, "t");
      const circle: unknown[] = [];
      circle.push(circle);
      const bad = [event(1n), event(circle)];
      await sender.send("t", [event(0), ...bad, event(3)]);
      await bench.count(got, 2);
      equal(got.data, [0, 3], "the events");
      equal(sent.map(({ state }) => state), ["bad", "bad"], "the states");
      const told = sent.map(({ event }) => bad.indexOf(event as typeof bad[0]));
      equal(told, [0, 1], "which events they are about");
    },
  },
  {
    name: "has no more than maxInFlight events with the sink",
    needs: ["backpressure"],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      const open: (() => void)[] = [];
      let most = 0;
      const got = await bench.collect(
        receiver,
        "t",
        { maxInFlight: 3 },
        () =>
          new Promise<void>((resolve) => {
            most = Math.max(most, open.push(resolve));
          }),
      );
      await sender.send("t", events(10));
      await bench.count(got, 3);
      await bench.aWhile();
      equal(most, 3, "how many were with the sink");
      while (got.events.length < 10 || open.length > 0) {
        await bench.until(() => open.length > 0, "the next one comes");
        open.shift()!();
      }
      equal(most, 3, "how many were with the sink");
      equal(got.data, range(10), "the events");
    },
  },
  {
    name: "delivers what was sent before, if that is asked for, or not",
    needs: ["durable"],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      await sender.send("t", events(10));
      const all = await bench.collect(receiver, "t", { from: "all" });
      const later = await bench.collect(receiver, "t");
      await sender.send("t", events(5, 10));
      await bench.count(all, 15);
      await bench.count(later, 5);
      equal(all.data, range(15), "all events");
      equal(later.data, range(5, 10), "later events");
    },
  },
  {
    name: "loses nothing when a receiver of a group stops midway",
    needs: ["acks", "groups"],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      const [other] = await bench.link();
      const group = { group: "g", maxInFlight: 1 };
      let letGo = () => {};
      let calls = 0;
      const first = await bench.collect(receiver, "t", group, () => {
        if (++calls === 20) return new Promise((resolve) => letGo = resolve);
      });
      const sending = sender.send("t", events(200));
      await bench.count(first, 20);
      const stopping = first.stop();
      letGo();
      await stopping;
      const { length } = first.events;
      const second = await bench.collect(other, "t", group);
      await sending;
      await sender.send("t", events(1, 200));
      await bench.until(
        () => new Set([...first.data, ...second.data]).size === 201,
        "the rest comes",
      );
      equal(first.events.length, length, "what comes after stop");
    },
  },
  {
    name: "hands over what a dead receiver of a group had",
    needs: ["acks", "groups", "kills"],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      const [other] = await bench.link();
      const group = { group: "g", maxInFlight: 5 };
      const dead = await bench.collect(
        receiver,
        "t",
        group,
        () => new Promise<void>(() => {}),
      );
      await sender.send("t", events(5));
      await bench.count(dead, 1);
      await bench.medium.kill!(receiver);
      const heir = await bench.collect(other, "t", group);
      await bench.until(
        () => new Set(heir.data).size === 5,
        "the heir gets all",
      );
    },
  },
  {
    name: "closes twice while a sink hangs; refuses what comes after that",
    needs: [],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      const got = await bench.collect(
        receiver,
        "t",
        {},
        () => new Promise<void>(() => {}),
      );
      await sender.send("t", [event(0)]);
      await bench.count(got, 1);
      let closed = 0;
      for (const link of [receiver, receiver, sender]) {
        link.close().then(() => closed++);
      }
      await bench.until(() => closed === 3, "close() returns");
      await rejects(sender.send("t", [event(1)]), "send resolves after close");
      await rejects(
        receiver.receive("t", () => {}),
        "receive resolves after close",
      );
      await got.stop(); // may be called still
    },
  },
  {
    name: "calls no sink after stop(), and keeps the others",
    needs: [],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      const [left, stays] = [
        await bench.collect(receiver, "t"),
        await bench.collect(receiver, "t"),
      ];
      await sender.send("t", [event(0)]);
      await bench.count(left, 1);
      await left.stop();
      await left.stop();
      await sender.send("t", [event(1)]);
      await bench.count(stays, 2);
      equal([left.data, stays.data], [[0], [0, 1]], "the events");
      const again = await bench.collect(receiver, "t");
      await sender.send("t", [event(2)]);
      await bench.count(again, 1);
      await bench.count(stays, 3);
      equal([left.data, again.data], [[0], [2]], "the events");
    },
  },
  {
    name: "calls no sink after stop(), not even in the midst of a batch",
    needs: [],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      let stopping: Promise<void> | undefined;
      const left = await bench.collect(receiver, "t", {}, () => {
        stopping ??= left.stop();
      });
      const stays = await bench.collect(receiver, "t");
      await sender.send("t", events(5));
      await bench.count(stays, 5);
      await bench.until(() => stopping !== undefined, "the first one comes");
      await stopping;
      await bench.aWhile();
      equal([left.data, stays.data], [[0], range(5)], "the events");
    },
  },
  {
    name: "calls no sink after close(), not even in the midst of a batch",
    needs: [],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      let closing: Promise<void> | undefined;
      const close = () => {
        closing ??= receiver.close();
      };
      const got = [
        await bench.collect(receiver, "t", {}, close),
        await bench.collect(receiver, "t", {}, close),
      ];
      await sender.send("t", events(5));
      await bench.until(() => closing !== undefined, "the first one comes");
      await closing;
      await bench.aWhile();
      equal(got.flatMap(({ data }) => data), [0], "the events");
    },
  },
  {
    name: "keeps an event that is sent twice once",
    needs: ["dedupes"],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      const got = await bench.collect(receiver, "t");
      const twice = event("twice");
      await sender.send("t", [twice]);
      await sender.send("t", [twice]);
      await sender.send("t", [event("once")]);
      await bench.until(() => got.data.includes("once"), "the last one comes");
      equal(got.data, ["twice", "once"], "the events");
    },
  },
  {
    name: "carries an event of 400 kB",
    needs: [],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      const got = await bench.collect(receiver, "t");
      const large = "soup".repeat(100_000);
      await sender.send("t", [event(large), event("small")]);
      await bench.count(got, 2);
      check(got.data[0] === large, "it is not the same");
      equal(got.data[1], "small", "the next one");
    },
  },
  {
    name: "lets a sink that fails stop nobody else",
    needs: [],
    async run(bench) {
      const { sender, receiver } = await bench.pair();
      const throws = await bench.collect(receiver, "t", {}, () => {
        throw new Error("thrown");
      });
      const rejecting = await bench.collect(
        receiver,
        "t",
        {},
        () => Promise.reject(new Error("rejected")),
      );
      const got = await bench.collect(receiver, "t");
      await sender.send("t", events(3));
      await bench.count(got, 3);
      await bench.until(
        () => throws.events.length >= 3 && rejecting.events.length >= 3,
        "they get the next ones, too",
      );
      equal(got.data, range(3), "the events");
    },
  },
];
