// A program that has used workers, and has nothing else to do, ends by itself.
import { assertEquals } from "@std/assert";
import { isDeno, isPage, isWorkerd, workerUrl } from "./_ports.ts";

interface Process {
  execPath: string;
  execArgv: string[];
  getBuiltinModule(name: "node:child_process"): {
    execFile(
      file: string,
      args: string[],
      options: object,
      done: (error: unknown, stdout: string) => void,
    ): void;
  };
}

const { process } = globalThis as unknown as { process: Process };

/** Runs the program; resolves with what it has printed once it has ended. */
function run(way: string): Promise<string> {
  const { execFile } = process.getBuiltinModule("node:child_process");
  const flags = isDeno ? ["run", "-A", "--no-check"] : process.execArgv;
  const path = decodeURIComponent(workerUrl("ends").pathname);
  return new Promise((resolve) => {
    const options = { timeout: 50_000 }; // then it is killed, and that is an error
    execFile(
      process.execPath,
      [...flags, path, way],
      options,
      (error, stdout) => {
        resolve(`${stdout.trim()}${error === null ? "" : `, ${error}`}`);
      },
    );
  });
}

const ignore = isPage || isWorkerd; // no processes

const ways: string[] = ignore ? [] : JSON.parse(await run("?"));

Deno.test({
  name: "WorkerSerializer: there are programs that end",
  ignore,
  fn: () => assertEquals(ways.length > 10, true),
});

for (const way of ways) {
  Deno.test(`WorkerSerializer lets a process end that ${way}`, async () => {
    assertEquals(await run(way), "done");
  });
}
