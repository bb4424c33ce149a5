// Sends numbers from 0, as many as it is told: one by one, or through a queue.
import { Wire } from "../../_port.ts";
import { ownPort } from "../../_threads.ts";
import { sendTo } from "../../port.ts";
import { Queue } from "../../queue.ts";

const port = ownPort()!;
new Wire("stream", port, {
  async message(message) {
    const { count, channel } = Object(message);
    if (channel === undefined) {
      for (let i = 0; i < count; i++) port.postMessage(i);
      return;
    }
    if (typeof channel !== "string" || count === undefined) return;
    const queue = new Queue<number>({ capacity: 4096 });
    sendTo(queue, port, { channel, onError: () => {} });
    for (let i = 0; i < count; i++) {
      if (!queue.trySend(i)) await queue.send(i);
    }
    queue.close();
  },
  unreadable: () => {},
  died: () => {},
});
