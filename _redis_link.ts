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
  invalid,
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
  Dedicated,
  entriesIn,
  type Entry,
  failed,
  FORGOTTEN,
  grace,
  isNoGroup,
  isRefusal,
  listed,
  MOST,
  type RedisClient,
  RedisError,
  RENEW,
  says,
  type Send,
  sender,
  TAKE_OVER,
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
   * How often an event is delivered at most to those who reject it, before it
   * is told as `"bad"`. An integer from 1, or `Infinity`.
   *
   * @default {5}
   */
  maxDeliveries?: number;
  /**
   * In a group: how long a receiver may be silent before its events go to
   * others, in ms. An integer from 1.
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

/** KEYS: stream. Returns how many entries were ever added, how many there are, and the last one's id. */
// Before 7.0 a server does not count: -1.
const LOOK = `
local info, found = redis.pcall('XINFO', 'STREAM', KEYS[1]), {}
if info.err then return {0, 0, '0-0'} end
for i = 1, #info, 2 do found[info[i]] = info[i + 1] end
return {found['entries-added'] or -1, found.length, found['last-generated-id']}`;

/** KEYS: stream. ARGV: the last entry that was read, and how many at most. Returns what LOOK does, and the entries after it. */
const READ = `
local info, found = redis.pcall('XINFO', 'STREAM', KEYS[1]), {}
if info.err then return {0, 0, '0-0', {}} end
for i = 1, #info, 2 do found[info[i]] = info[i + 1] end
local entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
return {found['entries-added'] or -1, found.length, found['last-generated-id'], entries}`;

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
 *   read yet, or that finds the stream gone, is told so by `onState`; with how
 *   many events are lost, if the server is a Redis from 7.0 on.
 * - **Order:** as the events were sent; in a group, and among those that are
 *   delivered again, there is none.
 * - **Again:** an event that the sink rejects is handed to it again a bit later,
 *   up to `maxDeliveries` times. A group keeps it as a dead letter then, in the
 *   stream `{key}:dead`.
 * - **Connections:** events leave through the client that was given; each
 *   receiver has a duplicate of it. It reconnects by itself, and goes on where it
 *   was.
 *
 * @param client The caller's client: of node-redis (connected, or about to be),
 * ioredis or iovalkey, without a `keyPrefix`, and of no cluster. Close it after
 * the link.
 * @throws {TypeError} If something has the wrong type.
 * @throws {RangeError} If an option is out of range.
 */
export function redisLink(
  client: RedisClient,
  options: RedisLinkOptions = {},
): Link {
  return new RedisLink(client, options);
}

class RedisLink implements Link {
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
  readonly #receptions = new Set<Reception>();
  #waiting = 0; // events on their way
  #state: "up" | "down" = "up";
  #closing: Promise<void> | undefined;

  constructor(client: RedisClient, options: RedisLinkOptions) {
    const action = "create link";
    this.#send = sender(action, client);
    this.#client = client;
    this.options = checked(action, options);
  }

