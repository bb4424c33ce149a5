// Serves requests, and sends back twice of what it receives, both through the
// worker's own scope.
import { serve } from "../../worker.ts";

const both = serve({
  open: () => ({ served: 0 }),
  handle: (state, plus: number) => ++state.served + plus,
});

import("./doubler.ts"); // goes on as long as values come

export type Both = typeof both;
