/**
 * How long the names in an event from elsewhere may be.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

/** How many characters an origin may have. A thousand of them are kept. */
export const MAX_ORIGIN = 128;

/** How many characters any other name may have. Thousands of ids are kept. */
export const MAX_NAME = 1024;
