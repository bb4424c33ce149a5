/**
 * A durable queue on Redis Streams, for processes that share their work.
 *
 * ```ts ignore
 * import { RedisQueue } from "@sauce/queues/redis";
 * import { createClient } from "redis"; // or ioredis, or iovalkey
 *
 * const client = await createClient().on("error", console.error).connect();
 * const orders = new RedisQueue<{ dish: string }>(client, "orders");
 *
 * // Front of house, in one process:
 * await orders.send({ dish: "soup" });
 *
 * // The kitchen, in another one, or in many:
 * for await (using lease of orders) {
 *   await cook(lease.value.dish);
 *   await lease.done(); // an order that is left without goes back to the queue
 * }
 * ```
 *
 * Values are delivered **at least once**: one whose holder dies, or whose answer
 * is lost, comes again. Make handlers idempotent; `lease.id` stays the same.
 * `docs/distributed.md` says what the server must be configured for.
 *
 * @module
 */

import {
  checkCount,
  checkFunction,
  checkObject,
  checkString,
  describe,
  invalid,
} from "./_errors.ts";
import { hasAborted } from "./_line.ts";
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
  isFinal,
  isNoGroup,
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
import {
  Queue,
  QueueClosedError,
  QueueFullError,
  type WaitOptions,
} from "./queue.ts";

export { RedisError } from "./_redis.ts";
export { redisLink, type RedisLinkOptions } from "./_redis_link.ts";
export type { IoRedisClient, NodeRedisClient, RedisClient } from "./_redis.ts";

/** How the way to the server stands. */
export interface RedisState {
  /**
   * - `"up"`: it can be reached.
   * - `"down"`: it cannot; what waits goes on once it can.
   * - `"gap"`: something may have been lost: the server has forgotten what it
   *   knew, or somebody has cut what was pending.
   */
  readonly state: "up" | "down" | "gap";
  /** Why. */
  readonly reason?: string;
  /** How many values are lost, where that is known. */
  readonly lost?: number;
}

/** Options for a {@linkcode RedisQueue}. */
export interface RedisQueueOptions<T> {
  /**
   * How many values the queue may hold, those that are being handled as well;
   * further ones are refused. An integer from 1, or `Infinity`.
   *
   * @default {100_000}
   */
  capacity?: number;
  /**
   * How long a holder may be silent before its values go to others, in ms. An
   * integer from 1 to 2,147,483,647. Leases are renewed three times as often, as long as their
   * holder's thread is not blocked.
   *
   * @default {30_000}
   */
  leaseTime?: number;
  /**
   * How often a value is delivered at most, before it goes to the dead letters
   * instead. An integer from 1, or `Infinity`.
   *
   * @default {5}
   */
  maxDeliveries?: number;
  /**
   * How many dead letters are kept; the oldest are dropped, and counted. An
   * integer from 1, or `Infinity`.
   *
   * @default {10_000}
   */
  maxDeadLetters?: number;
  /**
   * How many values may be on their way to the server, unanswered; further ones
   * are refused. An integer from 1, or `Infinity`.
   *
   * @default {10_000}
   */
  maxWaiting?: number;
  /**
   * How long the server may be out of reach, in ms, before those who wait for
   * it are refused; so long an answer is waited for, too. An integer from 1, or
   * `Infinity`.
   *
   * @default {10_000}
   */
  timeout?: number;
  /**
   * Makes a text of a value. What it throws refuses the value.
   *
   * @default JSON, an empty text for `undefined`, and `NaN` and `Infinity` as
   * they are; bytes, which JSON would make another thing of, are refused
   */
  encode?: (value: T) => string;
  /**
   * Makes a value of a text, and can refuse it by throwing: then it goes to the
   * dead letters.
   *
   * @default the reverse of `encode`'s default
   */
  decode?: (text: string) => T;
  /** Called with each value that goes to the dead letters; what it throws is reported, not thrown. */
  onDeadLetter?: (letter: DeadLetter<T>) => void;
  /**
   * Called when the way to the server changes, as far as receivers notice: who
   * only sends is told by what `send` rejects with. What it throws is reported,
   * not thrown.
   */
  onState?: (state: RedisState) => void;
}

/** A value that will not be delivered again. */
export interface DeadLetter<T> {
  /** The same as its {@linkcode Lease.id}; of an entry that somebody else has made, its id in the stream. */
  readonly id: string;
  /** Its id in the stream of dead letters. */
  readonly entry: string;
  /** Why it is here. */
  readonly reason: string;
  /** How often it has been delivered. */
  readonly deliveries: number;
  /** When it came here, in ms since the epoch. */
  readonly time: number;
  /** What was sent; there is no such property if that cannot be read. */
  readonly value?: T;
  /** What was sent, as it is stored; empty if there is nothing. */
  readonly text: string;
}

