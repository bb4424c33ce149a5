import { execFileSync, spawn } from "node:child_process";
import { join } from "node:path";
import process from "node:process";

/** How long a program may take, in ms; a test has its own limit, in shim.ts. */
export const LIMIT = 600_000;

/**
 * Runs a program of node_modules (or, if its name is no path, of the system) to
 * its end. Resolves with what it printed, and an error unless all went well.
 */
export function start(program, args, { cwd, timeout = LIMIT } = {}) {
  if (program.includes("/")) {
    program = join(import.meta.dirname, "node_modules", program);
  }
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe"],
      cwd,
      timeout,
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => output += text);
    }
    const end = (code, signal) => {
      const error = code === 0 ? undefined : `ended with ${code ?? signal}`;
      resolve({ output, error });
    };
    child.on("error", (error) => resolve({ output, error }));
    child.on("close", end);
    // A child of its own that it has left behind may hold its output open.
    child.on("exit", (...how) => setTimeout(end, 5000, ...how).unref());
  });
}

/** Where Deno is: DENO=/path/to/it, or that of npx. */
export function findDeno() {
  // Not what npx starts: that is a parent of it, and would not hand on a signal.
  return process.env.DENO ?? execFileSync("npx", [
    ..."--prefer-offline -y deno@2.9.5 eval -p Deno.execPath()".split(" "),
  ], { encoding: "utf8" }).trim();
}
