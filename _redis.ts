/**
 * Redis by the client that the caller has: commands, a connection of one's own
 * for reads that wait, and replies in whichever shape a client gives them.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

import { checkCount, describe, invalid, report } from "./_errors.ts";
import { Line, List, type Owner, Waiter } from "./_line.ts";
import { after } from "./_timers.ts";

/** A client as node-redis has it. */
export interface NodeRedisClient {
  /** Whether it has been told to connect, and not to close. */
  readonly isOpen: boolean;
  /** Whether it is connected. */
  readonly isReady: boolean;
  /** Sends a command. */
  sendCommand(command: string[]): Promise<unknown>;
  /** Makes a client with the same options, but for those that are given; not connected. */
  duplicate(options?: object): unknown;
}

/** A client as ioredis and iovalkey have it. */
export interface IoRedisClient {
  /** How its connection stands. */
  readonly status: string;
  /** How it was made; a `keyPrefix` is refused, a name can begin with it. */
  readonly options?: { readonly keyPrefix?: string };
  /** Sends a command. */
  call(command: string, ...args: string[]): Promise<unknown>;
  /** Makes a client with the same options, but for those that are given. */
  duplicate(options?: object): unknown;
}

/** A client of node-redis 5 or later, ioredis 5 or later, or iovalkey; told by its shape. */
export type RedisClient = NodeRedisClient | IoRedisClient;

/** Thrown when Redis cannot be reached, does not answer in time, or refuses a command; the client's own error is its `cause`. */
export class RedisError extends Error {
  /** Takes a `cause`, like any error. */
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "RedisError";
  }
}

/** Sends a command. */
export type Send = (command: string[]) => Promise<unknown>;

/** The longest lease, in ms: as long as a timer can run. */
const LONGEST = 2_147_483_647;

/** How long the server keeps a read waiting, in ms: finite, so that silence means that the connection is dead. */
export const BLOCK = 2000;

/** How to send commands by `client`. */
export function sender(action: string, client: RedisClient): Send {
  const { call, sendCommand, duplicate, isReady, isCluster } = Object(client);
  if (typeof duplicate === "function" && isCluster !== true) {
    if (typeof call === "function") {
      const { keyPrefix = "" } = Object((client as IoRedisClient).options);
      // It would be put before some keys and not before others: each version knows other commands.
      if (keyPrefix !== "") {
        throw new TypeError(
          invalid(action, "the client's keyPrefix", "none", keyPrefix),
        );
      }
      const redis = client as IoRedisClient;
      return ([name, ...args]) => redis.call(name, ...args);
    }
    // Those of a cluster and of a sentinel take more than a command.
    const isOne = typeof sendCommand === "function" && sendCommand.length <= 2;
    if (isOne && typeof isReady === "boolean") {
      const redis = client as NodeRedisClient;
      return (command) => redis.sendCommand(command);
    }
  }
  throw new TypeError(
    invalid(
      action,
      "client",
      "a client of node-redis, ioredis or iovalkey, of one server",
      client,
    ),
  );
}

/** Settles as `reply` does, or rejects after `limit` ms without one. */
export function within<R>(
  limit: number,
  reply: PromiseLike<R>,
): Promise<R> {
  return new Patience(limit).wait(reply);
}

/** How long replies are waited for; it can become less. */
export class Patience {
  #limit: number;
  readonly #waits = new Set<() => void>(); // each begins anew

  /** Waits up to `limit` ms for each. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Settles as `reply` does, or rejects if there is none in time. */
  wait<R>(reply: PromiseLike<R>): Promise<R> {
    return new Promise((resolve, reject) => {
      let stop = () => {};
      const end = () => {
        stop();
        this.#waits.delete(begin);
      };
      const begin = () => {
        stop();
        const limit = this.#limit;
        stop = after(limit, () => {
          end();
          reject(new RedisError(`no answer in ${limit} ms`));
        });
      };
      begin();
      this.#waits.add(begin);
      reply.then(
        (value) => (end(), resolve(value)),
        (error) => (end(), reject(error)),
      );
    });
  }

