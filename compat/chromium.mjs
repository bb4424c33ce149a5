// A headless Chromium, and a way from it to a server that can be cut.
import { once } from "node:events";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import process from "node:process";
import { HOST } from "./server.mjs";

// Not imported, since `deno check` looks at this file, and has no need of it.
const { chromium } = createRequire(import.meta.url)("playwright-core");

/** A way to a service that can be cut. */
export class Wire {
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

/** Starts one; it talks to wires only. */
export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROME ?? "/usr/bin/chromium",
    args: [
      "--disable-quic",
      "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ],
  });
}
