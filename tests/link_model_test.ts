import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { IDS, Ids, ORIGINS, WIDTH, Window, Windows } from "../_window.ts";
import type { Link, LinkEvent, LinkState, Sink } from "../link.ts";
import { flush, follow, range, ROUNDS, type Task } from "./_helpers.ts";
import { LinkError } from "../bus.ts";
import { FakeLink, NONE, openBus, stopTimers } from "./_links.ts";

// ------------------------------------------------------------------ the window

/** The same, with plain sets and no thought for memory. */
class PlainWindow {
  readonly #first: number;
  #high: number;
  readonly #seen = new Set<number>();
  readonly #lost = new Set<number>();

  constructor(first: number) {
    this.#first = first;
    this.#high = first - 1;
  }

  get missing(): number {
    let missing = 0;
    for (let seq = this.#first; seq <= this.#high; seq++) {
      if (!this.#seen.has(seq) && !this.#lost.has(seq)) missing++;
    }
    return missing;
  }

  add(seq: number): number | undefined {
    if (seq <= this.#high - WIDTH) return 0;
    if (this.#seen.has(seq)) return undefined;
    this.#seen.add(seq);
    this.#high = Math.max(this.#high, seq);
    const before = this.#lost.size;
    for (let old = this.#first; old <= this.#high - WIDTH; old++) {
      if (!this.#seen.has(old)) this.#lost.add(old);
    }
    return this.#lost.size - before;
  }

  remove(seq: number): void {
    if (seq > this.#high - WIDTH) this.#seen.delete(seq);
  }
}

Deno.test("Window tells repeats and counts what is missing, as a model with plain sets does", () => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ by: fc.integer({ min: 1, max: 3 }) }) },
    {
      weight: 3,
      arbitrary: fc.record({ by: fc.integer({ min: -8, max: 0 }) }),
    },
    fc.record({ by: fc.integer({ min: -WIDTH - 5, max: WIDTH + 5 }) }),
    fc.record({
      by: fc.constantFrom(-WIDTH - 1, -WIDTH, 1 - WIDTH, WIDTH - 1, WIDTH),
    }),
    fc.record({ back: fc.nat(10) }),
  );
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 3 * WIDTH }),
      fc.array(step, { maxLength: 60 }),
      (first, steps) => {
        const [window, plain] = [new Window(first), new PlainWindow(first)];
        let high = first;
        for (const step of [{ by: 0 }, ...steps]) {
          if ("back" in step) {
            window.remove(high - step.back);
            plain.remove(high - step.back);
          } else {
            const seq = Math.max(1, high + step.by);
            assertEquals(window.add(seq), plain.add(seq));
            high = Math.max(high, seq);
          }
          assertEquals(window.missing, plain.missing);
        }
      },
    ),
    { numRuns: ROUNDS / 5 },
  );
});

Deno.test("Window takes the largest number in its stride", () => {
  const window = new Window(1);
  assertEquals(window.add(1), 0);
  assertEquals(
    window.add(Number.MAX_SAFE_INTEGER),
    Number.MAX_SAFE_INTEGER - 1 - WIDTH,
  );
  assertEquals(window.missing, WIDTH - 1);
  assertEquals(window.add(2), 0); // nobody knows
});

Deno.test("Windows forgets who is silent, not who is heard of, and says what was missing", () => {
  const windows = new Windows();
  const forgotten: string[] = [];
  const hear = (origin: string, seq: number) =>
    windows.of(
      origin,
      seq,
      (origin, missing) => forgotten.push(`${origin}: ${missing}`),
    ).add(seq);
  hear("silent", 1);
  hear("silent", 4);
  let repeats = 0;
  for (const n of range(10 * ORIGINS)) {
    hear(`made up ${n}`, 1);
    if (n % 100 === 0 && hear("alive", 7) === undefined) repeats++;
    assert(windows.size <= 2 * ORIGINS);
  }
  assertEquals(repeats, range(10 * ORIGINS / 100).length);
  assertEquals(forgotten, ["silent: 2"]);
  assertEquals(hear("silent", 4), 0); // as if it were new
});

Deno.test("Ids knows the last ones, and no more than so many", () => {
  const ids = new Ids();
  for (const n of range(3 * IDS)) assert(ids.add(`id ${n}`));
  for (const n of range(IDS)) assert(!ids.add(`id ${2 * IDS + n}`));
  assert(ids.add("id 0"));
  ids.remove("id 0");
  assert(ids.add("id 0"));
});

// --------------------------------------------------------------- a hostile link

