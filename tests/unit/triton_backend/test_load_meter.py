from __future__ import annotations

import time

import pytest

from services.inference.triton_backend.load_meter import LoadMeter


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


def test_nothing_yet(now: list[float]) -> None:
    load = LoadMeter().load(in_flight=0, queued=0, kv_cache_use=0)
    assert load.last_token_age_s is None
    assert load.tokens_per_second == 0


def test_the_rate_is_of_the_last_ten_seconds(now: list[float]) -> None:
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


def test_progress_is_expected_from_a_new_request_on_and_no_longer_without_work(now: list[float]) -> None:
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
