/** Node's own server for handlers of `fetch`'s requests, such as an inspector. */
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

type Handler = (request: Request) => Response | Promise<Response>;

/** Lets a fetch handler answer the requests of a server of Node. */
export function toNode(handler: Handler): RequestListener {
  return async ({ method, url, headers }, outgoing) => {
    const gone = new AbortController();
    outgoing.on("close", () => gone.abort());
    try {
      const address = `http://${headers.host}${url}`;
      const init = { method, headers: headers as Record<string, string> };
      const { signal } = gone;
      const response = await handler(new Request(address, { ...init, signal }));
      outgoing.writeHead(response.status, Object.fromEntries(response.headers));
      const { body } = response;
      await pipeline(body ? Readable.fromWeb(body as never) : [], outgoing);
    } catch { // the client has gone, or sends what is no request
      outgoing.destroy();
    }
  };
}

/** Serves to this machine alone, at a free port unless told otherwise; resolves with the address. */
export async function serveHere(handler: Handler, port = 0): Promise<string> {
  const server = createServer(toNode((request) => {
    const { hostname } = new URL(request.url); // by which others may lead here
    if (hostname === "127.0.0.1" || hostname === "localhost") {
      return handler(request);
    }
    return new Response("For 127.0.0.1 only\n", { status: 403 });
  }));
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}
