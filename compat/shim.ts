/**
 * `Deno.test` where there is no Deno: collects the tests that the test files
 * register and runs them one after another. Needs nothing but web standards, so
 * that it runs on Node, in Bun, in workerd and in a page.
 *
 * @module
 */

/** How long one test may take, in milliseconds. */
const LIMIT = 60_000;

// A test may have a clock of its own, from its first line on.
const { setTimeout, clearTimeout } = globalThis;

type Body = (t: Context) => unknown;

interface Context {
  name: string;
  step(...args: Args): Promise<boolean>;
}

interface Definition {
  name: string;
  fn: Body;
  ignore?: boolean;
}

type Args = [...(string | Partial<Definition>)[], Body] | [Definition];

/** How a run ended. */
export interface Summary {
  passed: number;
  failed: number;
  skipped: number;
}

const tests: Definition[] = [];
const broken: { name: string; error: unknown }[] = []; // files without tests
const strays: Event[] = []; // errors which nobody caught
let current = "no test";

const host = globalThis as unknown as { Deno?: object };
host.Deno ??= { noColor: true }; // read by the assertions
Object.assign(host.Deno, {
  test: (...args: Args) => void tests.push(define(args)),
});

// Pages and workerd tell of errors that nobody caught by an event; a test that
// expects one calls its preventDefault. Node and Bun end instead: see main.ts.
for (const type of ["error", "unhandledrejection"]) {
  globalThis.addEventListener?.(type, (event) => void strays.push(event));
}

/** The test that is running. */
export function running(): string {
  return current;
}

/** The tests that this runtime cannot do; steps are known once they run. */
export function ignored(): string[] {
  return tests.filter(({ ignore }) => ignore).map(({ name }) => name);
}

/** Imports one test file; a file that fails, or has no test, fails by name. */
export async function file(
  name: string,
  load: () => Promise<unknown>,
): Promise<void> {
  const before = tests.length;
  try {
    await load();
    if (tests.length === before) throw new Error("it registers no test");
  } catch (error) {
    broken.push({ name, error });
  }
}

/** Runs every registered test. Prints a line for each, the summary last. */
export async function run(
  print: (line: string) => void = console.log,
): Promise<Summary> {
  const summary: Summary = { passed: 0, failed: 0, skipped: 0 };
  const fail = (name: string, error: unknown) => {
    summary.failed++;
    print(`not ok ${name}\n${text(error)}`);
  };
  const skip = (name: string) => {
    summary.skipped++;
    print(`skip ${name}`);
  };
  for (const { name, error } of broken) fail(name, error);
  for (const test of tests) {
    if (test.ignore) {
      skip(test.name);
      continue;
    }
    current = test.name;
    const leave = intervals();
    try {
      await limited(() => perform(test, skip));
      await new Promise((resolve) => setTimeout(resolve, 1)); // for strays
      const stray = strays.splice(0).find((event) => !event.defaultPrevented);
      if (stray) {
        const { error, reason } = stray as ErrorEvent & PromiseRejectionEvent;
        throw error ?? reason;
      }
      summary.passed++;
      print(`ok ${test.name}`);
    } catch (error) {
      fail(test.name, error);
    }
    leave();
  }
  current = "no test";
  const { passed, failed, skipped } = summary;
  print(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  return summary;
}

/**
 * Notes which intervals begin from now on; returns what ends those that are left.
 * In workerd, whoever waits for something has a beat in `_vigil.ts`. Tests leave
 * waiters behind; a thousand of their beats made each later test, and each timer,
 * thirty times as slow.
 */
function intervals(): () => void {
  const { setInterval } = globalThis;
  const begun: ReturnType<typeof setInterval>[] = [];
  globalThis.setInterval = ((...args: Parameters<typeof setInterval>) => {
    const id = setInterval(...args);
    begun.push(id);
    return id;
  }) as typeof setInterval;
  return () => {
    globalThis.setInterval = setInterval;
    for (const id of begun) clearInterval(id);
  };
}

/** Puts together what `Deno.test` and `t.step` take in any order of arguments. */
function define(args: Args): Definition {
  const definition: Partial<Definition> = {};
  for (const arg of args) {
    if (typeof arg === "string") definition.name = arg;
    else if (typeof arg === "function") definition.fn = arg;
    else Object.assign(definition, arg);
  }
  const { fn } = definition;
  if (!fn) throw new TypeError("A test needs a function");
  return { ...definition, fn, name: definition.name ?? fn.name };
}

/** Runs a test, or a step, with its steps; rejects with the first error. */
async function perform(
  { name, fn }: Definition,
  skip: (name: string) => void,
): Promise<void> {
  const errors: unknown[] = [];
  await fn({
    name,
    step: async (...args) => {
      const step = define(args);
      if (step.ignore) {
        skip(`${name} > ${step.name}`);
        return false;
      }
      try {
        await perform(step, skip);
        return true;
      } catch (error) {
        errors.push(error);
        return false;
      }
    },
  });
  if (errors.length > 0) throw errors[0];
}

/** Settles as `work` does, or rejects once it has taken too long, by a clock that `work` cannot replace. */
function limited(work: () => Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`still running after ${LIMIT / 1000} s`)),
      LIMIT,
    );
    work().then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

// V8's stack begins with the message, others' does not.
function text(error: unknown): string {
  if (!(error instanceof Error)) return `Thrown: ${String(error)}`;
  const { stack = "" } = error;
  const head = String(error);
  return stack.startsWith(head) ? stack : `${head}\n${stack}`;
}
