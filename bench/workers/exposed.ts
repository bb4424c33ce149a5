import { expose } from "comlink";
import nodeEndpoint from "comlink/dist/esm/node-adapter.mjs";
import { parentPort } from "node:worker_threads";

const exposed = { plusOne: (n: number): number => n + 1 };
expose(exposed, nodeEndpoint(parentPort as never));
export type Exposed = typeof exposed;