  async send(topic: string, batch: readonly BusEvent[]): Promise<void> {
    const action = `send to ${JSON.stringify(topic)}`;
    this.#check(action, topic);
    const { maxWaiting, maxLength, prefix } = this.options;
    const texts = this.#encode(batch);
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
    await Promise.all([...this.#receptions].map(async (reception) => {
      await reception.stop();
      await reception.abandon();
    }));
    this.#receptions.clear();
  }

  /** A connection of a receiver's own. */
  connect(): Promise<Dedicated> {
    return Dedicated.open(this.#client, this.options.timeout);
  }

  /** Sends a command through the caller's client. */
  async ask(action: string, command: string[]): Promise<unknown> {
    try {
      return await within(this.options.timeout, this.#send(command));
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

  get isDown(): boolean {
    return this.#state === "down";
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
        this.tell({ state: "bad", reason: describe(error) });
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
    const limit = grace(this.link.options.timeout);
    if (this.#blocked && this.#connection !== undefined) {
      const unblock = ["CLIENT", "UNBLOCK", this.#connection.id];
      this.link.ask(this.action, unblock).catch(() => {});
    }
    await within(limit, Promise.resolve(this.#reading)).catch(() => {});
    this.#connection?.close(); // ends a read that has not ended
  }

  /** Leaves to others whatever is still with the sink. */
  abstract abandon(): Promise<void>;
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
    const connection = await this.connected();
    if (this.#stopped) throw closed(this.action);
    this.#blocked = block > 0;
    try {
      const { timeout } = this.link.options;
      return await connection.run(command, block + timeout);
    } finally {
      this.#blocked = false;
    }
  }

  /** The connection that lasts until it breaks. */
  protected async connected(): Promise<Dedicated> {
    return this.#connection ??= await this.connect();
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
      if (taken === undefined) return this.done(it.entry);
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
  #index = 0;
  #exactly = false; // whether to look for a gap before the next read

  async find(): Promise<void> {
    const look = ["EVAL", LOOK, "1", this.key];
    const found = await this.link.ask(this.action, look);
    const [added, length, last] = counted(found);
    if (this.from === "new") {
      this.#last = last;
      this.#index = added;
    } else this.#index = added - length;
  }

  async next(count: number): Promise<[Entry, number][]> {
    await this.connected(); // only then it is known whether to look
    let entries: Entry[];
    if (this.#exactly) {
      entries = await this.#look(count);
      this.#exactly = entries.length === count;
      if (entries.length > 0) return this.#advance(entries);
    }
    const command = `XREAD COUNT ${count} BLOCK ${BLOCK} STREAMS`.split(" ");
    entries = entriesIn(
      await this.run([...command, this.key, this.#last], BLOCK),
    );
    // A full reply may hide that it is late, and an empty one that all is gone.
    this.#exactly = entries.length === 0 || entries.length === count;
    return this.#advance(entries);
  }

  protected override connect(): Promise<Dedicated> {
    this.#exactly = true;
    return super.connect();
  }

  /** Reads without waiting, and tells of a gap before what it reads. */
  async #look(count: number): Promise<Entry[]> {
    const read = ["EVAL", READ, "1", this.key, this.#last, `${count}`];
    const [added, length, last, found] = counted(await this.run(read));
    const entries = listed(found);
    if (added < 0) return entries; // a server that does not count
    const cut = added - length;
    if (added < this.#index + entries.length) {
      this.gap("the server has forgotten the stream");
      this.#index = cut;
      if (entries.length === 0) this.#last = "0-0"; // its ids may begin anew
      if (entries.length === 0 && last !== "0-0") {
        return await this.#look(count);
      }
      return entries;
    }
    const reached = entries.length === 0 ? added : cut;
    if (reached > this.#index) {
      const lost = reached - this.#index;
      this.gap(`the server has cut what was not read yet`, lost);
      this.#index = reached;
    }
    return entries;
  }

  #advance(entries: Entry[]): [Entry, number][] {
    this.#index += entries.length;
    this.#last = entries.at(-1)?.[0] ?? this.#last;
    return entries.map((entry) => [entry, 1]);
  }

  async abandon(): Promise<void> {}
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
  #takeOverAt = 0;
  #cut = -1; // how many entries had been cut when we last looked
  #renewing: ReturnType<typeof setInterval> | undefined;

  async find(): Promise<void> {
    const start = this.from === "new" ? "$" : "0";
    await this.link.ask(this.action, this.#create(start)).catch(ignoreBusy);
    await this.#lookForCut((command) => this.link.ask(this.action, command));
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
    const entries = [...this.inHand].map(({ entry }) => entry);
    if (entries.length > 0 && !this.link.isDown) {
      await this.#hold(entries, FOREVER);
    }
  }

  protected override async connect(): Promise<Dedicated> {
    const connection = await super.connect();
    try {
      // A group that is gone begins anew with all that there is.
      await connection.run(this.#create("0"), this.link.options.timeout);
    } catch (error) {
      if (isBusy(error)) return connection;
      connection.close();
      throw error;
    }
    this.gap("the server has forgotten the group");
    this.#cut = -1;
    return connection;
  }

  protected done(entry: string): void {
    this.#acks.add(entry)!.catch(() => {}); // it comes again, to somebody
  }

  protected bury(entry: string, reason: string): void {
    const dead = this.key.includes("{") ? this.key : `{${this.key}}`;
    const keys = ["2", this.key, `${dead}:dead`];
    const bury = ["EVAL", BURY, ...keys, this.group, entry, reason];
    this.link.ask(this.action, bury).catch(() => {}); // it comes again
  }

  protected letGo(entry: string): void {
    this.#hold([entry], FOREVER);
  }

  #create(start: string): string[] {
    return ["XGROUP", "CREATE", this.key, this.group, start, "MKSTREAM"];
  }

  async #takeOver(count: number): Promise<[Entry, number][]> {
    const { leaseTime } = this.link.options;
    const times = [leaseTime, count, leaseTime * FORGOTTEN].map(String);
    const who = [this.group, this.#me];
    const [deleted, ...taken] = await this.run(
      ["EVAL", TAKE_OVER, "1", this.key, ...who, ...times],
    ) as [unknown, ...[string, string[], unknown][]];
    if (Number(deleted) > 0) {
      this.gap("the server has cut what was being handled", Number(deleted));
    }
    const entries = listed(taken);
    const held = new Set([...this.inHand].map(({ entry }) => entry));
    return taken
      .map(([, , times], i): [Entry, number] => [entries[i], Number(times)])
      .filter(([[entry]]) => !held.has(entry)); // was late to be renewed
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
    const all = [...this.inHand].map(({ entry }) => entry);
    for (let i = 0; i < all.length; i += MOST) {
      await this.#hold(all.slice(i, i + MOST), "0");
    }
  }

  /** Tells the server for how long we have been silent about entries; if it does not hear, they go to others. */
  async #hold(entries: string[], silent: string): Promise<void> {
    const args = [this.key, this.group, this.#me, silent, ...entries];
    await this.link.ask(this.action, ["EVAL", RENEW, "1", ...args])
      .catch(() => {});
  }
}

/** The reply of LOOK or READ; some clients give numbers as text. */
function counted(
  reply: unknown,
): [added: number, length: number, last: string, entries: unknown] {
  const [added, length, last, entries] = reply as unknown[];
  return [Number(added), Number(length), String(last), entries];
}

function isBusy(error: unknown): boolean {
  return says(error, /\bBUSYGROUP\b/);
}

function ignoreBusy(error: unknown): void {
  if (!isBusy(error)) throw error;
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
  for (const [name, count] of Object.entries({ ...counts, leaseTime })) {
    checkCount(action, name, count, 1);
  }
  if (leaseTime === Infinity) {
    throw new RangeError(invalid(action, "leaseTime", "finite", leaseTime));
  }
  return { prefix, ...counts, leaseTime };
}
