"""Admission of requests that wait in the queue, whose keys change, or whose clients disconnect."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from services.gateway.credential import BEARER, Credential
from services.gateway.disconnect import ClientGoneError
from services.gateway.errors import ApiError, ErrorKind
from services.gateway.limit_status import NO_LIMITS, RateLimits, Window
from services.gateway.record import Outcome, RequestRecord
from services.gateway.redis.link import RedisAwayError
from services.gateway.tenancy import admission
from services.gateway.tenancy.admission import Admission, AdmissionControl
from services.gateway.tenancy.key import Fingerprint, Key
from services.gateway.tenancy.key_cache import Caller
from services.gateway.tenancy.limits import UNLIMITED, Limits
from services.gateway.tenancy.limits_script import Decision, StaleKeyError, Subject
from services.gateway.tenancy.prices import Prices
from services.gateway.tenancy.secret import draw
from services.gateway.tenancy.token_estimate import TokenEstimate
from services.runtime.messages.message import Message


class Reservation:
    """Stands in for a request's reservation."""

    limits = RateLimits(requests=Window(5, 4, 1.0))

    def __init__(self) -> None:
        self.settled: list[Outcome] = []

    async def settle(self, outcome: Outcome) -> None:
        self.settled.append(outcome)


class FakeReservations:
    """Stands in for reservations: admits at attempt `turns`, and finds the key stale at `stale_at` (0: always)."""

    def __init__(self, turns: int, *, stale_at: int | None = None, away: bool = False) -> None:
        self.turns = turns
        self.asked = 0
        self.stale_at = stale_at
        self.away = away
        self.reservations: list[Reservation] = []
        self.fingerprints: list[Fingerprint | None] = []
        self.rpms: list[int | None] = []

    def new_id(self, _: str) -> object:
        return object()

    async def decide(self, subject: Subject, *_: object) -> Decision:
        self.asked += 1
        if self.away:
            raise RedisAwayError
        if self.stale_at in (0, self.asked):
            raise StaleKeyError
        self.fingerprints.append(subject.fingerprint)
        self.rpms.append(subject.limits.rpm)
        self.turns -= 1
        return Decision(seconds=0, scopes={}, ahead=max(self.turns, 0) if self.turns > 0 else None)

    def admitted(self, *_: object) -> Reservation:
        self.reservations.append(Reservation())
        return self.reservations[-1]

    admit_without_redis = admitted


class KeyCache:
    """Stands in for the key cache: each look-up returns the next of `callers`, and None after the last."""

    def __init__(self, *callers: Caller) -> None:
        self._callers = list(callers)

    async def find(self, _: Credential) -> Caller | None:
        return self._callers.pop(0) if self._callers else None


def a_key(**draft: Any) -> Key:
    return Key(id="key_0123456789ab", name="n", created=0, **draft)


CREDENTIAL = Credential(draw("s00"), BEARER)


def a_caller(fingerprint: Fingerprint, *, redis_was_away: bool = False, **draft: Any) -> Caller:
    return Caller(a_key(**draft), fingerprint, CREDENTIAL, redis_was_away)


class Client:
    """Stands in for Disconnect: the client disconnects after `stays` checks."""

    def __init__(self, *, stays: int = 1000) -> None:
        self._stays = stays

    def check(self) -> None:
        self._stays -= 1
        if self._stays < 0:
            raise ClientGoneError


def an_admission(fake: Any, key_cache: Any, *tiers: Any, client: Any = None) -> Admission:
    known = iter(tiers)

    def subject(key: Key, model: str, fingerprint: Fingerprint | None, _: object) -> Subject:
        limits = next(known, Subject(key, model, UNLIMITED, UNLIMITED, 5, 60))
        return replace(limits, fingerprint=fingerprint)

    subjects: Any = SimpleNamespace(subject=subject)
    link: Any = None
    control = AdmissionControl(link, key_cache, subjects, fake, Prices(None))
    record = RequestRecord("r", "POST")
    return Admission(control, a_caller(FINGERPRINT), ESTIMATE, client or Client(), record)


async def admitted(admission: Admission) -> object:
    """Wait for the reservation, and return it."""
    await admission.ask()
    async for _ in admission.queue():
        pass
    return admission.reservation


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "ASK_SECONDS", 0.001)


