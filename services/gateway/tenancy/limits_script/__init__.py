"""Runs the limits script, the Lua files of this folder, and types its arguments and results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from services.gateway.limit_status import SpentBudget
from services.gateway.record import Outcome
from services.gateway.redis.script import Script
from services.gateway.tenancy.key import Fingerprint, Key
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.prices import ModelPrice
from services.gateway.tenancy.token_estimate import TokenEstimate

_PARTS: Final = ("state", "receipts", "money", "reservations", "decision", "queue", "operations")
"""The files of the script, in order: each uses the functions of those before it."""
SCRIPT: Final = Script("\n".join((Path(__file__).parent / f"{part}.lua").read_text() for part in _PARTS))
STREAM_LENGTH: Final = 10_000
"""The number of usage records that each of the 64 shards keeps."""
ANYTHING: Final = TokenEstimate(model="", prompt=1, output=0, max_output=0)
"""The smallest possible request."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A key, and the limits that apply to it and one model."""

    key: Key
    model: str
    limits: Limits
    model_limits: Limits
    queue_length: int = 0
    """The most of its requests that may wait for a slot; 0 without a queue."""
    queue_seconds: float = 0.0
    """The longest wait in the queue."""
    fingerprint: Fingerprint | None = None
    """The key's state when it was looked up, which every decision checks."""
    price: ModelPrice | None = None
    """The price of the model; None if its tokens cost nothing."""


class StaleKeyError(Exception):
    """The key has changed since it was looked up, or is not valid any more. Nothing was decided."""


@dataclass(frozen=True, slots=True)
class ReservationId:
    """The identity of a request in the limits script."""

    id: str
    request_id: str
    seconds: float
    """The time after which the reservation expires unless it is renewed."""
    receipts: int = 0
    """The most receipts that are kept for the key; 0 for none."""


@dataclass(slots=True)
class Produced:
    """The tokens of a request that were counted so far. `prompt` is None until the worker has counted it."""

    prompt: int | None = None
    completion: int = 0
    cached: int = 0
    reasoning: int = 0


@dataclass(slots=True)
class Progress:
    """A reservation that is renewed, and the tokens of its request so far."""

    subject: Subject
    estimate: TokenEstimate
    reservation_id: ReservationId
    produced: Produced


@dataclass(frozen=True, slots=True)
class Scope:
    """The state of one scope: all requests of a key, or those for one model. Resets are in microseconds."""

    reserved: int
    slots: int = 0
    """Running requests. Like the usage, it is not reported for a request that is admitted."""
    daily: int = 0
    monthly: int = 0
    requests: int | None = None
    requests_reset: int = 0
    tokens: int | None = None
    tokens_reset: int = 0
    daily_cost: int = 0
    """The money spent, in the smallest unit of the currency, where there is a budget in money."""
    weekly_cost: int = 0
    monthly_cost: int = 0
    reserved_cost: int = 0


@dataclass(frozen=True, slots=True)
class Rejection:
    """The limit that rejected a request: rpm, tpm, concurrency, daily, monthly, or the name of a budget in money."""

    limit: str
    scope: str
    """key or model."""
    wait: int
    """Microseconds until the limit has capacity; -1 if the request never fits, or not before a budget is renewed."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about a request, and the state of the limits."""

    seconds: int
    """Redis's time, in seconds since 1970."""
    scopes: dict[str, Scope]
    """The state of the scopes `key` and `model`."""
    rejection: Rejection | None = None
    ahead: int | None = None
    """The number of requests before this one in the queue; None if it may not wait."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """The result of renewing a reservation."""

    credit: int = 0
    """Output tokens that are reserved, or that the budgets still allow."""
    spent: SpentBudget | None = None
    """The budget that is used up, so that the generation must end."""


async def peek(redis: Redis, subject: Subject) -> Decision:
    """Return whether the key's limits allow any request at all. Nothing is reserved. Raises StaleKeyError."""
    queue = {"queue": subject.queue_length} if subject.queue_length else {}
    fingerprint = {"fingerprint": subject.fingerprint} if subject.fingerprint else {}
    result = await _run(
        redis, subject, "peek", estimate=ANYTHING.prompt, output=ANYTHING.output, **queue, **fingerprint
    )
    if result.get("stale"):
        raise StaleKeyError
    return _decision(result)