// Where a value is: in the stream, as an entry, from `send` to `done`. What has
// become of the entry, the server's consumer group knows:
//
//   send ──▶ waiting ──receive──▶ pending ──done──▶ deleted
//               ▲                    │ holder: this process, or another one
//               └──given back, as ───┤
//                  a new entry       └──too often, or unreadable──▶ dead letters
//
// An entry that goes back gets to the end of the stream, and with it the count
// of its deliveries: only so does another process that waits get it at once.
// One whose holder is silent stays where it is and changes its holder.
//
// Each step of an entry is one script: it happens as a whole or not at all, and
// once only, however often a client repeats it; but for the first: what a client
// sends twice is there twice.

const GROUP = "queue";

/** KEYS: stream. ARGV: capacity, then an id and a text for each. Returns how many had room. */
const SEND = `
local room = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[1])
local sent = 0
for i = 2, #ARGV, 2 do
  if sent >= room then break end
  redis.call('XADD', KEYS[1], '*', 'id', ARGV[i], 'text', ARGV[i + 1])
  sent = sent + 1
end
return sent`;

/** KEYS: stream. ARGV: group, entries. Returns for each whether it was still there. */
// Whoever holds it by now: the work is done.
const DONE = `
local done = {}
for i = 2, #ARGV do
  local acked = redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
  done[i - 1] = math.max(acked, redis.call('XDEL', KEYS[1], ARGV[i]))
end
return done`;

/**
 * KEYS: stream, dead letters. ARGV: group, consumer, how many dead letters are
 * kept; then for each an entry, and "": back into the queue, "uncounted": back,
 * as if it had not been delivered this time, or why it is dead. Returns how many dead
 * letters were dropped, then for each where it is now, or "" if it was no longer ours.
 */
const GIVE_BACK = `
local moved = {0}
for i = 4, #ARGV, 2 do
  local id, reason = ARGV[i], ARGV[i + 1]
  local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  local to = ''
  if pending and pending[2] == ARGV[2] then
    local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
    if entry then
      local fields, before, named = {}, 0, false
      for f = 1, #entry[2], 2 do
        local name, value = entry[2][f], entry[2][f + 1]
        if name == 'deliveries' then
          before = math.min(math.max(0, tonumber(value) or 0), 1e9)
        elseif name ~= 'reason' and #fields < 1000 then -- not too many to unpack
          fields[#fields + 1] = name
          fields[#fields + 1] = value
          named = named or name == 'id'
        end
      end
      if not named then
        fields[#fields + 1] = 'id'
        fields[#fields + 1] = id
      end
      local uncounted = reason == 'uncounted' and 1 or 0
      fields[#fields + 1] = 'deliveries'
      fields[#fields + 1] = string.format('%d', before + pending[4] - uncounted)
      if reason == '' or reason == 'uncounted' then
        to = redis.call('XADD', KEYS[1], '*', unpack(fields))
      else
        fields[#fields + 1] = 'reason'
        fields[#fields + 1] = reason
        to = redis.call('XADD', KEYS[2], '*', unpack(fields))
      end
    end
    redis.call('XACK', KEYS[1], ARGV[1], id) -- last: nothing is lost if the server is out of memory
    redis.call('XDEL', KEYS[1], id)
  end
  moved[#moved + 1] = to
end
moved[1] = redis.call('XTRIM', KEYS[2], 'MAXLEN', ARGV[3])
return moved`;

/** KEYS: stream, dead letters. ARGV: a dead letter. Returns whether it was there. */
const REVIVE = `
local entry = redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1])[1]
if not entry then return 0 end
local fields = {}
for f = 1, #entry[2], 2 do
  if entry[2][f] ~= 'deliveries' and entry[2][f] ~= 'reason' then
    fields[#fields + 1] = entry[2][f]
    fields[#fields + 1] = entry[2][f + 1]
  end
end
redis.call('XADD', KEYS[1], '*', unpack(fields))
return redis.call('XDEL', KEYS[2], ARGV[1])`;

/** KEYS: stream. ARGV: group. Returns how many entries wait, and how many are pending. */
const COUNT = `
local length = redis.call('XLEN', KEYS[1])
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1])
pending = pending.err and 0 or pending[1]
return {math.max(0, length - pending), pending}`;

