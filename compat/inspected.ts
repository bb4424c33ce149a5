// A service whose bus does what its clients ask for, and the inspector of it.
// For inspector.mjs, on Deno, Bun and Node.
import { serveHere } from "../examples/node_http.ts";
import { inspector } from "../inspector.ts";
import { portLink } from "../link.ts";
import {
  Bus,
  type BusEvent,
  type BusObserver,
  Serializer,
  type Subscription,
} from "../mod.ts";

let observers = 0;

/** Says who observes it. */
class Watched extends Bus<Record<string, unknown>> {
  override observe(observer: BusObserver): Disposable {
    const observing = super.observe(observer);
    let over = false;
    observers++;
    return {
      [Symbol.dispose]() {
        if (!over) observers--;
        over = true;
        observing[Symbol.dispose]();
      },
    };
  }
}

const bus = new Watched({ name: "restaurant", onError() {} });
bus.on("order", async (order) => {
  const options = { source: "kitchen", cause: order };
  await bus.publish("served", order.data, options);
}, { name: "kitchen" });
let last: BusEvent | undefined;
bus.on("served", (served) => {
  last = served;
  if (served.data === "pie") throw new Error("no ink");
}, { name: "bookkeeper" });

const oven = new Serializer({ open: () => "the one oven" });
/** A bus of the same name, in another process as it were. */
const next = new Bus<Record<string, unknown>>({ name: "restaurant" });
next.on("parcel", () => {}, { name: "neighbour" });
let linked: Promise<unknown> | undefined;

const inspectBoth = inspector({ buses: [bus, next] });
const inspect = inspector({ buses: [bus], serializers: { oven } }, {
  showData: true,
  showErrors: true,
  maxPages: 4,
});
const more: Subscription[] = [];
const oddities: Subscription[] = [];

const HOSTILE = `</script><img src=x onerror="hacked=1"><script>hacked=2</` +
  `script>${"x".repeat(300)}`;

/** What clients can ask for. */
const deeds: Record<string, (request: URLSearchParams) => unknown> = {
  order: (given) =>
    bus.tryPublish("order", given.get("dish"), { source: "table 7" }),
  /** An effect of what was served last. */
  bill: () =>
    void bus.tryPublish("bill", 1, { source: "cashier", cause: last }),
  /** So many events that are delivered to one subscription. */
  many(given) {
    for (let n = Number(given.get("n")); n > 0; n--) {
      bus.tryPublish("many", n, { source: `table ${n % 10}` });
    }
  },
  reader: () =>
    void bus.on("many", () => {}, { name: "reader", capacity: Infinity }),
  /** A subscriber who does not read. */
  slow() {
    more.push(bus.subscribe("bill", { name: "slow", capacity: 2 }));
    for (let n = 0; n < 3; n++) {
      bus.publish("bill", n, { source: "waiter" }).catch(() => {});
    }
  },
  /** So many subscribers that none of the frames has room for what they do. */
  fan() {
    for (let n = 0; n < 300; n++) {
      more.push(bus.on("fan", () => {}, { name: `fan ${n}` }));
    }
  },
  blow: () => {
    for (let n = 0; n < 100; n++) bus.tryPublish("fan", n, { source: "wind" });
  },
  breeze: () => {
    for (let n = 0; n < 6; n++) bus.tryPublish("fan", n, { source: "wind" });
  },
  failing() {
    for (let n = 0; n < 300; n++) {
      more.push(bus.on("fail", () => {
        throw new Error("no ink");
      }));
    }
    bus.tryPublish("fail", 1, { source: "wind" });
  },
  async deliver() {
    const { port1, port2 } = new MessageChannel();
    linked ??= Promise.all([
      bus.connect(portLink(port1), { types: ["parcel"] }),
      next.connect(portLink(port2), { types: ["parcel"] }),
    ]);
    await linked;
    bus.on("parcel", () => {}, { name: "door" });
    bus.tryPublish("parcel", 1, { source: "courier" });
  },
  leave: () => more.splice(0).forEach((one) => one.unsubscribe()),
  hostile() {
    oddities.push(bus.on(HOSTILE, () => {
      throw new Error(HOSTILE);
    }, { name: HOSTILE }));
    bus.tryPublish(HOSTILE, HOSTILE, { source: HOSTILE });
  },
  bake: () => void oven.run(() => new Promise(() => {})),
  observers: () => observers,
};

async function answer(request: Request): Promise<Response> {
  const { pathname, searchParams } = new URL(request.url);
  if (pathname.startsWith("/deep/inside/both/")) return inspectBoth(request);
  if (pathname.startsWith("/deep/inside/")) return inspect(request);
  const deed = deeds[pathname.slice(1)];
  if (deed === undefined) return new Response("", { status: 404 });
  return Response.json(await deed(searchParams) ?? null);
}

const isNode = !("Deno" in globalThis || "Bun" in globalThis);
if (isNode) console.log(await serveHere(answer));

export default { hostname: "127.0.0.1", fetch: answer };
