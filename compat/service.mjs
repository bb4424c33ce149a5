// Clients of examples/edge.ts on Deno, Bun and workerd, and its page in a
// headless Chromium. Prints like the hosts of run.mjs, which bundles it.
//
//   node service.mjs [runtime…]     DENO=/path/to/deno, CHROME=/path/to/chromium
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { request } from "node:http";
import { connect, createServer } from "node:net";
import process from "node:process";
import { chromium } from "playwright-core";

const LIMIT = 60_000; // ms for a test
const HOST = "127.0.0.1";
const KEPT = 100; // as in edge.ts

process.chdir(import.meta.dirname);
// Not what npx starts: that is a parent of it, and would not hand on a signal.
const deno = process.env.DENO ?? execFileSync("npx", [
  ..."--prefer-offline -y deno@2.9.5 eval -p Deno.execPath()".split(" "),
], { encoding: "utf8" }).trim();

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
    "--verbose",
    "--control-fd=1",
    `--socket-addr=http=${HOST}:0`,
    "../examples/edge.capnp",
  ],
};

const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill()));
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => process.exit(1));
}

class Service {
  #command;
  #child;
  port;

  constructor(command) {
    this.#command = command;
  }

  async start() {
    const [program, ...args] = this.#command;
    const child = this.#child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1" },
    });
    children.add(child);
    this.port = await new Promise((resolve, reject) => {
      let output = "";
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding("utf8").on("data", (text) => { if (process.env.LOG) console.error(program.slice(-8), text);
          output += text;
          const port = /(?:127\.0\.0\.1:|"port":)(\d+)/.exec(output)?.[1];
          if (port) resolve(Number(port));
        });
      }
      child.on("error", reject);
      child.on("exit", () => reject(new Error(`${program} ended: ${output}`)));
    });
  }

  async stop() {
    const gone = once(this.#child, "exit");
    this.#child.kill();
    await gone;
    children.delete(this.#child);
  }

  /** Sends a request over a connection of its own. */
  send(method, path, { body, headers } = {}) {
    const { port } = this;
    const options = { host: HOST, port, method, path, headers, agent: false };
    return request(options).end(body);
  }

  /** Resolves with an answer. */
  async ask(method, path, options) {
    const [response] = await once(this.send(method, path, options), "response");
    const { statusCode: status, headers } = response;
    const text = (await response.setEncoding("utf8").toArray()).join("");
    return { status, headers, text };
  }

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
    for (const dish of dishes) messages.push({ id: await this.order(dish), dish });
    return messages;
  }

  /** Sends a dish to the oven. */
  bake(dish) {
    const body = JSON.stringify({ dish, table: 1 });
    return this.send("POST", "/oven", { body });
  }

  async state() {
    return JSON.parse((await this.ask("GET", "/state")).text);
  }

  /** Resolves with the state, once it looks as it should. */
  async until(look) {
    for (;;) {
      const state = await this.state();
      if (look(state)) return state;
    }
  }
}

/** A client that reads a stream of events. */
class Stream {
  messages = []; // { id, dish } or { missed }
  beats = 0;
  response;
  #request;
  #rest = "";
  #awaken = () => {};

