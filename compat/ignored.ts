// Names the tests that this runtime cannot do, without running any: `deno test`
// only counts them.
import { ignored } from "./shim.ts";

for (const name of ignored()) console.log(`skip ${name}`);
