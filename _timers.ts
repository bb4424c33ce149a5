/**
 * A timer that bears any time.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

/** Calls back after a while; never, if that is longer than a timer can wait. Returns what calls it off. */
export function after(ms: number, then: () => void): () => void {
  if (ms > 2 ** 31 - 1) return () => {};
  const timer = setTimeout(then, ms);
  return () => clearTimeout(timer);
}
