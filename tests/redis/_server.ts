/**
 * A real Redis server that a test starts for itself, the clients that people
 * have for it, and a way to it that can be cut.
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { Redis as IoRedis6 } from "ioredis";
import { Redis as IoRedis5 } from "ioredis-5";
import { Redis as IoValkey } from "iovalkey";
import { createClient } from "redis";
import { type RedisClient, RedisError } from "../../redis.ts";

const HOST = "127.0.0.1";
const BINARY = "/usr/bin/redis-server";

/** A server is missing: the tests that need one are skipped, by name. */
export const NO_SERVER: boolean = !existsSync(BINARY);
if (NO_SERVER) console.log(`${BINARY} is missing: tests of Redis are skipped`);

/** How long a test waits for a condition, in ms: far longer than it takes. */
const DEADLINE = 40_000;

/** Resolves once `look` returns, or resolves with, something true. */
export async function until(
  what: string,
  look: () => unknown,
): Promise<void> {
  const late = performance.now() + DEADLINE;
  while (!await look()) {
    if (performance.now() > late) throw new Error(`Never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Tries again until it succeeds. */
export async function insist<R>(attempt: () => Promise<R>): Promise<R> {
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
    }
  }
}

/** What has come, and how often something came again. */
export class Tally {
  repeats = 0;
  readonly #all = new Set<number>();

  get size(): number {
    return this.#all.size;
  }

  add(n: number): void {
    if (this.has(n)) this.repeats++;
    this.#all.add(n);
  }

  has(n: number): boolean {
    return this.#all.has(n);
  }
}

/** A gate that is open, until somebody shuts it. */
export class Gate {
  /** Resolves once it is open. */
  passed: Promise<void> = Promise.resolve();
  #open = () => {};

  shut(): void {
    this.passed = new Promise((resolve) => this.#open = resolve);
  }

  open(): void {
    this.#open();
    this.passed = Promise.resolve();
  }
}

/** One test for each client. */
export function testByEachClient(
  name: string,
  body: (connect: Connect) => Promise<void>,
  clients: Record<string, Connect> = CLIENTS,
): void {
  for (const [client, connect] of Object.entries(clients)) {
    Deno.test({
      name: `${name}, by ${client}`,
      ignore: NO_SERVER,
      fn: () => limited(body(connect)),
    });
  }
}

/** Settles as `test` does, or rejects when that takes too long, so that what it has started is ended. */
function limited(test: Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => {
      reject(new Error(`Still running after ${DEADLINE + 10_000} ms`));
    }, DEADLINE + 10_000); // conditions, which know more, are late before that
    test.then(resolve, reject).finally(() => clearTimeout(late));
  });
}

const running = new Set<ChildProcess>();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));

/** Options for a {@linkcode RedisServer}. */
interface ServerOptions {
  /** Whether it writes an append-only file. */
  durable?: boolean;
  password?: string;
}

/** A server on a free port. */
export class RedisServer implements AsyncDisposable {
  port = 0;
  readonly #folder = mkdtempSync(join(tmpdir(), "redis-"));
  readonly #options: ServerOptions;
  #child: ChildProcess | undefined;

  static async start(options: ServerOptions = {}): Promise<RedisServer> {
    const server = new RedisServer(options);
    await server.start();
    return server;
  }

  private constructor(options: ServerOptions) {
    this.#options = options;
  }

  /** Starts it, or starts it again on the same port. */
  async start(): Promise<void> {
    const again = this.port !== 0; // then clients know the port
    for (let tries = 0; !await this.#start(); tries++) {
      if (tries === 100) throw new Error("No port for a Redis server");
      if (!again) this.port = 0; // somebody else has it by now
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async #start(): Promise<boolean> {
    this.port ||= await freePort();
    const { durable = false, password } = this.#options;
    const child = spawn(BINARY, [
      ...["--port", `${this.port}`, "--bind", HOST, "--save", ""],
      ...["--dir", this.#folder, "--appendonly", durable ? "yes" : "no"],
      ...["--appendfsync", "always", "--enable-debug-command", "yes"],
      ...password === undefined ? [] : ["--requirepass", password],
    ], { stdio: ["ignore", "pipe", "pipe"] });
    running.add(child);
    this.#child = child;
    let output = "";
    const isReady = await new Promise<boolean>((resolve, reject) => {
      child.stdout!.setEncoding("utf8").on("data", (text: string) => {
        output += text;
        if (output.includes("Ready to accept connections")) resolve(true);
      });
      child.on("error", reject);
      child.on("exit", () => {
        running.delete(child);
        if (output.includes("Address already in use")) resolve(false);
        else reject(new Error(`${BINARY} ended: ${output}`));
      });
    });
    return isReady;
  }

  /** Ends it in the middle of whatever it does. */
  async kill(): Promise<void> {
    const child = this.#child!;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  const port = await listen(server);
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function listen(server: Server): Promise<number> {
  return new Promise((resolve) => {
    server.listen(0, HOST, () => {
      resolve((server.address() as { port: number }).port);
    });
  });
}

/** A client of a test. */
export interface TestClient extends Disposable {
  readonly client: RedisClient;
  /** Sends a command. */
  run(...command: string[]): Promise<unknown>;
}

/** What a client is told. */
interface ClientOptions {
  password?: string;
  /** Does not wait until it is connected. */
  impatient?: boolean;
  /** Options as the client has them. */
  own?: object;
}

async function nodeRedis(
  port: number,
  { password, impatient, own = {} }: ClientOptions = {},
): Promise<TestClient> {
  const { socket, ...options } = own as { socket?: object };
  const client = createClient({
    socket: { host: HOST, port, ...socket },
    password,
    ...options,
  });
  client.on("error", () => {});
  const connected = client.connect();
  if (impatient) connected.catch(() => {});
  else await connected;
  return {
    client,
    run: (...command) => client.sendCommand(command),
    [Symbol.dispose]: () => {
      if (client.isOpen) client.destroy();
    },
  };
}

function ioredis(Redis: typeof IoRedis5 | typeof IoRedis6 | typeof IoValkey) {
  return async (
    port: number,
    { password, impatient, own }: ClientOptions = {},
  ): Promise<TestClient> => {
    const options = { password, ...own };
    const client = new (Redis as typeof IoRedis6)(port, HOST, options);
    client.on("error", () => {});
    const ready = new Promise((resolve) => client.once("ready", resolve));
    if (!impatient) await ready;
    return {
      client,
      run: (name, ...args) => client.call(name, ...args),
      [Symbol.dispose]: () => client.disconnect(),
    };
  };
}

/** Makes a client of the server at a port. */
type Connect = (port: number, options?: ClientOptions) => Promise<TestClient>;

/** The clients that people have, by name. */
export const CLIENTS: Record<string, Connect> = {
  "node-redis 6": nodeRedis,
  "ioredis 6": ioredis(IoRedis6),
  "ioredis 5": ioredis(IoRedis5),
  "iovalkey": ioredis(IoValkey),
};

/** For what takes its time, and in which clients do not differ. */
export const ONE_CLIENT: typeof CLIENTS = { "node-redis 6": nodeRedis };

/** A way to a server that can be cut, and can keep replies back. */
export class Proxy implements AsyncDisposable {
  port = 0;
  /** Whether replies are thrown away. */
  swallow = false;
  /** Whether nobody gets through. */
  closed = false;
  /** How often replies were thrown away. */
  swallowed = 0;
  #held = false;
  readonly #target: RedisServer;
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;

  static async to(target: RedisServer): Promise<Proxy> {
    const proxy = new Proxy(target);
    proxy.#server = createServer((client) => proxy.#join(client));
    proxy.port = await listen(proxy.#server);
    return proxy;
  }

  private constructor(target: RedisServer) {
    this.#target = target;
  }

  #join(client: Socket): void {
    if (this.closed) return void client.destroy();
    const far = connect(this.#target.port, HOST);
    client.on("data", (bytes) => far.write(bytes));
    far.on("data", (bytes) => {
      if (this.swallow) this.swallowed++;
      else client.write(bytes);
    });
    for (const [socket, other] of [[client, far], [far, client]]) {
      this.#sockets.add(socket);
      if (this.#held) socket.pause();
      socket.on("error", () => {});
      socket.on("close", () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
    }
  }

  /** How many connections there are. */
  get connections(): number {
    return this.#sockets.size / 2;
  }

  /** Cuts all connections; new ones are served. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Loses a reply, or a few, and with them the connections. */
  async loseReply(): Promise<void> {
    this.swallow = true;
    const { swallowed } = this;
    await until("a reply is lost", () => this.swallowed > swallowed);
    this.swallow = false;
    this.cut();
  }

  /** Lets nothing through for now: whoever is behind it seems to be blocked. */
  hold(): void {
    this.#held = true;
    for (const socket of this.#sockets) socket.pause();
  }

  /** Lets through what has been held, and goes on. */
  release(): void {
    this.#held = false;
    for (const socket of this.#sockets) socket.resume();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server!.close(resolve));
  }
}
