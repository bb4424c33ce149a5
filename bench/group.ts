/**
 * How benches are told: in groups, each with its baseline, what one round does,
 * and the aims it is held to.
 *
 * @module
 */

/** How many times the cost of another bench of the group a bench may have. */
export interface Aim {
  /** The bench. */
  bench: string;
  /** The other one. */
  of: string;
  /** How many times. */
  atMost: number;
}

/** Benches to be compared with each other. */
export interface Group {
  /** The shape of the work. */
  name: string;
  /** What one round of each bench does. */
  round: string;
  /** How many operations a round has; results are per operation. */
  operations: number;
  /** What the results are held to. */
  aims?: Aim[];
  /**
   * Each does one round, and throws if the work was not done. The first one is
   * the baseline. Those that a runtime cannot do are undefined there.
   */
  benches: Record<string, (() => void | Promise<void>) | undefined>;
  /** Who can't do this anywhere, and why not. */
  cannot?: Record<string, string>;
}

/** All groups of the files imported so far. */
export const groups: Group[] = [];

/** Registers a group with `deno bench` and with our own runner, `run.mjs`. */
export function group(group: Group): void {
  groups.push(group);
  Object.entries(group.benches).forEach(([name, round], i) => {
    if (round === undefined) return;
    globalThis.Deno?.bench({
      name,
      group: group.name,
      baseline: i === 0,
      fn: async () => await round(), // it does not wait for what only returns a promise
    });
  });
}

/** Throws unless the work was done. */
export function check(got: unknown, expected: unknown): void {
  if (got === expected) return;
  throw new Error(`Wrong result: expected ${expected}, got ${got}`);
}
