// Says a lot through a queue, and fails at once when it has said all of it.
import { type PortLike, sendTo } from "../../port.ts";
import { Queue } from "../../queue.ts";

const { process } = globalThis as unknown as {
  process?: {
    getBuiltinModule?(name: string): { parentPort: PortLike | null };
  };
};
const { parentPort } = process?.getBuiltinModule?.("node:worker_threads") ??
  { parentPort: null };
const port = parentPort ?? globalThis as unknown as PortLike;

const words = new Queue<{ word: string }>({ capacity: Infinity });
sendTo(words, port);
const word = { word: "last" };
for (let i = 0; i < 2000; i++) words.trySend(word); // the same: a message each
words.close();
// It has been said once it has been taken: nobody else takes it.
const said = setInterval(() => {
  if (words.size > 0) return;
  clearInterval(said);
  throw new RangeError("the worker is done for");
});
