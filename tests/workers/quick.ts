// A worker whose handler is quick and synchronous.
import { serve } from "../../worker.ts";

const quick = serve({
  open: () => ({ served: 0, numbers: [0] }),
  handle(
    state,
    request: number | "array" | "numbers" | "exit" | "wait" | Int32Array | {
      list: number[] | Uint8Array;
    },
  ) {
    state.served++;
    if (typeof request === "object" && "list" in request) {
      if (Array.isArray(request.list)) request.list.push(0);
      return request.list.length;
    }
    if (request instanceof Int32Array) { // shared: blocks until it is let go
      Atomics.store(request, 0, 1);
      Atomics.wait(request, 0, 1);
    }
    if (request === "exit") {
      const { process } = globalThis as {
        process?: { exit(code: number): void };
      };
      if (process?.exit !== undefined && !("Deno" in globalThis)) {
        process.exit(3);
      } else globalThis.close();
      return new Promise<number>(() => {}); // a page goes on for a while
    }
    if (request === "wait") {
      return new Promise<number>((resolve) =>
        setTimeout(() => resolve(state.served), 20)
      );
    }
    if (request === "numbers") {
      state.numbers[0]++;
      return state.numbers;
    }
    return state.served;
  },
});

export type Quick = typeof quick;
