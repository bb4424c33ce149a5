# What Python's asyncio.Queue takes for the shapes of queue_bench.ts and
# serializer_bench.ts. Prints a line for each: its name, a tab, nanoseconds.
#
#   python3 queue.py
#
# It has no rendezvous: a queue without a capacity is one without a bound.

import asyncio
import time
from statistics import median

OPERATIONS = 20_000
SAMPLES = 9


async def through(capacity):
    """Sends numbers through a queue, from one task to another."""
    queue = asyncio.Queue(capacity)

    async def send():
        for i in range(OPERATIONS):
            await queue.put(i)

    async def receive():
        for i in range(OPERATIONS):
            check(await queue.get(), i)

    await asyncio.gather(send(), receive())


async def request():
    """Asks the one task that counts, and waits for each answer."""
    loop = asyncio.get_running_loop()
    questions = asyncio.Queue(1)

    async def count():
        for i in range(OPERATIONS):
            _, answer = await questions.get()
            answer.set_result(i)

    counting = asyncio.create_task(count())
    for i in range(OPERATIONS):
        answer = loop.create_future()
        await questions.put((i, answer))
        check(await answer, i)
    await counting


async def show(name, make_round):
    """Runs a round a few times, and prints the median."""
    times = []
    await make_round()  # warm-up
    for _ in range(SAMPLES):
        since = time.perf_counter_ns()
        await make_round()
        times.append((time.perf_counter_ns() - since) / OPERATIONS)
    print(f"{name}\t{median(times):.1f}")


def check(got, expected):
    if got != expected:
        raise AssertionError(f"Wrong result: expected {expected}, got {got}")


async def main():
    await show("spsc", lambda: through(1024))
    await show("request", request)


asyncio.run(main())
