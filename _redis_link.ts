/**
 * A bus across processes on the streams of Redis: the other half of `redis.ts`.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

import { decodeEvent, encodeEvent, MAX_SIZE } from "./_cloudevents.ts";
import {
  checkCount,
  checkFunction,
  checkObject,
  checkOneOf,
  checkString,
  describe,
} from "./_errors.ts";
import type {
  Link,
  LinkCapabilities,
  LinkReceiveOptions,
  LinkState,
  Sink,
} from "./_link.ts";
import { randomId } from "./_id.ts";
import {
  backOff,
  Batcher,
  BLOCK,
  checkLeaseTime,
  createGroup,
  Dedicated,
  entriesIn,
  type Entry,
  failed,
  grace,
  isNoGroup,
  isRefusal,
  listed,
  MOST,
  Patience,
  type RedisClient,
  RedisError,
  RENEW,
  type Send,
  sender,
  takeOver,
  tell,
  within,
} from "./_redis.ts";
import type { BusEvent } from "./bus.ts";

/** Options for {@linkcode redisLink}. */
export interface RedisLinkOptions {
  /**
   * What the keys of the topics' streams begin with.
   *
   * @default {"bus:"}
   */
  prefix?: string;
  /**
   * How many events of a topic the server keeps, or a few more, for those who
   * are slow or cut off. An integer from 1, or `Infinity`.
   *
   * @default {10_000}
   */
  maxLength?: number;
  /**
   * How many events may be on their way to the server, unanswered; further ones
   * are refused. An integer from 1, or `Infinity`.
   *
   * @default {10_000}
   */
  maxWaiting?: number;
  /**
   * How many characters an event may have as JSON, on its way out and in. An
   * integer from 1, or `Infinity`.
   *
   * @default {1_048_576}
   */
  maxSize?: number;
  /**
   * How often an event is delivered at most to a receiver that rejects it, before
   * it is told as `"bad"`. An integer from 1, or `Infinity`.
   *
   * @default {5}
   */
  maxDeliveries?: number;
  /**
   * In a group: how long a receiver may be silent before its events go to
   * others, in ms. An integer from 1 to 2,147,483,647.
   *
   * @default {30_000}
   */
  leaseTime?: number;
  /**
   * How long to wait for the server's answer, in ms. An integer from 1, or
   * `Infinity`.
   *
   * @default {10_000}
   */
  timeout?: number;
}

/** KEYS: stream. ARGV: how many to keep, events. */
const SEND = `
for i = 2, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'event', ARGV[i])
end`;

/**
 * KEYS: stream. ARGV: the last entry that was read, and how many at most. Returns
 * how many entries were ever added, how many there are, the last one's id, and
 * those after the one that was read.
 */
// Before 7.0 a server does not count: -1.
const LOOK = `
if redis.call('EXISTS', KEYS[1]) == 0 then return {0, 0, '0-0', {}} end
local info, found = redis.call('XINFO', 'STREAM', KEYS[1]), {}
for i = 1, #info, 2 do found[info[i]] = info[i + 1] end
local entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
return {found['entries-added'] or -1, found.length, found['last-generated-id'], entries or {}}`;

/** KEYS: stream. ARGV: group. Returns how many entries were cut before the group got them, ever; -1 if that cannot be told now. */
const CUT = `
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then return -1 end
for _, info in ipairs(groups) do
  local group = {}
  for i = 1, #info, 2 do group[info[i]] = info[i + 1] end
  if group.name == ARGV[1] and group.lag then
    local after = '(' .. group['last-delivered-id']
    local waiting = #redis.call('XRANGE', KEYS[1], after, '+', 'COUNT', 1001)
    if waiting <= 1000 then return group.lag - waiting end
  end
end
return -1`;

/** KEYS: stream, dead letters. ARGV: group, entry, reason. */
const BURY = `
local entry = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1)[1]
if pending and entry then
  local event = ''
  for f = 1, #entry[2], 2 do
    if entry[2][f] == 'event' then event = entry[2][f + 1] end
  end
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', '10000', '*',
    'id', ARGV[2], 'event', event, 'group', ARGV[1], 'reason', ARGV[3])
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])`;

/** Longer than any lease: whoever looks takes it over. */
const FOREVER = "1099511627776"; // ms