FINGERPRINT = Fingerprint("secret", "record")
ESTIMATE = TokenEstimate("m", 1, 1, 1)


@pytest.mark.parametrize("turns", [1, 2, 3, 6])
async def test_an_admitted_request_makes_no_further_attempt(turns: int) -> None:
    fake = FakeReservations(turns)
    assert await admitted(an_admission(fake, KeyCache())) is fake.reservations[0]
    assert len(fake.reservations) == 1
    assert fake.fingerprints == [FINGERPRINT] * turns, "every attempt checks the fingerprint"


@pytest.mark.parametrize("stale_at", [1, 2, 4])
async def test_a_key_that_is_revoked_while_queued_gets_no_reservation(stale_at: int) -> None:
    fake = FakeReservations(6, stale_at=stale_at)
    with pytest.raises(ApiError) as caught:
        await admitted(an_admission(fake, KeyCache()))
    assert caught.value.message == Message("api_key_unknown", header="Authorization: Bearer KEY")
    assert caught.value.status == 401
    assert not fake.reservations


@pytest.mark.parametrize(("models", "status"), [(["m"], 200), ([], 403)])
@pytest.mark.parametrize("stale_at", [1, 3])
async def test_a_key_that_is_changed_while_queued_is_admitted_by_its_present_limits(
    stale_at: int, models: list[str], status: int
) -> None:
    fake = FakeReservations(6, stale_at=stale_at)
    later = Fingerprint("secret", "changed")
    key_cache = KeyCache(a_caller(later, models=models))
    try:
        assert await admitted(an_admission(fake, key_cache)) is fake.reservations[0]
    except ApiError as error:
        assert error.status == status
        assert not fake.reservations
    else:
        assert status == 200
        assert fake.fingerprints[-1] == later


async def test_a_change_of_a_tier_applies_to_queued_requests() -> None:
    fake = FakeReservations(3)
    tiers = (
        Subject(a_key(), "m", Limits(rpm=1), UNLIMITED, 5, 60),
        Subject(a_key(), "m", Limits(rpm=2), UNLIMITED),
    )
    await admitted(an_admission(fake, KeyCache(), *tiers))
    assert fake.rpms[:2] == [1, 2]


async def test_without_redis_only_a_key_that_was_looked_up_is_admitted() -> None:
    fake = FakeReservations(6, away=True)
    key_cache = KeyCache(a_caller(FINGERPRINT, redis_was_away=True))
    assert await admitted(an_admission(fake, key_cache)) is fake.reservations[0]
    with pytest.raises(ApiError) as caught:
        await an_admission(fake, KeyCache()).ask()
    assert caught.value.message == Message("api_key_unknown", header="Authorization: Bearer KEY")


async def test_look_ups_of_a_key_that_always_changes_are_bounded() -> None:
    key_cache = KeyCache(*(a_caller(FINGERPRINT) for _ in range(100)))
    with pytest.raises(ApiError) as caught:
        await an_admission(FakeReservations(6, stale_at=0), key_cache).ask()
    assert caught.value.status == 503


async def test_a_queued_request_ends_when_its_client_disconnects() -> None:
    fake = FakeReservations(1000)
    admission = an_admission(fake, KeyCache(), client=Client(stays=3))
    with pytest.raises(ClientGoneError):
        await admitted(admission)
    assert fake.asked == 1 + 3
    assert not fake.reservations


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome.COMPLETE),
        (ApiError(404, ErrorKind.NOT_FOUND, Message.verbatim("?")), Outcome.REJECTED),
        (ApiError(503, ErrorKind.UNAVAILABLE, Message.verbatim("?")), Outcome.FAILED),
        (ClientGoneError(), Outcome.CLIENT_GONE),
        (RuntimeError(), Outcome.FAILED),
    ],
)
async def test_a_request_is_settled_with_the_outcome_of_each_ending(error: Exception | None, outcome: Outcome) -> None:
    fake = FakeReservations(1)
    admission = an_admission(fake, KeyCache())
    await admitted(admission)
    with contextlib.suppress(ApiError, ClientGoneError, RuntimeError):
        async with admission:
            if error is not None:
                raise error
    assert fake.reservations[0].settled == [outcome]
    if isinstance(error, ApiError):
        assert error.limits == Reservation.limits, "every error reports the state of the limits"
    assert admission.limits != NO_LIMITS
