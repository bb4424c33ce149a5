/**
 * A restaurant on the web: orders go to a bus, and from there as server-sent
 * events to all who look on; the oven takes one dish at a time.
 *
 *     deno serve --host 127.0.0.1 examples/edge.ts
 *     bun examples/edge.ts
 *
 * On workerd the same module is a Worker with a Durable Object: docs/edge.md.
 */
import { Bus, type BusEvent, QueueFullError, Serializer } from "../mod.ts";
import page from "./edge.html" with { type: "text" };

const KEPT = 100; // orders, for those who come back
const LIMIT = 8192; // bytes of an order
const BEAT = 5000; // ms, since a stream that is silent for long gets cut

interface Order {
  dish: string;
  table: number;
}

/** What all requests share; with its `fetch` it will do as a Durable Object. */
export class Restaurant {
  readonly #bus = new Bus<{ order: Order }>({ replay: { order: KEPT } });
  readonly #oven = new Serializer({
    open: () => ({ dishes: 0 }),
    async handle(oven, { dish }: Order) {
      const number = oven.dishes + 1;
      await new Promise((baked) => setTimeout(baked, 50));
      oven.dishes = number; // wrong if another dish was in it meanwhile
      return { dish, number };
    },
    maxWaiting: 100,
    name: "oven",
  });
  readonly #routes: Record<
    string,
    (request: Request) => Response | Promise<Response>
  > = {
    "GET /": () =>
      new Response(page, { headers: { "content-type": "text/html" } }),
    "GET /orders": (request) => this.#stream(request),
    "POST /orders": async (request) => {
      const order = await readOrder(request);
      const source = `table ${order.table}`;
      const { id } = await this.#bus.publish("order", order, { source });
      return Response.json({ id }, { status: 201 });
    },
    "POST /oven": async (request) => {
      const { signal } = request; // who leaves while waiting is not served
      const order = await readOrder(request);
      return Response.json(await this.#oven.request(order, { signal }));
    },
    "GET /state": () => {
      const { waiting, running } = this.#oven;
      return Response.json({ bus: this.#bus.inspect(), waiting, running });
    },
  };

  /** Answers a request. */
  async fetch(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    try {
      const answer = this.#routes[`${request.method} ${pathname}`];
      if (answer !== undefined) return await answer(request);
    } catch (error) {
      if (error instanceof Response) return error;
      if (error instanceof QueueFullError) {
        return refuse(503, "The oven is full");
      }
      if (request.signal.aborted) return refuse(499, "You have left");
      throw error;
    }
    const allow = Object.keys(this.#routes)
      .filter((route) => route.endsWith(` ${pathname}`))
      .map((route) => route.split(" ")[0]).join(", ");
    return allow === ""
      ? refuse(404, `There is no ${pathname}`)
      : refuse(405, `${pathname} takes ${allow} only`, { allow });
  }

  /**
   * Sends the orders that are kept, and all that come. A client that comes back
   * gets what followed its `Last-Event-ID`; if that is not kept any more, it is
   * told that it has missed some, and gets all that is.
   */
  async #stream({ headers, signal }: Request): Promise<Response> {
    const orders = this.#bus.subscribe("order", {
      capacity: KEPT,
      overflow: "drop-oldest", // who reads slowly holds up nobody, and misses some
      signal, // when the client leaves; so does `cancel`: not every runtime has both
    });
    const events = orders[Symbol.asyncIterator]();
    // All that is kept at once: what comes in between would drop some of it.
    const kept = (await Promise.all(
      Array.from({ length: orders.size }, () => events.next()),
    )).map(({ value }) => value);
    const last = headers.get("last-event-id");
    const place = kept.findIndex(({ id }) => id === last);
    const gap = last !== null && place < 0 ? missed("some") : "";
    const news = kept.slice(place + 1).map(message).join("");

    const body = new ReadableStream<Uint8Array>({
      start: (client) => client.enqueue(encode(`retry: 1000\n\n${gap}${news}`)),
      async pull(client) { // it has taken all there was
        const heart = setInterval(() => {
          if (client.desiredSize === 1) client.enqueue(encode(":\n\n"));
        }, BEAT);
        const { value, done } = await events.next()
          .finally(() => clearInterval(heart));
        if (done) return client.close();
        const gap = orders.missed > 0 ? missed(orders.missed) : "";
        client.enqueue(encode(gap + message(value)));
      },
      cancel: () => orders.unsubscribe(),
    });
    const type = "text/event-stream";
    return new Response(body, {
      headers: { "content-type": type, "cache-control": "no-store" },
    });
  }
}

const encode = (text: string) => new TextEncoder().encode(text);

const message = ({ id, data }: BusEvent) =>
  `id: ${id}\ndata: ${JSON.stringify(data)}\n\n`;

/** How many orders a client will never see: a number, or "some". */
const missed = (many: number | "some") => `event: missed\ndata: ${many}\n\n`;

const refuse = (status: number, why: string, headers?: HeadersInit) =>
  new Response(`${why}\n`, { status, headers });

/** Reads no more than it may, and throws a response unless it is an order. */
async function readOrder({ body }: Request): Promise<Order> {
  const decoder = new TextDecoder();
  let text = "";
  let size = 0;
  for await (const chunk of body ?? []) {
    if ((size += chunk.length) > LIMIT) {
      throw refuse(413, `An order has ${LIMIT} bytes at most`);
    }
    text += decoder.decode(chunk, { stream: true });
  }
  try {
    const { dish, table } = JSON.parse(text);
    if (typeof dish === "string" && dish.trim() && Number.isInteger(table)) {
      return { dish, table };
    }
  } catch { // no JSON, or null
  }
  throw refuse(400, 'An order looks like this: {"dish":"soup","table":1}');
}

/** What is bound to the names in examples/edge.capnp. */
interface Env {
  RESTAURANT?: { getByName(name: string): Pick<Restaurant, "fetch"> };
}

const restaurant = new Restaurant();

export default {
  hostname: "127.0.0.1", // for Bun, which else listens to the whole network
  fetch(request: Request, env?: Env): Promise<Response> {
    const object = env?.RESTAURANT?.getByName("main");
    return (object ?? restaurant).fetch(request);
  },
};
