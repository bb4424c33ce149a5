import { assert } from "@std/assert";
import { type PortLike, receiveFrom, sendTo, transfer } from "../port.ts";
import { Queue } from "../queue.ts";
import type { HandlerContext } from "../serializer.ts";
import {
  type RequestOf,
  type ResponseOf,
  serve,
  WorkerDiedError,
  type WorkerLike,
  WorkerSerializer,
} from "../worker.ts";

// What must not compile: `deno check` complains about an @ts-expect-error above
// a line without an error. Nothing in here is ever called.

/** Compiles only where both types are the same; `any` is the same as `any` alone. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends
  (<T>() => T extends B ? 1 : 2) ? true : false;

/** Asserts a type that is known to be `true`. */
function holds<_ extends true>(): void {}

class Oven {
  degrees = 20;
}

const url = new URL("file:///oven.ts");
const uncalled: ((...args: never[]) => unknown)[] = [];

const definition = {
  open: async () => await new Oven(),
  async handle(
    oven: Oven,
    dish: "pie" | "bread",
    _context: HandlerContext,
  ): Promise<{ dish: string; degrees: number }> {
    return await { dish, degrees: oven.degrees };
  },
  close: (oven: Oven) => void oven.degrees,
};

uncalled.push(async (signal: AbortSignal) => {
  holds<Same<RequestOf<typeof definition>, "pie" | "bread">>();
  holds<
    Same<ResponseOf<typeof definition>, { dish: string; degrees: number }>
  >();
  const oven = new WorkerSerializer<typeof definition>(url);
  const answer = await oven.request("pie", { signal, priority: 1 });
  holds<Same<typeof answer, { dish: string; degrees: number }>>();
  // @ts-expect-error not on the menu
  oven.request("cake");
  // @ts-expect-error a dish is needed
  oven.request();
  // @ts-expect-error a typo
  oven.request("pie", { priorty: 1 });
  // @ts-expect-error nothing that could be run is sent to another thread
  oven.run((oven: Oven) => oven.degrees);
  // @ts-expect-error the resource is in the worker only
  oven.resource;
  // @ts-expect-error counted by the serializer
  oven.waiting = 0;
  const disposable: AsyncDisposable = oven;
  // @ts-expect-error closing takes time
  using wrong = oven;
  return [disposable, wrong];
});

uncalled.push(async () => {
  // What `serve` returns knows its types.
  const served = serve({
    open: () => new Oven(),
    handle: (oven, dish: string) => oven.degrees + dish.length,
    close: (oven) => void oven.degrees,
    isFatal: (error) => error instanceof RangeError,
  });
  const oven = new WorkerSerializer<typeof served>("oven.ts");
  const answer = oven.request("pie");
  holds<Same<typeof answer, Promise<number>>>();
  // @ts-expect-error a number is no dish
  oven.request(1);

  const bell = { open: () => 1, handle: (_: number) => "ding" };
  const ringing = new WorkerSerializer<typeof bell>(url);
  const ding = await ringing.request();
  holds<Same<typeof ding, string>>();
  // @ts-expect-error it takes nothing
  ringing.request("loud");

  const optional = { open: () => 1, handle: (_: number, n?: number) => n };
  const counting = new WorkerSerializer<typeof optional>(url);
  holds<Same<RequestOf<typeof optional>, number | undefined>>();
  counting.request();
  counting.request(5, { priority: 1 });
  // @ts-expect-error a number, if anything
  counting.request("five");
  const standard = { open: () => 1, handle: (_: number, n = 5) => n };
  new WorkerSerializer<typeof standard>(url).request();
  new WorkerSerializer<typeof standard>(url).request(5);

  const none = serve({ open: () => 1, handle: () => "ding" });
  new WorkerSerializer<typeof none>(url).request();
  const nothing = { open: () => 1, handle: () => "ding" };
  new WorkerSerializer<typeof nothing>(url).request();
  // @ts-expect-error it takes nothing
  new WorkerSerializer<typeof nothing>(url).request("loud");

  const untyped = new WorkerSerializer(url);
  // @ts-expect-error nobody has said what it takes
  untyped.request("pie");
});

uncalled.push(() => {
  // @ts-expect-error a definition is needed
  serve();
  // @ts-expect-error handle is needed
  serve({ open: () => 1 });
  // @ts-expect-error open is needed
  serve({ handle: () => 1 });
  // @ts-expect-error handle gets the resource
  serve({ open: () => 1, handle: (oven: string) => oven });
  // @ts-expect-error there is one of it in a worker: WorkerSerializer has several
  serve({ open: () => 1, handle: () => 1, concurrency: 2 });
  // @ts-expect-error not a definition
  new WorkerSerializer<{ open(): number }>(url);
  // @ts-expect-error where is it?
  new WorkerSerializer<typeof definition>();
  // @ts-expect-error a function that makes workers
  new WorkerSerializer<typeof definition>(() => new Oven());
  // @ts-expect-error a typo
  new WorkerSerializer<typeof definition>(url, { graec: 1 });
  // @ts-expect-error a number
  new WorkerSerializer<typeof definition>(url, { concurrency: "2" });
  // @ts-expect-error options are needed
  new WorkerDiedError("died");
  const web: WorkerLike = new Worker(url);
  return web;
});

uncalled.push(async (port: MessagePort, worker: Worker) => {
  const dishes = new Queue<Uint8Array<ArrayBuffer>>();
  const ports: PortLike[] = [port, worker];
  const sent = sendTo(dishes, port, {
    transfer: (dish) => [dish.buffer],
    channel: "dishes",
    onError: (error) => error.value,
  });
  holds<Same<typeof sent, Promise<void>>>();
  const received = receiveFrom<Uint8Array>(worker, { capacity: 2 });
  holds<Same<typeof received, Queue<Uint8Array>>>();
  const unknown = receiveFrom(port);
  holds<Same<typeof unknown, Queue<unknown>>>();
  // @ts-expect-error no queue
  await sendTo([1], port);
  // @ts-expect-error no port
  await sendTo(dishes, {});
  // @ts-expect-error the receiver's option
  await sendTo(dishes, port, { capacity: 2 });
  // @ts-expect-error the sender's option
  receiveFrom(port, { transfer: () => [] });
  // @ts-expect-error no list
  transfer(new Uint8Array(1), new ArrayBuffer(1));
  // @ts-expect-error nothing to transfer with
  transfer(1, []);
  return ports;
});

Deno.test("Types of port and worker are checked before the tests run", () => {
  assert(uncalled.length > 0);
});
