"""The phases and figures of running requests."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from services.gateway.cleanup import Cleanup
from services.gateway.live_requests import LiveRequests, Phase
from services.gateway.record import RequestRecord
from services.gateway.tenancy.key import Key

KEY = Key(id="key_0123456789Ab", name="shop", created=1)


def admission(*, admitted: bool, prompt: int | None = None, completion: int = 0) -> Any:
    produced = SimpleNamespace(prompt=prompt, completion=completion)
    return SimpleNamespace(is_admitted=admitted, reservation=SimpleNamespace(produced=produced))


def test_a_request_goes_through_its_phases_and_is_gone_at_its_end() -> None:
    requests, record = LiveRequests(), RequestRecord("r", "POST")
    with Cleanup() as cleanup:
        live = requests.enter(record, KEY, cleanup)
        assert (live.phase, live.tokens) == (Phase.RECEIVING, (None, 0))
        live.admission = admission(admitted=False)
        assert (live.phase, live.tokens) == (Phase.QUEUED, (None, 0))
        live.admission = admission(admitted=True)
        assert (live.phase, live.tokens, live.tokens_per_second) == (Phase.WAITING, (None, 0), None)
        record.first_token_at = time.perf_counter() - 2
        live.admission = admission(admitted=True, prompt=7, completion=40)
        assert (live.phase, live.tokens) == (Phase.GENERATING, (7, 40))
        assert live.tokens_per_second is not None
        assert 1 < live.tokens_per_second <= 20
        assert requests.all() == [live]
    assert requests.all() == []


def test_requests_are_listed_in_the_order_of_their_beginnings() -> None:
    requests = LiveRequests()
    with Cleanup() as cleanup:
        with Cleanup() as first_cleanup:
            first = requests.enter(RequestRecord("first", "POST"), KEY, first_cleanup)
            others = [requests.enter(RequestRecord(str(number), "POST"), KEY, cleanup) for number in range(3)]
            assert requests.all() == [first, *others]
        assert requests.all() == others
