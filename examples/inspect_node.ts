/**
 * A restaurant to look at, on a page of Node's own server (Deno and Bun will do):
 *
 *     node examples/inspect_node.ts
 */
import { setTimeout as pause } from "node:timers/promises";
import { inspector } from "../inspector.ts";
import { Bus, Serializer } from "../mod.ts";
import { serveHere } from "./node_http.ts";

const bus = new Bus<{ order: string; served: string }>({
  name: "restaurant",
  onError: ({ message }) => console.error(message),
});
const oven = new Serializer({
  open: () => "the one oven",
  handle: (_, dish: string) => pause(dish === "steak" ? 80 : 20),
});
bus.on("order", async (order) => {
  await oven.request(order.data);
  const options = { source: "kitchen", cause: order };
  await bus.publish("served", order.data, options);
}, { name: "kitchen", capacity: 8 });
bus.on("served", ({ data }) => {
  if (data === "steak" && Math.random() < 0.1) throw new Error("no ink");
}, { name: "bookkeeper" });
const inspect = inspector(
  { buses: [bus], serializers: { oven } },
  { showData: true, showErrors: true }, // there are no secrets in it
);
console.log(`Inspect the restaurant at ${await serveHere(inspect)}`);
for (let n = 0;; n++) {
  const dish = n % 3 === 0 ? "steak" : "soup";
  await bus.publish("order", dish, { source: `table ${n % 4 + 1}` });
  await pause(30);
}
