"""Measures tokens per second of vLLM: called directly, through the engine, and through Triton's stream of steps."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.trtllm.subject import Subject

PROMPT_TOKENS, TOKENS = 128, 256
CONCURRENT = (1, 32, 256)
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Pace:
    """The result of requests that ran at the same time."""

    requests: int
    tokens_per_s: int
    first_token_ms: int
    """The median time to the first token."""
    token_ms: float
    """The median time between two tokens of one request."""

    def __str__(self) -> str:
        rate = f"{self.requests}: {self.tokens_per_s} tokens/s"
        return f"{rate}, first {self.first_token_ms} ms, then {self.token_ms:.2f} ms"


def prompts(count: int, seed: int) -> list[list[int]]:
    """Return prompts without a common beginning."""
    chosen = random.Random(seed)  # noqa: S311  # no secret
    return [[chosen.randrange(1000, 100_000) for _ in range(PROMPT_TOKENS)] for _ in range(count)]


def pace(began: float, moments: Sequence[Sequence[float]]) -> Pace:
    """Return the pace of requests that began together, from the moments of their outputs."""
    ended = max(each[-1] for each in moments)
    return Pace(
        len(moments),
        round(len(moments) * TOKENS / (ended - began)),
        round(1000 * statistics.median(each[0] - began for each in moments)),
        1000 * statistics.median((each[-1] - each[0]) / (TOKENS - 1) for each in moments),
    )


async def _together(count: int, ask: Callable[[int, list[float]], Awaitable[None]]) -> Pace:
    moments: list[list[float]] = [[] for _ in range(count)]
    began = time.monotonic()
    await asyncio.gather(*(ask(index, moments[index]) for index in range(count)))
    return pace(began, moments)


def direct(subject: Subject, count: int, seed: int) -> Pace:
    """Measure the engine's own AsyncLLM, without the engine."""
    engine: Any = subject.engine
    llm, loop = engine._llm, engine._loop  # loading a second one would take minutes
    sampling = engine._api._sampling
    asked = prompts(count, seed)

    async def ask(index: int, moments: list[float]) -> None:
        parameters = sampling.SamplingParams(
            max_tokens=TOKENS,
            ignore_eos=True,
            temperature=1.0,
            detokenize=False,
            output_kind=sampling.RequestOutputKind.DELTA,
        )
        prompt = {"type": "token", "prompt_token_ids": asked[index]}
        async for output in llm.generate(prompt, parameters, f"direct-{seed}-{index}"):
            if output.outputs[0].token_ids:
                moments.append(time.monotonic())  # noqa: PERF401 - it counts as it comes

    measured: Pace = loop.run(_together(count, ask))
    return measured


def through_engine(subject: Subject, count: int, seed: int) -> Pace:
    """Measure the engine, in its process."""
    asked = prompts(count, seed)
    began = time.monotonic()
    readers = [subject.start(prompt, max_tokens=TOKENS, ignore_eos=True, temperature=1.0) for prompt in asked]
    return pace(began, [reader.wait().moments for reader in readers])


def through_triton(target: str, model: str, counts: Sequence[int]) -> tuple[list[Pace], str]:
    """Measure the stream of steps of a model in Triton, as the worker reads it, and what its engine says meanwhile."""
    from services.worker.triton_client import TritonClient  # noqa: PLC0415 - it needs gRPC, which an image may lack

    async def measure() -> tuple[list[Pace], str]:
        client, described = TritonClient(target), Described()

        async def run(count: int, seed: int) -> Pace:
            asked = prompts(count, seed)

            async def ask(index: int, moments: list[float]) -> None:
                async for output in client.generate_in_steps(
                    model,
                    request_id=f"{seed}-{index}",
                    prompt_token_ids=asked[index],
                    params={"max_tokens": TOKENS, "ignore_eos": True, "temperature": 1.0},
                ):
                    if output.token_ids:
                        moments.append(time.monotonic())  # noqa: PERF401 - it counts as it comes

            return await _together(count, ask)

        try:
            await run(max(counts), 1)
            polling = asyncio.create_task(described.poll(client, model))
            paces = [await run(count, 100 + count) for count in counts]
            polling.cancel()
            return paces, str(described)
        finally:
            await client.close()

    return asyncio.run(measure())


class Described:
    """The slowest description of a model while it works, and the longest time without a step."""

    def __init__(self) -> None:
        self._count = 0
        self._slowest = self._step_age = 0.0

    async def poll(self, client: Any, model: str) -> None:
        """Ask for descriptions, as a worker does, until the task is cancelled."""
        while True:
            began = time.monotonic()
            load = (await client.describe(model))["load"]
            self._count += 1
            self._slowest = max(self._slowest, time.monotonic() - began)
            self._step_age = max(self._step_age, load["step_age_s"] or 0.0)
            await asyncio.sleep(POLL_SECONDS)

    def __str__(self) -> str:
        return (
            f"{self._count} descriptions, the slowest {1000 * self._slowest:.0f} ms, "
            f"the longest time without a step {1000 * self._step_age:.0f} ms"
        )
