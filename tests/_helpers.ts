/**
 * What more than one test file needs.
 *
 * @module
 */

/** How many schedules a model test tries: most of them on Deno, the home of the suite. */
export const ROUNDS: number = "version" in Deno ? 1000 : 200;

/** Lets everything happen that waits for nothing but promises. */
export async function flush(): Promise<void> {
  for (let i = 0; i < 50; i++) await undefined;
}

/** The numbers from 0 up to `n`, without `n`. */
export function range(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i);
}

/** How a promise stands. */
export class Task<T> {
  state: "pending" | "resolved" | "rejected" = "pending";
  value: T | undefined = undefined;
  error: unknown = undefined;

  constructor(promise: PromiseLike<T>) {
    promise.then(
      (value) => Object.assign(this, { state: "resolved", value }),
      (error) => Object.assign(this, { state: "rejected", error }),
    );
  }
}

/** Follows a promise; it is no unhandled rejection any more. */
export function follow<T>(promise: PromiseLike<T>): Task<T> {
  return new Task(promise);
}

/** What settled, in the order in which it did. */
export class Journal {
  readonly lines: string[] = [];

  /** Writes `name` once `promise` resolves, with its value, or rejects, with its error. */
  follow(name: string, promise: PromiseLike<unknown>): void {
    promise.then(
      (value) =>
        this.lines.push(value === undefined ? name : `${name}: ${show(value)}`),
      (error) => this.lines.push(`${name} failed: ${show(error)}`),
    );
  }
}

function show(value: unknown): string {
  if (value instanceof Error) return `${value.name}`;
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** An abort controller that knows the listeners of its signal. */
export interface ProbedController extends AbortController {
  /** How many listen now. */
  readonly listening: number;
  /** How many have begun to listen. */
  readonly added: number;
}

/** Makes an abort controller that counts the listeners of its signal. */
export function probedController(): ProbedController {
  const controller = new AbortController();
  const { signal } = controller;
  const listeners = new Set<unknown>();
  let added = 0;
  const { addEventListener, removeEventListener } = signal;
  Object.assign(signal, {
    addEventListener(...args: Parameters<typeof addEventListener>) {
      added++;
      listeners.add(args[1]);
      addEventListener.apply(signal, args);
    },
    removeEventListener(...args: Parameters<typeof removeEventListener>) {
      listeners.delete(args[1]);
      removeEventListener.apply(signal, args);
    },
  });
  return Object.defineProperties(controller, {
    listening: { get: () => listeners.size },
    added: { get: () => added },
  }) as ProbedController;
}

/** Replaces properties of `globalThis`, until the end of the `using` block. */
export function replaceGlobals(globals: Record<string, unknown>): Disposable {
  const target = globalThis as Record<string, unknown>;
  const before = Object.entries(globals).map(([name, value]) => {
    const descriptor = Object.getOwnPropertyDescriptor(target, name);
    Object.defineProperty(target, name, {
      value,
      configurable: true,
      writable: true,
    });
    return [name, descriptor] as const;
  });
  return {
    [Symbol.dispose]() {
      for (const [name, descriptor] of before) {
        if (descriptor === undefined) delete target[name];
        else Object.defineProperty(target, name, descriptor);
      }
    },
  };
}

/** Catches what is given to `reportError`, until the end of the `using` block. */
export function catchReports(): Disposable & { errors: unknown[] } {
  const errors: unknown[] = [];
  const reportError = (error: unknown) => void errors.push(error);
  return Object.assign(replaceGlobals({ reportError }), { errors });
}

/** A promise that the test settles. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
}

/** Makes a promise that the test settles. */
export function deferred<T = void>(): Deferred<T> {
  let settle!: Pick<Deferred<T>, "resolve" | "reject">;
  const promise = new Promise<T>((resolve, reject) => {
    settle = { resolve, reject };
  });
  return { promise, ...settle };
}