/**
 * A link for `bus.connect`, on the streams of Redis: one for each topic.
 *
 * - **At least once:** an event that has been sent reaches each receiver that
 *   was there, as long as the server keeps it: see `docs/distributed.md`.
 *   Repeats happen when a line is cut in the middle of things.
 * - **Gaps:** a receiver that is so slow that the server has cut what it had not
 *   read yet is told by `onState` how many events are lost; one that finds the
 *   stream or its group gone is told so. For all but a group that is gone, the
 *   server must be a Redis from 7.0 on, or a Valkey.
 * - **Order:** as the events were sent; in a group, and among those that are
 *   delivered again, there is none.
 * - **Again:** an event that the sink rejects is handed to it again a bit later,
 *   up to `maxDeliveries` times. A group keeps it as a dead letter then, in the
 *   stream `{key}:dead`, which has the last 10,000 of them.
 * - **Connections:** events leave through the client that was given; each
 *   receiver has a duplicate of it. It reconnects by itself, and goes on where it
 *   was.
 *
 * @param client The caller's client: of node-redis (connected, or about to be),
 * ioredis or iovalkey, without a `keyPrefix`, and of one server. Close it after
 * the link.
 * @throws {TypeError} If something has the wrong type.
 * @throws {RangeError} If an option is out of range.
 */
export function redisLink(
  client: RedisClient,
  options: RedisLinkOptions = {},
): Link & AsyncDisposable {
  return new RedisLink(client, options);
}

class RedisLink implements Link, AsyncDisposable {
  readonly caps: LinkCapabilities = {
    durable: true,
    acks: true,
    groups: true,
    backpressure: true,
    confirms: true,
  };
  onState: (state: LinkState) => void = () => {};
  readonly #client: RedisClient;
  readonly #send: Send;
  readonly options: Required<RedisLinkOptions>;
  readonly #patience: Patience;
  readonly #receptions = new Set<Reception>();
  #waiting = 0; // events on their way
  #state: "up" | "down" = "up";
  #closing: Promise<void> | undefined;

  constructor(client: RedisClient, options: RedisLinkOptions) {
    const action = "create link";
    this.#send = sender(action, client);
    this.#client = client;
    this.options = checked(action, options);
    this.#patience = new Patience(this.options.timeout);
  }

  async send(topic: string, batch: readonly BusEvent[]): Promise<void> {
    const action = `send to ${JSON.stringify(topic)}`;
    this.#check(action, topic);
    const { maxWaiting, maxLength, prefix } = this.options;
    const texts = this.#encode(batch);
    if (texts.length === 0) return;
    if (this.#waiting > 0 && this.#waiting + texts.length > maxWaiting) {
      throw new RedisError(
        `Cannot ${action}: ${this.#waiting} events are on their way, of ${maxWaiting} that may be`,
      );
    }
    this.#waiting += texts.length;
    const kept = String(Math.min(maxLength, Number.MAX_SAFE_INTEGER));
    const key = prefix + topic;
    try {
      const replies: Promise<unknown>[] = [];
      if (texts.length === 1) { // a script would take longer
        const add = ["XADD", key, "MAXLEN", "~", kept, "*", "event", ...texts];
        replies.push(this.ask(action, add));
      }
      for (let i = 0; texts.length > 1 && i < texts.length; i += MOST) {
        const some = texts.slice(i, i + MOST);
        replies.push(this.ask(action, ["EVAL", SEND, "1", key, kept, ...some]));
      }
      const outcomes = await Promise.allSettled(replies);
      const refused = outcomes.find(({ status }) => status === "rejected");
      if (refused !== undefined) {
        throw (refused as PromiseRejectedResult).reason;
      }
      this.up();
    } catch (error) {
      if (!isRefusal(error)) this.down(error);
      throw error;
    } finally {
      this.#waiting -= texts.length;
    }
  }

