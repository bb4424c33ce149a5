import { assert } from "@std/assert";
import {
  type HandlerContext,
  ReentrantRequestError,
  type RequestOptions,
  Serializer,
  type SerializerOptions,
} from "../serializer.ts";

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

const open = () => new Oven();
const uncalled: ((...args: never[]) => unknown)[] = [];

uncalled.push((signal: AbortSignal) => {
  const oven = new Serializer({
    open,
    handle: (_, dish: string) => dish.length,
  });
  holds<Same<typeof oven, Serializer<Oven, string, number>>>();
  const answer = oven.request("pie", { signal, priority: 1 });
  holds<Same<typeof answer, Promise<number>>>();
  // @ts-expect-error a number is no dish
  oven.request(1);
  // @ts-expect-error a dish is needed
  oven.request();
  // @ts-expect-error a promise is no dish
  oven.request(Promise.resolve("pie"));
  // @ts-expect-error the signal is an option, not the argument
  oven.request("pie", signal);
  // @ts-expect-error a typo
  oven.request("pie", { priorty: 1 });
  // @ts-expect-error a priority is a number
  oven.request("pie", { priority: "high" });
  // @ts-expect-error no signal
  oven.request("pie", { signal: null });

  // The resource is inside only.
  // @ts-expect-error no such property
  oven.resource;
  // @ts-expect-error no such method
  oven.open();
  // @ts-expect-error no such method
  oven.handle(new Oven(), "pie", { signal });
  // @ts-expect-error counted by the serializer
  oven.waiting = 0;
  // @ts-expect-error counted by the serializer
  oven.running = 0;
  // @ts-expect-error closed by close()
  oven.closed = true;
});

uncalled.push(async () => {
  const oven = new Serializer({ open }); // has no handle
  holds<Same<typeof oven, Serializer<Oven, never, never>>>();
  // @ts-expect-error nothing can be requested
  oven.request("pie");
  // @ts-expect-error nothing can be requested
  oven.request();
  // @ts-expect-error nothing can be requested
  oven.request(undefined);
  const degrees = await oven.run(async (oven, context) => {
    holds<Same<typeof oven, Oven>>();
    holds<Same<typeof context, HandlerContext>>();
    // @ts-expect-error the signal is that of the request
    context.signal = AbortSignal.abort();
    return await oven.degrees;
  });
  holds<Same<typeof degrees, number>>();
  // @ts-expect-error a task is needed
  oven.run();
  // @ts-expect-error a task takes the resource, and a context
  oven.run((_oven, _context, _more) => {});
  // @ts-expect-error the oven is no ledger
  oven.run((ledger: { rows: number }) => ledger.rows);
});

uncalled.push(async () => {
  const bell = new Serializer({ open, handle: (_, _nothing: void) => {} });
  holds<Same<Awaited<ReturnType<typeof bell.request>>, void>>();
  await bell.request();

  const awaited = new Serializer({
    open: async () => await new Oven(),
    handle: async (oven, dish: "pie" | "bread") => await [oven.degrees, dish],
    close: async (oven) => void await oven.degrees,
  });
  const answer = await awaited.request("pie");
  holds<Same<typeof answer, (number | "pie" | "bread")[]>>();
  // @ts-expect-error not on the menu
  awaited.request("cake");

  // @ts-expect-error orders of numbers would reach a handler of strings
  const wrong: Serializer<Oven, number, number> = new Serializer<
    Oven,
    string,
    number
  >({ open });
  const disposable: AsyncDisposable = awaited;
  // @ts-expect-error closing takes time
  using oven = awaited;
  return [wrong, disposable, oven];
});

uncalled.push(() => {
  // @ts-expect-error options are needed
  new Serializer();
  // @ts-expect-error open is needed
  new Serializer({});
  // @ts-expect-error the resource is made by a function
  new Serializer({ open: new Oven() });
  // @ts-expect-error a typo
  new Serializer({ open, concurency: 2 });
  // @ts-expect-error a number
  new Serializer({ open, concurrency: "2" });
  // @ts-expect-error no such mode
  new Serializer({ open, reentrancy: "allow" });
  // @ts-expect-error a promise is always truthy
  new Serializer({ open, isFatal: async () => await false });
  // @ts-expect-error handle gets the resource
  new Serializer({ open, handle: (oven: number) => oven });
  // @ts-expect-error close gets the resource
  new Serializer({ open, close: (oven: number) => void oven });
  // @ts-expect-error a message is needed
  new ReentrantRequestError();
  new ReentrantRequestError("no", { cause: 1 });
  const options: SerializerOptions<Oven, never, never> = { open };
  const asking: RequestOptions = { signal: undefined, priority: undefined };
  return [options, asking];
});

Deno.test("Types of Serializer are checked before the tests run", () => {
  assert(uncalled.length > 0);
});
