/**
 * Requests that end without a word, as on Cloudflare's workers. There, a timer
 * stops with the request that set it; here, the test stops it.
 *
 * @module
 */

import { forget } from "../_vigil.ts";
import { flush, replaceGlobals } from "./_helpers.ts";

interface Timer {
  request: string;
  beat: () => void;
  due: number;
  period: number;
}

/** Cloudflare's workers, until the end of the `using` block. */
export class Workers implements Disposable {
  timers: Timer[] = [];
  readonly #globals: Disposable;
  #now = 0;
  #back = 0;
  #request = "";

  constructor(userAgent = "Cloudflare-Workers") {
    forget();
    this.#globals = replaceGlobals({
      navigator: { userAgent },
      setInterval: (beat: () => void, period: number) => {
        if (this.#request === "") throw new Error("Not within global scope");
        const due = this.#now + period;
        const timer = { request: this.#request, beat, due, period };
        this.timers.push(timer);
        return timer;
      },
      clearInterval: (timer: Timer) => {
        if (timer.request !== this.#request) return; // as it is there
        this.timers = this.timers.filter((other) => other !== timer);
      },
      Date: Object.assign(class extends Date {}, {
        now: () => this.#now - this.#back,
      }),
    });
  }

  /** Runs a request until it waits for something. */
  async request(name: string, run: () => void): Promise<void> {
    this.#request = name;
    run();
    for (let i = 0; i < 12; i++) await flush(); // longer than a go may take
  }

  /** Lets a request end in the middle of whatever it does. */
  end(name: string): void {
    this.timers = this.timers.filter(({ request }) => request !== name);
  }

  /** Lets time pass, with the thread busy up to then. */
  async pass(ms: number): Promise<void> {
    this.#now += ms;
    for (const timer of [...this.timers]) {
      if (!this.timers.includes(timer) || timer.due > this.#now) continue;
      timer.due = this.#now + timer.period;
      await this.request(timer.request, timer.beat);
    }
  }

  /** Lets time pass, with so much to do that only the timer which is due first is served. */
  async strain(ms: number): Promise<void> {
    this.#now += ms;
    const [first] = this.timers.toSorted((a, b) => a.due - b.due);
    if (first === undefined || first.due > this.#now) return;
    first.due = this.#now + first.period;
    await this.request(first.request, first.beat);
  }

  /** Keeps the thread busy. */
  hold(ms: number): void {
    this.#now += ms;
  }

  /** Sets the clock back, not the timers. */
  setBack(ms: number): void {
    this.#back += ms;
  }

  async passAll(ms: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += 50) await this.pass(50);
  }

  [Symbol.dispose](): void {
    this.#globals[Symbol.dispose]();
    forget();
  }
}
