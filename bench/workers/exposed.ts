import { type Endpoint, expose } from "comlink";
import * as adapter from "comlink/dist/esm/node-adapter.mjs";
import { parentPort } from "node:worker_threads";

const exposed = { plusOne: (n: number): number => n + 1 };
const nodeEndpoint = adapter.default as unknown as (
  port: unknown,
) => Endpoint; // its types say otherwise
expose(exposed, nodeEndpoint(parentPort));
export type Exposed = typeof exposed;