  async receive(
    topic: string,
    sink: Sink,
    options: LinkReceiveOptions = {},
  ): Promise<() => Promise<void>> {
    const action = `receive from ${JSON.stringify(topic)}`;
    this.#check(action, topic);
    checkFunction(action, "sink", sink);
    const { group, maxInFlight = MOST, from = "new" } = options;
    if (group !== undefined) checkString(action, "group", group);
    checkCount(action, "maxInFlight", maxInFlight, 1);
    checkOneOf(action, "from", from, ["new", "all"]);
    const Kind = group === undefined ? FanOut : Share;
    const key = this.options.prefix + topic;
    const reception: Reception = new Kind(this, action, key, sink, {
      group: group ?? "",
      maxInFlight,
      from,
    });
    await reception.begin();
    if (this.#closing !== undefined) {
      await reception.stop();
      throw closed(action);
    }
    this.#receptions.add(reception);
    return async () => {
      this.#receptions.delete(reception);
      await reception.stop();
    };
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#patience.lower(this.grace); // for whoever waits for the server, too
    await Promise.all([...this.#receptions].map(async (reception) => {
      await reception.stop();
      await within(this.grace, reception.abandon()).catch(() => {});
    }));
    this.#receptions.clear();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** How long the server may be silent where that has to be noticed. */
  get grace(): number {
    return grace(this.options.timeout);
  }

