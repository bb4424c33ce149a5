// A service on Cloudflare's workers with serializers at module level, for edge.mjs.
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

export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/most") return new Response(`${most}`);
    if (pathname === "/break") {
      const error = await breaker.request("broken").catch((error) => error);
      return new Response(error.message);
    }
    const ms = Number(searchParams.get("ms"));
    return new Response(`${await sleeper.request(ms)}`);
  },
};
