"""A request waits in the line until it has its lease, and then asks no more: a second lease would be given back by nobody."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from services.gateway.errors import ApiError
from services.gateway.redis.redis_link import RedisAwayError
from services.gateway.tenancy import admission
from services.gateway.tenancy.admission import Waiting
from services.gateway.tenancy.allowance import UNLIMITED, Allowance
from services.gateway.tenancy.auth import Caller
from services.gateway.tenancy.demand import Demand
from services.gateway.tenancy.key import Key, Proof
from services.gateway.tenancy.keyring import Found
from services.gateway.tenancy.limits import Decision, StaleKeyError, Subject
from services.gateway.tenancy.secret import draw


class Line:
    """In place of the leases: a request is let in when it has asked so often. Its key is stale at one of them (0: at all)."""

    def __init__(self, turns: int, *, stale_at: int | None = None, away: bool = False) -> None:
        self.turns = turns
        self.asked = 0
        self.stale_at = stale_at
        self.away = away
        self.leases: list[object] = []
        self.proofs: list[Proof | None] = []
        self.rpms: list[int | None] = []

    def new_hold(self, _: str) -> object:
        return object()

    async def decide(self, subject: Subject, *_: object) -> Decision:
        self.asked += 1
        if self.away:
            raise RedisAwayError
        if self.stale_at in (0, self.asked):
            raise StaleKeyError
        self.proofs.append(subject.proof)
        self.rpms.append(subject.limits.rpm)
        self.turns -= 1
        return Decision(seconds=0, scopes={}, ahead=max(self.turns, 0) if self.turns > 0 else None)

    def admitted(self, *_: object) -> object:
        self.leases.append(object())
        return self.leases[-1]

    admit_alone = admitted


class Keyring:
    """In place of the keys: what looking up a key finds, in turns; at the end, none."""

    def __init__(self, *found: Found) -> None:
        self.found = list(found)

    async def find(self, _: str) -> Found | None:
        return self.found.pop(0) if self.found else None


def a_key(**draft: Any) -> Key:
    return Key(id="key_0123456789ab", name="n", created=0, **draft)


def a_request(line: Any, keyring: Any, *tiers: Any) -> Any:
    async def is_disconnected() -> bool:
        return False

    known = iter(tiers)
    gateway = SimpleNamespace(
        leases=line,
        keyring=keyring,
        tiers=SimpleNamespace(
            subject=lambda key, model: next(known, Subject(key, model, UNLIMITED, UNLIMITED, 5, 60)),
        ),
    )
    return SimpleNamespace(
        state=SimpleNamespace(request_id="r", log={}),
        headers={"authorization": f"Bearer {draw('s00')}"},
        app=SimpleNamespace(state=SimpleNamespace(dependencies=gateway)),
        is_disconnected=is_disconnected,
    )


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "ASK_SECONDS", 0.001)
    monkeypatch.setattr(admission, "headers", lambda *_: {})


PROOF = Proof("secret", "record")
DEMAND = Demand("m", 1, 1, 1)
WORKERS: Any = SimpleNamespace(check=lambda _: None)


@pytest.mark.parametrize("turns", [1, 2, 3, 6])
async def test_who_is_let_in_asks_no_more(turns: int) -> None:
    line = Line(turns)
    waiting = Waiting(a_request(line, Keyring()), Caller(a_key(), PROOF), DEMAND, WORKERS)
    await waiting.ask()
    assert await waiting.get() is line.leases[0]
    assert len(line.leases) == 1
    assert line.proofs == [PROOF] * turns, "it is proven each time that the key is still valid"


@pytest.mark.parametrize("stale_at", [1, 2, 4])
async def test_a_key_that_is_revoked_before_its_lease_gets_none(stale_at: int) -> None:
    line = Line(6, stale_at=stale_at)
    waiting = Waiting(a_request(line, Keyring()), Caller(a_key(), PROOF), DEMAND, WORKERS)

    async def wait() -> None:
        await waiting.ask()
        await waiting.get()

    with pytest.raises(ApiError, match="revoked") as caught:
        await wait()
    assert caught.value.status == 401
    assert not line.leases


@pytest.mark.parametrize(("models", "status"), [(["m"], 200), ([], 403)])
@pytest.mark.parametrize("stale_at", [1, 3])
async def test_a_key_that_is_changed_before_its_lease_is_judged_as_it_is_now(
    stale_at: int, models: list[str], status: int
) -> None:
    line = Line(6, stale_at=stale_at)
    later = Proof("secret", "changed")
    keyring = Keyring(Found(a_key(models=models), later))
    waiting = Waiting(a_request(line, keyring), Caller(a_key(), PROOF), DEMAND, WORKERS)
    try:
        await waiting.ask()
        assert await waiting.get() is line.leases[0]
    except ApiError as error:
        assert error.status == status
        assert not line.leases
    else:
        assert status == 200
        assert line.proofs[-1] == later


async def test_a_tier_that_is_changed_while_a_request_waits_holds_for_it() -> None:
    line = Line(3)
    tiers = (
        Subject(a_key(), "m", Allowance(rpm=1), UNLIMITED, 5, 60),
        Subject(a_key(), "m", Allowance(rpm=2), UNLIMITED),
    )
    waiting = Waiting(a_request(line, Keyring(), *tiers), Caller(a_key(), PROOF), DEMAND, WORKERS)
    await waiting.ask()
    await waiting.get()
    assert line.rpms[:2] == [1, 2]


async def test_without_redis_only_a_key_that_was_looked_up_for_that_is_let_in() -> None:
    line = Line(6, away=True)
    keyring = Keyring(Found(a_key(), PROOF, redis_was_away=True))
    waiting = Waiting(a_request(line, keyring), Caller(a_key(), PROOF), DEMAND, WORKERS)
    await waiting.ask()
    assert waiting.lease is line.leases[0]
    with pytest.raises(ApiError, match="revoked"):
        await Waiting(a_request(line, Keyring()), Caller(a_key(), PROOF), DEMAND, WORKERS).ask()


async def test_a_key_that_is_changed_all_the_time_is_not_asked_about_for_ever() -> None:
    keyring = Keyring(*(Found(a_key(), PROOF) for _ in range(100)))
    waiting = Waiting(a_request(Line(6, stale_at=0), keyring), Caller(a_key(), PROOF), DEMAND, WORKERS)
    with pytest.raises(ApiError) as caught:
        await waiting.ask()
    assert caught.value.status == 503
