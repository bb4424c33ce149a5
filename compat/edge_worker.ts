// A service on Cloudflare's workers with a serializer, queues and a bus at module level, for edge.mjs.
import { Bus } from "../bus.ts";
import { Queue, select } from "../queue.ts";
import { Serializer } from "../serializer.ts";

const pause = (ms: number) =>
  new Promise<void>((resolve) => setTimeout(resolve, ms));

let opened = 0;
let most = 0; // handlers at once with one resource

/** Sleeps as long as the request says. */
const sleeper = new Serializer({
  open: () => ({ number: ++opened, inside: 0 }),
  async handle(resource, ms: number) {
    most = Math.max(most, ++resource.inside);
    await pause(ms);
    resource.inside--;
    return resource.number;
  },
});

/** Breaks its resource, which takes long to close, with each request. */
const breaker = new Serializer({
  open: () => 0,
  async handle(_, reason: string) {
    await pause(10);
    throw new Error(reason);
  },
  close: () => pause(60_000),
  isFatal: () => true,
});

const queues = new Map<string, Queue<string>>();

/** The queue of a name, which ends with its capacity: made at its first use. */
function queue(name: string): Queue<string> {
  const found = queues.get(name) ??
    new Queue<string>({ capacity: Number(name.match(/\d*$/)) });
  queues.set(name, found);
  return found;
}

const bus = new Bus<{ [type: string]: string }>();
const heard: string[] = [];
bus.on("global", ({ data }) => heard.push(data), { capacity: 1 });

/** What requests do: `/receive?with=queue`, `/publish?with=type&value=x` and so on. */
const verbs: {
  [verb: string]: (
    name: string,
    value: string,
    request: Request,
  ) => Promise<BodyInit> | BodyInit;
} = {
  receive: (name) => queue(name).receive(),
  receiveWhileHere: (name, _, { signal }) => queue(name).receive({ signal }),
  async send(name, value) {
    await queue(name).send(value);
    return "sent";
  },
  trySend: (name, value) => `${queue(name).trySend(value)}`,
  async receiveMany(name) {
    return `${await queue(name).receiveMany(9)}`;
  },
  async iterate(name) {
    const values: string[] = [];
    for await (const value of queue(name)) {
      if (values.push(value) === 3) break;
    }
    return `${values}`;
  },
  async batches(name) {
    const values: string[][] = [];
    for await (const value of queue(name).batches(9)) {
      if (values.push(value) === 2) break;
    }
    return values.join(" + ");
  },
  async select(names) {
    const queues = names.split(" ").map((name) => [name, queue(name)]);
    const { key, value } = await select<Record<string, Queue<string>>>(
      Object.fromEntries(queues),
    );
    return `${value} from ${key}`;
  },
  stream: (name) =>
    queue(name).toReadableStream().pipeThrough(new TextEncoderStream()),
  async write(name, value) {
    const writer = queue(name).toWritableStream().getWriter();
    for (const part of value) await writer.write(part);
    return "written";
  },
  close(name) {
    queue(name).close();
    return "closed";
  },
  async rendezvous(awaits, value) {
    const count = Number(value);
    const numbers = new Queue<number>();
    (async () => {
      for (let n = 0; n < count; n++) {
        for (let i = 0; i < Number(awaits); i++) await undefined;
        await numbers.send(n);
      }
      numbers.close();
    })();
    let sum = 0;
    for await (const n of numbers) sum += n;
    await pause(1); // it can still set a timer
    return `${sum}`;
  },
  async publish(type, value) {
    return (await bus.publish(type, value)).data;
  },
  async once(type) {
    return (await bus.once(type)).data;
  },
  async subscribe(type) {
    const values: string[] = [];
    for await (const { data } of bus.subscribe(type, { capacity: 1 })) {
      if (values.push(data) === 3) break;
    }
    return `${values}`;
  },
  heard: () => `${heard}`,
  on(type) {
    bus.on(type, ({ data }) => heard.push(data), { capacity: 1 });
    return "listens";
  },
};

interface State {
  blockConcurrencyWhile(until: () => Promise<void>): Promise<void>;
}

/** A Durable Object. */
export class Shared {
  readonly #state: State;
  readonly #queue = new Queue<string>();
  readonly #oven = new Serializer({
    open: () => ({ inside: 0, most: 0 }),
    async handle(oven, ms: number) {
      oven.most = Math.max(oven.most, ++oven.inside);
      await pause(ms);
      oven.inside--;
      return `${oven.most} at once`;
    },
  });

  constructor(state: State) {
    this.#state = state;
  }

  async fetch(request: Request): Promise<Response> {
    switch (new URL(request.url).searchParams.get("value")) {
      case "bake":
        return new Response(await this.#oven.request(3500));
      case "receive":
        return new Response(await this.#queue.receive());
      default: // no other request, and no timer, is served meanwhile
        await this.#state.blockConcurrencyWhile(() => pause(2500));
        return new Response("unblocked");
    }
  }
}

interface Env {
  SHARED: { getByName(name: string): Pick<Shared, "fetch"> };
}

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/object") {
      return env.SHARED.getByName(searchParams.get("with")!).fetch(request);
    }
    if (pathname === "/inLine") {
      return new Response(`${sleeper.running + sleeper.waiting}`);
    }
    if (pathname === "/most") return new Response(`${most}`);
    if (pathname === "/break") {
      const error = await breaker.request("broken").catch((error) => error);
      return new Response(error.message);
    }
    const name = searchParams.get("with");
    if (name !== null) {
      const verb = verbs[pathname.slice(1)];
      const value = searchParams.get("value") ?? "";
      return new Response(await verb(name, value, request));
    }
    const ms = Number(searchParams.get("ms"));
    return new Response(`${await sleeper.request(ms)}`);
  },
};
