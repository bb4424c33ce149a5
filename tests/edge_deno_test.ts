import { assertEquals } from "@std/assert";
import { Restaurant } from "../examples/edge.ts";
import { range } from "./_helpers.ts";

// What takes no server; the rest is in compat/service.mjs.

Deno.test("examples/edge.ts: a client that comes back while others order gets all that it has missed, in order", async () => {
  const restaurant = new Restaurant();
  const post = async (dish: string): Promise<string> => {
    const body = JSON.stringify({ dish, table: 1 });
    const request = new Request("http://edge/orders", { method: "POST", body });
    return (await (await restaurant.fetch(request)).json()).id;
  };
  const old = range(101).map((i) => `old ${i}`);
  const ids: string[] = [];
  for (const dish of old) ids.push(await post(dish));

  const dishes = range(30).map((i) => `new ${i}`);
  const posts = dishes.map(post); // under way, as it comes back
  const headers = { "last-event-id": ids[1] };
  const stream = await restaurant.fetch(
    new Request("http://edge/orders", { headers }),
  );
  await Promise.all(posts);
  await post("last");

  const got: string[] = [];
  for await (const text of stream.body!.pipeThrough(new TextDecoderStream())) {
    for (const [_, event] of text.matchAll(/^event: (.*)$/gm)) got.push(event);
    for (const [_, dish] of text.matchAll(/"dish":"(.*?)"/g)) got.push(dish);
    if (got.at(-1) === "last") break;
  }
  const missed = [...old.slice(2), ...dishes, "last"];
  assertEquals(got, missed);
});
