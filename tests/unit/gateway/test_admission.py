"""A request waits in the queue until it has its lease, and then asks no more: nobody would give back a second lease."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from services.gateway.disconnect import ClientGoneError
from services.gateway.errors import ApiError, ErrorKind
from services.gateway.limit_status import NO_LIMITS, RateLimits, Window
from services.gateway.record import Outcome, RequestRecord
from services.gateway.redis.link import RedisAwayError
from services.gateway.tenancy import admission
from services.gateway.tenancy.admission import Admission, AdmissionControl
from services.gateway.tenancy.key import Fingerprint, Key
from services.gateway.tenancy.key_cache import Caller
from services.gateway.tenancy.limit_script import Decision, StaleKeyError, Subject
from services.gateway.tenancy.limits import UNLIMITED, Limits
from services.gateway.tenancy.secret import draw
from services.gateway.tenancy.token_estimate import TokenEstimate


class Reservation:
    """In place of what a request holds."""

    limits = RateLimits(requests=Window(5, 4, 1.0))

    def __init__(self) -> None:
        self.settled: list[Outcome] = []

    async def settle(self, outcome: Outcome) -> None:
        self.settled.append(outcome)


class Line:
    """In place of the leases: a request is admitted when it has asked so often. Its key is stale at one (0: at all)."""

    def __init__(self, turns: int, *, stale_at: int | None = None, away: bool = False) -> None:
        self.turns = turns
        self.asked = 0
        self.stale_at = stale_at
        self.away = away
        self.reservations: list[Reservation] = []
        self.proofs: list[Fingerprint | None] = []
        self.rpms: list[int | None] = []

    def new_id(self, _: str) -> object:
        return object()

    async def decide(self, subject: Subject, *_: object) -> Decision:
        self.asked += 1
        if self.away:
            raise RedisAwayError
        if self.stale_at in (0, self.asked):
            raise StaleKeyError
        self.proofs.append(subject.fingerprint)
        self.rpms.append(subject.limits.rpm)
        self.turns -= 1
        return Decision(seconds=0, scopes={}, ahead=max(self.turns, 0) if self.turns > 0 else None)

    def admitted(self, *_: object) -> Reservation:
        self.reservations.append(Reservation())
        return self.reservations[-1]

    admit_without_redis = admitted


class KeyCache:
    """In place of the keys: what looking up a key finds, in turns; at the end, none."""

    def __init__(self, *found: Caller) -> None:
        self.found = list(found)

    async def find(self, _: str) -> Caller | None:
        return self.found.pop(0) if self.found else None


def a_key(**draft: Any) -> Key:
    return Key(id="key_0123456789ab", name="n", created=0, **draft)


SECRET = draw("s00")


def a_caller(fingerprint: Fingerprint, *, redis_was_away: bool = False, **draft: Any) -> Caller:
    return Caller(a_key(**draft), fingerprint, SECRET, redis_was_away)


class Client:
    """In place of what notices that a client is gone."""

    def __init__(self, *, stays: int = 1000) -> None:
        self._stays = stays

    def check(self) -> None:
        self._stays -= 1
        if self._stays < 0:
            raise ClientGoneError


def an_admission(line: Any, key_cache: Any, *tiers: Any, client: Any = None) -> Admission:
    known = iter(tiers)
    subjects: Any = SimpleNamespace(
        subject=lambda key, model: next(known, Subject(key, model, UNLIMITED, UNLIMITED, 5, 60))
    )
    link: Any = None
    control = AdmissionControl(link, key_cache, subjects, line)
    record = RequestRecord("r", "POST")
    return Admission(control, a_caller(PROOF), DEMAND, client or Client(), record)


async def admitted(admission: Admission) -> object:
    """The lease, when it is there."""
    await admission.ask()
    async for _ in admission.queue():
        pass
    return admission.reservation


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "ASK_SECONDS", 0.001)


PROOF = Fingerprint("secret", "record")
DEMAND = TokenEstimate("m", 1, 1, 1)


@pytest.mark.parametrize("turns", [1, 2, 3, 6])
async def test_who_is_let_in_asks_no_more(turns: int) -> None:
    line = Line(turns)
    assert await admitted(an_admission(line, KeyCache())) is line.reservations[0]
    assert len(line.reservations) == 1
    assert line.proofs == [PROOF] * turns, "it is proven each time that the key is still valid"


@pytest.mark.parametrize("stale_at", [1, 2, 4])
async def test_a_key_that_is_revoked_before_its_reservation_gets_none(stale_at: int) -> None:
    line = Line(6, stale_at=stale_at)
    with pytest.raises(ApiError, match="revoked") as caught:
        await admitted(an_admission(line, KeyCache()))
    assert caught.value.status == 401
    assert not line.reservations


@pytest.mark.parametrize(("models", "status"), [(["m"], 200), ([], 403)])
@pytest.mark.parametrize("stale_at", [1, 3])
async def test_a_key_that_is_changed_before_its_reservation_is_judged_as_it_is_now(
    stale_at: int, models: list[str], status: int
) -> None:
    line = Line(6, stale_at=stale_at)
    later = Fingerprint("secret", "changed")
    key_cache = KeyCache(a_caller(later, models=models))
    try:
        assert await admitted(an_admission(line, key_cache)) is line.reservations[0]
    except ApiError as error:
        assert error.status == status
        assert not line.reservations
    else:
        assert status == 200
        assert line.proofs[-1] == later


async def test_a_tier_that_is_changed_while_a_request_waits_holds_for_it() -> None:
    line = Line(3)
    tiers = (
        Subject(a_key(), "m", Limits(rpm=1), UNLIMITED, 5, 60),
        Subject(a_key(), "m", Limits(rpm=2), UNLIMITED),
    )
    await admitted(an_admission(line, KeyCache(), *tiers))
    assert line.rpms[:2] == [1, 2]


async def test_without_redis_only_a_key_that_was_looked_up_for_that_is_let_in() -> None:
    line = Line(6, away=True)
    key_cache = KeyCache(a_caller(PROOF, redis_was_away=True))
    assert await admitted(an_admission(line, key_cache)) is line.reservations[0]
    with pytest.raises(ApiError, match="revoked"):
        await an_admission(line, KeyCache()).ask()


async def test_a_key_that_is_changed_all_the_time_is_not_asked_about_for_ever() -> None:
    key_cache = KeyCache(*(a_caller(PROOF) for _ in range(100)))
    with pytest.raises(ApiError) as caught:
        await an_admission(Line(6, stale_at=0), key_cache).ask()
    assert caught.value.status == 503


async def test_a_request_whose_client_is_gone_asks_no_more() -> None:
    line = Line(1000)
    admission = an_admission(line, KeyCache(), client=Client(stays=3))
    with pytest.raises(ClientGoneError):
        await admitted(admission)
    assert line.asked == 1 + 3
    assert not line.reservations


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome.COMPLETE),
        (ApiError(404, ErrorKind.NOT_FOUND, "?"), Outcome.REJECTED),
        (ApiError(503, ErrorKind.UNAVAILABLE, "?"), Outcome.FAILED),
        (ClientGoneError(), Outcome.CLIENT_GONE),
        (RuntimeError(), Outcome.FAILED),
    ],
)
async def test_a_request_is_settled_however_it_ends(error: Exception | None, outcome: Outcome) -> None:
    line = Line(1)
    admission = an_admission(line, KeyCache())
    await admitted(admission)
    with contextlib.suppress(ApiError, ClientGoneError, RuntimeError):
        async with admission:
            if error is not None:
                raise error
    assert line.reservations[0].settled == [outcome]
    if isinstance(error, ApiError):
        assert error.limits == Reservation.limits, "whatever the answer is, it says how the limits stand"
    assert admission.limits != NO_LIMITS
