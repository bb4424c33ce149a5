import { assertEquals } from "@std/assert";
import { merge, Queue, type QueueOptions, select } from "../queue.ts";
import {
  flush,
  follow,
  probedController,
  range,
  type Task,
} from "./_helpers.ts";
import { Workers } from "./_workers.ts";

const LOST =
  "Cannot wait any longer: its request has been silent, as if it had ended; if it has not, try again";

/** A queue, and what happens to those who use it. */
function makeQueue(options?: QueueOptions<string>) {
  const log: string[] = [];
  const queue = new Queue<string>(options);
  const tell = (name: string, promise: Promise<unknown>) =>
    void promise.then(
      (value) =>
        log.push(
          value === undefined ? name : `${name}: ${JSON.stringify(value)}`,
        ),
      (error) => log.push(`${name}: ${error.message ?? error}`),
    );
  const saw = async (...lines: string[]) => {
    await flush();
    assertEquals(log.splice(0), lines);
  };
  return { queue, tell, saw };
}

/** Each way to wait for a value, and how it is answered. */
const receiving: {
  [verb: string]: {
    start: (queue: Queue<string>) => Promise<unknown>;
    got: (value: string) => unknown;
  };
} = {
  "receive()": {
    start: (queue) => queue.receive(),
    got: (value) => value,
  },
  "receiveMany()": {
    start: (queue) => queue.receiveMany(9),
    got: (value) => [value],
  },
  "values()": {
    start: (queue) => queue.values().next(),
    got: (value) => ({ value, done: false }),
  },
  "batches()": {
    start: (queue) => queue.batches(9).next(),
    got: (value) => ({ value: [value], done: false }),
  },
  "toReadableStream()": {
    start: (queue) =>
      queue.toReadableStream().getReader().read().then(({ value }) => value),
    got: (value) => value,
  },
  "select()": {
    start: (queue) => select({ queue, other: new Queue() }),
    got: (value) => ({ key: "queue", value }),
  },
  "merge()": {
    start: (queue) => merge({ queue, other: new Queue() }).next(),
    got: (value) => ({ value: { key: "queue", value }, done: false }),
  },
};

for (const [verb, { start, got }] of Object.entries(receiving)) {
  Deno.test(`${verb} on Cloudflare's workers: who is lost gets nothing, the next one in line does`, async () => {
    using workers = new Workers();
    const { queue, tell, saw } = makeQueue();
    for (const name of "ab") {
      await workers.request(name, () => tell(name, start(queue)));
    }
    assertEquals(workers.timers.map(({ request }) => request), ["a", "b"]);
    workers.end("a");
    await workers.passAll(400);
    await saw();
    await workers.passAll(400);
    await saw(`a: ${LOST}`); // if it is there after all
    await workers.request("c", () => void queue.trySend("soup"));
    await saw(`b: ${JSON.stringify(got("soup"))}`);
    await workers.passAll(100);
    assertEquals(workers.timers.length, 0);
  });

  Deno.test(`${verb} on Cloudflare's workers: who has been silent for a second gets nothing, although nobody has noticed`, async () => {
    using workers = new Workers();
    const { queue, tell, saw } = makeQueue({ capacity: 1 });
    for (const name of "ab") {
      await workers.request(name, () => tell(name, start(queue)));
      workers.end(name);
    }
    await workers.pass(1050);
    await workers.request("c", () => void queue.trySend("soup"));
    await saw(`a: ${LOST}`, `b: ${LOST}`);
    assertEquals(queue.drain(), ["soup"]);
  });

  Deno.test(`${verb} on Cloudflare's workers: who is late because the thread was busy is not lost`, async () => {
    using workers = new Workers();
    const { queue, tell, saw } = makeQueue();
    for (const name of "ab") {
      await workers.request(name, () => tell(name, start(queue)));
    }
    for (const _ of range(20)) await workers.pass(60_000);
    for (const dish of ["soup", "pie"]) {
      await workers.request("c", () => void queue.trySend(dish));
    }
    await saw(
      `a: ${JSON.stringify(got("soup"))}`,
      `b: ${JSON.stringify(got("pie"))}`,
    );
  });
}

/** Each way to wait for a place. */
const sending: {
  [verb: string]: (queue: Queue<string>, value: string) => Promise<unknown>;
} = {
  "send()": (queue, value) => queue.send(value),
  "toWritableStream()": (queue, value) =>
    queue.toWritableStream().getWriter().write(value),
};

