from __future__ import annotations

from dataclasses import dataclass

import pytest

from services.inference.triton_backend.contract import Params, Request, Tokens, Usage
from services.inference.triton_backend.waiting_queue import WaitingQueue
from services.worker.triton_kit.request_error import RequestError


class Reader:
    """A stand-in for the way to the client."""

    def __init__(self) -> None:
        self.cancelled = False

    def has_capacity(self) -> bool:
        return True

    def is_cancelled(self) -> bool:
        return self.cancelled

    def emit(self, tokens: Tokens) -> None:
        raise AssertionError

    def finish(self, finish_reason: str, usage: Usage, last: Tokens | None = None) -> None:
        raise AssertionError

    def fail(self, error: RequestError) -> None:
        raise AssertionError


@dataclass
class Job:
    name: str
    request: Request
    sink: Reader


def job(name: str, priority: int = 0) -> Job:
    return Job(name, Request(Params(priority=priority)), Reader())


def names(line: WaitingQueue[Job]) -> list[str]:
    return [line.pop().name for _ in range(len(line))]


def test_higher_priority_first_then_in_order() -> None:
    line: WaitingQueue[Job] = WaitingQueue(limit=10)
    for each in (job("a"), job("b", 5), job("c"), job("d", -1), job("e", 5)):
        line.push(each)
    assert names(line) == ["b", "e", "a", "c", "d"]


def test_the_cancelled_leave() -> None:
    line: WaitingQueue[Job] = WaitingQueue(limit=10)
    jobs = [job(name) for name in "abcd"]
    for each in jobs:
        line.push(each)
    jobs[1].sink.cancelled = jobs[2].sink.cancelled = True
    assert {each.name for each in line.remove_cancelled()} == {"b", "c"}
    assert names(line) == ["a", "d"]


def test_a_full_line_takes_nobody() -> None:
    line: WaitingQueue[Job] = WaitingQueue(limit=1)
    line.push(job("a"))
    with pytest.raises(RequestError) as rejection:
        line.push(job("b"))
    assert (rejection.value.reason, rejection.value.message_id) == ("OVERLOADED", "engine_queue_full")
    assert names(line) == ["a"]
