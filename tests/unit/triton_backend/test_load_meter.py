from __future__ import annotations

import threading
import time

import pytest

from services.inference.triton_backend import load_meter
from services.inference.triton_backend.load_meter import LoadMeter


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the engine's thread has waited for a processor."""
    waited = [5.0]
    monkeypatch.setattr(load_meter, "_waited", lambda thread: waited[0])
    return waited


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


def test_a_new_meter_reports_no_load(now: list[float]) -> None:
    load = LoadMeter().load(in_flight=0, queued=0, kv_cache_use=0)
    assert load.last_token_age_s is None
    assert load.tokens_per_second == 0


def test_the_token_rate_is_the_average_of_ten_seconds(now: list[float]) -> None:
    meter = LoadMeter()
    for _ in range(30):
        meter.generated(20)
        now[0] += 1
    load = meter.load(in_flight=1, queued=2, kv_cache_use=0.5)
    assert load.tokens_per_second == pytest.approx(20, rel=0.11)
    assert load.last_token_age_s == 1
    assert load.generated_tokens_total == 600
    now[0] += 60
    assert meter.load(in_flight=0, queued=0, kv_cache_use=0).tokens_per_second == 0


def test_progress_is_expected_only_while_there_is_work(now: list[float]) -> None:
    meter = LoadMeter()

    def age() -> float | None:
        return meter.load(in_flight=1, queued=0, kv_cache_use=0).step_age_s

    meter.work_given()
    now[0] += 2
    assert age() == 2
    meter.work_given()
    assert age() == 2, "a further request is no progress"
    meter.stepped()
    now[0] += 1
    assert age() == 1
    meter.stepped(has_work=False)
    assert age() is None


def test_waiting_for_a_processor_does_not_count_as_a_stall(now: list[float], waited: list[float]) -> None:
    meter = LoadMeter()
    meter.stepped()
    now[0] += 10
    waited[0] += 9
    assert meter.load(in_flight=1, queued=0, kv_cache_use=0).step_age_s == 1


def test_the_time_that_a_thread_waits_for_a_processor_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    read = load_meter._waited
    assert read(threading.get_native_id()) >= 0
    assert read(None) == read(2**30) == 0
