// Tests of examples/edge.html in a headless Chromium, for service.mjs.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import process from "node:process";
import { HOST } from "./server.mjs";

// Not imported, since `deno check` looks at this file, and has no need of it.
const { chromium } = createRequire(import.meta.url)("playwright-core");

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
      client.on("data", (bytes) => {
        const id = /^last-event-id: *(.*)\r$/im.exec(`${bytes}`)?.[1];
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

export const browser = await chromium.launch({
  executablePath: process.env.CHROME ?? "/usr/bin/chromium",
  args: [ // it shall talk to wires only
    "--disable-quic",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
  ],
});

export const tests = {
  "the page shows orders, and misses none when it is cut off": async (
    service,
  ) => {
    const wire = await Wire.to(service);
    const page = await browser.newPage();
    await page.goto(wire.url);
    const connection = (text) =>
      page.getByText(text, { exact: true }).waitFor();
    const log = page.getByRole("log", { name: "Orders" });
    const line = (text) =>
      log.getByText(text, { exact: true }).last().waitFor();
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