/**
 * A queue of values in Redis, for any number of processes: each value goes to one
 * receiver, and stays in the queue until that one says that it is done.
 *
 * - **At least once:** a value that `send` resolved for is delivered until one
 *   receiver is done with it, or it has been delivered too often; then it is a
 *   dead letter. It may be delivered again although it was done, if the answer
 *   to that got lost, or its holder was silent for longer than `leaseTime`.
 * - **Durable:** as far as the server is: see `docs/distributed.md`.
 * - **Order:** values come out in the order in which they came in; one that comes
 *   again comes later.
 * - **Nothing ahead:** no more values are fetched than receivers wait for.
 * - **Bounded:** by `capacity` on the server, which never cuts what is in the
 *   queue, and by `maxWaiting` on the way there.
 * - **Connections:** commands go through the client that was given, reads that
 *   wait through a duplicate of it, made by the first `receive`. The client is
 *   the caller's, to be closed after the queue.
 * - **Closing:** ends this object, not the queue in Redis, which is there as
 *   long as its key.
 *
 * There is no `trySend` or `tryReceive`: both would have to wait for the server.
 * Nor is there `batches`: a loop over {@linkcode RedisQueue.receiveMany} is that.
 */
export class RedisQueue<T> implements AsyncIterable<Lease<T>>, AsyncDisposable {
  /** The key of the stream in Redis. */
  readonly name: string;
  readonly #client: RedisClient;
  readonly #send: Send;
  readonly #options: Required<RedisQueueOptions<T>>;
  readonly #dead: string;
  readonly #patience: Patience;
  readonly #outbox: Batcher<Outgoing<T>, boolean>;
  readonly #finished: Batcher<string, boolean>;
  readonly #returned: Batcher<[entry: string, reason: string], string>;
  #inbox = new Inbox<T>(); // another one once all who wait here are refused
  #reading: Promise<void> | undefined; // while somebody waits
  #connection: Dedicated | undefined;
  #blocked = false; // in a read that waits
  #awaken: () => void = () => {}; // ends a pause
  #takeOverAt = 0;
  #hasJoined = false; // the consumer group, at some time
  #state: "up" | "down" = "up";
  readonly #held = new Map<string, Held<T>>(); // by entry
  #renewing: ReturnType<typeof setInterval> | undefined; // while any is held
  #isRenewing = false;
  #me = ""; // as a consumer
  #sent = 0;
  #dropped = 0;
  #closing: Promise<void> | undefined;

