import { serve } from "../../worker.ts";

const served = serve({
  open: () => 1,
  handle: (one, n: number) => n + one,
});
export type Served = typeof served;
