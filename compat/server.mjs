// Servers, requests to them, and tests that print like the hosts of run.mjs.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { request } from "node:http";
import process from "node:process";

export const HOST = "127.0.0.1";
const LIMIT = 60_000; // ms for a test

const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => process.exit(1));
}

/** A server in a process of its own. */
export class Server {
  #command;
  #child;
  #requests = new Set(); // under way
  port;

  /** Takes a command that serves at a free port, and prints at which. */
  constructor(command) {
    this.#command = command;
  }

  async start() {
    const [program, ...args] = this.#command;
    const child = this.#child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1" },
    });
    children.add(child);
    let output = "";
    this.port = await new Promise((resolve, reject) => {
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding("utf8").on("data", (text) => {
          output += text;
          const port = /(?:127\.0\.0\.1:|"port":)(\d+)/.exec(output)?.[1];
          if (port) resolve(Number(port));
        });
      }
      child.on("error", reject);
      child.on("exit", () => reject(new Error(`${program} ended: ${output}`)));
    });
  }

  async stop() {
    const gone = once(this.#child, "exit");
    this.#child.kill("SIGKILL"); // workerd would wait for streams to end
    await gone;
    children.delete(this.#child);
  }

  /** Sends a request over a connection of its own. */
  send(method, path, { body, headers } = {}) {
    const { port } = this;
    const options = { host: HOST, port, method, path, headers, agent: false };
    const sent = request(options).end(body);
    this.#requests.add(sent);
    return sent.on("close", () => this.#requests.delete(sent))
      .on("error", () => {}); // whoever waits for the response is told
  }

  /** Leaves all requests that are under way. */
  hangUp() {
    for (const request of this.#requests) request.destroy();
  }

  /** Resolves with an answer. */
  ask(method, path, options) {
    return answerTo(this.send(method, path, options));
  }
}

/** Resolves with the answer to a request. */
export async function answerTo(sent) {
  const [response] = await once(sent, "response");
  const { statusCode: status, headers } = response;
  const text = (await response.setEncoding("utf8").toArray()).join("");
  return { status, headers, text };
}

let passed = 0;
let failed = 0;

/** Runs tests one after another, with a server of their own. */
export async function runAll(host, tests, server) {
  try {
    await server.start();
    for (const [name, test] of Object.entries(tests)) {
      const error = await outcome(test(server));
      server.hangUp();
      if (error === undefined) passed++;
      else {
        failed++;
        console.log(`not ok ${host}: ${name}\n  ${error.stack}`);
      }
    }
    await server.stop();
  } catch (error) {
    failed++;
    console.log(`not ok ${host}\n  ${error.stack}`);
  }
}

/** Resolves with the error of a test, if it fails or takes too long. */
async function outcome(test) {
  let timer;
  const late = new Promise((resolve) => {
    const error = new Error(`no end in ${LIMIT} ms`);
    timer = setTimeout(() => resolve(error), LIMIT);
  });
  const error = await Promise.race([test, late]).catch((error) => error);
  clearTimeout(timer);
  return error;
}

/** Prints the counts, and ends the process. */
export function finish() {
  console.log(`${passed} passed, ${failed} failed, 0 skipped`);
  process.exit(failed > 0 ? 1 : 0);
}
