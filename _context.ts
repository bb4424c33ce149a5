/**
 * What the objects that run handlers share: a signal for the handler, a way to
 * tell a handler's own calls from those of others, and whether it takes its time.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

import { invalid } from "./_errors.ts";

/** A signal that is made when it is first looked at. */
export class LazySignal {
  #aborted: { readonly reason: unknown } | undefined;
  #controller: AbortController | undefined;

  /** Whether it has been aborted. */
  get aborted(): boolean {
    return this.#aborted !== undefined;
  }

  /** The signal. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#aborted) this.#controller.abort(this.#aborted.reason);
    }
    return this.#controller.signal;
  }

  /** Aborts it, once. */
  abort(reason?: unknown): void {
    this.#aborted ??= { reason };
    this.#controller?.abort(reason);
  }
}

/** A handler's stay within the object that runs it. */
// Small, and apart from what else is known of a handler: Deno keeps it for a
// while after the handler has ended.
export class Stay {
  /** The object. */
  readonly host: unknown;
  /** Whether the handler has ended. */
  over = false;
  #parent: Stay | undefined;

  constructor(host: unknown, parent: Stay | undefined) {
    this.host = host;
    this.#parent = parent;
  }

  /** The stay, not over, from within which this one came about. */
  get parent(): Stay | undefined {
    // Forgets those that are over: handlers that call each other without
    // waiting would leave a chain of them without end.
    while (this.#parent?.over) this.#parent = this.#parent.#parent;
    return this.#parent;
  }
}

/** What the library needs of `AsyncLocalStorage`. */
interface Storage {
  getStore(): Stay | undefined;
  run<T>(stay: Stay, handler: () => T): T;
}

/** For runtimes without: knows whose code runs until its first `await`. */
class SynchronousStorage implements Storage {
  #stay: Stay | undefined;

  getStore(): Stay | undefined {
    return this.#stay;
  }

  run<T>(stay: Stay, handler: () => T): T {
    const outer = this.#stay;
    this.#stay = stay;
    try {
      return handler();
    } finally {
      this.#stay = outer;
    }
  }
}

let found: Storage | undefined;

/** The best that the runtime has; looked for when first needed, never imported. */
function storage(): Storage {
  if (found === undefined) {
    const { process } = globalThis as {
      process?: {
        getBuiltinModule?(
          name: string,
        ): { AsyncLocalStorage: new () => Storage } | undefined;
      };
    };
    const hooks = process?.getBuiltinModule?.("node:async_hooks");
    found = new (hooks?.AsyncLocalStorage ?? SynchronousStorage)();
  }
  return found;
}

/** Runs a handler within a stay. */
export function within<T>(stay: Stay, handler: () => T): T {
  return storage().run(stay, handler);
}

/** The innermost stay that the running code is in, as far as the runtime can tell. */
export function innermost(): Stay | undefined {
  const stay = storage().getStore();
  return stay?.over ? stay.parent : stay;
}

/** The stay with `host` that is `stay`, or one around it. */
export function stayWith(
  host: unknown,
  stay: Stay | undefined,
): Stay | undefined {
  if (stay?.over) stay = stay.parent;
  while (stay !== undefined && stay.host !== host) stay = stay.parent;
  return stay;
}

/** Whether `stay`, or one around it, is with `host`. */
export function isWithin(host: unknown, stay: Stay | undefined): boolean {
  return stayWith(host, stay) !== undefined;
}

/** Whether a resource is of no more use after this error; `report` is given what is wrong with the answer. */
export function isFatal(
  options: { isFatal?(error: unknown): boolean },
  error: unknown,
  report: (error: unknown) => void,
): boolean {
  try {
    const fatal: unknown = options.isFatal?.(error) ?? false;
    if (typeof fatal === "boolean") return fatal;
    throw new TypeError(
      invalid("judge an error", "what isFatal returns", "a boolean", fatal),
    );
  } catch (error) {
    report(error);
    return false;
  }
}

/** Whether what a handler returned is to be waited for. */
export function isPromiseLike(value: unknown): value is PromiseLike<unknown> {
  return (typeof value === "object"
    ? value !== null
    : typeof value === "function") &&
    typeof (value as PromiseLike<unknown>).then === "function";
}
