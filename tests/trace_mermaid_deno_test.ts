// What Mermaid itself says of the diagrams.
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { JSDOM } from "jsdom";
import { Recorder } from "../trace.ts";
import { HOSTILE, made, Stage } from "./_trace.ts";

const { window } = new JSDOM("");
Object.assign(globalThis, { window, document: window.document });
const { default: mermaid } = await import("mermaid");

/** A diagram as Mermaid has understood it, in what it shows to readers. */
async function read(text: string) {
  await mermaid.parse(text);
  const { db } = await mermaid.mermaidAPI.getDiagramFromText(
    text,
  ) as unknown as {
    db: {
      getActors(): Map<string, { description: string }>;
      getMessages(): { from?: string; to?: string; message: string }[];
    };
  };
  const actors = db.getActors();
  const name = (id = "") => shown(actors.get(id)!.description);
  return {
    actors: [...actors.values()].map(({ description }) => shown(description)),
    messages: db.getMessages().map(({ from, to, message }) =>
      `${name(from)} > ${name(to)}: ${shown(message)}`
    ),
  };
}

/** What a browser makes of Mermaid's inner form of entities. */
function shown(text: string): string {
  assert(!/[<>&`"]/.test(text), text);
  return text.replaceAll(
    /ﬂ°°(\d+)¶ß/g,
    (_, code) => String.fromCodePoint(code),
  );
}

/** How a name that is not too long is shown. */
function visible(name: string): string {
  const escaped = name.replace(
    /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu,
    (it) =>
      it === "\n"
        ? "\\n"
        : `\\u${it.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return name.trim() === "" ? `"${escaped}"` : escaped.trim();
}

Deno.test("Recorder.toMermaid() shows a story as Mermaid understands it", async () => {
  const stage = new Stage("restaurant");
  using recorder = new Recorder(stage);
  const order = stage.play(made("1"), "kitchen");
  const served = made("2", { type: "served", source: "kitchen", cause: "1" });
  stage.play(served, "board");
  const failed = {
    subscription: "board",
    error: new Error("no; ink"),
    waited: 1,
  };
  stage.tell("failed", served, failed);
  stage.tell("dropped", order, { subscription: "kitchen", reason: "ended" });
  stage.tell("unheard", order);
  assertEquals(await read(recorder.toMermaid()), {
    actors: ["table 7", "restaurant", "kitchen", "board"],
    messages: [
      "table 7 > restaurant: order",
      "restaurant > kitchen: order",
      "kitchen > restaurant: served",
      "restaurant > board: served",
      "board > restaurant: served failed, Error: no; ink",
      "restaurant > kitchen: order dropped, ended",
      "restaurant > restaurant: order is heard by nobody",
    ],
  });
});

Deno.test("Recorder.toMermaid() shows any name as it is", async () => {
  const short = HOSTILE.filter((name) => [...name].length < 50);
  for (const name of short) {
    const stage = new Stage(name);
    using recorder = new Recorder(stage);
    const event = made("1", { type: name, source: `${name}.` });
    stage.play(event, `${name}!`);
    const { actors, messages } = await read(recorder.toMermaid());
    const names = [`${name}.`, name, `${name}!`].map(visible);
    assertEquals(actors, names);
    assertEquals(messages, [
      `${names[0]} > ${names[1]}: ${names[1]}`,
      `${names[1]} > ${names[2]}: ${names[1]}`,
    ]);
  }
});

Deno.test("Recorder.toMermaid() makes a diagram of anything, that viewers take", async () => {
  const name = fc.oneof(
    fc.constantFrom(...HOSTILE),
    fc.string({ unit: "binary" }),
    fc.string({ unit: fc.constantFrom(...'end:;#\n\r%{}<>-+()x `"') }),
  );
  const step = fc.record({
    kind: fc.constantFrom(
      "published" as const,
      "delivered" as const,
      "dropped" as const,
      "failed" as const,
      "unheard" as const,
    ),
    type: name,
    source: name,
    subscription: name,
    error: fc.oneof(name.map((message) => new Error(message)), fc.anything()),
  });
  const steps = fc.array(step, { maxLength: 300, size: "max" });
  const limit = fc.constantFrom(undefined, 1, 7, Infinity);
  await fc.assert(
    fc.asyncProperty(name, steps, limit, async (bus, steps, limit) => {
      const stage = new Stage(bus);
      using recorder = new Recorder(stage);
      for (const { kind, type, source, ...step } of steps) {
        stage.tell(kind, made("1", { type, source }), step);
      }
      const text = recorder.toMermaid({ limit });
      const { actors, messages } = await read(text);
      const left = text.match(/(\d+) earlier arrows left out/)?.[1] ?? 0;
      const notes = left === 0 ? 0 : 1;
      assertEquals(messages.length - notes + Number(left), steps.length);
      assert(messages.length - notes <= (limit ?? 200));
      assert(actors.every((actor) => actor.length < 500));
      assert(text.length < 50_000);
    }),
    { numRuns: 30 },
  );
});
