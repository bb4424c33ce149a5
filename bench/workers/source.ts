// Sends numbers from 0, as many as it is told: in messages, or through a queue.
import { Wire } from "../../_port.ts";
import { ownPort } from "../../_threads.ts";
import { sendTo } from "../../port.ts";
import { Queue } from "../../queue.ts";

const port = ownPort()!;
new Wire("stream", port, {
  async message(message) {
    const { count, inEach, channel, capacity } = Object(message);
    if (inEach !== undefined) return post(count, inEach);
    if (capacity === undefined) return; // the queue's own
    const queue = new Queue<number>({ capacity });
    sendTo(queue, port, { channel, onError: () => {} });
    for (let i = 0; i < count; i++) {
      if (capacity === 0 || !queue.trySend(i)) await queue.send(i);
    }
    queue.close();
  },
  unreadable: () => {},
  died: () => {},
});

function post(count: number, inEach: number): void {
  for (let i = 0; i < count;) {
    if (inEach === 1) {
      port.postMessage(i++);
      continue;
    }
    const values: number[] = [];
    while (values.length < inEach && i < count) values.push(i++);
    port.postMessage(values);
  }
}