for (const [verb, start] of Object.entries(sending)) {
  for (const capacity of [0, 1, 2]) {
    Deno.test(`${verb} on Cloudflare's workers: the value of who is lost is not sent, that of the next one is (capacity ${capacity})`, async () => {
      using workers = new Workers();
      const { queue, tell, saw } = makeQueue({ capacity });
      const full = ["soup", "pie"].slice(0, capacity);
      for (const dish of full) queue.trySend(dish);
      for (const name of "ab") {
        await workers.request(name, () => tell(name, start(queue, name)));
      }
      workers.end("a");
      await workers.passAll(800);
      await saw(`a: ${LOST}`);
      assertEquals(queue.drain(), [...full, "b"]);
      await saw("b");
    });
  }

  Deno.test(`${verb} on Cloudflare's workers: the value of who has been silent for a second is not sent, although nobody has noticed`, async () => {
    using workers = new Workers();
    const { queue, tell, saw } = makeQueue();
    for (const name of "ab") {
      await workers.request(name, () => tell(name, start(queue, name)));
    }
    workers.end("a");
    workers.end("b");
    await workers.pass(1050);
    assertEquals(queue.tryReceive(), { state: "empty" });
    await saw(`a: ${LOST}`, `b: ${LOST}`);
  });
}

Deno.test("Queue on Cloudflare's workers: a loop gets what others send, with one timer at most for each wait", async () => {
  using workers = new Workers();
  const { queue, tell, saw } = makeQueue();
  const loop = async () => {
    const dishes: string[] = [];
    for await (const dish of queue) dishes.push(dish);
    return dishes;
  };
  await workers.request("a", () => tell("a", loop()));
  for (const dish of ["soup", "pie", "tart"]) {
    await workers.passAll(100);
    await workers.request("b", () => void queue.trySend(dish));
  }
  await workers.request("b", () => queue.close());
  await saw(`a: ["soup","pie","tart"]`);
  await workers.passAll(100);
  assertEquals(workers.timers.length, 0);
});

Deno.test("Queue on Cloudflare's workers: one timer for all that a request waits for in one go", async () => {
  using workers = new Workers();
  const queue = new Queue<number>();
  const sum = async () => {
    let sum = 0;
    for await (const n of queue) sum += n;
    return sum;
  };
  const send = async () => {
    for (const n of range(1000)) {
      if (n > 500) { for (const _ of range(40)) await undefined; // something else
       }
      await queue.send(n);
    }
    queue.close();
  };
  const waiting: Task<number>[] = [];
  await workers.request("a", () => {
    for (const _ of range(1000)) waiting.push(follow(queue.receive()));
  });
  assertEquals(workers.timers.length, 1);
  workers.end("a");
  await workers.pass(1050);
  const total: Task<number>[] = [];
  await workers.request("b", () => {
    total.push(follow(sum()));
    send();
  });
  while (total[0].state === "pending") await flush();
  assertEquals(total[0].value, 499_500);
  assertEquals(workers.timers.length < 10, true); // for 500 waits far apart
  assertEquals(waiting.every(({ state }) => state === "rejected"), true);
  await workers.passAll(100);
  assertEquals(workers.timers.length, 0);
});

Deno.test("Queue on Cloudflare's workers: a go that the runtime has cut off takes in nobody else", async () => {
  using workers = new Workers();
  const { queue, tell, saw } = makeQueue();
  const cutOff = workers.request("a", () => tell("a", queue.receive()));
  workers.end("a"); // in the same go: it has not come to an end
  workers.hold(100);
  const next = workers.request("b", () => tell("b", queue.receive()));
  assertEquals(workers.timers.map(({ request }) => request), ["b"]);
  await Promise.all([cutOff, next]);
  await workers.passAll(800);
  await saw(`a: ${LOST}`);
});

Deno.test("select() on Cloudflare's workers: who is lost leaves all its lines", async () => {
  using workers = new Workers();
  const { queue, tell, saw } = makeQueue();
  const other = new Queue<string>();
  await workers.request("a", () => tell("a", select({ queue, other })));
  await workers.request("b", () => tell("b", queue.receive()));
  workers.end("a");
  await workers.passAll(800);
  await saw(`a: ${LOST}`);
  assertEquals([other.trySend("pie"), queue.trySend("soup")], [false, true]);
  await saw(`b: "soup"`);
});

