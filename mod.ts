/**
 * The core of `@sauce/queues`: {@link Queue}, {@link Serializer} and
 * {@link Bus}. Everything else is an entry point of its own.
 *
 * @module
 */

export * from "./queue.ts";
export * from "./serializer.ts";
export * from "./bus.ts";
