"""The steps of llama.cpp, and the slots that its sequences get, without a model."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from services.inference.triton_backend.contract import Params, Request, Usage
from services.inference.triton_backend.engines.llama_prompt import LlamaPrompt
from services.inference.triton_backend.engines.llama_sequence import Sequence, Slot
from services.inference.triton_backend.engines.llama_slots import LEAST_REUSED, Slots
from services.inference.triton_backend.engines.llama_steps import (
    PREFILL_LEAST,
    PREFILL_LEAST_ALONE,
    PREFILL_MOST,
    PREFILL_REPEATABLE,
    PREFILL_SECONDS,
    PREFILL_SECONDS_ALONE,
    StepPlanner,
)
from tests.support.trtllm_engine import Reader


def sequence(prompt: list[int], **params: Any) -> Sequence:
    request = Request(Params(**params), prompt)
    sampler: Any = None
    return Sequence(request, Reader(), sampler, 10, Usage(), LlamaPrompt(prompt), len(prompt) - 1)


def part_read(*, others: int, token_seconds: float, other_seconds: float = 0.0) -> int:
    """Return the size of a part of a long prompt, on a machine with this speed, beside requests that generate."""
    planner, numbers = StepPlanner(), itertools.count()
    generating = [sequence([1]) for _ in range(others)]
    for other in generating:
        other.slot, other.next_token = Slot(next(numbers), [1]), 1
    for _ in range(30):
        planner.note(planner.plan(generating), others * other_seconds)
    reading = sequence([1] * 100_000)
    reading.slot = Slot(next(numbers))
    for _ in range(30):
        step = planner.plan([*generating, reading])
        planner.note(step, step.prompt_tokens * token_seconds + others * other_seconds)
    return step.prompt_tokens


def test_a_prompt_is_read_in_larger_parts_while_nothing_is_generated() -> None:
    assert part_read(others=0, token_seconds=0.005) == pytest.approx(PREFILL_SECONDS_ALONE / 0.005, abs=1)
    assert part_read(others=2, token_seconds=0.005) == pytest.approx(PREFILL_SECONDS / 0.005, abs=1)


def test_the_time_of_generating_requests_does_not_shrink_the_parts() -> None:
    assert part_read(others=2, token_seconds=0.005, other_seconds=0.15) == pytest.approx(PREFILL_SECONDS / 0.005, abs=1)


@pytest.mark.parametrize(
    ("others", "token_seconds", "expected"),
    [
        (0, 1.0, PREFILL_LEAST_ALONE),
        (1, 1.0, PREFILL_LEAST),
        (0, 1e-6, PREFILL_MOST),
        (1, 1e-6, PREFILL_MOST),
    ],
)
def test_parts_have_limits(others: int, token_seconds: float, expected: int) -> None:
    assert part_read(others=others, token_seconds=token_seconds) == expected


@pytest.mark.parametrize("token_seconds", [1e-6, 1.0])
def test_the_parts_of_a_repeatable_request_do_not_depend_on_the_speed(token_seconds: float) -> None:
    planner = StepPlanner()
    reading = sequence([1] * 1000, seed=1)
    reading.slot = Slot(0)
    for _ in range(10):
        step = planner.plan([reading])
        planner.note(step, step.prompt_tokens * token_seconds)
        assert step.prompt_tokens == PREFILL_REPEATABLE


def test_a_short_prompt_does_not_wait_for_long_ones_before_it() -> None:
    planner = StepPlanner()
    reading = [sequence([1] * length) for length in (50_000, 40_000, 5)]
    for number, one in enumerate(reading):
        one.slot = Slot(number)
    read = {part.slot.number: len(part.token_ids) for part in planner.plan(reading).texts}
    assert read[2] == 5
    assert read[0] == max(read.values())
    assert 1 not in read


class Memory:
    """A stand-in for the model, which remembers what it was asked for."""

    def __init__(self) -> None:
        self.copies: list[tuple[int, int, int]] = []

    def keep(self, sequence: int, tokens: int) -> int:
        return tokens

    def copy(self, source: int, target: int, tokens: int) -> int:
        self.copies.append((source, target, tokens))
        return tokens


INSTRUCTIONS = list(range(100, 100 + 2 * LEAST_REUSED))
CONVERSATION = [*INSTRUCTIONS, *range(1000, 1500)]


class Bench:
    """Slots with a stand-in for the model."""

    def __init__(self, count: int) -> None:
        self.memory = Memory()
        model: Any = self.memory
        self.slots = Slots(model, count)

    def begin(self, prompt: list[int], **params: Any) -> tuple[Slot, int]:
        """Give a request a slot, which reads its whole prompt, and return the slot and the tokens it had already."""
        one = sequence(prompt, **params)
        self.slots.assign(one)
        assert one.slot is not None
        one.slot.tokens[:] = prompt
        return one.slot, one.usage.cached_tokens

    def run(self, prompt: list[int], **params: Any) -> tuple[int, int]:
        """Run a request, and return the number of its slot and the tokens it had already."""
        slot, cached = self.begin(prompt, **params)
        self.slots.release(slot)
        return slot.number, cached


@pytest.mark.parametrize("temperature", [0, 0.7])
def test_the_next_turn_of_a_conversation_gets_its_slot(temperature: float) -> None:
    bench = Bench(4)
    number, _ = bench.run(CONVERSATION, cache_salt="one", temperature=temperature)
    bench.run([1, 2, 3], cache_salt="one")
    turn = [*CONVERSATION, 7, 8, 9]
    assert bench.run(turn, cache_salt="one", temperature=temperature) == (number, len(CONVERSATION))
    assert not bench.memory.copies


def test_another_conversation_copies_common_instructions_and_leaves_the_first_one_its_slot() -> None:
    bench = Bench(4)
    number, _ = bench.run(CONVERSATION, cache_salt="one")
    other, cached = bench.run([*INSTRUCTIONS, 1, 2], cache_salt="one")
    assert (other != number, cached) == (True, len(INSTRUCTIONS))
    assert bench.memory.copies == [(number, other, len(INSTRUCTIONS))]
    assert bench.run([*CONVERSATION, 7], cache_salt="one") == (number, len(CONVERSATION))


def test_instructions_are_copied_from_a_running_request() -> None:
    bench = Bench(2)
    running, _ = bench.begin(CONVERSATION, cache_salt="one")
    other, cached = bench.run([*INSTRUCTIONS, 1, 2], cache_salt="one")
    assert (other, cached) == (1 - running.number, len(INSTRUCTIONS))


@pytest.mark.parametrize("salt", ["two", ""])
def test_tenants_share_nothing(salt: str) -> None:
    bench = Bench(1)
    bench.run(CONVERSATION, cache_salt="one")
    assert bench.run(CONVERSATION, cache_salt=salt) == (0, 0)
    assert not bench.memory.copies


def test_a_short_prefix_is_read_again() -> None:
    bench = Bench(1)
    bench.run(CONVERSATION[: LEAST_REUSED - 1])
    assert bench.run(CONVERSATION) == (0, 0)


def test_a_request_with_a_seed_reads_its_whole_prompt() -> None:
    bench = Bench(1)
    bench.run(CONVERSATION)
    assert bench.run(CONVERSATION, seed=1) == (0, 0)