/** What is on its way to one link. */
interface Copy {
  readonly event: LinkEvent;
}

/** Hands over nothing by itself: the schedule says what comes, when and how often. */
class HostileMedium {
  readonly links: HostileLink[] = [];

  link(): HostileLink {
    const link = new HostileLink(this);
    this.links.push(link);
    return link;
  }
}

class HostileLink implements Link {
  readonly caps = NONE;
  onState: (state: LinkState) => void = () => {};
  readonly coming: Copy[] = [];
  sink: Sink | undefined;
  readonly #medium: HostileMedium;

  constructor(medium: HostileMedium) {
    this.#medium = medium;
  }

  send(_: string, batch: readonly LinkEvent[]): Promise<void> {
    for (const link of this.#medium.links) { // its own events, too
      for (const event of batch) link.coming.push({ event });
    }
    return Promise.resolve();
  }

  receive(_: string, sink: Sink): Promise<() => Promise<void>> {
    this.sink = sink;
    return Promise.resolve(() => Promise.resolve());
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  deliver({ event }: Copy): void {
    this.sink!(event, { ref: "", attempt: 1 });
  }
}

type Step =
  | { op: "publish"; bus: number; times: number }
  | {
    op: "deliver" | "drop" | "repeat" | "delay";
    link: number;
    which: number;
  };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant("publish" as const),
      bus: fc.nat(2),
      times: fc.integer({ min: 1, max: 4 }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      op: fc.constantFrom(
        "deliver",
        "deliver",
        "deliver",
        "drop",
        "repeat",
        "delay",
      ),
      link: fc.nat(2),
      which: fc.nat(6),
    }) as fc.Arbitrary<Step>,
  },
);

Deno.test("Bus.connect() on a hostile link: nothing twice, in order if it keeps one, each loss counted", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(2, 3),
      fc.boolean(),
      fc.array(step, { maxLength: 60 }),
      async (many, keepsOrder, steps) => {
        const medium = new HostileMedium();
        const peers = range(many).map((n) => ({
          name: `bus ${n}`,
          link: medium.link(),
          opened: openBus({ name: `bus ${n}` }),
          got: [] as { source: string; n: number }[],
          // the model: what the medium has handed over, by origin
          came: new Map<string, Set<number>>(),
          first: new Map<string, number>(),
          expected: new Set<string>(),
          published: 0,
          connection: undefined as AsyncDisposable | undefined,
        }));
        for (const peer of peers) {
          peer.connection = await peer.opened.bus.connect(peer.link);
          peer.opened.bus.on("n", ({ source, data }) => {
            if (source !== peer.name) peer.got.push({ source, n: data });
          }, { capacity: Infinity });
        }
        const deliver = (peer: typeof peers[0], copy: Copy) => {
          const { event: { source, origin, seq } } = copy;
          if (source !== peer.name) {
            if (!peer.came.has(origin!)) {
              peer.came.set(origin!, new Set());
              peer.first.set(origin!, seq!);
            }
            peer.came.get(origin!)!.add(seq!);
            peer.expected.add(`${source} ${copy.event.data}`);
          }
          peer.link.deliver(copy);
        };
        for (const step of steps) {
          if (step.op === "publish") {
            const peer = peers[step.bus % many];
            for (const _ of range(step.times)) {
              await peer.opened.bus.publish("n", peer.published++, {
                source: peer.name,
              });
            }
            await flush();
            continue;
          }
          const peer = peers[step.link % many];
          const { coming } = peer.link;
          if (coming.length === 0) continue;
          const which = keepsOrder ? 0 : step.which % coming.length;
          switch (step.op) {
            case "deliver":
              deliver(peer, coming.splice(which, 1)[0]);
              break;
            case "drop":
              coming.splice(which, 1);
              break;
            case "repeat":
              deliver(peer, coming[which]);
              break;
            case "delay":
              if (!keepsOrder) coming.push(coming.splice(which, 1)[0]);
          }
        }
        for (const peer of peers) {
          for (const copy of peer.link.coming.splice(0)) deliver(peer, copy);
          await peer.connection![Symbol.asyncDispose]();
          await peer.opened.bus.close();
          const got = peer.got.map(({ source, n }) => `${source} ${n}`);
          assertEquals([...got].sort(), [...peer.expected].sort()); // each once
          if (keepsOrder) {
            for (const { name } of peers) {
              const theirs = peer.got.filter(({ source }) => source === name)
                .map(({ n }) => n);
              assertEquals(theirs, [...theirs].sort((a, b) => a - b));
            }
          }
          let missing = 0;
          for (const [origin, came] of peer.came) {
            for (let seq = peer.first.get(origin)!; seq < Math.max(...came);) {
              if (!came.has(++seq)) missing++;
            }
          }
          assertEquals(peer.opened.lost, missing);
        }
      },
    ),
    { numRuns: ROUNDS / 2 },
  );
});

