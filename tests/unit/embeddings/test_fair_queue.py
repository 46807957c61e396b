from __future__ import annotations

import asyncio
import contextlib

from services.embeddings.fair_queue import FairQueue, Flow


class Engine:
    """Takes batches out of a queue, one after another, and records the names of their requests."""

    def __init__(self, *, capacity: int) -> None:
        self.queue = FairQueue(capacity=capacity)
        self.inside: list[tuple[str, int]] = []
        self.done: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def enter(self, name: str, flow: Flow, *, tokens: int, batches: int = 1) -> list[asyncio.Task[None]]:
        async def one() -> None:
            await self.queue.enter(flow, tokens=tokens, texts=1)
            self.inside.append((name, tokens))

        tasks = [asyncio.create_task(one()) for _ in range(batches)]
        self.tasks += tasks
        return tasks

    async def step(self) -> None:
        """Let waiting tasks run, and finish the batch that was admitted first."""
        for _ in range(5):
            await asyncio.sleep(0)
        if self.inside:
            name, tokens = self.inside.pop(0)
            self.done.append(name)
            self.queue.leave(tokens)

    async def finish(self) -> None:
        while not all(task.done() for task in self.tasks) or self.inside:
            await self.step()


async def test_admitted_batches_do_not_exceed_the_capacity() -> None:
    engine = Engine(capacity=20)
    engine.enter("large", Flow(0), tokens=10, batches=5)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(engine.inside) == 2
    assert engine.queue.queued_texts == 3
    await engine.finish()
    assert engine.done == ["large"] * 5


async def test_a_batch_larger_than_the_capacity_is_admitted_alone() -> None:
    engine = Engine(capacity=20)
    engine.enter("huge", Flow(0), tokens=100)
    engine.enter("small", Flow(0), tokens=1)
    await engine.finish()
    assert sorted(engine.done) == ["huge", "small"]


async def test_a_new_small_request_overtakes_the_rest_of_a_large_one() -> None:
    engine = Engine(capacity=20)
    engine.enter("large", Flow(0), tokens=10, batches=50)
    await engine.step()
    engine.enter("small", Flow(0), tokens=1)
    await engine.finish()
    assert engine.done.index("small") <= 4


async def test_two_large_requests_take_turns() -> None:
    engine = Engine(capacity=10)
    engine.enter("one", Flow(0), tokens=10, batches=20)
    await engine.step()
    engine.enter("other", Flow(0), tokens=10, batches=20)
    await engine.finish()
    assert abs(engine.done[5:25].count("one") - 10) <= 1


async def test_many_small_requests_do_not_starve_a_large_one() -> None:
    engine = Engine(capacity=10)
    engine.enter("large", Flow(0), tokens=10, batches=3)
    for _ in range(60):
        engine.enter("small", Flow(0), tokens=1)
        await engine.step()
    assert engine.done.count("large") == 3, engine.done
    await engine.finish()


async def test_a_higher_priority_goes_first() -> None:
    engine = Engine(capacity=10)
    engine.enter("normal", Flow(0), tokens=10, batches=5)
    await engine.step()
    engine.enter("urgent", Flow(1), tokens=10, batches=5)
    await engine.finish()
    assert engine.done[2:7] == ["urgent"] * 5


async def test_a_batch_cancelled_while_it_waits_takes_no_capacity() -> None:
    engine = Engine(capacity=10)
    engine.enter("large", Flow(0), tokens=10, batches=2)
    gone = engine.enter("gone", Flow(0), tokens=10, batches=3)
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert engine.queue.queued_texts == 1
    await engine.finish()
    assert engine.done == ["large"] * 2
    engine.enter("next", Flow(0), tokens=10)
    await engine.finish()
    assert engine.done[-1] == "next"
