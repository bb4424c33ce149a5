import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { receiveFrom, sendTo } from "../port.ts";
import { Queue } from "../queue.ts";
import {
  flush,
  follow,
  probedController,
  range,
  replaceGlobals,
  ROUNDS,
  type Task,
} from "./_helpers.ts";
import { type FakePort, fakePorts } from "./_ports.ts";

// Random schedules at both ends of a port. If everything comes to rest after
// each step, a model of plain arrays says what must have happened. If not, steps
// meet in flight, and only what must always hold is checked.

const OPERATIONS = [
  ...["send", "send", "send", "send", "trySend"] as const,
  ...["receive", "receive", "receive", "receiveMany", "tryReceive"] as const,
  ...["drain", "abortWaits"] as const,
  ...["closeNear", "closeFar", "abortNear", "abortFar", "die"] as const,
];

interface Step {
  op: typeof OPERATIONS[number];
  /** Closes with a reason, or waits with a signal. */
  flag: boolean;
}

interface Options {
  near: number;
  far: number;
}

/** What both the real thing and the model show. */
interface View {
  /** How each send and each receive stands, in the order in which they were made. */
  sends: string[];
  receives: string[];
  sizes: [near: number, far: number];
  closed: [near: boolean, far: boolean];
  connection: string;
}

// ── The real thing ──────────────────────────────────────────────────────────

class Real {
  readonly #near: Queue<number>;
  readonly #far: Queue<number>;
  readonly #ports: [FakePort, FakePort] = fakePorts();
  readonly #stops = [new AbortController(), new AbortController()];
  #waits = probedController();
  readonly #sends: Task<unknown>[] = [];
  readonly #receives: Task<unknown>[] = [];
  readonly #sent: Task<void>;
  readonly #over: Promise<unknown>;
  readonly #capacity: number;
  #next = 0;

