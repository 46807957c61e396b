"""Runs the limits script, the Lua files of this folder, and types its arguments and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec
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


@dataclass(frozen=True)
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

    @cached_property
    def fields(self) -> str:
        """The fields of the subject in the JSON object that the script gets in each operation."""
        fields = {
            "model": self.model,
            "owner": self.key.owner,
            "limits": _limits(self.limits),
            "model_limits": _limits(self.model_limits),
            "stream_length": STREAM_LENGTH,
            **({"prices": asdict(self.price)} if self.price is not None else {}),
        }
        return orjson.dumps(fields).decode()[1:-1]

    @cached_property
    def name(self) -> str:
        """The script's KEYS[1]."""
        return name_of(self.key)


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


class Scope(msgspec.Struct, frozen=True):
    """The state of one scope: all requests of a key, or those for one model. Resets are in microseconds.

    They may be above 2^53, which the script writes with fourteen digits and an exponent.
    """

    reserved: int
    slots: int = 0
    """Running requests. Like the usage, it is not reported for a request that is admitted."""
    daily: int = 0
    monthly: int = 0
    requests: int | None = None
    requests_reset: float = 0
    tokens: int | None = None
    tokens_reset: float = 0
    daily_cost: int = 0
    """The money spent, in the smallest unit of the currency, where there is a budget in money."""
    weekly_cost: int = 0
    monthly_cost: int = 0
    reserved_cost: int = 0


class Rejection(msgspec.Struct, frozen=True):
    """The limit that rejected a request: rpm, tpm, concurrency, daily, monthly, or the name of a budget in money."""

    limit: str
    scope: str
    """key or model."""
    wait: float
    """Microseconds until the limit has capacity; -1 if the request never fits, or not before a budget is renewed."""


class Decision(msgspec.Struct, frozen=True):
    """The decision about a request, and the state of the limits."""

    seconds: int = 0
    """Redis's time, in seconds since 1970."""
    scopes: dict[str, Scope] = {}
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
    request = {"estimate": ANYTHING.prompt, "output": ANYTHING.output}
    return _decision(await _run(redis, subject, "peek", request | _conditions(subject)))


async def admit(redis: Redis, subject: Subject, estimate: TokenEstimate, reservation_id: ReservationId) -> Decision:
    """Reserve what a request needs, all of it or nothing. It is idempotent by reservation id.

    Raises StaleKeyError if the key does not have the subject's fingerprint any more.
    """
    request = _identity(reservation_id) | _conditions(subject)
    request["estimate"], request["output"] = estimate.prompt, estimate.output
    return _decision(await _run(redis, subject, "admit", request))


async def renew(
    redis: Redis, reservations: Sequence[Progress], *, reserve_output: int
) -> list[Renewal | BaseException]:
    """Extend reservations, charge the tokens produced so far, and reserve up to `reserve_output` further ones for each.

    Returns an error instead of each renewal that failed. Raises RedisError if the connection ends.
    """
    replies = await SCRIPT.run_many(redis, [_renewal_call(progress, reserve_output) for progress in reservations])
    return [reply if isinstance(reply, BaseException) else _renewal(orjson.loads(reply)) for reply in replies]


def _renewal_call(progress: Progress, reserve_output: int) -> tuple[str, ...]:
    produced = progress.produced
    request = {
        **_identity(progress.reservation_id),
        "completion": produced.completion,
        "reserve": reserve_output,
    }
    if progress.estimate.max_output is not None:
        request["max_output"] = progress.estimate.max_output
    if produced.prompt is not None:
        request["prompt"] = produced.prompt
    if progress.subject.price is not None:
        request["cached"] = produced.cached
    return progress.subject.name, "renew", _fields(progress.subject, request)


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
    request = {
        **_identity(reservation_id),
        "prompt": produced.prompt or 0,
        "completion": produced.completion,
        "cached": produced.cached,
        "reasoning": produced.reasoning,
        "outcome": outcome,
        "receipt": receipt.decode(),
    }
    await _run(redis, subject, "settle", request)


async def show(redis: Redis, subject: Subject) -> Decision:
    """Return the state of the limits. Like every operation, it ends expired reservations first."""
    return _decision(await _run(redis, subject, "show", {}))


def name_of(key: Key) -> str:
    """Return the script's KEYS[1]."""
    return f"vilix:{{{key.shard}}}:limits:{key.id}"


async def _run(redis: Redis, subject: Subject, operation: str, request: Mapping[str, Any]) -> str:
    """Run an operation, and return its reply as JSON."""
    reply: str = await SCRIPT.run(redis, subject.name, operation, _fields(subject, request))
    return reply


def _fields(subject: Subject, request: Mapping[str, Any]) -> str:
    """Return the JSON of what an operation needs: the fields of the subject, and those of `request`."""
    more = orjson.dumps(request).decode()[1:-1]
    return f"{{{subject.fields},{more}}}" if more else f"{{{subject.fields}}}"


def _conditions(subject: Subject) -> dict[str, Any]:
    """Return what a decision depends on besides the limits, as far as there is any."""
    conditions: dict[str, Any] = {}
    if subject.queue_length:
        conditions["queue"] = subject.queue_length
    if subject.fingerprint is not None:
        conditions["fingerprint"] = subject.fingerprint
    return conditions


def _identity(reservation_id: ReservationId) -> dict[str, Any]:
    identity: dict[str, Any] = {
        "id": reservation_id.id,
        "request_id": reservation_id.request_id,
        "duration": round(reservation_id.seconds * 1e6),
    }
    if reservation_id.receipts:
        identity["receipts"] = reservation_id.receipts
    return identity


_NAMES: Final = {"daily_tokens": "daily", "monthly_tokens": "monthly"}
_BUDGETS: Final = {name: limit for limit, name in _NAMES.items()}


class _Reply(Decision, frozen=True):
    """A decision as the script writes it."""

    stale: bool = False


_REPLY: Final = msgspec.json.Decoder(_Reply, strict=False)
"""Also reads numbers in text: amounts of money come as text."""


def _limits(limits: Limits) -> dict[str, int]:
    return {_NAMES.get(name, name): value for name, value in limits if value is not None}


def _decision(reply: str) -> Decision:
    decision = _REPLY.decode(reply)
    if decision.stale:
        raise StaleKeyError
    return decision