  /** A connection of a receiver's own. */
  connect(): Promise<Dedicated> {
    return Dedicated.open(this.#client, this.grace);
  }

  /** Sends a command through the caller's client. */
  async ask(action: string, command: string[]): Promise<unknown> {
    try {
      return await this.#patience.wait(this.#send(command));
    } catch (error) {
      throw failed(action, error);
    }
  }

  up(): void {
    if (this.#state === "up") return;
    this.#state = "up";
    this.tell({ state: "up" });
  }

  down(error: unknown): void {
    if (this.#state === "down" || this.#closing !== undefined) return;
    this.#state = "down";
    this.tell({ state: "down", reason: describe(error) });
  }

  tell(state: LinkState): void {
    tell((state: LinkState) => this.onState(state), state);
  }

  #check(action: string, topic: string): void {
    if (this.#closing !== undefined) throw closed(action);
    checkString(action, "topic", topic);
  }

  #encode(batch: readonly BusEvent[]): string[] {
    const texts: string[] = [];
    for (const event of batch) {
      try {
        texts.push(encodeEvent(event, this.options));
      } catch (error) {
        this.tell({ state: "bad", reason: describe(error), event });
      }
    }
    return texts;
  }
}

function closed(action: string): RedisError {
  return new RedisError(`Cannot ${action}: the link has been closed`);
}

/** An event that is with the sink, or will be again. */
interface InHand {
  readonly entry: string;
  readonly event: BusEvent;
  attempt: number;
}

/** One receiver of a topic: reads, hands over, and stops. */
abstract class Reception {
  protected readonly link: RedisLink;
  protected readonly action: string;
  protected readonly key: string;
  protected readonly group: string;
  protected readonly from: "new" | "all";
  /** What is with the sink. */
  protected readonly inHand: Set<InHand> = new Set();
  readonly #sink: Sink;
  readonly #max: number;
  #connection: Dedicated | undefined;
  #blocked = false; // in a read that waits
  #stopped = false;
  #reading: Promise<void> | undefined;
  readonly #awaken: Set<() => void> = new Set(); // ends pauses

  constructor(
    link: RedisLink,
    action: string,
    key: string,
    sink: Sink,
    { group, maxInFlight, from }: Required<LinkReceiveOptions>,
  ) {
    this.link = link;
    this.action = action;
    this.key = key;
    this.group = group;
    this.from = from;
    this.#sink = sink;
    this.#max = maxInFlight;
  }

  /** Finds where to begin, then reads on its own. */
  async begin(): Promise<void> {
    await this.find();
    this.#reading = this.#read();
  }

  /** Ends it; resolves once the sink is not called any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const awaken of this.#awaken) awaken();
    if (this.#blocked && this.#connection !== undefined) {
      const unblock = ["CLIENT", "UNBLOCK", this.#connection.id];
      this.link.ask(this.action, unblock).catch(() => {});
    }
    const ended = Promise.resolve(this.#reading).then(() => this.settled());
    await within(this.link.grace, ended).catch(() => {});
    this.#connection?.close(); // ends a read that has not ended
  }

  /** Leaves to others whatever is still with the sink. */
  abstract abandon(): Promise<void>;
  /** Resolves once the server knows what became of the events that are not with the sink. */
  protected abstract settled(): Promise<void>;
  /** Finds where to begin. */
  protected abstract find(): Promise<void>;
  /** The next entries, with how often each has been delivered; waits a while for some. */
  protected abstract next(count: number): Promise<[Entry, number][]>;
  /** The event is done with. */
  protected abstract done(entry: string): void;
  /** The event will not be handed over again. */
  protected abstract bury(entry: string, reason: string): void;
  /** Nobody here takes care of the event any more. */
  protected abstract letGo(entry: string): void;

  protected get stopped(): boolean {
    return this.#stopped;
  }

  async #read(): Promise<void> {
    let failures = 0;
    while (!this.#stopped) {
      try {
        while (this.inHand.size >= this.#max && !this.#stopped) {
          await this.#pause(undefined);
        }
        if (this.#stopped) return;
        this.#connection ??= await this.connect();
        const count = Math.min(this.#max - this.inHand.size, MOST);
        for (const [entry, times] of await this.next(count)) {
          this.#take(entry, times);
        }
        failures = 0;
        this.link.up();
      } catch (error) {
        this.#connection?.close();
        this.#connection = undefined;
        if (this.#stopped) return;
        if (!isNoGroup(error)) this.link.down(error);
        await this.#pause(backOff(++failures));
      }
    }
  }

  /** Sends a command through a connection of its own. */
  protected async run(command: string[], block = 0): Promise<unknown> {
    if (this.#stopped) throw closed(this.action);
    this.#blocked = block > 0;
    try {
      return await this.#connection!.run(command, block + this.link.grace);
    } finally {
      this.#blocked = false;
    }
  }

  protected connect(): Promise<Dedicated> {
    return this.link.connect();
  }

  protected gap(reason: string, lost?: number): void {
    const known = lost === undefined ? {} : { lost };
    this.link.tell({
      state: "gap",
      reason: `${this.key}: ${reason}`,
      ...known,
    });
  }

  #take([entry, fields]: Entry, attempt: number): void {
    if (this.#stopped) return this.letGo(entry);
    const { maxDeliveries } = this.link.options;
    if (attempt > maxDeliveries) {
      const reason = `it has been delivered ${attempt - 1} times`;
      return this.#refuse(entry, reason);
    }
    let event: BusEvent;
    try {
      const text = fields.get("event");
      if (text === undefined) throw new TypeError('it has no field "event"');
      event = decodeEvent(text, this.link.options);
    } catch (error) {
      return this.#refuse(entry, describe(error));
    }
    this.#hand({ entry, event, attempt });
  }

  /** Hands an event to the sink. */
  #hand(it: InHand): void {
    try {
      const taken = this.#sink(it.event, {
        ref: it.entry,
        attempt: it.attempt,
      });
      if (typeof taken?.then !== "function") return this.done(it.entry);
      this.inHand.add(it);
      taken.then(() => {
        this.#drop(it);
        this.done(it.entry);
      }, (error) => this.#again(it, error));
    } catch (error) {
      this.inHand.add(it);
      this.#again(it, error);
    }
  }

  async #again(it: InHand, error: unknown): Promise<void> {
    if (it.attempt >= this.link.options.maxDeliveries) {
      this.#drop(it);
      return this.#refuse(it.entry, describe(error));
    }
    if (!this.#stopped) await this.#pause(backOff(it.attempt++));
    this.#drop(it);
    if (this.#stopped) this.letGo(it.entry);
    else this.#hand(it);
  }

  #drop(it: InHand): void {
    this.inHand.delete(it);
    for (const awaken of this.#awaken) awaken();
  }

  #refuse(entry: string, reason: string): void {
    this.link.tell({
      state: "bad",
      reason: `${this.key}: entry ${entry}: ${reason}`,
    });
    this.bury(entry, reason);
  }

  /** Waits so long, or until something happens. */
  #pause(time: number | undefined): Promise<void> {
    return new Promise((resolve) => {
      const awaken = () => {
        if (timer !== undefined && !this.#stopped) return;
        clearTimeout(timer);
        end();
      };
      const end = () => {
        this.#awaken.delete(awaken);
        resolve();
      };
      const timer = time === undefined ? undefined : setTimeout(end, time);
      this.#awaken.add(awaken);
    });
  }
}

/** A receiver that gets all events. */
// It knows where it is: the last entry that it has read, and which one that was
// of all that the stream ever had. What the server has cut beyond that is lost.
class FanOut extends Reception {
  #last = "0-0";
  #index = 0; // NaN while nobody knows
  #lookAt = 0; // when to look for a gap again, at the latest

  async find(): Promise<void> {
    const { added, length, last } = await this.#found(
      (command) => this.link.ask(this.action, command),
      0,
    );
    if (this.from === "new") {
      this.#last = last;
      this.#index = added;
    } else this.#index = added - length;
  }

  async next(count: number): Promise<[Entry, number][]> {
    if (performance.now() >= this.#lookAt) {
      const entries = await this.#look(count);
      if (entries.length < count) this.#lookAt = performance.now() + BLOCK;
      if (entries.length > 0) return this.#advance(entries);
    }
    const command = `XREAD COUNT ${count} BLOCK ${BLOCK} STREAMS`.split(" ");
    const read = [...command, this.key, this.#last];
    const entries = entriesIn(await this.run(read, BLOCK));
    // A full reply may hide that it is late, and an empty one that all is gone.
    if (entries.length === 0 || entries.length === count) this.#lookAt = 0;
    return this.#advance(entries);
  }

  protected override connect(): Promise<Dedicated> {
    this.#lookAt = 0;
    return super.connect();
  }

  /** Reads without waiting, and tells of a gap before what it reads. */
  async #look(count: number): Promise<Entry[]> {
    const { added, length, last, entries } = await this.#found(
      (command) => this.run(command),
      count,
    );
    if (added < 0) return entries; // a server that does not count
    const isAll = entries.length < count;
    const least = added - (isAll ? entries.length : length); // are before these
    if (added < this.#index + entries.length) {
      this.gap("the server has forgotten the stream");
      this.#index = isAll ? least : NaN;
      if (entries.length > 0 || last === this.#last) return entries;
      this.#last = "0-0"; // its ids may begin anew
      this.#index = added - length;
      return last === "0-0" ? entries : await this.#look(count);
    }
    const lost = least - this.#index;
    if (lost > 0) this.gap("the server has cut what was not read yet", lost);
    if (lost > 0 || isAll) this.#index = least;
    return entries;
  }

  async #found(run: Send, count: number) {
    const look = ["EVAL", LOOK, "1", this.key, this.#last, `${count}`];
    const [added, length, last, entries] = await run(look) as unknown[];
    return {
      added: Number(added),
      length: Number(length),
      last: String(last),
      entries: listed(entries),
    };
  }

  #advance(entries: Entry[]): [Entry, number][] {
    this.#index += entries.length;
    this.#last = entries.at(-1)?.[0] ?? this.#last;
    return entries.map((entry) => [entry, 1]);
  }

  async abandon(): Promise<void> {}
  protected async settled(): Promise<void> {}
  protected done(): void {}
  protected bury(): void {}
  protected letGo(): void {}
}

/** A receiver that shares the events with others of its group. */
class Share extends Reception {
  readonly #me = randomId();
  readonly #acks = new Batcher<string, void>(Infinity, async (entries) => {
    await this.link.ask(this.action, [
      "XACK",
      this.key,
      this.group,
      ...entries,
    ]);
    return [];
  });
  readonly #asked = new Set<Promise<void>>(); // for what nobody waits for, except at the end
  #takeOverAt = 0;
  #cut = -1; // how many entries had been cut when we last looked
  #renewing: ReturnType<typeof setInterval> | undefined;
  #isRenewing = false;

  async find(): Promise<void> {
    const start = this.from === "new" ? "$" : "0";
    const run: Send = (command) => this.link.ask(this.action, command);
    await createGroup(run, this.key, this.group, start);
    await this.#lookForCut(run);
    const { leaseTime } = this.link.options;
    this.#renewing = setInterval(() => this.#renew(), leaseTime / 3);
  }

  async next(count: number): Promise<[Entry, number][]> {
    const { leaseTime } = this.link.options;
    if (performance.now() >= this.#takeOverAt) {
      const taken = await this.#takeOver(count);
      if (taken.length > 0) return taken;
      await this.#lookForCut((command) => this.run(command));
      this.#takeOverAt = performance.now() + leaseTime / 2;
    }
    const block = Math.min(BLOCK, Math.ceil(leaseTime / 2));
    const command = `COUNT ${count} BLOCK ${block} STREAMS`.split(" ");
    const who = ["GROUP", this.group, this.#me];
    const read = ["XREADGROUP", ...who, ...command, this.key, ">"];
    return entriesIn(await this.run(read, block)).map((entry) => [entry, 1]);
  }

  override async stop(): Promise<void> {
    await super.stop();
    clearInterval(this.#renewing); // who is still at work may lose it
  }

  async abandon(): Promise<void> {
    await this.#hold(this.#entries, FOREVER);
  }

  protected async settled(): Promise<void> {
    await this.#acks.settled();
    await Promise.all(this.#asked);
  }

  protected override async connect(): Promise<Dedicated> {
    const connection = await super.connect();
    const run: Send = (command) => connection.run(command, this.link.grace);
    try {
      // A group that is gone begins anew with all that there is.
      if (await createGroup(run, this.key, this.group, "0")) {
        this.gap("the server has forgotten the group");
        this.#cut = -1;
      }
      return connection;
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  protected done(entry: string): void {
    this.#acks.add(entry)!.catch(() => {}); // it comes again, to somebody
  }

  protected bury(entry: string, reason: string): void {
    const dead = this.key.includes("{") ? this.key : `{${this.key}}`;
    const keys = ["2", this.key, `${dead}:dead`];
    const bury = ["EVAL", BURY, ...keys, this.group, entry, reason];
    this.#ask(this.link.ask(this.action, bury));
  }

  protected letGo(entry: string): void {
    this.#ask(this.#hold([entry], FOREVER));
  }

  /** Asks for what comes again, to somebody, if the server does not hear. */
  #ask(answer: Promise<unknown>): void {
    const asked = answer.then(() => {}, () => {})
      .then(() => void this.#asked.delete(asked));
    this.#asked.add(asked);
  }

  /** What is with the sink. */
  get #entries(): string[] {
    return [...this.inHand].map(({ entry }) => entry);
  }

  async #takeOver(count: number): Promise<[Entry, number][]> {
    const [deleted, taken] = await takeOver(
      (script, args) => this.run(["EVAL", script, "1", this.key, ...args]),
      [this.group, this.#me],
      this.link.options.leaseTime,
      count,
      this.#entries,
    );
    if (deleted > 0) {
      this.gap("the server has cut what was being handled", deleted);
    }
    return taken;
  }

  async #lookForCut(run: Send): Promise<void> {
    const cut = Number(await run(["EVAL", CUT, "1", this.key, this.group]));
    if (cut < 0) return;
    if (this.#cut >= 0 && cut > this.#cut) {
      const lost = cut - this.#cut;
      this.gap("the server has cut what was not read yet", lost);
    }
    this.#cut = cut;
  }

  async #renew(): Promise<void> {
    if (this.#isRenewing) return;
    this.#isRenewing = true;
    await this.#hold(this.#entries, "0");
    this.#isRenewing = false;
  }

  /** Tells the server for how long we have been silent about entries; if it does not hear, they go to others. */
  async #hold(entries: string[], silent: string): Promise<void> {
    for (let i = 0; i < entries.length; i += MOST) {
      const some = entries.slice(i, i + MOST);
      const args = [this.key, this.group, this.#me, silent, ...some];
      await this.link.ask(this.action, ["EVAL", RENEW, "1", ...args])
        .catch(() => {});
    }
  }
}

/** The options with their defaults. */
function checked(
  action: string,
  options: RedisLinkOptions,
): Required<RedisLinkOptions> {
  checkObject(action, "options", options);
  const {
    prefix = "bus:",
    maxLength = 10_000,
    maxWaiting = 10_000,
    maxSize = MAX_SIZE,
    maxDeliveries = 5,
    leaseTime = 30_000,
    timeout = 10_000,
  } = options;
  checkString(action, "prefix", prefix);
  const counts = { maxLength, maxWaiting, maxSize, maxDeliveries, timeout };
  for (const [name, count] of Object.entries(counts)) {
    checkCount(action, name, count, 1);
  }
  checkLeaseTime(action, leaseTime);
  return { prefix, ...counts, leaseTime };
}