// ------------------------------------------------------------- a link that fails

/** Answers `send` when the schedule says so, and how. */
class FailingLink extends FakeLink {
  readonly asked: {
    readonly batch: readonly LinkEvent[];
    settle(error?: Error): void;
  }[] = [];

  override send(_: string, batch: readonly LinkEvent[]): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (error?: Error) => error ? reject(error) : resolve();
      this.asked.push({ batch, settle });
    });
  }
}

type Move =
  | { op: "publish"; times: number }
  | { op: "take" | "fail" | "fail for good" | "leave out" }
  | { op: "down" | "up" | "time" };

const move: fc.Arbitrary<Move> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant("publish" as const),
      times: fc.integer({ min: 1, max: 5 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constantFrom(
        ...[
          ...["take", "take", "fail", "fail for good", "leave out"] as const,
          ...["down", "up", "time"] as const,
        ],
      ),
    }),
  },
);

Deno.test("Bus.connect() to a failing link: each event has one fate, which is counted; every promise settles", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.boolean(),
      fc.constantFrom("wait", "reject", "drop-oldest", "drop-newest"),
      fc.constantFrom("dispose", "close", "abort"),
      fc.array(move, { maxLength: 60 }),
      async (confirms, overflow, end, moves) => {
        using timers = stopTimers();
        const link = new FailingLink({ confirms });
        const opened = openBus();
        const { bus } = opened;
        const connection = await bus.connect(link, { capacity: 4, overflow });
        const fates = new Map<string, string[]>();
        const fate = (what: string, { id }: { id: string }) =>
          fates.get(id)!.push(what);
        bus.observe({
          published: ({ event }) => void fates.set(event.id, []),
          dropped: ({ event, reason }) => fate(reason!, event),
          failed: ({ event, error }) =>
            error instanceof LinkError || fate("unsent", event),
        });
        const publishing: Task<unknown>[] = [];
        const out = new Set<LinkEvent>(); // what was left out
        const answer = (how: "take" | "fail" | "leave out") => {
          const { batch, settle } = link.asked.shift()!;
          if (how === "fail") return settle(new Error("failed"));
          if (how === "leave out") {
            out.add(batch[0]);
            leftOut++;
            link.onState({ state: "bad", event: batch[0] });
          }
          for (const event of batch) {
            if (!out.has(event) && !ended) fate("sent", event);
          }
          settle();
        };
        let ended = false;
        let leftOut = 0;
        for (const move of moves) {
          switch (move.op) {
            case "publish":
              for (const n of range(move.times)) {
                publishing.push(follow(bus.publish("n", n)));
              }
              break;
            case "take":
            case "fail":
            case "leave out":
              if (link.asked.length > 0) answer(move.op);
              break;
            case "fail for good": // until it is sent event by event, if it confirms
              for (const _ of range(8)) {
                if (link.asked.length > 0) answer("fail");
                await flush();
                timers.fire();
                await flush();
              }
              break;
            case "down":
            case "up":
              link.onState({ state: move.op });
              break;
            case "time":
              timers.fire();
          }
          await flush();
        }
        ended = true; // what is not answered by now is not sent
        const ending = [
          end === "dispose"
            ? connection[Symbol.asyncDispose]()
            : end === "close"
            ? bus.close()
            : bus.abort(),
        ].map(follow);
        await flush();
        timers.fire(1000); // grace
        await flush();
        assertEquals(ending[0].state, "resolved");
        for (const { state } of publishing) assert(state !== "pending");
        for (const { settle } of link.asked) settle(); // too late
        await flush();
        for (const [id, all] of fates) assertEquals([id, all.length], [id, 1]);
        const count = (fate: string) =>
          [...fates.values()].filter(([one]) => one === fate).length;
        // What waits is lost at the end; `abort` discards it, as everywhere.
        const lost = count("unsent") + (end === "abort" ? 0 : count("ended"));
        if (end !== "dispose") {
          const { sent, unsent } = bus.inspect().links![0];
          assertEquals(
            [sent, unsent],
            [count("sent"), lost],
          );
        }
        timers.fire();
        assertEquals(timers.waiting, []);
        assertEquals(
          opened.lost,
          lost - leftOut,
        );
      },
    ),
    { numRuns: ROUNDS / 2 },
  );
});