Deno.test("select() on Cloudflare's workers: who has been silent for a second leaves all its lines", async () => {
  using workers = new Workers();
  const { queue, tell, saw } = makeQueue();
  const other = new Queue<string>();
  await workers.request("a", () => tell("a", select({ queue, other })));
  workers.end("a");
  await workers.pass(1050);
  assertEquals(queue.trySend("soup"), false);
  await saw(`a: ${LOST}`);
  assertEquals(other.trySend("pie"), false);
});

Deno.test("Queue on Cloudflare's workers: closing tells those who are lost, too", async () => {
  using workers = new Workers();
  const { queue, tell, saw } = makeQueue();
  for (const name of "ab") {
    await workers.request(name, () => tell(name, queue.receive()));
  }
  workers.end("a");
  await workers.passAll(200);
  await workers.request("c", () => queue.close());
  const closed = "Cannot receive from queue: it is closed and empty";
  await saw(`a: ${closed}`, `b: ${closed}`);
  await workers.passAll(800);
  await saw();
});

Deno.test("Queue on Cloudflare's workers: an aborted signal wins, and none is listened to for who is lost", async () => {
  using workers = new Workers();
  const { queue, tell, saw } = makeQueue();
  const controllers = [..."abc"].map(() => probedController());
  for (const [i, name] of [..."abc"].entries()) {
    const { signal } = controllers[i];
    await workers.request(name, () => tell(name, queue.receive({ signal })));
  }
  controllers[0].abort(new Error("enough"));
  await saw("a: enough");
  workers.end("b");
  await workers.passAll(800);
  await saw(`b: ${LOST}`);
  assertEquals(controllers.map(({ listening }) => listening), [0, 0, 1]);
  await workers.request("d", () => void queue.trySend("soup"));
  await saw(`c: "soup"`);
  assertEquals(controllers[2].listening, 0);
});

Deno.test("Queue on Cloudflare's workers: a signal that has aborted, but not told anybody yet, wins", async () => {
  using workers = new Workers();
  const { queue, tell, saw } = makeQueue({ capacity: 1 });
  const controller = new AbortController();
  const { signal } = controller;
  signal.addEventListener("abort", () => queue.trySend("soup"));
  await workers.request("a", () => tell("a", queue.receive({ signal })));
  controller.abort(new Error("enough"));
  await saw("a: enough");
  assertEquals(queue.drain(), ["soup"]);
});

Deno.test("Queue on Cloudflare's workers: outside of any request, where no timer may be set, values are handed over", async () => {
  using _ = new Workers();
  const { queue, tell, saw } = makeQueue();
  tell("a", queue.receive());
  queue.trySend("soup");
  await saw(`a: "soup"`);
});

Deno.test("Queue on Cloudflare's workers: a clock that is set back loses nobody, and delays nothing", async () => {
  using workers = new Workers();
  const { queue, tell, saw } = makeQueue();
  for (const name of "abc") {
    await workers.request(name, () => tell(name, queue.receive()));
  }
  await workers.pass(100);
  workers.setBack(3_600_000);
  await workers.request("d", () => void queue.trySend("soup"));
  await saw(`a: "soup"`);
  workers.end("b");
  await workers.passAll(800);
  await saw(`b: ${LOST}`);
});

Deno.test("Queue sets no timer anywhere else", async () => {
  using workers = new Workers("Deno/2.9.5");
  const { queue, tell, saw } = makeQueue();
  for (const name of "ab") {
    await workers.request(name, () => tell(name, queue.receive()));
  }
  assertEquals(workers.timers.length, 0);
  await workers.request("c", () => void queue.trySend("soup"));
  await saw(`a: "soup"`);
});

for (const elsewhere of [true, false]) {
  Deno.test(`Queue on Cloudflare's workers: short waits ${elsewhere ? "elsewhere" : "at the same queue"} hide nobody who is lost`, async () => {
    using workers = new Workers();
    const { queue, tell, saw } = makeQueue();
    await workers.request("a", () => tell("a", queue.receive()));
    workers.end("a");
    const other = elsewhere ? new Queue<string>() : queue;
    for (let i = 0; i < 12; i++) {
      const controller = new AbortController();
      const { signal } = controller;
      await workers.request(`${i}`, () => {
        other.receive({ signal }).catch(() => {});
      });
      await workers.passAll(150);
      await workers.request(`${i}`, () => controller.abort());
    }
    await workers.request("z", () => {
      assertEquals(queue.trySend("x"), false);
    });
    await saw(`a: ${LOST}`);
  });
}
