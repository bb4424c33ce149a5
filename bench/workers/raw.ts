// Answers each message, as one would by hand.
import { ownPort } from "../../_threads.ts";
import { Wire } from "../../_port.ts";

const port = new Wire("answer", ownPort()!, {
  message: (n) => port.post(n as number + 1),
  unreadable: () => {},
  died: () => {},
});