  /**
   * Makes a queue. No command is sent before the first call of a method.
   *
   * @param client The caller's client: of node-redis (connected, or about to
   * be), ioredis or iovalkey, without a `keyPrefix`, and of one server.
   * @param name The key of the queue's stream. Dead letters are under
   * `{name}:dead`.
   * @throws {TypeError} If something has the wrong type.
   * @throws {RangeError} If an option is out of range.
   */
  constructor(
    client: RedisClient,
    name: string,
    options: RedisQueueOptions<T> = {},
  ) {
    const action = "create queue";
    this.#send = sender(action, client);
    checkString(action, "name", name);
    this.#client = client;
    this.name = name;
    this.#options = checked(action, options);
    // The same slot, should the server ever be a cluster.
    this.#dead = name.includes("{") ? `${name}:dead` : `{${name}}:dead`;
    const { maxWaiting, capacity, maxDeadLetters, timeout } = this.#options;
    this.#patience = new Patience(timeout);
    this.#outbox = new Batcher(maxWaiting, async (values) => {
      const args = values.flatMap(({ id, text }) => [id, text]);
      const all = [countable(capacity), ...args];
      const sent = await this.#script("send to", SEND, all);
      return values.map((_, i) => i < Number(sent));
    });
    this.#finished = new Batcher(Infinity, async (entries) => {
      const done = await this.#script("end a lease of", DONE, [
        GROUP,
        ...entries,
      ]);
      return (done as unknown[]).map((count) => Number(count) > 0);
    });
    this.#returned = new Batcher(Infinity, async (moves) => {
      const kept = countable(maxDeadLetters);
      const [dropped, ...to] = await this.#script(
        "give back to",
        GIVE_BACK,
        [GROUP, this.#me, kept, ...moves.flat()],
      ) as unknown[];
      this.#dropped += Number(dropped);
      return to.map(String);
    });
  }

  /** Whether {@linkcode RedisQueue.close} has been called. */
  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /** How many values this object has received that are neither done nor given back. */
  get held(): number {
    return this.#held.size;
  }

  /** How many dead letters this object has seen dropped, since the start, because there were too many. */
  get dropped(): number {
    return this.#dropped;
  }

  /**
   * Sends a value. Resolves once the server has it.
   *
   * **Cancellation:** a value that has not left yet is not sent. One that has
   * may be in the queue nevertheless, as after a {@linkcode RedisError}: the
   * server may have got it, and not its answer through.
   *
   * @throws {QueueClosedError} If this object is, or becomes, closed.
   * @throws {QueueFullError} If the queue is full, or too many values are on
   * their way.
   * @throws {RedisError} If the server cannot be reached, does not answer in
   * time, or refuses.
   * @throws What `encode` throws; by default a `TypeError` if JSON has no such value.
   */
  async send(value: T, options?: WaitOptions): Promise<void> {
    const signal = options?.signal;
    if (signal !== undefined && hasAborted(signal)) throw signal.reason;
    if (this.closed) throw this.#unsent(value);
    const text = this.#options.encode(value);
    checkString(this.#to("send to"), "what encode returns", text);
    const id = `${this.#identify()}-${(this.#sent++).toString(36)}`;
    const stored = this.#outbox.add({ id, text, value }, signal);
    if (stored === undefined) {
      throw this.#full(value, `${this.#options.maxWaiting} are on their way`);
    }
    if (await stored) return;
    throw this.#full(value, `it holds ${this.#options.capacity}`);
  }

  /**
   * Receives the next value, as a lease; waits until there is one.
   *
   * **Cancellation:** no value is taken. One that is on its way goes back.
   *
   * @throws {QueueClosedError} If this object is, or becomes, closed.
   * @throws {RedisError} If the server has been out of reach for longer than
   * `timeout`, or refuses.
   */
  async receive(options?: WaitOptions): Promise<Lease<T>> {
    const signal = options?.signal;
    if (signal !== undefined && hasAborted(signal)) throw signal.reason;
    const inbox = this.#inbox;
    return await this.#await(inbox, inbox.queue.receive(options));
  }

  /**
   * Receives up to `max` values, and no more than 256, each as a lease: waits for
   * one, then takes what else is there. For work that is cheaper for many at once.
   * Each lease is to be ended, one by one: see {@linkcode Lease}.
   *
   * **Cancellation:** no value is taken. Once one has come, `signal` ends nothing.
   *
   * @param max How many at most, an integer from 1.
   * @throws {QueueClosedError} If this object is, or becomes, closed.
   * @throws {RedisError} If the server has been out of reach for longer than
   * `timeout`, or refuses.
   */
  async receiveMany(max: number, options?: WaitOptions): Promise<Lease<T>[]> {
    checkCount(this.#to("receive from"), "max", max, 1);
    const leases = [await this.receive(options)];
    const more = Math.min(max, MOST) - 1;
    if (more === 0) return leases;
    try {
      const read = this.#readGroup(more);
      const entries = entriesIn(await this.#ask("receive from", read));
      if (this.closed) return leases; // it has given all of them back
      for (const [entry, fields] of entries) {
        const lease = this.#lease(entry, fields, 1);
        if (lease === undefined) continue;
        this.#hold(entry, lease);
        leases.push(lease);
      }
    } catch {
      // One is there; what got lost comes again when its time is over.
    }
    return leases;
  }

  /**
   * Iterates over leases as values come. Ends when this object is closed;
   * leaving the loop leaves it open. `for await (using lease of …)` gives each
   * back that is left without `done()`.
   *
   * **Cancellation:** the loop throws `signal.reason`; no value is taken.
   *
   * @throws {TypeError} If an option has the wrong type.
   */
  values(options?: WaitOptions): AsyncIterableIterator<Lease<T>> {
    if (options?.signal !== undefined) hasAborted(options.signal);
    return new Leases(() => {
      const inbox = this.#inbox;
      const reader = inbox.queue.values(options);
      return { reader, step: this.#await(inbox, reader.next()) };
    });
  }

  /** Iterates over leases, as {@linkcode RedisQueue.values} does. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Lease<T>> {
    return this.values();
  }

  /**
   * How many values wait to be received, by the server's count.
   *
   * @throws {RedisError} If the server cannot be reached, or refuses.
   */
  async size(): Promise<number> {
    const [waiting] = await this.#count();
    return waiting;
  }

  /**
   * How many values are being handled, by anybody, by the server's count.
   *
   * @throws {RedisError} If the server cannot be reached, or refuses.
   */
  async pending(): Promise<number> {
    const [, pending] = await this.#count();
    return pending;
  }

  /**
   * The oldest dead letters.
   *
   * @param max How many at most, an integer from 1.
   * @throws {RedisError} If the server cannot be reached, or refuses.
   */
  async deadLetters(max = 100): Promise<DeadLetter<T>[]> {
    checkCount("read dead letters", "max", max, 1);
    const range = ["XRANGE", this.#dead, "-", "+", "COUNT", countable(max)];
    const found = await this.#ask("read dead letters of", range);
    return listed(found).map(([entry, fields]) =>
      this.#letter(
        entry,
        fields,
        deliveriesIn(fields),
        fields.get("reason") ?? "",
      )
    );
  }

  /**
   * Puts a dead letter back into the queue, even if that is full, as if it had
   * just been sent, with the same id.
   *
   * @returns Whether it was still there.
   * @throws {RedisError} If the server cannot be reached, or refuses.
   */
  async revive(letter: DeadLetter<T>): Promise<boolean> {
    const revived = this.#script("revive a letter of", REVIVE, [letter.entry]);
    return Number(await revived) > 0;
  }

  /**
   * Ends this object: who waits here is refused, and values that are still held
   * go back to the queue. Resolves once that has happened, or the server has been
   * silent for too long, for `timeout` or ten seconds at each of a few steps: then
   * they go to others when their time is over. It never rejects. Close the client
   * after it.
   */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  /** Closes it, as {@linkcode RedisQueue.close} does. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#inbox.queue.close();
    this.#outbox.refuse(({ value }) => this.#unsent(value));
    this.#awaken();
    this.#unblock();
    const limit = grace(this.#options.timeout);
    this.#patience.lower(limit); // whoever waits for the server, too
    const quietly = (end: Promise<unknown> | undefined) =>
      within(limit, Promise.resolve(end)).catch(() => {});
    await quietly(this.#reading);
    this.#connection?.close(); // ends a read that has not ended
    await quietly(
      Promise.all([this.#outbox.settled(), this.#finished.settled()]),
    );
    const held = [...this.#held.values()];
    for (const lease of held) this.#lose(lease, "its queue has been closed");
    // With nothing at stake, a server that is out of reach is not waited for.
    if (this.#hasJoined && (held.length > 0 || this.#state === "up")) {
      await quietly(this.#leave());
    }
  }

  /** Gives back all that the server counts as ours: what is held, and what was lost on its way here. */
  async #leave(): Promise<void> {
    const ours = ["XPENDING", this.name, GROUP, "-", "+", `${MOST}`, this.#me];
    try {
      for (;;) {
        const pending = await this.#ask("close", ours) as [string][];
        if (pending.length === 0) return;
        await Promise.all(
          pending.map(([entry]) => this.#returned.add([entry, ""])),
        );
      }
    } catch {
      // They go to others when their time is over.
    }
  }

  #to(verb: string): string {
    return `${verb} queue ${JSON.stringify(this.name)}`;
  }

  #unsent(value: T): QueueClosedError {
    return new QueueClosedError(
      `Cannot ${
        this.#to("send to")
      }: it is closed; the value is in this error's \`value\``,
      { value },
    );
  }

  #full(value: T, why: string): QueueFullError {
    return new QueueFullError(
      `Cannot ${
        this.#to("send to")
      }: ${why} values, as many as it may; the value is in this error's \`value\``,
      { value },
    );
  }

  /** Who this is, for the server. */
  #identify(): string {
    return this.#me ||= randomId();
  }

  /** Sends a command; `verb` says in an error what could not be done. */
  async #ask(verb: string, command: string[]): Promise<unknown> {
    try {
      return await this.#patience.wait(this.#send(command));
    } catch (error) {
      throw failed(this.#to(verb), error);
    }
  }

  #script(verb: string, script: string, args: string[]): Promise<unknown> {
    const keys = ["2", this.name, this.#dead];
    return this.#ask(verb, ["EVAL", script, ...keys, ...args]);
  }

  async #count(): Promise<[waiting: number, pending: number]> {
    const counts = await this.#script("count", COUNT, [GROUP]);
    const [waiting, pending] = counts as unknown[];
    return [Number(waiting), Number(pending)];
  }

  /** Somebody waits for `step`, which takes a value, or is told of the end. */
  async #await<Step extends Lease<T> | IteratorResult<Lease<T>>>(
    inbox: Inbox<T>,
    step: Promise<Step>,
  ): Promise<Step> {
    inbox.wanted++;
    this.#reading ??= this.#read();
    try {
      const taken = await step;
      if ("done" in taken && taken.done === true) this.#leaves(inbox);
      return taken;
    } catch (error) {
      this.#leaves(inbox);
      throw error;
    }
  }

  /** Somebody who waited has gone without a value. */
  #leaves(inbox: Inbox<T>): void {
    if (--inbox.wanted > 0) return;
    this.#awaken();
    this.#unblock();
  }

  /** Ends a read that waits. */
  #unblock(): void {
    if (!this.#blocked) return;
    const unblock = ["CLIENT", "UNBLOCK", this.#connection!.id];
    this.#ask("close", unblock).catch(() => {}); // the read ends by itself
  }

  /** Hands values to those who wait, as long as there are any. */
  async #read(): Promise<void> {
    await null; // whoever asks in the same turn is counted by now
    let failures = 0;
    let since = 0;
    while (this.#inbox.wanted > 0 && !this.closed) {
      try {
        await this.#fetch();
        failures = 0;
      } catch (error) {
        this.#connection?.close();
        this.#connection = undefined;
        if (this.closed) break;
        if (failures++ === 0) since = performance.now();
        if (!isNoGroup(error)) this.#tell("down", describe(error));
        const patience = since + this.#options.timeout - performance.now();
        if (isFinal(error) || patience <= 0) this.#refuse(error);
        else await this.#pause(Math.min(backOff(failures), patience));
      }
    }
    this.#reading = undefined;
  }

  /** Hands over what there is, or waits a while for something. */
  async #fetch(): Promise<void> {
    const connection = this.#connection ??= await this.#connect();
    const { leaseTime, timeout } = this.#options;
    if (performance.now() >= this.#takeOverAt) {
      if (await this.#takeOver() > 0) return; // there may be more
      this.#takeOverAt = performance.now() + leaseTime / 2;
    }
    const most = this.#most;
    if (most === 0) return;
    const block = Math.min(BLOCK, Math.ceil(leaseTime / 2));
    const read = this.#readGroup(most, "BLOCK", `${block}`);
    this.#blocked = true;
    try {
      const limit = block + grace(timeout); // the server is silent for longer: it is dead
      const reply = await connection.run(read, limit);
      this.#tell("up");
      for (const entry of entriesIn(reply)) this.#deliver(entry, 1);
    } finally {
      this.#blocked = false;
    }
  }

  /** What reads up to so many entries that nobody has had yet. */
  #readGroup(most: number, ...block: string[]): string[] {
    const who = ["GROUP", GROUP, this.#me, "COUNT", `${most}`, ...block];
    return ["XREADGROUP", ...who, "STREAMS", this.name, ">"];
  }

  /** How many values to fetch at most. */
  get #most(): number {
    return Math.min(this.#inbox.wanted, MOST);
  }

  /** Takes over what silent holders have; returns for how many there was something to do. */
  async #takeOver(): Promise<number> {
    const [deleted, taken] = await takeOver(
      (script, args) => this.#script("receive from", script, args),
      [GROUP, this.#me],
      this.#options.leaseTime,
      this.#most,
      this.#held.keys(),
    );
    if (deleted > 0) {
      this.#gap("somebody has deleted what was being handled", deleted);
    }
    for (const [entry, times] of taken) this.#deliver(entry, times);
    return taken.length + deleted;
  }

  /** Connects, and sees to it that there is a group. */
  async #connect(): Promise<Dedicated> {
    const limit = grace(this.#options.timeout);
    const connection = await Dedicated.open(this.#client, limit);
    try {
      this.#identify();
      // From the first entry on: all that is in the stream is in the queue.
      const run: Send = (command) => connection.run(command, limit);
      const isNew = await createGroup(run, this.name, GROUP, "0");
      if (isNew && this.#hasJoined) {
        this.#gap("the server has forgotten the queue");
      }
      this.#hasJoined = true;
      if (this.closed) throw new RedisError("the queue has been closed");
      return connection;
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  /** Refuses all who wait for a value. */
  #refuse(error: unknown): void {
    const { queue } = this.#inbox;
    this.#inbox = new Inbox();
    queue.close(failed(this.#to("receive from"), error));
  }

  #gap(reason: string, lost?: number): void {
    const known = lost === undefined ? {} : { lost };
    tell(this.#options.onState, { state: "gap" as const, reason, ...known });
  }

  #tell(state: "up" | "down", reason?: string): void {
    if (state === this.#state) return;
    this.#state = state;
    const why = reason === undefined ? {} : { reason };
    tell(this.#options.onState, { state, ...why });
  }

  /** Waits so long, unless it is woken. */
  #pause(time: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, time);
      this.#awaken = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Hands an entry, delivered so many times since it was last given back, to one who waits. */
  #deliver([entry, fields]: Entry, times: number): void {
    const lease = this.#lease(entry, fields, times);
    if (lease === undefined) return;
    if (this.#inbox.queue.trySend(lease)) {
      this.#inbox.wanted--;
      this.#hold(entry, lease);
    } else this.#returned.add([entry, "uncounted"])!.catch(() => {}); // as below
  }

  /** A lease of an entry, unless that is for the dead letters. */
  #lease(
    entry: string,
    fields: Entry[1],
    times: number,
  ): Held<T> | undefined {
    const deliveries = times + deliveriesIn(fields);
    if (deliveries > this.#options.maxDeliveries) {
      const reason = `it has been delivered ${deliveries - 1} times`;
      return void this.#bury(entry, fields, deliveries - 1, reason);
    }
    let value: T;
    try {
      value = this.#valueIn(fields);
    } catch (error) {
      const reason = `it cannot be read: ${describe(error)}`;
      return void this.#bury(entry, fields, deliveries, reason);
    }
    const id = fields.get("id") ?? entry;
    const lease: Held<T> = new Held(value, id, deliveries, {
      done: () => this.#finished.add(entry)!,
      back: () => this.#giveBack(entry, fields, deliveries),
      end: () => this.#forget(entry, lease),
    });
    lease.until = performance.now() + this.#options.leaseTime;
    return lease;
  }

  /** Somebody here has it: it is renewed from now on. */
  #hold(entry: string, lease: Held<T>): void {
    this.#held.set(entry, lease);
    const { leaseTime } = this.#options;
    this.#renewing ??= setInterval(() => this.#renew(), leaseTime / 3);
  }

  async #giveBack(
    entry: string,
    fields: Entry[1],
    deliveries: number,
  ): Promise<void> {
    if (deliveries >= this.#options.maxDeliveries) {
      const reason = `it has been given back ${deliveries} times`;
      return await this.#bury(entry, fields, deliveries, reason);
    }
    try {
      await this.#returned.add([entry, ""]);
    } catch {
      // It goes to others when its time is over.
    }
  }

  async #bury(
    entry: string,
    fields: Entry[1],
    deliveries: number,
    reason: string,
  ): Promise<void> {
    try {
      const to = await this.#returned.add([entry, reason]);
      if (!to) return; // somebody else has it
      const id = fields.get("id") ?? entry;
      const named = new Map([...fields, ["id", id]]);
      const letter = this.#letter(to, named, deliveries, reason);
      tell(this.#options.onDeadLetter, letter);
    } catch {
      // It comes again when its time is over.
    }
  }

  #letter(
    entry: string,
    fields: Entry[1],
    deliveries: number,
    reason: string,
  ): DeadLetter<T> {
    const letter = {
      id: fields.get("id") ?? entry,
      entry,
      reason,
      deliveries,
      time: Number.parseInt(entry),
      text: fields.get("text") ?? "",
    };
    try {
      return { ...letter, value: this.#valueIn(fields) };
    } catch {
      return letter;
    }
  }

  #valueIn(fields: Entry[1]): T {
    const text = fields.get("text");
    if (text === undefined) throw new TypeError('it has no field "text"');
    return this.#options.decode(text);
  }

  #forget(entry: string, lease: Held<T>): void {
    if (this.#held.get(entry) !== lease) return; // it was lost, and has come again
    this.#held.delete(entry);
    if (this.#held.size > 0) return;
    clearInterval(this.#renewing);
    this.#renewing = undefined;
  }

  #lose(lease: Held<T>, why: string): void {
    lease.lose(
      new RedisError(`Cannot keep ${lease.id} of ${this.#to("the")}: ${why}`),
    );
  }

  /** Tells the server that we live. */
  async #renew(): Promise<void> {
    const all = [...this.#held];
    if (this.#isRenewing) {
      return this.#loseLate(all, "it was not renewed in time");
    }
    this.#isRenewing = true;
    for (let i = 0; i < all.length; i += MOST) {
      const some = all.slice(i, i + MOST);
      const since = performance.now();
      const entries = some.map(([entry]) => entry);
      try {
        const args = [GROUP, this.#me, "0", ...entries];
        const ours = await this.#script("renew leases of", RENEW, args);
        some.forEach(([, lease], i) => {
          if (Number((ours as unknown[])[i]) > 0) {
            lease.until = since + this.#options.leaseTime;
          } else this.#lose(lease, "it has gone to somebody else, or is gone");
        });
      } catch (error) {
        this.#loseLate(some, `it could not be renewed: ${describe(error)}`);
      }
    }
    this.#isRenewing = false;
  }

  /** Others may have what was not renewed in time. */
  #loseLate(some: [string, Held<T>][], why: string): void {
    for (const [, lease] of some) {
      if (lease.until <= performance.now()) this.#lose(lease, why);
    }
  }
}

