/**
 * Workers that run in the thread of the test, with a clock that the test turns:
 * what happens between threads, one step at a time.
 *
 * @module
 */

import { serve, type WorkerDefinition, type WorkerLike } from "../worker.ts";
import { flush, replaceGlobals } from "./_helpers.ts";
import { FakePort } from "./_ports.ts";

interface Timer {
  then: () => void;
  due: number;
}

/** A worker in this thread. */
export interface FakeWorker extends WorkerLike {
  /** Whether it has been terminated. What it does already, it may go on with. */
  readonly terminated: boolean;
  /** How many more times it has been told to keep the process alive than not to. */
  readonly held: number;
  /** Lets it die: from now on, it neither hears nor says anything; that is told when time passes. */
  die(cause?: Error): void;
  /** Lets it stand still: from now on, it neither hears nor says anything, and nobody is told. */
  stall(): void;
}

/** All workers of a test, until the end of the `using` block. */
export class FakeThreads implements Disposable {
  readonly workers: FakeWorker[] = [];
  /** Time passes only if the test says so. */
  now = 0;
  /** What a message is refused with that can be cloned, if it is to be. */
  refuses: (message: unknown) => unknown = () => undefined;
  #timers = new Set<Timer>();
  readonly #globals: Disposable;

  constructor({ sharesMemory = true } = {}) {
    const refuses = (message: unknown) => this.refuses(message);
    this.#globals = replaceGlobals({
      setTimeout: (then: () => void, ms = 0) => {
        const timer = { then, due: this.now + ms };
        this.#timers.add(timer);
        return timer;
      },
      clearTimeout: (timer: Timer) => void this.#timers.delete(timer),
      performance: { now: () => this.now },
      MessageChannel: class {
        readonly port1 = new ChannelPort(refuses);
        readonly port2 = new ChannelPort(refuses);

        constructor() {
          this.port1.other = this.port2;
          this.port2.other = this.port1;
        }
      },
      // In one thread, any memory is shared; pages and workerd have no other.
      SharedArrayBuffer: sharesMemory ? ArrayBuffer : undefined,
    });
  }

  /** How many timers have been set, and have neither fired nor been cleared. */
  get timing(): number {
    return this.#timers.size;
  }

  /** Makes a worker; it serves once `definition` is there. */
  start<Resource, Request, Response>(
    definition: PromiseLike<WorkerDefinition<Resource, Request, Response>>,
  ): FakeWorker {
    const [near, far] = [new Scope(), new Scope()];
    near.other = far;
    far.other = near;
    const worker = Object.assign(near, {
      terminated: false,
      held: 1,
      ref: () => void (worker.held = 1),
      unref: () => void (worker.held = 0),
      terminate: () => {
        worker.terminated = true;
        near.cut();
      },
      stall: () => near.cut(),
      die: (error?: Error) => {
        near.cut();
        setTimeout(() => {
          if (error === undefined) near.hear("close");
          else near.hear("error", { message: error.message, error });
        });
      },
    });
    definition.then((definition) => {
      if (!worker.isCut) serve(definition, { port: far });
    });
    this.workers.push(worker);
    return worker;
  }

  /** Lets time pass, and everything happen that is due by then. */
  async pass(ms = 0): Promise<void> {
    await flush();
    const until = this.now + ms;
    for (let timer; (timer = this.#next(until)) !== undefined;) {
      this.now = Math.max(this.now, timer.due);
      this.#timers.delete(timer);
      timer.then();
      await flush();
    }
    this.now = until;
  }

  #next(until: number): Timer | undefined {
    return [...this.#timers].filter(({ due }) => due <= until)
      .toSorted((a, b) => a.due - b.due)[0];
  }

  [Symbol.dispose](): void {
    this.#globals[Symbol.dispose]();
  }
}

/** The scope of a worker. What goes through it is not copied: it may be a fake port. */
class Scope extends FakePort {
  readonly #ports: FakePort[] = [];
  isCut = false;

  override postMessage(message: unknown, transfer: unknown[] = []): void {
    this.#ports.push(...transfer as FakePort[]);
    queueMicrotask(() => {
      if (!this.isCut) this.other.hear("message", { data: message });
    });
  }

  /** Nothing goes through it any more, nor through the ports that have been moved through it. */
  cut(): void {
    for (const port of [this, this.other as Scope]) port.isCut = true;
    for (const port of this.#ports) (port as ChannelPort).close();
  }
}

class ChannelPort extends FakePort {
  #closed = false;
  readonly #refuses: (message: unknown) => unknown;

  constructor(refuses: (message: unknown) => unknown) {
    super();
    this.#refuses = refuses;
  }

  override postMessage(message: unknown, transfer?: Transferable[]): void {
    const refusal = this.#refuses(message);
    if (refusal !== undefined) throw refusal;
    super.postMessage(message, transfer);
  }

  override hear(type: string, fields?: Record<string, unknown>): void {
    if (!this.#closed) super.hear(type, fields);
  }

  close(): void {
    this.#closed = true;
    (this.other as ChannelPort).#closed = true;
  }
}
