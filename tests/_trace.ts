/**
 * What the test files of `trace.ts` share.
 *
 * @module
 */

import type { BusEvent, BusObserver, BusStep } from "../bus.ts";
import type { Observable } from "../trace.ts";

type Kind = Exclude<keyof BusObserver, "trace" | "around">;

/** A bus whose steps the test makes up. */
export class Stage implements Observable {
  readonly name: string;
  readonly observers = new Set<BusObserver>();
  readonly #ids = new Map<string, number>();

  constructor(name = "bus") {
    this.name = name;
  }

  observe(observer: BusObserver): Disposable {
    this.observers.add(observer);
    return { [Symbol.dispose]: () => void this.observers.delete(observer) };
  }

  inspect() {
    const { name } = this;
    return { name, closed: false, published: 0, subscriptions: [] };
  }

  /** A step happens; without an id, a subscription has that of its name. */
  tell(kind: Kind, event: BusEvent, step: Partial<BusStep> = {}): void {
    const at = performance.now();
    const { subscription } = step;
    const id = subscription === undefined
      ? {}
      : { subscriptionId: this.#idOf(subscription) };
    for (const observer of this.observers) {
      observer[kind]?.({ event, at, ...id, ...step });
    }
  }

  #idOf(name: string): number {
    if (!this.#ids.has(name)) this.#ids.set(name, this.#ids.size + 1);
    return this.#ids.get(name)!;
  }

  /** An event is published, and handed to subscriptions, whose handlers do well. */
  play(event: BusEvent, ...subscriptions: string[]): BusEvent {
    this.tell("published", event);
    for (const subscription of subscriptions) {
      this.tell("queued", event, { subscription, depth: 1 });
      const handler = { handler: true, waited: 0.5, depth: 0 };
      this.tell("delivered", event, { subscription, ...handler });
      this.tell("handled", event, { subscription, waited: 2, handler: true });
    }
    return event;
  }
}

/** An event as a bus makes it. */
export function made(
  id: string,
  fields: Partial<BusEvent> = {},
): BusEvent {
  const time = Date.UTC(2026, 0, 31, 12);
  const event = { id, type: "order", source: "table 7", time, data: "soup" };
  return Object.freeze({ ...event, ...fields });
}

/** Names as nobody should give them, and some do. */
export const HOSTILE = [
  "",
  " ",
  "end",
  "a; b",
  "a # b",
  "a: b",
  "wrap: a",
  "a\nb",
  "a\r\nparticipant x",
  "\u2028\u2029\u0000\u007f\u0085",
  "%% a",
  "%%{init: {}}%%",
  '"a" <b onclick="x()">`b`</b><br/>',
  "#59; #quot; &amp;",
  "a->>b: c",
  "a-)b, a-xb, a--xb, +a, -a",
  "Note over bus: x",
  "$$x^2$$",
  "@{ type: queue }",
  "\\n \\u0041 '",
  "żółć 日本 🍜 👩‍🍳",
  "\ud800 \udc00",
  "\u202eevil\u2066",
  "__proto__",
  "bus",
  "p0",
  "x".repeat(10_000),
  "🍜;".repeat(1000),
];
