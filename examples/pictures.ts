/** Pictures of a day at the restaurant. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { BusEvent } from "../bus.ts";
import { type Observable, Recorder } from "../trace.ts";

/**
 * Watches a bus from now on. What it returns writes two files into a folder: the
 * way of one event (for Mermaid), and all that is still known of the day over
 * time (for https://ui.perfetto.dev).
 */
export function draw(
  bus: Observable,
  folder: string,
): (event?: BusEvent) => Promise<void> {
  const recorder = new Recorder(bus, { size: 50_000 });
  return async (event) => {
    await mkdir(folder, { recursive: true });
    const write = (name: string, text: string) =>
      writeFile(join(folder, name), text);
    await write("restaurant.mmd", recorder.toMermaid({ of: event }));
    const trace = JSON.stringify(recorder.toChromeTrace());
    await write("restaurant.trace.json", trace);
  };
}
