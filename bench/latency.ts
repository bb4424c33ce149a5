// How long an event takes over a link, from `publish` to the handler on another
// bus, one after another, beside the same text through the bare medium; and how
// many go through in a second, sent 256 at a time. Both ends are in one thread.
//
// Prints, for each: what, the median and the 99th percentile in µs, events/s.

import process from "node:process";
import { contenders, MANY, media, type Send } from "./link_bench.ts";

const WARM_UP = 2000;
const EVENTS = 5000;
const ROUNDS = 15;

for (const [medium, make] of Object.entries(media)) {
  const sends: [name: string, send: Send][] = [];
  for (const [name, connect] of Object.entries(contenders(make))) {
    sends.push([`${medium}: ${name}`, await connect()]);
  }
  const times = new Map(sends.map(([name]) => [name, [] as number[]]));
  const rates = new Map(sends.map(([name]) => [name, [] as number[]]));
  for (const [, send] of sends) {
    for (let n = 0; n < WARM_UP; n++) await send(1);
    await send(MANY);
  }
  for (let round = 0; round < ROUNDS; round++) { // in turns: noise hits them alike
    for (const [name, send] of sends) {
      for (let n = 0; n < EVENTS / ROUNDS; n++) {
        const since = performance.now();
        await send(1);
        times.get(name)!.push(performance.now() - since);
      }
      const since = performance.now();
      await send(MANY);
      rates.get(name)!.push(MANY / (performance.now() - since) * 1000);
    }
  }
  for (const [name] of sends) {
    const sorted = times.get(name)!.sort((a, b) => a - b);
    const us = (part: number) =>
      (sorted[Math.floor(sorted.length * part)] * 1000).toFixed(1);
    const rate = rates.get(name)!.sort((a, b) => a - b)[ROUNDS >> 1];
    console.log([name, us(0.5), us(0.99), Math.round(rate)].join("\t"));
  }
}
process.exit(); // the links are open
