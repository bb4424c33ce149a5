// What the tests of types need.
declare module "@std/assert" {
  export function assert(it: unknown): asserts it;
}
declare const Deno: { test(name: string, test: () => unknown): void };
