// Says a lot through a queue, and fails at once when it has said all of it.
import { ownPort } from "../../_threads.ts";
import { sendTo } from "../../port.ts";
import { Queue } from "../../queue.ts";

const port = ownPort()!;

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
