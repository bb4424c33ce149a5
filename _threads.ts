/**
 * Workers, in runtimes that differ in them.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

import { randomId } from "./_id.ts";
import type { PortLike } from "./_port.ts";

/** A worker, by its shape: a web `Worker`, or that of Node's `worker_threads`. */
export interface WorkerLike extends PortLike {
  /** Ends it, at once. */
  terminate(): unknown;
  /** Node, Deno and Bun: lets it keep the process alive, as it does from the start. */
  ref?(): unknown;
  /** Node, Deno and Bun: lets the process end all the same. */
  unref?(): unknown;
}

type MakesWorkers = new (
  url: URL | string,
  options: { name: string; type: "module" },
) => WorkerLike;

/** What Node, Deno and Bun have; looked for when first needed, never imported. */
function threads():
  | {
    readonly Worker: MakesWorkers;
    readonly parentPort: PortLike | null;
    readonly resourceLimits?: object;
  }
  | undefined {
  const { process } = globalThis as {
    process?: { getBuiltinModule?(name: string): unknown };
  };
  return process?.getBuiltinModule?.("node:worker_threads") as ReturnType<
    typeof threads
  >;
}

/**
 * Starts a worker from a file or an address.
 *
 * That of `worker_threads` is taken where there is one and the script is a
 * file: it tells of its end, does not keep an idle process alive, and in Deno it
 * is the one whose `terminate` ends a loop.
 */
export function makeWorker(url: URL | string, name: string): WorkerLike {
  const { Worker: Web } = globalThis as { Worker?: MakesWorkers };
  const isAddress = /^[a-z]{2,}:/i.test(String(url));
  const isFile = !isAddress || /^file:/i.test(String(url));
  const Threads = isFile || Web === undefined ? threads()?.Worker : undefined;
  const Maker = Threads ?? Web;
  if (Maker === undefined) throw new Error("this runtime has no workers");
  // To Node, a string is a path.
  const script = Maker === Threads && isAddress ? new URL(url) : url;
  try {
    return new Maker(script, { name, type: "module" });
  } catch (error) {
    // Cloudflare's worker_threads is there for form's sake.
    const { code } = Object(error) as { code?: unknown };
    if (code !== "ERR_METHOD_NOT_IMPLEMENTED") throw error;
    throw new Error("this runtime has no workers", { cause: error });
  }
}

/** The port of the worker that this code runs in, if it is one. */
export function ownPort(): PortLike | undefined {
  const parentPort = threads()?.parentPort;
  if (parentPort) return parentPort;
  const { WorkerGlobalScope } = globalThis as {
    WorkerGlobalScope?: abstract new () => unknown;
  };
  const isWorker = WorkerGlobalScope !== undefined &&
    globalThis instanceof WorkerGlobalScope && "postMessage" in globalThis;
  return isWorker ? globalThis as unknown as PortLike : undefined;
}

/** In a worker: whether its memory is limited, in runtimes that know of limits. */
export function hasLimits(): boolean {
  return Object.keys(threads()?.resourceLimits ?? {}).length > 0;
}

/** What is used of `navigator.locks`. */
interface Locks {
  request(name: string, granted: () => unknown): Promise<unknown>;
}

function locks(): Locks | undefined {
  return (globalThis as { navigator?: { locks?: Locks } }).navigator?.locks;
}

/**
 * In a worker: takes a lock and never gives it back, for there are runtimes
 * whose workers end without a word, but none that keeps their locks.
 *
 * @returns The name of the lock, or nothing where there are none.
 */
export function holdLock(port: PortLike): Promise<string | undefined> {
  const held = locks();
  // A port other than the worker's own scope is Node's, and tells of its end.
  if (held === undefined || port as unknown !== globalThis) {
    return Promise.resolve(undefined);
  }
  const name = `@sauce/queues/worker ${randomId()}`;
  return new Promise((resolve) => {
    held.request(name, () => {
      resolve(name);
      return new Promise(() => {});
    }).catch(() => resolve(undefined)); // pages without an origin may not
  });
}

/** Outside: calls back once the worker that holds the lock has ended. */
export function awaitLock(name: string, ended: () => void): void {
  // What the worker has said before is still on its way: it comes first.
  locks()?.request(name, () => void setTimeout(ended)).catch(() => {});
}
