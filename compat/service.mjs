// Clients of examples/edge.ts on Deno, Bun and workerd, and its page in a
// headless Chromium. Prints like the hosts of run.mjs, which bundles it.
// Deno is DENO=/path/to/it, or that of npx; Chromium as in run.mjs.
import assert from "node:assert/strict";
import { once } from "node:events";
import process from "node:process";
import * as moduleState from "./module_state.mjs";
import { finish, HOST, runAll, Server } from "./server.mjs";
import * as page from "./service_page.mjs";
import { findDeno } from "./start.mjs";

const KEPT = 100; // orders, as in edge.ts

process.chdir(import.meta.dirname);
const deno = findDeno();

/** How the service is started; each prints where it listens. */
const runtimes = {
  deno: [deno, "serve", "--host", HOST, "--port=0", "../examples/edge.ts"],
  bun: [
    "node_modules/.bin/bun",
    "--no-install",
    "--port=0",
    "../examples/edge.ts",
  ],
  workerd: [
    "node_modules/.bin/workerd",
    "serve",
    "--control-fd=1",
    `--socket-addr=http=${HOST}:0`,
    "../examples/edge.capnp",
  ],
};

class Service extends Server {
  /** Orders a dish; resolves with the event's id. */
  async order(dish) {
    const body = JSON.stringify({ dish, table: 1 });
    const { status, text } = await this.ask("POST", "/orders", { body });
    assert.equal(status, 201, text);
    return JSON.parse(text).id;
  }

  /** Orders dishes one after another; resolves with what a stream says of them. */
  async orders(...dishes) {
    const messages = [];
    for (const dish of dishes) {
      messages.push({ id: await this.order(dish), dish });
    }
    return messages;
  }

  /** Bakes a dish; resolves with how many the oven has baked by then. */
  async bake(dish) {
    const body = JSON.stringify({ dish, table: 1 });
    const { status, text } = await this.ask("POST", "/oven", { body });
    assert.equal(status, 200, text);
    return JSON.parse(text).number;
  }

  async state() {
    return JSON.parse((await this.ask("GET", "/state")).text);
  }

  /** Resolves once there are so many subscriptions. */
  async subscriptions(count) {
    while ((await this.state()).bus.subscriptions.length !== count);
  }
}

/** A client that reads a stream of events. */
class Stream {
  messages = []; // { id, dish } or { missed }
  beats = 0;
  response;
  #rest = "";
  #awaken = () => {};

  /** Opens one: what follows an event, or all that is kept, and all that comes. */
  static async open(service, after) {
    const headers = after === undefined ? {} : { "last-event-id": after };
    const sent = service.send("GET", "/orders", { headers });
    const [response] = await once(sent, "response");
    assert.equal(response.headers["content-type"], "text/event-stream");
    const stream = new Stream();
    stream.response = response;
    response.setEncoding("utf8").on("data", (text) => stream.#read(text))
      .on("error", () => {}); // it was cut off
    return stream;
  }

  #read(text) {
    const blocks = (this.#rest + text).split("\n\n");
    this.#rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").map((line) => line.split(/: ?(.*)/s));
      const { id, event, data, "": comment } = Object.fromEntries(lines);
      if (comment !== undefined) this.beats++;
      else if (event === "missed") this.messages.push({ missed: data });
      else if (data) this.messages.push({ id, dish: JSON.parse(data).dish });
    }
    this.#awaken();
  }

