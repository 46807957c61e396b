from __future__ import annotations

from dataclasses import dataclass

import pytest

from services.inference.triton_backend.contract import Params, Request, Tokens, Usage
from services.inference.triton_backend.waiting_queue import WaitingQueue
from services.worker.triton_kit.request_error import RequestError


class Reader:
    """A stand-in for the client's sink."""

    def __init__(self) -> None:
        self.cancelled = False

    def has_capacity(self) -> bool:
        return True

    def is_cancelled(self) -> bool:
        return self.cancelled

    def note_progress(self) -> None:
        raise AssertionError

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


def names(queue: WaitingQueue[Job]) -> list[str]:
    return [queue.pop().name for _ in range(len(queue))]


def test_jobs_leave_the_queue_by_priority_and_then_in_order_of_arrival() -> None:
    queue: WaitingQueue[Job] = WaitingQueue(limit=10)
    for each in (job("a"), job("b", 5), job("c"), job("d", -1), job("e", 5)):
        queue.push(each)
    assert names(queue) == ["b", "e", "a", "c", "d"]


def test_cancelled_jobs_are_removed() -> None:
    queue: WaitingQueue[Job] = WaitingQueue(limit=10)
    jobs = [job(name) for name in "abcd"]
    for each in jobs:
        queue.push(each)
    jobs[1].sink.cancelled = jobs[2].sink.cancelled = True
    assert {each.name for each in queue.remove_cancelled()} == {"b", "c"}
    assert names(queue) == ["a", "d"]


def test_a_full_queue_rejects_jobs() -> None:
    queue: WaitingQueue[Job] = WaitingQueue(limit=1)
    queue.push(job("a"))
    with pytest.raises(RequestError) as rejection:
        queue.push(job("b"))
    assert (rejection.value.reason, rejection.value.message_id) == ("OVERLOADED", "engine_queue_full")
    assert names(queue) == ["a"]