/** Who waits for values, and how many they are. */
class Inbox<T> {
  readonly queue: Queue<Lease<T>> = new Queue();
  wanted = 0;
}

/** What is to be sent. */
interface Outgoing<T> {
  readonly id: string;
  readonly text: string;
  readonly value: T;
}

/**
 * A value that is this receiver's, until it is done or given back, or the
 * receiver's process has been silent for too long.
 *
 * Left without `done()`, at the end of its `using` block, it goes back to the
 * queue, and to the next receiver anywhere.
 */
export interface Lease<T> extends Disposable, AsyncDisposable {
  /** What was sent. */
  readonly value: T;
  /** Which value: the same each time it is delivered, unique across processes. To recognise repeats. */
  readonly id: string;
  /** How often it has been delivered, with this time: 1 at first. */
  readonly deliveries: number;
  /**
   * Aborts if the value may be somebody else's before it is done: this process
   * was silent for too long, or its queue has been closed.
   */
  readonly signal: AbortSignal;
  /**
   * Takes the value out of the queue, for good. Resolves once the server has done
   * so, with whether the value was still there: if not, it has been done
   * before, or given back, and may be handled twice.
   *
   * @throws {RedisError} If the server cannot be reached, does not answer in
   * time, or refuses: then the value may be delivered again. May be called again.
   */
  done(): Promise<boolean>;
  /** Gives the value back, unless it is done. */
  [Symbol.dispose](): void;
  /** Gives the value back, unless it is done, and waits until the server has it. Never rejects. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** What a lease can do. */
interface Holder {
  done(): Promise<boolean>;
  back(): Promise<void>;
  end(): void;
}

class Held<T> implements Lease<T> {
  readonly value: T;
  readonly id: string;
  readonly deliveries: number;
  /** When it is over, unless it is renewed before. */
  until = 0;
  readonly #holder: Holder;
  #aborting: AbortController | undefined; // made when first looked at
  #lost: RedisError | undefined;
  #ending: Promise<boolean> | undefined;
  #leaving: Promise<void> | undefined;

