// A worker whose resource is larger than its memory.
import { serve } from "../../worker.ts";

serve({
  open(): unknown[] {
    for (const all: unknown[] = [];;) all.push(new Array(1e5).fill(0.5));
  },
  handle: () => null,
});