  /** Waits up to `limit` ms from now on, also for what is waited for already, unless it is less. */
  lower(limit: number): void {
    if (limit >= this.#limit) return;
    this.#limit = limit;
    for (const begin of this.#waits) begin();
  }
}

/** A client of our own, of either kind. */
interface Duplicate {
  on(event: "error", listener: (error: unknown) => void): unknown;
  connect?(): Promise<unknown>;
  destroy?(): void;
  disconnect(): void;
}

/** What a duplicate of ioredis does in another way than the caller's client: nothing that ends a read which waits, or repeats it. */
const IOREDIS_OPTIONS = {
  lazyConnect: false,
  enableOfflineQueue: true,
  enableAutoPipelining: false,
  retryStrategy: null, // whoever reads connects anew
  maxRetriesPerRequest: null,
  commandTimeout: undefined,
  socketTimeout: undefined,
};

/** The same for one of node-redis. */
function nodeRedisOptions(client: NodeRedisClient): object | undefined {
  const { options } = client as { options?: { socket?: object } };
  const socket = options?.socket;
  return socket && { socket: { ...socket, socketTimeout: undefined } };
}

/**
 * A connection for reads that wait, which hold up all that comes after them. It
 * lasts until the first error: a new one is cheap, and no client's ideas of how
 * to go on after one have to be known.
 */
export class Dedicated {
  readonly #client: Duplicate & RedisClient;
  readonly #send: Send;
  #broken: RedisError | undefined;
  #reject: (error: unknown) => void = () => {}; // whoever waits for a reply
  #id = "";

  /** Connects, within `limit` ms. */
  static async open(client: RedisClient, limit: number): Promise<Dedicated> {
    const connection = new Dedicated(client);
    try {
      const { connect } = connection.#client;
      if (connect !== undefined && !isIoRedis(client)) {
        await connection.#settled(limit, connect.call(connection.#client));
      }
      connection.#id = String(await connection.run(["CLIENT", "ID"], limit));
      return connection;
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  private constructor(client: RedisClient) {
    const options = isIoRedis(client)
      ? IOREDIS_OPTIONS
      : nodeRedisOptions(client);
    this.#client = client.duplicate(options) as Duplicate & RedisClient;
    this.#client.on("error", (error) => this.#break(error));
    this.#send = sender("connect", this.#client);
  }

  /** By which the server knows it. */
  get id(): string {
    return this.#id;
  }

  /** Sends a command, one at a time, and waits up to `limit` ms for the reply. */
  run(command: string[], limit: number): Promise<unknown> {
    return this.#settled(limit, this.#send(command));
  }

  /** Closes it; a read that waits is rejected. */
  close(): void {
    this.#break(undefined);
    try {
      if (this.#client.destroy !== undefined) this.#client.destroy();
      else this.#client.disconnect();
    } catch {
      // it was not open
    }
  }

  #break(cause: unknown): void {
    this.#broken ??= new RedisError("the connection is lost", { cause });
    this.#reject(cause ?? this.#broken);
  }

  #settled(limit: number, reply: Promise<unknown>): Promise<unknown> {
    return within(
      limit,
      new Promise((resolve, reject) => {
        reply.then(resolve, reject);
        if (this.#broken === undefined) this.#reject = reject;
        else reject(this.#broken);
      }),
    );
  }
}

function isIoRedis(client: RedisClient): client is IoRedisClient {
  return "call" in client;
}

/** An entry of a stream: its id, and its fields with their values. */
export type Entry = readonly [id: string, fields: ReadonlyMap<string, string>];

/**
 * The entries of one stream in the reply to XREAD or XREADGROUP. `{key: […]}`,
 * the same as a `Map`, `[key, […]]` and `[[key, […]]]` are what clients make of
 * it; `null` is none.
 */
export function entriesIn(reply: unknown): Entry[] {
  if (reply === null || reply === undefined) return [];
  if (reply instanceof Map) return listed([...reply.values()][0]);
  if (!Array.isArray(reply)) return listed(Object.values(reply)[0]);
  return listed(Array.isArray(reply[0]) ? reply[0][1] : reply[1]);
}

/** The entries in a list as a script or XRANGE gives it. */
export function listed(entries: unknown): Entry[] {
  if (!Array.isArray(entries)) {
    throw new RedisError(`cannot read the reply ${JSON.stringify(entries)}`);
  }
  return entries.map(([id, fields]) => [String(id), mapped(fields)]);
}

function mapped(fields: unknown): Map<string, string> {
  const map = new Map<string, string>();
  if (!Array.isArray(fields)) return map;
  for (let i = 0; i < fields.length; i += 2) {
    map.set(String(fields[i]), String(fields[i + 1]));
  }
  return map;
}

/** Whether the server says that there is no such consumer group, or key, or that the one a read has waited for is gone. */
export function isNoGroup(error: unknown): boolean {
  return says(error, /\b(NOGROUP|UNBLOCKED)\b/);
}

/** Whether trying again is of no use. */
export function isFinal(error: unknown): boolean {
  return says(
    error,
    /\b(WRONGPASS|NOAUTH|NOPERM|WRONGTYPE|unknown command)\b/,
  );
}

/** Whether it is the server that has refused something: its replies begin with a code. */
export function isRefusal(error: unknown): boolean {
  return says(error, /^[A-Z]{2,} /);
}

/** Whether the server's reply, or what led to the error, has such a message; the classes of errors are each client's own. */
export function says(error: unknown, what: RegExp): boolean {
  for (let depth = 0; error instanceof Error && depth < 4; depth++) {
    if (what.test(error.message)) return true;
    error = error.cause;
  }
  return false;
}

/** How long the server may be silent, in ms, where others wait for the end, or nobody would notice: for ever is too long. */
export function grace(timeout: number): number {
  return Math.min(timeout, 10_000);
}

/** How long to wait after so many failures in a row, in ms: from 25 to 50 at first, from 1000 to 2000 at last. */
export function backOff(failures: number): number {
  return Math.min(50 * 2 ** (failures - 1), 2000) * (1 - Math.random() / 2);
}

/** The error of what could not be done; the cause is in its message. */
export function failed(action: string, cause: unknown): RedisError {
  return new RedisError(`Cannot ${action}: ${describe(cause)}`, { cause });
}

/** Calls a function of the caller's, whose errors are none of ours. */
export function tell<Told>(
  listener: ((told: Told) => void) | undefined,
  told: Told,
): void {
  try {
    listener?.(told);
  } catch (error) {
    report(error);
  }
}

/** How many entries one command is for, at most. */
export const MOST = 256;

/** How many commands of one kind may be on their way: what comes meanwhile goes into the next one. */
const MOST_COMMANDS = 2;

/** For how many lease times a consumer without a lease has to be silent before it is forgotten. */
const FORGOTTEN = 20;

/** KEYS: stream. ARGV: group, and after which entry it begins. Returns whether there was none. */
// A script, so that one that is there already is no error.
const CREATE = `
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2], 'MKSTREAM')
if not made.err then return 1 end
if string.find(made.err, 'BUSYGROUP') then return 0 end
return made`;

/** Sees to it that there is a stream, and a consumer group; returns whether there was none. */
export async function createGroup(
  run: Send,
  key: string,
  group: string,
  start: "0" | "$",
): Promise<boolean> {
  return Number(await run(["EVAL", CREATE, "1", key, group, start])) > 0;
}

/**
 * KEYS: stream. ARGV: group, consumer, for how many ms the consumer is to count
 * as silent, entries. Returns for each whether it is still ours.
 */
export const RENEW = `
local ours = {}
for i = 4, #ARGV do
  local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)[1]
  ours[i - 3] = 0
  if pending and pending[2] == ARGV[2] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'IDLE', ARGV[3], 'JUSTID')
    ours[i - 3] = 1
  end
end
return ours`;

/**
 * KEYS: stream. ARGV: group, consumer, for how many ms a holder has been silent,
 * how many entries at most, for how many ms a consumer without any has been
 * silent, entries that the consumer holds. Takes over all others, and forgets
 * those consumers. Returns how many entries somebody has deleted, then each
 * entry, with how often it has been delivered.
 */
// XAUTOCLAIM would not tell how often.
const TAKE_OVER = `
local taken, held = {0}, {}
for i = 6, #ARGV do held[ARGV[i]] = true end
local stale = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], '-', '+', ARGV[4])
for _, pending in ipairs(stale) do
  local id = pending[1]
  local entry = not held[id] and
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], id)[1]
  if held[id] then -- it is late to be renewed
  elseif entry then
    taken[#taken + 1] = {id, entry[2], pending[4] + 1}
  else
    redis.call('XACK', KEYS[1], ARGV[1], id)
    taken[1] = taken[1] + 1
  end
end
for _, found in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for f = 1, #found, 2 do consumer[found[f]] = found[f + 1] end
  if consumer.pending == 0 and consumer.idle > tonumber(ARGV[5]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
  end
end
return taken`;

/**
 * Takes over what holders have that have been silent for `leaseTime` ms, but for
 * what is `held` here. Returns how many entries somebody has deleted, and the
 * entries, with how often each has been delivered.
 */
export async function takeOver(
  run: (script: string, args: string[]) => Promise<unknown>,
  who: [group: string, consumer: string],
  leaseTime: number,
  most: number,
  held: Iterable<string>,
): Promise<[deleted: number, taken: [Entry, number][]]> {
  const limits = [leaseTime, most, leaseTime * FORGOTTEN].map(String);
  const reply = await run(TAKE_OVER, [...who, ...limits, ...held]);
  const [deleted, ...taken] = reply as [
    number,
    ...[string, string[], number][],
  ];
  const entries = listed(taken);
  return [
    Number(deleted),
    taken.map(([, , times], i) => [entries[i], Number(times)]),
  ];
}

/** Refuses what is no time for a lease. */
export function checkLeaseTime(action: string, found: number): void {
  checkCount(action, "leaseTime", found, 1);
  if (found <= LONGEST) return;
  throw new RangeError(
    invalid(action, "leaseTime", `an integer up to ${LONGEST}`, found),
  );
}

/** Asks the server once for many things of one kind. */
export class Batcher<Item, Result> implements Owner {
  readonly #max: number;
  readonly #run: (items: Item[]) => Promise<Result[]>;
  readonly #waiting = new Line<Waiter<Item>>();
  readonly #sent = new List<Waiter<Item>>();
  readonly #running = new Set<Promise<void>>();
  #size = 0;

  /** Takes up to `max` items that have no answer yet, and asks by `run`. */
  constructor(max: number, run: (items: Item[]) => Promise<Result[]>) {
    this.#max = max;
    this.#run = run;
  }

  /** Asks for one thing; returns nothing if there are too many. */
  add(item: Item, signal?: AbortSignal): Promise<Result> | undefined {
    if (this.#size >= this.#max) return undefined;
    this.#size++;
    const waiter = new Waiter<Item>(item, this);
    // What else comes in this turn goes along.
    if (this.#waiting.first === undefined) queueMicrotask(() => this.#flush());
    waiter.join(this.#waiting, signal);
    return waiter.promise();
  }

  /** Refuses all that has not left yet. */
  refuse(reason: (item: Item) => Error): void {
    for (let waiter; (waiter = this.#waiting.peek()) !== undefined;) {
      this.abort(waiter, reason(waiter.value));
    }
  }

  /** Resolves once there is nothing left to ask. */
  async settled(): Promise<void> {
    await null; // what was asked in this turn has left by now
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  abort(waiter: Waiter, reason: unknown): void {
    const hasLeft = waiter.list === (this.#sent as List<never>);
    if (!hasLeft) this.#size--;
    waiter.reject(reason);
  }

  #flush(): void {
    while (
      this.#running.size < MOST_COMMANDS && this.#waiting.peek() !== undefined
    ) {
      const command = this.#command(this.#batch()).then(() => {
        this.#running.delete(command);
        this.#flush();
      });
      this.#running.add(command);
    }
  }

  #batch(): Waiter<Item>[] {
    const batch: Waiter<Item>[] = [];
    for (
      let waiter;
      batch.length < MOST && (waiter = this.#waiting.peek()) !== undefined;
    ) {
      this.#waiting.remove(waiter); // and still watches its signal
      this.#sent.add(waiter);
      batch.push(waiter);
    }
    return batch;
  }

  async #command(batch: Waiter<Item>[]): Promise<void> {
    let settle: (waiter: Waiter<Item>, i: number) => void;
    try {
      const results = await this.#run(batch.map(({ value }) => value));
      settle = (waiter, i) => waiter.resolve(results[i]);
    } catch (error) {
      settle = (waiter) => waiter.reject(error);
    }
    this.#size -= batch.length;
    batch.forEach((waiter, i) => {
      if (waiter.waiting) settle(waiter, i); // not if its signal has aborted
    });
  }
}
