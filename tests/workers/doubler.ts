// Sends back twice of what it receives, through the worker's own scope.
import { ownPort } from "../../_threads.ts";
import { receiveFrom, sendTo } from "../../port.ts";
import { Queue } from "../../queue.ts";

const port = ownPort()!;

const received = receiveFrom<number>(port, { channel: "in", capacity: 4 });
const doubled = new Queue<number>();
sendTo(doubled, port, { channel: "out" });
try {
  for await (const value of received) {
    if (value === 13) throw new TypeError("thirteen");
    await doubled.send(2 * value);
  }
  doubled.close();
} catch (error) {
  doubled.close(error);
  setTimeout(() => {
    throw new RangeError("the worker is done for");
  });
}