  constructor(value: T, id: string, deliveries: number, holder: Holder) {
    this.value = value;
    this.id = id;
    this.deliveries = deliveries;
    this.#holder = holder;
  }

  get signal(): AbortSignal {
    if (this.#aborting === undefined) {
      this.#aborting = new AbortController();
      if (this.#lost !== undefined) this.#aborting.abort(this.#lost);
    }
    return this.#aborting.signal;
  }

  done(): Promise<boolean> {
    return this.#ending ??= this.#end();
  }

  async #end(): Promise<boolean> {
    try {
      const was = await this.#holder.done();
      this.#holder.end();
      return was;
    } catch (error) {
      this.#ending = undefined;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#leaving ??= this.#leave();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#leaving ??= this.#leave();
  }

  async #leave(): Promise<void> {
    if (this.#ending !== undefined) {
      const done = await this.#ending.then(() => true, () => false);
      if (done) return;
    }
    this.#holder.end();
    if (this.#lost === undefined) await this.#holder.back();
  }

  /** It may be somebody else's now. */
  lose(reason: RedisError): void {
    this.#holder.end();
    this.#lost = reason;
    this.#aborting?.abort(reason);
  }
}

/** The iterator of `values`. */
class Leases<T> implements AsyncIterableIterator<Lease<T>> {
  readonly #next: () => Parked<T>;
  readonly #parked = new Set<Parked<T>>();
  #ended = false;

