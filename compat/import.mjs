// Node and Bun: imports a bundle of imports.mjs where whatever could start
// something is refused, and ends once nothing keeps the process alive.
import process from "node:process";

const refused = []; // what was called, also if somebody has caught that

/** Refuses calls of methods, and of classes. */
function refuse(object, ...names) {
  for (const name of names) {
    object[name] = function () {
      refused.push(name);
      throw new Error(`${name} is refused`);
    };
  }
}

refuse(process, "on", "once", "addListener", "getBuiltinModule");
refuse(EventTarget.prototype, "addEventListener");
refuse(crypto, "getRandomValues", "randomUUID");
refuse(Math, "random");
refuse(Date, "now");
refuse(performance, "now");
refuse(
  globalThis,
  "setTimeout",
  "setInterval",
  "setImmediate",
  "queueMicrotask",
  "fetch",
  "AbortController",
  "BroadcastChannel",
  "MessageChannel",
);

const traces = () => [
  ...Object.getOwnPropertyNames(globalThis),
  ...process.eventNames().map((name) => `listener of ${String(name)}`),
];
const before = traces();
await import(process.argv[2]);
const left = traces().filter((trace) => !before.includes(trace));
if (left.length > 0) throw new Error(`It leaves ${left} behind`);
if (refused.length > 0) throw new Error(`It calls ${refused}`);