  /** Resolves once it has read what it should. */
  async until(look) {
    while (!look(this)) {
      await new Promise((awaken) => this.#awaken = awaken);
    }
  }

  /** Resolves with its first messages, once there are so many. */
  async first(count) {
    await this.until(({ messages }) => messages.length >= count);
    return this.messages.slice(0, count);
  }

  /** Closes the connection ("destroy"), or breaks it. */
  leave(how = "resetAndDestroy") {
    this.response.socket[how]();
  }
}

const times = (count, make) =>
  Promise.all(Array.from({ length: count }, (_, i) => make(i)));

const tests = {
  "an order reaches all streams, in order": async (service) => {
    const mark = await service.order("mark");
    const streams = await times(10, () => Stream.open(service, mark));
    await service.subscriptions(10);
    const orders = await service.orders("soup", "salad", "pie");
    for (const stream of streams) {
      assert.deepEqual(await stream.first(3), orders);
    }
  },

  "a hundred requests at once are answered, the oven's one at a time": async (
    service,
  ) => {
    const mark = await service.order("mark");
    const ids = [], streams = [], numbers = [];
    await times(100, async (i) => {
      if (i % 3 === 0) ids.push(await service.order(`dish ${i}`));
      else if (i % 3 === 1) streams.push(await Stream.open(service, mark));
      else numbers.push(await service.bake(`dish ${i}`));
    });
    const orders = await streams[0].first(34);
    assert.deepEqual(orders.map(({ id }) => id).sort(), ids.sort());
    for (const stream of streams) {
      assert.deepEqual(await stream.first(34), orders);
    }
    const [first] = numbers.sort((a, b) => a - b);
    assert.deepEqual(numbers, numbers.map((_, i) => first + i));
    assert.deepEqual([streams.length, numbers.length], [33, 33]);
  },

  "a client that comes back gets exactly what it has missed": async (
    service,
  ) => {
    const mark = await service.order("mark");
    const [soup, salad] = await service.orders("soup", "salad");
    const before = await Stream.open(service, mark);
    assert.deepEqual(await before.first(2), [soup, salad]);
    before.leave();
    const meanwhile = await service.orders("pie", "cake");
    const after = await Stream.open(service, salad.id);
    const [tea] = await service.orders("tea");
    assert.deepEqual(await after.first(3), [...meanwhile, tea]);
  },

  "a client that comes back too late is told so, and gets what is kept": async (
    service,
  ) => {
    const mark = await service.order("mark");
    const dishes = Array.from({ length: KEPT }, (_, i) => `dish ${i}`);
    const orders = await service.orders(...dishes);
    for (const id of [mark, "unknown"]) {
      const late = await Stream.open(service, id);
      const expected = [{ missed: "some" }, ...orders];
      assert.deepEqual(await late.first(KEPT + 1), expected);
    }
    const newcomer = await Stream.open(service);
    assert.deepEqual(await newcomer.first(KEPT), orders);
  },

  "clients that leave their streams leave nothing behind": async (service) => {
    const mark = await service.order("mark");
    for (const how of ["destroy", "resetAndDestroy"]) {
      const streams = await times(10, () => Stream.open(service, mark));
      await service.subscriptions(10);
      const ordered = times(20, (i) => service.order(`dish ${i}`));
      for (const stream of streams) {
        await stream.first(1);
        stream.leave(how); // in the middle of it all
      }
      await ordered;
      await service.subscriptions(0);
    }
  },

  "a client that leaves a silent stream is noticed": async (service) => {
    for (const how of ["destroy", "resetAndDestroy"]) {
      const stream = await Stream.open(service, await service.order("mark"));
      await service.subscriptions(1);
      stream.leave(how);
      await service.subscriptions(0);
    }
  },

  "clients that leave the oven hold up nobody, and are not served": async (
    service,
  ) => {
    const before = await service.bake("pie");
    const body = JSON.stringify({ dish: "pie", table: 1 });
    const pies = Array.from(
      { length: 200 },
      () => service.send("POST", "/oven", { body }),
    );
    await Promise.any(pies.map(async (pie) => { // a hundred wait, one is baked
      const [{ statusCode }] = await once(pie, "response");
      assert.equal(statusCode, 503);
    }));
    for (const pie of pies) pie.socket.resetAndDestroy();
    while ((await service.state()).waiting > 0);
    const numbers = await times(4, () => service.bake("bread"));
    const last = Math.max(...numbers);
    assert.ok(last > before + 4, "the pie in the oven is baked to its end");
    assert.ok(last < before + 100, "the others are not");
  },

  "a client that does not read holds up nobody, and is told what it missed":
    async (service) => {
      const slow = await Stream.open(service, await service.order("mark"));
      await service.subscriptions(1);
      slow.response.pause();
      let sent = 0;
      let subscription;
      do { // what the system buffers for a connection comes to megabytes
        await times(50, () => service.order("x".repeat(8000)));
        sent += 50;
        [subscription] = (await service.state()).bus.subscriptions;
        assert.ok(subscription.size <= KEPT);
      } while (subscription.dropped === 0);
      slow.response.resume();
      const last = await service.order("last");
      await slow.until(({ messages }) => messages.at(-1)?.id === last);
      const missed = slow.messages.filter((message) => "missed" in message);
      const got = slow.messages.length - missed.length;
      const lost = missed.reduce((sum, { missed }) => sum + Number(missed), 0);
      assert.equal(got + lost, sent + 1);
    },

  "what makes no sense is refused": async (service) => {
    const { published } = (await service.state()).bus;
    const large = JSON.stringify({ dish: "x".repeat(9000), table: 1 });
    const chunked = { "transfer-encoding": "chunked" };
    for (
      const [status, method, path, body, headers] of [
        [404, "GET", "/nothing"],
        [404, "GET", "/__proto__"],
        [405, "DELETE", "/orders"],
        [405, "GET", "/oven"],
        [400, "POST", "/orders"],
        [400, "POST", "/orders", "{"],
        [400, "POST", "/orders", "null"],
        [400, "POST", "/orders", '{"dish":" ","table":1}'],
        [400, "POST", "/orders", '{"dish":"soup","table":"1"}'],
        [400, "POST", "/oven", '{"dish":7,"table":1}'],
        [413, "POST", "/orders", large],
        [413, "POST", "/orders", large, chunked],
        [413, "POST", "/oven", large],
      ]
    ) {
      const answer = await service.ask(method, path, { body, headers });
      assert.equal(answer.status, status, `${method} ${path} ${body}`);
      assert.match(answer.text, /^.+\n$/);
    }
    const { headers } = await service.ask("DELETE", "/orders");
    assert.equal(headers.allow, "GET, POST");
    assert.equal((await service.state()).bus.published, published);
  },

  "a silent stream has a heartbeat": async (service) => {
    const stream = await Stream.open(service);
    await stream.until(({ beats }) => beats > 0);
  },
};

for (const [name, command] of Object.entries(runtimes)) {
  await runAll(name, { ...tests, ...page.tests }, new Service(command));
}
await page.browser.close();
await runAll("workerd", moduleState.tests, moduleState.server);
finish();
