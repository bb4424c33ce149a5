/**
 * The core of `@sauce/queues`: {@link Queue}.
 *
 * @module
 */

export * from "./queue.ts";