  constructor(next: () => Parked<T>) {
    this.#next = next;
  }

  async next(): Promise<IteratorResult<Lease<T>>> {
    if (this.#ended) return { value: undefined, done: true };
    const parked = this.#next();
    this.#parked.add(parked);
    try {
      const step = await parked.step;
      if (step.done) this.#ended = true;
      return step;
    } catch (error) {
      this.#ended = true;
      throw error;
    } finally {
      this.#parked.delete(parked);
    }
  }

  async return(value?: unknown): Promise<IteratorResult<Lease<T>>> {
    this.#ended = true;
    for (const { reader } of this.#parked) reader.return!();
    return { value: await value, done: true };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/** A call of `next` that waits. */
interface Parked<T> {
  readonly reader: AsyncIterator<Lease<T>>;
  readonly step: Promise<IteratorResult<Lease<T>>>;
}

/** How often an entry had been delivered before it was last given back. */
function deliveriesIn(fields: Entry[1]): number {
  const before = Number(fields.get("deliveries"));
  return Number.isSafeInteger(before) && before > 0 ? before : 0;
}

/** As a count in a command. */
function countable(count: number): string {
  return String(Math.min(count, Number.MAX_SAFE_INTEGER));
}

function encodeJson(value: unknown): string {
  if (value === undefined) return "";
  if (typeof value === "number") {
    return Object.is(value, -0) ? "-0" : `${value}`;
  }
  const isBytes = ArrayBuffer.isView(value) || value instanceof ArrayBuffer;
  const text = isBytes ? undefined : JSON.stringify(value);
  if (text !== undefined) return text;
  throw new TypeError(invalid("send", "the value", "one that JSON has", value));
}

function decodeJson(text: string): unknown {
  if (/^-?(NaN|Infinity)$/.test(text)) return Number(text);
  return text === "" ? undefined : JSON.parse(text);
}

/** The options with their defaults. */
function checked<T>(
  action: string,
  options: RedisQueueOptions<T>,
): Required<RedisQueueOptions<T>> {
  checkObject(action, "options", options);
  const {
    capacity = 100_000,
    leaseTime = 30_000,
    maxDeliveries = 5,
    maxDeadLetters = 10_000,
    maxWaiting = 10_000,
    timeout = 10_000,
    encode = encodeJson,
    decode = decodeJson as (text: string) => T,
    onDeadLetter = () => {},
    onState = () => {},
  } = options;
  const counts = { capacity, maxDeliveries, maxDeadLetters, maxWaiting };
  for (const [name, count] of Object.entries({ ...counts, timeout })) {
    checkCount(action, name, count, 1);
  }
  checkLeaseTime(action, leaseTime);
  const functions = { encode, decode, onDeadLetter, onState };
  for (const [name, found] of Object.entries(functions)) {
    checkFunction(action, name, found);
  }
  return { ...counts, leaseTime, timeout, ...functions };
}
