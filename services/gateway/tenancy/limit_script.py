"""Runs the limits script: what it is asked, and what it answers. What is decided, and how, is in limits_script/."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from services.gateway.limit_status import SpentBudget
from services.gateway.redis.script import Script
from services.gateway.tenancy.key import Fingerprint, Key
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.token_estimate import TokenEstimate

_PARTS: Final = ("state", "reservations", "decision", "queue", "operations")
"""The files of the script. Each uses what those before it define."""
SCRIPT: Final = Script(
    "\n".join((Path(__file__).parent / "limits_script" / f"{part}.lua").read_text() for part in _PARTS)
)
STREAM_LENGTH: Final = 10_000
"""Usage records that each of the 64 shards keeps."""
ANYTHING: Final = TokenEstimate(model="", prompt=1, output=0, max_output=0)
"""The least that a request needs of its key's limits."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A key, and the limits that hold for it and one model."""

    key: Key
    model: str
    limits: Limits
    model_limits: Limits
    queue_length: int = 0
    """How many of its requests may wait for a slot."""
    queue_seconds: float = 0.0
    fingerprint: Fingerprint | None = None
    """As what the key was found. It is proven again with every decision."""


class StaleKeyError(Exception):
    """A key is not what it was when it was looked up, or not valid any more. Nothing was decided."""


@dataclass(frozen=True, slots=True)
class ReservationId:
    """What a request is known by to the limits."""

    id: str
    request_id: str
    seconds: float
    """How long it lasts unless it is renewed."""


@dataclass(slots=True)
class Produced:
    """What is known of a request's tokens. `prompt` is None until the worker has counted it."""

    prompt: int | None = None
    completion: int = 0
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """The state of one scope: all requests of a key, or those for one model. Resets are in microseconds."""

    reserved: int
    slots: int = 0
    """Of running requests. This, and what was used, is not told of an admission."""
    daily: int = 0
    monthly: int = 0
    requests: int | None = None
    requests_reset: int = 0
    tokens: int | None = None
    tokens_reset: int = 0


@dataclass(frozen=True, slots=True)
class Rejection:
    """The limit that refused: rpm, tpm, concurrency, daily or monthly."""

    limit: str
    scope: str
    """key or model."""
    wait: int
    """Microseconds until there is room; -1: never, for this request, or not before a budget begins anew."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request was admitted, and how the limits stand."""

    seconds: int
    """Redis's clock, since 1970."""
    scopes: dict[str, Scope]
    """By name: key and model."""
    rejection: Rejection | None = None
    ahead: int | None = None
    """How many requests wait before this one; None when it may not wait."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a running request may still do."""

    credit: int = 0
    """Tokens that are reserved for its answer, or that the budgets have room for."""
    spent: SpentBudget | None = None
    """The budget that has no room for more; the answer must end."""


async def peek(redis: Redis, subject: Subject) -> Decision:
    """Whether the key is over a limit, before it is known what a request needs. Takes nothing. Raises StaleKeyError."""
    queue = {"queue": subject.queue_length} if subject.queue_length else {}
    fingerprint = {"fingerprint": subject.fingerprint} if subject.fingerprint else {}
    answer = await _run(
        redis, subject, "peek", estimate=ANYTHING.prompt, output=ANYTHING.output, **queue, **fingerprint
    )
    if answer.get("stale"):
        raise StaleKeyError
    return _decision(answer)


async def admit(redis: Redis, subject: Subject, estimate: TokenEstimate, reservation_id: ReservationId) -> Decision:
    """Reserve what a request needs, all of it or nothing. It is idempotent by reservation id.

    Raises StaleKeyError if the key does not have the subject's fingerprint any more.
    """
    fingerprint = {"fingerprint": subject.fingerprint} if subject.fingerprint else {}
    queue = {"queue": subject.queue_length} if subject.queue_length else {}
    answer = await _run(
        redis,
        subject,
        "admit",
        **_identity(reservation_id),
        estimate=estimate.prompt,
        output=estimate.output,
        **queue,
        **fingerprint,
    )
    if answer.get("stale"):
        raise StaleKeyError
    return _decision(answer)


async def renew(
    redis: Redis,
    *,
    subject: Subject,
    estimate: TokenEstimate,
    reservation_id: ReservationId,
    produced: Produced,
    reserve_output: int,
) -> Renewal:
    """Go on holding what a request holds, charge what it produced so far, and reserve for what may follow."""
    known = {"max_output": estimate.max_output, "prompt": produced.prompt}
    answer = await _run(
        redis,
        subject,
        "renew",
        **_identity(reservation_id),
        completion=produced.completion,
        reserve=reserve_output,
        **{name: value for name, value in known.items() if value is not None},
    )
    spent = answer.get("spent")
    return Renewal(
        credit=answer.get("credit", 0),
        spent=SpentBudget(f"{spent['limit']}_tokens", spent["scope"]) if spent else None,
    )


async def settle(
    redis: Redis, subject: Subject, reservation_id: ReservationId, produced: Produced, *, outcome: str
) -> None:
    """Give back what a request held, and charge what it produced in all. The second time, nothing happens."""
    await _run(
        redis,
        subject,
        "settle",
        **_identity(reservation_id),
        prompt=produced.prompt or 0,
        completion=produced.completion,
        cached=produced.cached,
        reasoning=produced.reasoning,
        outcome=outcome,
    )


async def show(redis: Redis, subject: Subject) -> Decision:
    """How the limits stand. Leases of gateways that are gone are ended on the way."""
    return _decision(await _run(redis, subject, "show"))


def name_of(key: Key) -> str:
    """The script's KEYS[1]."""
    return f"vilix:{{{key.shard}}}:limits:{key.id}"


async def _run(redis: Redis, subject: Subject, operation: str, **more: Any) -> dict[str, Any]:
    ask = {
        "model": subject.model,
        "owner": subject.key.owner,
        "limits": _limits(subject.limits),
        "model_limits": _limits(subject.model_limits),
        "stream_length": STREAM_LENGTH,
        **more,
    }
    answer = await SCRIPT.run(redis, name_of(subject.key), operation, orjson.dumps(ask).decode())
    found: dict[str, Any] = orjson.loads(answer)
    return found


def _identity(reservation_id: ReservationId) -> dict[str, Any]:
    return {
        "id": reservation_id.id,
        "request_id": reservation_id.request_id,
        "duration": round(reservation_id.seconds * 1e6),
    }


_NAMES: Final = {"daily_tokens": "daily", "monthly_tokens": "monthly"}


@lru_cache(maxsize=4096)
def _limits(limits: Limits) -> dict[str, int]:
    return {_NAMES.get(name, name): value for name, value in limits if value is not None}


def _decision(answer: dict[str, Any]) -> Decision:
    rejection = answer.get("rejection")
    return Decision(
        seconds=answer["seconds"],
        scopes={name: Scope(**scope) for name, scope in answer["scopes"].items()},
        rejection=Rejection(**rejection) if rejection else None,
        ahead=answer.get("ahead"),
    )
