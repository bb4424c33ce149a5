// Node and Bun: runs the tests and sets the exit code. What nobody catches ends
// the process, also when it comes from a test that has passed already.
import process from "node:process";
import { run, running } from "./shim.ts";

let ended = false;
process.on("exit", () => {
  if (ended) return;
  console.log(`not ok ${running()}\nThe process ended in the middle of it`);
  process.exitCode ||= 1;
});

const { passed, failed } = await run();
ended = true;
if (failed > 0 || passed === 0) process.exitCode = 1;

// An idle library keeps no process alive.
setTimeout(() => {
  console.log("Still alive 5 s after the last test");
  process.exit(1);
}, 5000).unref();
