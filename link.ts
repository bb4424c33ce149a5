/**
 * A bus across processes: what a driver implements, and the drivers for what
 * every runtime has.
 *
 * @module
 */

export { decodeEvent, encodeEvent, type LinkEvent } from "./_cloudevents.ts";
export type {
  Delivery,
  Link,
  LinkCapabilities,
  LinkReceiveOptions,
  LinkState,
  Sink,
} from "./_link.ts";
