/**
 * How `port.ts` learns that values have left a queue, or that it has closed:
 * what nobody who only waits for values needs to know.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

/** What is told of a queue, each within the step in which it happens. */
export interface Tap {
  /** Values have been taken out of the buffer, or from waiting senders. */
  taken?(): void;
  /** The queue has closed, with a reason or without; nobody waits for it any more. */
  closed?(reason: readonly [reason?: unknown]): void;
}

/** Begins to tell of a queue, until the function returned is called. */
type TapInto = (queue: object, tap: Tap) => () => void;

/** Tells of a queue. `queue.ts`, which knows how, puts its function here. */
export const taps: { into: TapInto } = {
  into: () => {
    throw new TypeError("Cannot tell of a queue: no queue has been made yet");
  },
};
