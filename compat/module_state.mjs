// Tests of module_state.ts on workerd, on which docs/edge.md rests: what requests
// can share at module level, and what in a Durable Object.
import assert from "node:assert/strict";
import { HOST, Server } from "./server.mjs";

export const server = new Server([
  "node_modules/.bin/workerd",
  "serve",
  "--control-fd=1",
  `--socket-addr=http=${HOST}:0`,
  "module_state.capnp",
]);

/** Asks one of the two that share. */
async function ask(path, body) {
  const { status, text } = await server.ask("POST", path, { body });
  return [status, text];
}

/** Sends a request; resolves with what `send` returns, boxed, once it has begun. */
async function begin(place, send) {
  const [_, before] = await ask(`${place}/begun`);
  const sent = send();
  while ((await ask(`${place}/begun`))[1] === before);
  return { sent };
}

/** Resolves with the answer to a request that waits until another one has come. */
async function wait(place, what) {
  const { sent } = await begin(place, () => ask(`${place}/${what}`));
  await ask(`${place}/come`);
  return await sent;
}

async function readBodyOfAnother(place) {
  const { sent } = await begin(place, () => ask(`${place}/keep`, "a body"));
  const [status, text] = await ask(`${place}/read`);
  await sent;
  return [status, text.replace(/\..*/s, "")];
}

async function leaveInTurn(place) {
  const { sent } = await begin(
    place,
    () => server.send("GET", `${place}/turn`),
  );
  sent.socket.resetAndDestroy();
  return await ask(`${place}/is-free`);
}

export const tests = {
  "at module level, a request that waits for another one alone is canceled":
    async () =>
      assert.deepEqual(await ask("/module/wait"), [
        500,
        "Internal Server Error",
      ]),

  "at module level, it is answered if it has a timer": async () =>
    assert.deepEqual(await wait("/module", "wait-with-timer"), [200, "came"]),

  "at module level, a body can't be read by another request": async () =>
    assert.deepEqual(await readBodyOfAnother("/module"), [
      599,
      "Cannot perform I/O on behalf of a different request",
    ]),

  "at module level, a mutex stays taken when the client of its holder leaves":
    async () =>
      assert.deepEqual(await leaveInTurn("/module"), [200, "taken for ever"]),

  "in a Durable Object, a request can wait for another one": async () =>
    assert.deepEqual(await wait("/object", "wait"), [200, "came"]),

  "in a Durable Object, a body can be read by another request": async () =>
    assert.deepEqual(await readBodyOfAnother("/object"), [200, "a body"]),

  "in a Durable Object, a mutex is released although the client of its holder left":
    async () => assert.deepEqual(await leaveInTurn("/object"), [200, "free"]),
};