  /** Opens one, with what follows an event, or with all that is kept. */
  static async open(service, after) {
    const headers = after === undefined ? {} : { "last-event-id": after };
    const stream = new Stream();
    stream.#request = service.send("GET", "/orders", { headers });
    const [response] = await once(stream.#request, "response");
    assert.equal(response.headers["content-type"], "text/event-stream");
    stream.#request.on("error", () => {}); // when it leaves
    response.on("error", () => {});
    response.setEncoding("utf8").on("data", (text) => stream.#read(text));
    stream.response = response;
    return stream;
  }

  #read(text) {
    const blocks = (this.#rest + text).split("\n\n");
    this.#rest = blocks.pop();
    for (const block of blocks) {
      const fields = new Map(
        block.split("\n").map((line) => line.split(/:(.*)/).map((s) => s.trim())),
      );
      if (fields.get("event") === "missed") {
        this.messages.push({ missed: fields.get("data") });
      } else if (fields.has("data")) {
        const { dish } = JSON.parse(fields.get("data"));
        this.messages.push({ id: fields.get("id"), dish });
      } else if (fields.has("")) this.beats++;
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

  /** Closes the connection ("destroy"), or breaks it ("resetAndDestroy"). */
  leave(how = "resetAndDestroy") {
    this.#request.socket[how]();
  }
}

/** A way to a service that can be cut. */
class Wire {
  #sockets = new Set();
  #server;
  #cut = false;
  /** The `Last-Event-ID` that came along it, in order. */
  ids = [];

  static async to(service) {
    const wire = new Wire();
    wire.#server = createServer((client) => {
      if (wire.#cut) return client.destroy();
      const far = connect(service.port, HOST);
      client.pipe(far).pipe(client);
      client.setEncoding("latin1").on("data", (text) => {
        const id = /^last-event-id: *(.*)\r$/im.exec(text)?.[1];
        if (id !== undefined) wire.ids.push(id);
      });
      for (const [socket, other] of [[client, far], [far, client]]) {
        wire.#sockets.add(socket);
        socket.on("error", () => {});
        socket.on("close", () => {
          wire.#sockets.delete(socket);
          other.destroy();
        });
      }
    });
    wire.#server.listen(0, HOST);
    await once(wire.#server, "listening");
    return wire;
  }

  get url() {
    return `http://${HOST}:${this.#server.address().port}/`;
  }

  cut() {
    this.#cut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend() {
    this.#cut = false;
  }

  close() {
    this.cut();
    this.#server.close();
  }
}

const range = (count) => Array.from({ length: count }, (_, i) => i);
const silent = (request) => request.on("error", () => {});

const tests = {
  "an order reaches all streams, in order": async (service) => {
    const mark = await service.order("mark");
    const streams = await Promise.all(
      range(10).map(() => Stream.open(service, mark)),
    );
    await service.until(({ bus }) => bus.subscriptions.length === 10);
    const orders = await service.orders("soup", "salad", "pie");
    for (const stream of streams) {
      assert.deepEqual(await stream.first(3), orders);
      stream.leave();
    }
  },

  "a hundred requests at once are answered, the oven's one at a time": async (
    service,
  ) => {
    const mark = await service.order("mark");
    const answers = await Promise.all(range(100).map(async (i) => {
      if (i % 3 === 0) return { id: await service.order(`dish ${i}`) };
      if (i % 3 === 1) {
        const stream = await Stream.open(service, mark);
        const orders = await stream.first(34);
        stream.leave();
        return { orders };
      }
      const body = JSON.stringify({ dish: `dish ${i}`, table: 1 });
      const { status, text } = await service.ask("POST", "/oven", { body });
      assert.equal(status, 200, text);
      return { baked: JSON.parse(text) };
    }));
    const find = (key) =>
      answers.filter((answer) => key in answer).map((answer) => answer[key]);
    const baked = find("baked").map(({ number }) => number)
      .sort((a, b) => a - b);
    assert.deepEqual(baked, range(33).map((i) => baked[0] + i));
    const [orders, ...others] = find("orders");
    for (const other of others) assert.deepEqual(other, orders);
    assert.deepEqual(orders.map(({ id }) => id).sort(), find("id").sort());
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
    assert.deepEqual(await after.first(2), meanwhile);
    const [tea] = await service.orders("tea");
    assert.deepEqual(await after.first(3), [...meanwhile, tea]);
    after.leave();
  },

  "a client that comes back too late is told so, and gets what is kept": async (
    service,
  ) => {
    const mark = await service.order("mark");
    const orders = await service.orders(...range(KEPT).map((i) => `dish ${i}`));
    for (const id of [mark, "unknown"]) {
      const late = await Stream.open(service, id);
      const expected = [{ missed: "some" }, ...orders];
      assert.deepEqual(await late.first(KEPT + 1), expected);
      late.leave();
    }
    const newcomer = await Stream.open(service);
    assert.deepEqual(await newcomer.first(KEPT), orders);
    newcomer.leave();
  },

  "clients that leave their streams leave nothing behind": async (service) => {
    const mark = await service.order("mark");
    for (const how of ["destroy", "resetAndDestroy"]) {
      const streams = await Promise.all(
        range(10).map(() => Stream.open(service, mark)),
      );
      await service.until(({ bus }) => bus.subscriptions.length === 10);
      const orders = range(20).map((i) => service.order(`dish ${i}`));
      for (const stream of streams) {
        await stream.first(1);
        stream.leave(how); // in the middle of those orders
      }
      await Promise.all(orders);
      await service.until(({ bus }) => bus.subscriptions.length === 0);
    }
  },

  "clients that leave the oven hold up nobody": async (service) => {
    const requests = range(200).map(() => silent(service.bake("pie")));
    const refused = requests.map((request) =>
      new Promise((resolve) => {
        request.on("response", (response) => {
          response.resume();
          if (response.statusCode === 503) resolve();
        });
      })
    );
    await Promise.any(refused); // a hundred wait, one is inside
    for (const request of requests) request.socket.resetAndDestroy();
    const body = JSON.stringify({ dish: "bread", table: 1 });
    const bread = () => service.ask("POST", "/oven", { body });
    const answers = await Promise.all(range(4).map(bread));
    assert.deepEqual(answers.map(({ status }) => status), [200, 200, 200, 200]);
    await service.until(({ waiting, running }) => waiting + running === 0);
  },

  "a client that does not read holds up nobody, and is told what it missed":
    async (service) => {
      const mark = await service.order("mark");
      const slow = await Stream.open(service, mark);
      slow.response.pause();
      let sent = 0;
      let subscription;
      do { // what the system buffers for a connection comes to megabytes
        const dishes = range(50).map((i) => `${sent + i}:${"x".repeat(8000)}`);
        sent += dishes.length;
        await Promise.all(dishes.map((dish) => service.order(dish)));
        [subscription] = (await service.state()).bus.subscriptions;
        assert.ok(subscription.size <= KEPT);
      } while (subscription.dropped === 0);
      slow.response.resume();
      const last = await service.order("last");
      await slow.until(({ messages }) => messages.at(-1)?.id === last);
      const missed = slow.messages.filter((message) => "missed" in message);
      const got = slow.messages.length - missed.length;
      const lost = missed.reduce((sum, { missed }) => sum + Number(missed), 0);
      assert.ok(lost > 0);
      assert.equal(got + lost, sent + 1);
      slow.leave();
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
    await stream.until(({ beats }) => beats === 2);
    stream.leave();
  },

  "the page shows orders, and misses none when it is cut off": async (
    service,
  ) => {
    const wire = await Wire.to(service);
    const page = await browser.newPage();
    await page.goto(wire.url);
    const connection = (text) => page.getByText(text, { exact: true }).waitFor();
    const log = page.getByRole("log", { name: "Orders" });
    const line = (text) => log.getByText(text, { exact: true }).last().waitFor();
    await connection("Connected");
    const dish = "<b>soup & salad</b>";
    await page.getByLabel("Dish").fill(dish);
    await page.getByLabel("Table").fill("7");
    await page.getByRole("button", { name: "Bake" }).click();
    await page.getByRole("status").getByText(`"dish":${JSON.stringify(dish)}`)
      .waitFor();
    await page.getByRole("button", { name: "Order" }).click();
    await line(`${dish} for table 7`);
    assert.equal(await log.locator("b").count(), 0); // it is text
    const last = await service.order("from elsewhere");
    await line("from elsewhere for table 1");

    wire.cut();
    await connection("Cut off, trying again");
    await service.orders("while away 1", "while away 2");
    wire.mend();
    await connection("Connected");
    await service.order("back");
    await line("back for table 1");
    const lines = await log.getByRole("listitem").allTextContents();
    assert.deepEqual(lines.slice(-5), [
      `${dish} for table 7`,
      "from elsewhere for table 1",
      "while away 1 for table 1",
      "while away 2 for table 1",
      "back for table 1",
    ]);
    assert.deepEqual(wire.ids, [last]);

    await service.stop();
    await service.start();
    await service.order("new");
    await line("new for table 1");
    const all = await log.getByRole("listitem").allTextContents();
    assert.deepEqual(all.slice(-2), ["(missed some)", "new for table 1"]);
    await page.close();
    wire.close();
  },
};

let passed = 0;
let failed = 0;

async function run(name, test) {
  let timer;
  const late = new Promise((_, reject) => {
    const error = new Error(`no end in ${LIMIT} ms`);
    timer = setTimeout(() => reject(error), LIMIT);
  });
  try {
    await Promise.race([test(), late]);
    passed++;
  } catch (error) {
    failed++;
    console.log(`not ok ${name}\n  ${error.stack ?? error}`);
  } finally {
    clearTimeout(timer);
  }
}

const browser = await chromium.launch({
  executablePath: process.env.CHROME ?? "/usr/bin/chromium",
  args: [ // it shall talk to the wires only
    "--disable-quic",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
  ],
});
const wanted = process.argv.slice(2);
await Promise.all(
  Object.entries(runtimes)
    .filter(([name]) => wanted.length === 0 || wanted.includes(name))
    .map(async ([name, command]) => {
      const service = new Service(command);
      await service.start();
      for (const [test, fn] of Object.entries(tests).filter(([k]) => !process.env.ONLY || new RegExp(process.env.ONLY).test(k))) {
        const t = performance.now();
        await run(`${name}: ${test}`, () => fn(service));
        console.error(name, test, performance.now() - t);
      }
      await service.stop();
    }),
);
await browser.close();
console.log(`${passed} passed, ${failed} failed, 0 skipped`);
process.exit(failed > 0 ? 1 : 0);
