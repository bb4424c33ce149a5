// Answers each message, as one would by hand.
import { Wire } from "../../_port.ts";
import { ownPort } from "../../_threads.ts";

const port = ownPort()!;

new Wire("answer", port, {
  message: (n) => port.postMessage(n as number + 1),
  unreadable: () => {},
  died: () => {},
});
