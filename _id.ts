/**
 * Ids that nobody else has.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

/** So many random bytes, as text. (`crypto.randomUUID` is not there in pages without TLS.) */
export function randomId(bytes = 8): string {
  return Array.from(
    crypto.getRandomValues(new Uint8Array(bytes)),
    (byte) => byte.toString(16).padStart(2, "0"),
  ).join("");
}
