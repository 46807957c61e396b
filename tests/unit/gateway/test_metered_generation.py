"""Metering of a running generation: metrics, record and budgets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.limit_status import SpentBudget
from services.gateway.metered_generation import MeteredGeneration
from services.gateway.record import Outcome, RequestRecord
from services.gateway.tenancy.limits_script import Produced

MODEL = "model-of-this-test"


class Generation:
    """Stands in for a worker that generates these groups of events."""

    def __init__(self, *groups: list[pb.Event], has_begun: bool = True) -> None:
        self.model = MODEL
        self.outcome = Outcome.STOPPED
        self.began_at = 0.0
        self.has_begun = has_begun
        self.started = pb.Started(prompt_tokens=7)
        self.closed = 0
        self._groups = groups
        self._is_cut_short = False

    async def events(self) -> AsyncIterator[list[pb.Event]]:
        for group in self._groups:
            if self._is_cut_short:
                self.outcome = Outcome.BUDGET
                return
            if group[-1].HasField("usage"):
                self.outcome = Outcome.COMPLETE
            yield group

    def cut_short(self, outcome: Outcome) -> None:
        assert outcome is Outcome.BUDGET
        self._is_cut_short = True

    def close(self) -> None:
        self.closed += 1


class Reservation:
    has_budget = False

    def __init__(self, *, budget: int | None = None) -> None:
        self.produced = Produced()
        self.spent: SpentBudget | None = None
        self.settled: list[Outcome] = []
        self._budget = budget
        self._end: Callable[[], object] = lambda: None

    def end_generation_with(self, end: Callable[[], object]) -> None:
        self._end = end

    def count(self, events: list[pb.Event]) -> None:
        self.produced.completion += sum(event.delta.token_count for event in events)
        if self._budget is not None and self.produced.completion >= self._budget:
            self.spent = SpentBudget("daily_tokens", "key")
            self._end()

    def renew_if_needed(self) -> None:
        raise AssertionError("it has no budget")

    async def settle(self, outcome: Outcome) -> None:
        self.settled.append(outcome)


def token() -> list[pb.Event]:
    return [pb.Event(delta=pb.Delta(content="a", token_count=1))]


def metered(generation: Any, reservation: Any, record: RequestRecord, *, choices: int = 1) -> MeteredGeneration:
    return MeteredGeneration(generation, reservation, record, choices=choices)


def observed(name: str) -> float:
    return REGISTRY.get_sample_value(f"{name}_count", {"model": MODEL}) or 0.0


@pytest.mark.parametrize("has_begun", [True, False], ids=["waited for its beginning", "not"])
@pytest.mark.parametrize("tokens", [1, 5])
async def test_the_gaps_between_tokens_are_observed(tokens: int, has_begun: bool) -> None:
    first, *others = (token() for _ in range(tokens))
    started, usage = pb.Event(started=pb.Started(prompt_tokens=7)), pb.Event(usage=pb.Usage(completion_tokens=tokens))
    generation = Generation([started, *first], *others, [usage], has_begun=has_begun)
    record, reservation = RequestRecord("r", "POST"), Reservation()
    gaps, firsts = observed("vilix_inter_token_seconds"), observed("vilix_first_token_seconds")
    response = metered(generation, reservation, record)
    assert [events async for events in response.events()]
    response.close()
    assert observed("vilix_inter_token_seconds") - gaps == tokens - 1
    assert observed("vilix_first_token_seconds") - firsts == 1
    assert record.completion_tokens == tokens
    assert record.first_token_ms is not None
    assert reservation.settled == [Outcome.COMPLETE]
    assert generation.closed == 1


async def test_tokens_that_arrive_together_share_the_time_since_the_earlier_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([10.0, 14.0])
    monkeypatch.setattr("services.gateway.metered_generation.time.perf_counter", lambda: next(clock))
    record, name = RequestRecord("r", "POST", began=7.5), "vilix_inter_token_seconds"
    before, sum_before = observed(name), REGISTRY.get_sample_value(f"{name}_sum", {"model": MODEL}) or 0.0
    first_before = REGISTRY.get_sample_value("vilix_first_token_seconds_sum", {"model": MODEL}) or 0.0
    generation: Any = Generation(has_begun=False)
    generation.began_at = 9.0
    meter = metered(generation, Reservation(), record)
    meter.count([pb.Event(delta=pb.Delta(content="ab", token_count=2))])
    meter.count([pb.Event(delta=pb.Delta(content="cdef", token_count=4))])
    meter.count_text(2, 15.0, is_reasoning=False)
    assert observed(name) - before == 6
    # A second each, and half a second each.
    assert REGISTRY.get_sample_value(f"{name}_sum", {"model": MODEL}) == pytest.approx(sum_before + 4 + 1)
    assert REGISTRY.get_sample_value(f"{name}_bucket", {"model": MODEL, "le": "0.5"}) >= 2
    # From the arrival of the request; the record has it from the call of the worker.
    first = REGISTRY.get_sample_value("vilix_first_token_seconds_sum", {"model": MODEL})
    assert first == pytest.approx(first_before + 2.5)
    assert record.first_token_ms == 1000


async def test_tokens_are_counted_however_the_generation_ends() -> None:
    def counted() -> list[float]:
        names = (
            "vilix_tokens_total",
            "vilix_tokens_total",
            "vilix_cached_tokens_total",
            "vilix_reasoning_tokens_total",
        )
        labels: list[dict[str, str]] = [{"kind": "prompt"}, {"kind": "completion"}, {}, {}]
        samples = zip(names, labels, strict=True)
        return [REGISTRY.get_sample_value(name, {"model": MODEL, **more}) or 0.0 for name, more in samples]

    before, reservation = counted(), Reservation()
    reservation.produced = Produced(prompt=7, completion=5, cached=4, reasoning=3)
    metered(Generation(), reservation, RequestRecord("r", "POST")).close()
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [7, 5, 4, 3]


async def test_a_generation_ends_when_its_budget_is_spent() -> None:
    started = pb.Event(started=pb.Started(prompt_tokens=7))
    generation, reservation = Generation([started, *token()], *(token() for _ in range(9))), Reservation(budget=3)
    response = metered(generation, reservation, RequestRecord("r", "POST"), choices=2)
    groups = [events async for events in response.events()]
    *finishes, usage = groups[-1]
    assert [event.finish.reason for event in finishes] == [pb.FINISH_REASON_LENGTH] * 2
    assert usage.usage.completion_tokens == 3
    assert response.ended_by == SpentBudget("daily_tokens", "key")
    assert reservation.settled == [Outcome.BUDGET]