  constructor({ near, far }: Options, garbles?: FakePort["garbles"]) {
    let onError: (() => void) | undefined;
    if (garbles !== undefined) {
      for (const port of this.#ports) port.garbles = garbles;
      onError = () => {};
    }
    this.#capacity = far;
    this.#near = new Queue({ capacity: near });
    this.#far = receiveFrom(this.#ports[1], {
      capacity: far,
      signal: this.#stops[1].signal,
      onError,
    });
    const sent = sendTo(this.#near, this.#ports[0], {
      signal: this.#stops[0].signal,
      onError,
    });
    this.#sent = follow(sent);
    this.#over = Promise.allSettled([sent]);
  }

  perform({ op, flag }: Step): void {
    const options = flag ? { signal: this.#waits.signal } : undefined;
    switch (op) {
      case "send":
        this.#sends.push(follow(this.#near.send(this.#next++, options)));
        return;
      case "trySend": {
        const sent = Promise.resolve(this.#near.trySend(this.#next++));
        this.#sends.push(follow(sent));
        return;
      }
      case "receive":
        this.#receives.push(follow(this.#far.receive(options)));
        return;
      case "receiveMany":
        this.#receives.push(follow(this.#far.receiveMany(2, options)));
        return;
      case "tryReceive": {
        const found = this.#far.tryReceive();
        const value = found.state === "ok" ? found.value : found.state;
        this.#receives.push(follow(Promise.resolve(value)));
        return;
      }
      case "drain":
        this.#receives.push(follow(Promise.resolve(this.#far.drain())));
        return;
      case "abortWaits":
        this.#waits.abort("bye");
        this.#waits = probedController();
        return;
      case "closeNear":
        return flag ? this.#near.close("near") : this.#near.close();
      case "closeFar":
        return flag ? this.#far.close("far") : this.#far.close();
      case "abortNear":
        return this.#stops[0].abort("stop near");
      case "abortFar":
        return this.#stops[1].abort("stop far");
      case "die":
        for (const port of this.#ports) port.hear("close");
    }
  }

  /** What must hold at all times. */
  check(): void {
    assert(this.#far.size <= this.#capacity, "more than the capacity");
  }

  /** The values that have come out. */
  get received(): number[] {
    return this.#receives.flatMap(({ value }) =>
      Array.isArray(value) || typeof value === "number" ? value as number : []
    );
  }

  /** At rest, and unless the connection was cut: every value that was sent is somewhere, once. */
  checkSum(): void {
    if (this.#sent.state === "rejected") return;
    const sent = this.#sends.filter(({ state, value }) =>
      state === "resolved" && value !== false
    );
    assertEquals(
      sent.length,
      this.received.length + this.#near.size + this.#far.size,
    );
  }

  view(): View {
    return {
      sends: this.#sends.map(show),
      receives: this.#receives.map(show),
      sizes: [this.#near.size, this.#far.size],
      closed: [this.#near.closed, this.#far.closed],
      connection: show(this.#sent),
    };
  }

  /** Ends everything; nobody may wait any more. */
  async end(): Promise<void> {
    this.#near.close();
    this.#far.close();
    await flush();
    await this.#over; // later, if the receiver went before it was offered anything
    await flush();
    for (const task of [...this.#sends, ...this.#receives, this.#sent]) {
      assert(task.state !== "pending", "somebody waits for ever");
    }
    assertEquals(this.#waits.listening, 0);
    assertEquals(this.#ports.map(({ listening }) => listening), [0, 0]);
  }
}

function show({ state, value, error }: Task<unknown>): string {
  if (state === "pending") return "waits";
  if (state === "resolved") return `got ${JSON.stringify(value) ?? "it"}`;
  return `failed: ${error instanceof Error ? error.name : error}`;
}

// ── The model ───────────────────────────────────────────────────────────────

interface Place {
  /** Its place among the results. */
  at: number;
  value: number;
  signal: boolean;
  max: number;
}

class Model {
  readonly #near: number;
  readonly #far: number;
  #nearValues: number[] = [];
  #farValues: number[] = [];
  #senders: Place[] = [];
  #receivers: Place[] = [];
  #nearEnd: string | undefined;
  #farEnd: string | undefined;
  #connection = "waits";
  #sends: string[] = [];
  #receives: string[] = [];
  #next = 0;
  #sent = 0;
  #granted: number;

  constructor({ near, far }: Options) {
    this.#near = near;
    this.#far = far;
    this.#granted = far;
  }

  get #connected(): boolean {
    return this.#connection === "waits";
  }

  perform({ op, flag }: Step): void {
    const signal = flag;
    switch (op) {
      case "send": {
        const at = this.#sends.push("waits") - 1;
        const value = this.#next++;
        if (this.#nearEnd !== undefined) {
          this.#sends[at] = "failed: QueueClosedError";
        } else this.#senders.push({ at, value, signal, max: 1 });
        break;
      }
      case "trySend": {
        const value = this.#next++;
        const room = this.#nearEnd === undefined && (
          this.#nearValues.length < this.#near ||
          (this.#connected && this.#sent < this.#granted)
        );
        this.#sends.push(`got ${room}`);
        if (room) this.#nearValues.push(value);
        break;
      }
      case "receive":
      case "receiveMany": {
        const at = this.#receives.push("waits") - 1;
        const max = op === "receive" ? 1 : 2;
        this.#receivers.push({ at, value: 0, signal, max: -max });
        break;
      }
      case "tryReceive": {
        const value = this.#farValues.shift() ??
          (this.#farEnd === undefined ? "empty" : "closed");
        this.#receives.push(`got ${JSON.stringify(value)}`);
        break;
      }
      case "drain":
        this.#receives.push(`got ${JSON.stringify(this.#farValues.splice(0))}`);
        break;
      case "abortWaits":
        this.#senders = this.#senders.filter(({ at, signal }) => {
          if (signal) this.#sends[at] = "failed: bye";
          return !signal;
        });
        this.#receivers = this.#receivers.filter(({ at, signal }) => {
          if (signal) this.#receives[at] = "failed: bye";
          return !signal;
        });
        break;
      case "closeNear":
        this.#closeNear(flag ? "near" : "QueueClosedError");
        break;
      case "closeFar":
        this.#closeFar(flag ? "far" : "QueueClosedError");
        break;
      case "abortNear":
        if (!this.#connected) break;
        this.#connection = "failed: stop near";
        this.#farEnd ??= "stop near";
        break;
      case "abortFar":
        this.#closeFar("stop far");
        break;
      case "die":
        if (!this.#connected) break;
        this.#connection = "failed: PortClosedError";
        this.#closeNear("PortClosedError");
        this.#farEnd ??= "PortClosedError";
    }
    this.#settle();
  }

  #closeNear(end: string): void {
    if (this.#nearEnd !== undefined) return;
    this.#nearEnd = end;
    for (const { at } of this.#senders.splice(0)) {
      this.#sends[at] = "failed: QueueClosedError";
    }
  }

  #closeFar(end: string): void {
    if (this.#farEnd !== undefined) return;
    this.#farEnd = end;
    if (!this.#connected) return;
    this.#connection = `failed: ${end}`;
    this.#closeNear(end);
  }

  /** Lets everything happen that can. */
  #settle(): void {
    while (this.#step());
    if (
      this.#connected && this.#nearEnd !== undefined &&
      this.#nearValues.length === 0
    ) {
      this.#connection = "got it";
      this.#farEnd ??= this.#nearEnd;
    }
    if (this.#farEnd !== undefined) {
      for (const { at } of this.#receivers.splice(0)) {
        this.#receives[at] = `failed: ${this.#farEnd}`;
      }
    }
  }

  #step(): boolean {
    // A value goes to the other end.
    if (
      this.#connected && this.#nearValues.length > 0 &&
      this.#sent < this.#granted
    ) {
      this.#farValues.push(this.#nearValues.shift()!);
      this.#sent++;
      return true;
    }
    // A sender takes a free place.
    if (
      this.#senders.length > 0 && (
        this.#nearValues.length < this.#near ||
        (this.#connected && this.#sent < this.#granted)
      )
    ) {
      const { at, value } = this.#senders.shift()!;
      this.#sends[at] = "got it";
      this.#nearValues.push(value);
      return true;
    }
    // A receiver takes a value, or two.
    if (this.#receivers.length > 0 && this.#farValues.length > 0) {
      const { at, max } = this.#receivers.shift()!;
      const values = this.#farValues.splice(0, -max);
      this.#receives[at] = `got ${
        JSON.stringify(max === -1 ? values[0] : values)
      }`;
      return true;
    }
    // The receiving end makes room known.
    const upTo = this.#sent - this.#farValues.length + this.#far;
    if (
      this.#connected && this.#farEnd === undefined &&
      upTo - this.#granted >= this.#far / 2
    ) {
      this.#granted = upTo;
      return true;
    }
    return false;
  }

  view(): View {
    return {
      sends: this.#sends,
      receives: this.#receives,
      sizes: [this.#nearValues.length, this.#farValues.length],
      closed: [this.#nearEnd !== undefined, this.#farEnd !== undefined],
      connection: this.#connection,
    };
  }
}

// ── The comparison ──────────────────────────────────────────────────────────

const options = fc.record({
  near: fc.integer({ min: 0, max: 3 }),
  far: fc.integer({ min: 1, max: 5 }),
});

const steps = fc.array(
  fc.record({
    op: fc.nat(1000).map((n): Step["op"] => {
      // The ends are rare, or every schedule would be over soon.
      const most = n < 900 ? OPERATIONS.length - 5 : OPERATIONS.length;
      return OPERATIONS[n % most];
    }),
    flag: fc.boolean(),
  }),
  { maxLength: 40 },
);

Deno.test("sendTo() and receiveFrom() behave like a model of plain arrays, at rest after each step", async () => {
  await fc.assert(
    fc.asyncProperty(options, steps, async (options, steps) => {
      const [real, model] = [new Real(options), new Model(options)];
      await flush();
      for (const step of steps) {
        real.perform(step);
        model.perform(step);
        await flush();
        real.check();
        assertEquals(real.view(), model.view(), JSON.stringify(step));
      }
      await real.end();
    }),
    { numRuns: ROUNDS },
  );
});

/** What may stand anywhere in a message; some of it makes sense. */
const part = fc.oneof(
  fc.constantFrom(undefined, 0, 1, 2, -1, 0.5, Infinity, "", "id", "receiver"),
  fc.anything({ withMap: true, withSet: true, withNullPrototype: true }),
);

const packed = fc.letrec((tie) => ({
  packed: fc.oneof(
    { maxDepth: 3 },
    part,
    fc.record({
      kind: fc.constantFrom("value", "lost", "list", "object", "error", "?"),
      value: part,
      what: part,
      items: fc.oneof(part, fc.array(tie("packed"), { maxLength: 3 })),
      type: fc.constantFrom("TypeError", "DOMException", "__proto__", 1),
      name: fc.oneof(fc.string(), part),
      message: fc.oneof(fc.string(), part),
      stack: fc.oneof(fc.string(), part),
      fields: fc.oneof(
        part,
        fc.array(
          fc.record({
            key: fc.oneof(fc.string(), part),
            value: tie("packed"),
            enumerable: fc.oneof(fc.boolean(), part),
          }, { requiredKeys: [] }),
          { maxLength: 2 },
        ),
      ),
    }, { requiredKeys: ["kind"] }),
  ),
})).packed;

/** A message of which any part may be wrong; ids are put in where they are named. */
const message = fc.oneof(
  part,
  fc.record({
    protocol: fc.constant("@sauce/queues/port"),
    channel: fc.constantFrom("", "", "", "b", 1),
    kind: fc.constantFrom(
      ...["offer", "taken", "values", "close"] as const,
      ...["invite", "refuse", "credit", "end"] as const,
      "?",
    ),
    id: fc.oneof(fc.constant("id"), fc.constant("id"), part),
    receiver: fc.oneof(fc.constant("receiver"), fc.constant("receiver"), part),
    // Another version is answered, which ends the sender: it has a test of its own.
    version: part.filter((found) => !Number.isInteger(found) || found === 1),
    values: part,
    reason: packed,
    why: part,
    upTo: part,
    received: part,
  }, { requiredKeys: ["protocol", "channel", "kind"] }),
);

Deno.test("sendTo() and receiveFrom() throw nothing at whatever comes, and change nothing at what they refuse", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(message, { minLength: 1, maxLength: 8 }),
      fc.boolean(),
      async (messages, isMet) => {
        const [near, far] = fakePorts();
        const queue = new Queue<unknown>();
        const refusals = { near: 0, far: 0 };
        const sent = follow(
          sendTo(queue, near, { onError: () => refusals.near++ }),
        );
        const received = isMet
          ? receiveFrom<unknown>(far, {
            onError: () => refusals.far++,
            capacity: 2,
          })
          : undefined;
        await flush();
        const ids = new Map<unknown, unknown>([
          ["id", near.posted[0].id],
          ["receiver", far.posted[0]?.receiver ?? "somebody"],
        ]);
        // Each end by itself: what one takes for true, the other may know better.
        const states = () => ({
          near: [sent.state, queue.closed],
          far: [received?.closed, received?.size],
        });
        for (const message of messages) {
          const { id, receiver } = Object(message);
          const data = ids.has(id) || ids.has(receiver)
            ? {
              ...message as object,
              id: ids.get(id) ?? id,
              receiver: ids.get(receiver) ?? receiver,
            }
            : message;
          for (const port of [near, far]) {
            const [before, told] = [states(), { ...refusals }];
            port.hear("message", { data }); // a throw would come out of here
            await flush();
            for (const end of ["near", "far"] as const) {
              if (refusals[end] === told[end]) continue;
              assertEquals(states()[end], before[end]);
            }
          }
        }
        queue.close();
        received?.close();
        far.hear("close");
        near.hear("close");
        await flush();
        assert(sent.state !== "pending", "it waits for ever");
        assertEquals([near.listening, far.listening], [0, 0]);
      },
    ),
    { numRuns: ROUNDS },
  );
});

Deno.test("sendTo() and receiveFrom() deliver in order, and settle everything, when steps meet in flight", async () => {
  const pauses = fc.array(fc.nat(6), { minLength: 1, maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(options, steps, pauses, async (options, steps, pauses) => {
      const real = new Real(options);
      for (const [i, step] of steps.entries()) {
        real.perform(step);
        for (let n = pauses[i % pauses.length]; n > 0; n--) await undefined;
        real.check();
      }
      await flush();
      real.checkSum();
      const { received } = real;
      assertEquals(received, received.toSorted((a, b) => a - b));
      assertEquals(new Set(received).size, received.length);
      await real.end();
    }),
    { numRuns: ROUNDS },
  );
});

Deno.test("sendTo() and receiveFrom() settle everything, whatever values and reasons cannot be read at the other end", async () => {
  const unreadable = fc.array(fc.boolean(), { minLength: 1, maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(
      options,
      steps,
      unreadable,
      async (options, steps, unreadable) => {
        let n = 0;
        const real = new Real(options, (message) => {
          const { values = [], reason } = message as {
            values?: unknown[];
            reason?: { kind: string; message?: string };
          };
          const isOthers = values.length > 0 ||
            reason !== undefined && !reason.message?.includes("cannot be read");
          return isOthers && unreadable[n++ % unreadable.length];
        });
        await flush();
        for (const step of steps) {
          real.perform(step);
          await flush();
          real.check();
        }
        const { received } = real;
        assertEquals(received, received.toSorted((a, b) => a - b));
        assertEquals(new Set(received).size, received.length);
        await real.end();
      },
    ),
    { numRuns: ROUNDS },
  );
});

Deno.test("sendTo() loses no value, and sends none twice, when it is aborted and begins again", async () => {
  const connection = fc.record({
    capacity: fc.constantFrom(1, 2, 7, Infinity),
    turns: fc.nat(150), // until it is aborted
  });
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(0, 1, 5),
      fc.array(connection, { maxLength: 5 }),
      fc.array(fc.nat(11), { minLength: 1, maxLength: 8 }),
      async (capacity, connections, pauses) => {
        using _ = replaceGlobals({ // no receiver waits long for the next sender
          setTimeout: (run: () => void) => {
            const timer = { run };
            queueMicrotask(() => timer.run());
            return timer;
          },
          clearTimeout: (timer?: { run: () => void }) => {
            if (timer !== undefined) timer.run = () => {};
          },
        });
        const [near, far] = fakePorts();
        const queue = new Queue<number>({ capacity });
        const sending = (async () => {
          for (const i of range(30)) {
            await queue.send(i);
            for (const _ of range(pauses[i % pauses.length])) await undefined;
          }
          queue.close();
        })();
        const got: number[] = [];
        const readOut = async (received: Queue<number>) => {
          for await (const value of received) got.push(value);
        };
        for (const { capacity, turns } of connections) {
          const stop = new AbortController();
          const { signal } = stop;
          const reading = readOut(receiveFrom<number>(far, { capacity }));
          const sent = sendTo(queue, near, { signal });
          for (const _ of range(turns)) await undefined;
          stop.abort("again");
          await Promise.allSettled([reading, sent]);
        }
        const reading = readOut(receiveFrom<number>(far));
        await Promise.all([sending, sendTo(queue, near), reading]);
        assertEquals(got, range(30));
        assertEquals([near.listening, far.listening], [0, 0]);
      },
    ),
    { numRuns: ROUNDS },
  );
});

// ── Who meets whom ──────────────────────────────────────────────────────────

/** What may happen at a port while senders and receivers come and go. */
const comings = fc.array(
  fc.record({
    op: fc.constantFrom(
      ...["sendTo", "sendTo", "abortSender", "closeSender"] as const,
      ...["receiveFrom", "receiveFrom", "closeReceiver"] as const,
      ...["value", "time"] as const,
    ),
    turns: fc.constantFrom(0, 0, 1, 2, 3, 5, 40),
  }),
  { maxLength: 12 },
);

type Coming = typeof comings extends fc.Arbitrary<(infer C)[]> ? C : never;

/** An offer that is on its way to one receiver, and reaches the next one. */
const hastily: Coming[] = [
  { op: "sendTo", turns: 0 },
  { op: "receiveFrom", turns: 1 },
  { op: "closeReceiver", turns: 0 },
  { op: "receiveFrom", turns: 0 },
];

for (const orderly of [true, false]) {
  Deno.test(
    `sendTo() and receiveFrom() meet if both are there, ${
      orderly ? "one after the other" : "several at a time"
    }, whoever has been there before`,
    async () => {
      await fc.assert(
        fc.asyncProperty(comings, fc.boolean(), async (comings, keeps) => {
          const timers = new Map<number, () => void>();
          let timerId = 0;
          using _ = replaceGlobals({
            setTimeout: (
              run: () => void,
            ) => (timers.set(++timerId, run), timerId),
            clearTimeout: (id: number) => void timers.delete(id),
          });
          /** Lets everything happen that can. */
          const rest = async () => {
            await flush();
            for (let rounds = 0; timers.size > 0; rounds++) {
              assert(rounds < 100, "a timer is set again and again");
              for (const [id, run] of [...timers]) timers.delete(id) && run();
              await flush();
            }
          };
          const [near, far] = fakePorts({ keeps });
          const told: unknown[] = [];
          const onError = (error: unknown) => void told.push(error);
          const senders: {
            queue: Queue<number>;
            sent: Task<void>;
            stop: AbortController;
          }[] = [];
          const receivers: Queue<number>[] = [];
          const got: number[] = [];
          const sending = () =>
            senders.filter(({ sent }) => sent.state === "pending");
          const receiving = () => receivers.filter(({ closed }) => !closed);
          const open = (what: "sendTo" | "receiveFrom") => {
            if (what === "receiveFrom") {
              const received = receiveFrom<number>(far, { onError });
              receivers.push(received);
              (async () => {
                for await (const value of received) got.push(value);
              })().catch(() => {});
              return;
            }
            const [queue, stop] = [new Queue<number>(), new AbortController()];
            const sent = sendTo(queue, near, { signal: stop.signal, onError });
            senders.push({ queue, stop, sent: follow(sent) });
          };
          let next = 0;
          for (const { op, turns } of comings) {
            switch (op) {
              case "sendTo":
                if (!orderly || sending().length === 0) open(op);
                break;
              case "receiveFrom":
                if (!orderly || receiving().length === 0) open(op);
                break;
              case "abortSender":
                sending().at(next % 2)?.stop.abort("aborted");
                break;
              case "closeSender":
                sending().at(next % 2)?.queue.close("closed");
                break;
              case "closeReceiver":
                receiving().at(next % 2)?.close("closed");
                break;
              case "value":
                sending()[0]?.queue.send(next).catch(() => {});
                break;
              case "time":
                await rest();
            }
            next++;
            for (const _ of range(turns)) await undefined;
          }
          await rest();
          // Whoever is there has met, or waits for the other end. A sender whose
          // queue is closed ends with the receiver that comes.
          for (let tries = 0; tries < 9; tries++) {
            if (sending().length === 0) open("sendTo");
            if (receiving().length === 0) open("receiveFrom");
            await rest();
            if (sending().length > 0 && receiving().length > 0) break;
          }
          assertEquals([sending().length, receiving().length], [1, 1]);
          const [{ queue, sent }] = sending();
          queue.send(-1).catch(() => {});
          await rest();
          assertEquals(got.at(-1), -1);
          assertEquals(new Set(got).size, got.length);
          queue.close();
          await rest();
          assertEquals(sent.state, "resolved");
          assertEquals(receiving().length, 0);
          assertEquals([near.listening, far.listening], [0, 0]);
          assertEquals(told, []);
        }),
        { numRuns: ROUNDS, examples: [[hastily, false], [hastily, true]] },
      );
    },
  );
}
