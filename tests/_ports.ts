/**
 * Ports for tests: a pair that knows what went through it, and the real ones.
 *
 * @module
 */

import type { PortLike } from "../port.ts";
import type { WorkerLike } from "../worker.ts";

type Listener = (event: never) => void;

/** One end of a pair within this thread; a message takes a microtask. */
export class FakePort implements PortLike {
  /** What was posted here. */
  readonly posted: Record<string, unknown>[] = [];
  other!: FakePort;
  /** What has come before it was started, as long as it is not; otherwise nothing is kept. */
  #kept: unknown[] | undefined;
  /** Which messages cannot be read where they arrive. */
  garbles: (message: unknown) => boolean = () => false;
  readonly #listeners = new Map<string, Set<Listener>>();

  /** How many listen. */
  get listening(): number {
    return [...this.#listeners.values()].reduce((n, { size }) => n + size, 0);
  }

  /** The kinds of messages that were posted since the last look. */
  kinds(): unknown[] {
    return this.posted.splice(0).map(({ kind }) => kind);
  }

  postMessage(message: unknown, transfer: Transferable[] = []): void {
    if (new Set(transfer).size < transfer.length) { // Deno's does not mind
      throw new DOMException("it is in the list twice", "DataCloneError");
    }
    const data = structuredClone(message, {
      transfer,
    }) as typeof this.posted[0];
    this.posted.push(data);
    queueMicrotask(() => this.other.#come(data));
  }

  /** Keeps what comes until it is started, as a `MessagePort` does. */
  keep(): void {
    this.#kept = [];
  }

  start(): void {
    queueMicrotask(() => {
      const kept = this.#kept ?? [];
      this.#kept = undefined;
      for (const data of kept) this.#come(data);
    });
  }

  #come(data: unknown): void {
    if (this.#kept !== undefined) this.#kept.push(data);
    else if (this.other.garbles(data)) this.hear("messageerror");
    else this.hear("message", { data });
  }

  addEventListener(type: string, listener: Listener): void {
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set());
    this.#listeners.get(type)!.add(listener);
  }

  removeEventListener(type: string, listener: Listener): void {
    this.#listeners.get(type)?.delete(listener);
  }

  /** Lets an event happen at this end. */
  hear(type: string, fields: Record<string, unknown> = {}): void {
    const event = Object.assign(new Event(type, { cancelable: true }), fields);
    for (const listener of this.#listeners.get(type) ?? []) {
      listener(event as never);
    }
  }
}

/** Two ends of one port. */
export function fakePorts({ keeps = false } = {}): [FakePort, FakePort] {
  const [a, b] = [new FakePort(), new FakePort()];
  a.other = b;
  b.other = a;
  if (keeps) a.keep(), b.keep();
  return [a, b];
}

/** The same, as Node's `worker_threads` have it. */
export function nodePorts(): [PortLike, PortLike] {
  const [near, far] = fakePorts();
  return [nodeShaped(near), nodeShaped(far)];
}

function nodeShaped(port: FakePort): PortLike {
  const own = new Map<unknown, Listener>();
  const node = {
    set garbles(garbles: FakePort["garbles"]) {
      port.garbles = garbles;
    },
    postMessage: (message: unknown, transfer?: Transferable[]) =>
      port.postMessage(message, transfer),
    on(type: string, listener: (detail: unknown) => void) {
      own.set(listener, (event: MessageEvent) => listener(event.data));
      port.addEventListener(type, own.get(listener)!);
    },
    off(type: string, listener: unknown) {
      port.removeEventListener(type, own.get(listener)!);
    },
  };
  return node;
}

/** Two ends of a real one. */
export function realPorts(): [MessagePort, MessagePort] {
  const { port1, port2 } = new MessageChannel();
  return [port1, port2];
}

/** Whether this is Cloudflare's workerd, which has no workers in our sense. */
export const isWorkerd = globalThis.navigator?.userAgent ===
  "Cloudflare-Workers";

/** Whether this is a page. */
export const isPage = "document" in globalThis;

/** Where a script of `tests/workers` is; in a bundle, that is JavaScript beside it. */
export function workerUrl(name: string): URL {
  const { url = "file:///" } = import.meta; // workerd has none
  const type = url.endsWith(".ts") ? "ts" : "js";
  return new URL(`./workers/${name}.${type}`, url);
}

/** Whether this is Deno itself, not a host that has been lent its `Deno.test`. */
export const isDeno = globalThis.navigator?.userAgent?.startsWith("Deno/") ??
  false;

/** Whether a port is told that its other end was closed; Deno tells of the end of a thread alone, Chromium of nothing. */
export const tellsOfClose = !isPage && !isWorkerd && !isDeno;

const threads = (globalThis as unknown as {
  process?: {
    getBuiltinModule?(
      name: string,
    ): { Worker: new (url: URL) => WorkerLike } | undefined;
  };
}).process?.getBuiltinModule?.("node:worker_threads");

/** What starts a script of `tests/workers` in another thread, in the ways that this runtime has. */
export const WORKERS: Record<
  string,
  ((script: string) => WorkerLike) | undefined
> = {
  "a Worker": "Worker" in globalThis
    ? (script) => new Worker(workerUrl(script), { type: "module" })
    : undefined,
  "a Worker of worker_threads": threads &&
    ((script) => new threads.Worker(workerUrl(script))),
};

/** Whether that thread's end is told: web workers end without a word, but for Bun's. */
export const tellsOfEnd: Record<string, boolean> = {
  "a Worker": !isDeno && !isPage,
  "a Worker of worker_threads": true,
};