async def admit(redis: Redis, subject: Subject, estimate: TokenEstimate, reservation_id: ReservationId) -> Decision:
    """Reserve what a request needs, all of it or nothing. It is idempotent by reservation id.

    Raises StaleKeyError if the key does not have the subject's fingerprint any more.
    """
    fingerprint = {"fingerprint": subject.fingerprint} if subject.fingerprint else {}
    queue = {"queue": subject.queue_length} if subject.queue_length else {}
    result = await _run(
        redis,
        subject,
        "admit",
        **_identity(reservation_id),
        estimate=estimate.prompt,
        output=estimate.output,
        **queue,
        **fingerprint,
    )
    if result.get("stale"):
        raise StaleKeyError
    return _decision(result)


async def renew(
    redis: Redis, reservations: Sequence[Progress], *, reserve_output: int
) -> list[Renewal | BaseException]:
    """Extend reservations, charge the tokens produced so far, and reserve up to `reserve_output` further ones for each.

    Returns an error instead of each renewal that failed. Raises RedisError if the connection ends.
    """
    replies = await SCRIPT.run_many(redis, [_renewal_call(progress, reserve_output) for progress in reservations])
    return [reply if isinstance(reply, BaseException) else _renewal(orjson.loads(reply)) for reply in replies]


def _renewal_call(progress: Progress, reserve_output: int) -> tuple[str, ...]:
    subject, produced = progress.subject, progress.produced
    request = {
        "model": subject.model,
        "owner": subject.key.owner,
        "limits": _limits(subject.limits),
        "model_limits": _limits(subject.model_limits),
        "stream_length": STREAM_LENGTH,
        **_identity(progress.reservation_id),
        "completion": produced.completion,
        "reserve": reserve_output,
    }
    if progress.estimate.max_output is not None:
        request["max_output"] = progress.estimate.max_output
    if produced.prompt is not None:
        request["prompt"] = produced.prompt
    if subject.price is not None:
        request["prices"], request["cached"] = _prices(subject.price), produced.cached
    return name_of(subject.key), "renew", orjson.dumps(request).decode()


def _renewal(result: dict[str, Any]) -> Renewal:
    spent = result.get("spent")
    return Renewal(
        credit=result.get("credit", 0),
        spent=SpentBudget(_BUDGETS.get(spent["limit"], spent["limit"]), spent["scope"]) if spent else None,
    )


async def settle(
    redis: Redis,
    subject: Subject,
    reservation_id: ReservationId,
    produced: Produced,
    *,
    outcome: Outcome,
    receipt: bytes = b"",
) -> None:
    """Release a reservation, charge all tokens that were produced, and keep the receipt. It is idempotent."""
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
        receipt=receipt.decode(),
    )


async def show(redis: Redis, subject: Subject) -> Decision:
    """Return the state of the limits. Like every operation, it ends expired reservations first."""
    return _decision(await _run(redis, subject, "show"))


def name_of(key: Key) -> str:
    """Return the script's KEYS[1]."""
    return f"vilix:{{{key.shard}}}:limits:{key.id}"


async def _run(redis: Redis, subject: Subject, operation: str, **more: Any) -> dict[str, Any]:
    request = {
        "model": subject.model,
        "owner": subject.key.owner,
        "limits": _limits(subject.limits),
        "model_limits": _limits(subject.model_limits),
        "stream_length": STREAM_LENGTH,
        **({"prices": _prices(subject.price)} if subject.price is not None else {}),
        **more,
    }
    reply = await SCRIPT.run(redis, name_of(subject.key), operation, orjson.dumps(request).decode())
    result: dict[str, Any] = orjson.loads(reply)
    return result


def _identity(reservation_id: ReservationId) -> dict[str, Any]:
    return {
        "id": reservation_id.id,
        "request_id": reservation_id.request_id,
        "duration": round(reservation_id.seconds * 1e6),
        **({"receipts": reservation_id.receipts} if reservation_id.receipts else {}),
    }


_NAMES: Final = {"daily_tokens": "daily", "monthly_tokens": "monthly"}
_BUDGETS: Final = {name: limit for limit, name in _NAMES.items()}


@lru_cache(maxsize=1024)
def _prices(price: ModelPrice) -> dict[str, Any]:
    return asdict(price)


@lru_cache(maxsize=4096)
def _limits(limits: Limits) -> dict[str, int]:
    return {_NAMES.get(name, name): value for name, value in limits if value is not None}


def _decision(result: dict[str, Any]) -> Decision:
    rejection = result.get("rejection")
    return Decision(
        seconds=result["seconds"],
        scopes={
            # Amounts of money come as text.
            name: Scope(**{field: int(value) for field, value in scope.items()})
            for name, scope in result["scopes"].items()
        },
        rejection=Rejection(**rejection) if rejection else None,
        ahead=result.get("ahead"),
    )
