// A bus in a worker, joined to the one outside through the worker's own scope. It
// answers each order, tells where that came from, and fails when it is told to.
import { ownPort } from "../../_threads.ts";
import { Bus } from "../../bus.ts";
import { portLink } from "../../link.ts";

/** What crosses the link. */
export interface Events {
  ready: undefined;
  order: number;
  dish: { of: number; source: string; origin: boolean };
  fail: undefined;
}

const port = ownPort()!;

const kitchen = new Bus<Events>({ name: "kitchen" });
await kitchen.connect(portLink(port));

kitchen.on("order", (event) => {
  const { data: of, source, origin } = event;
  const dish = { of, source, origin: origin !== undefined };
  return kitchen.publish("dish", dish, { source: "kitchen", cause: event });
});
kitchen.on("fail", () => {
  setTimeout(() => {
    throw new RangeError("the kitchen is done for");
  });
});

await kitchen.publish("ready");
