"""The receipt of a request: what was done for it, how long each stage took, and what it has used. It has no content."""

from __future__ import annotations

import time
from typing import Any, Final

import orjson

from services.gateway.record import Outcome, RequestRecord
from services.gateway.tenancy.limits_script import Produced
from services.gateway.tenancy.prices import ModelPrice

MOST_BYTES: Final = 4096
"""The most bytes of a receipt."""
_MOST_TEXT_BYTES: Final = 128
"""The most bytes of a text in it, as JSON."""
_ALWAYS_SHORT: Final = _MOST_TEXT_BYTES // 6
"""The most characters that need no check, because JSON writes a character in at most six bytes."""
_SPARED: Final = ("addresses", "finish_reasons", "worker_ms", "alias", "endpoint")
"""The fields that are left out of a receipt that would be too long, in this order."""
_SERVED: Final = (Outcome.COMPLETE, Outcome.BUDGET)


def receipt_of(
    record: RequestRecord, *, outcome: Outcome, produced: Produced | None = None, price: ModelPrice | None = None
) -> bytes:
    """Return the receipt of a request that ends now, as JSON. `produced` are the tokens that are billed for it."""
    notes, now = record.receipt, time.perf_counter()
    moments = {
        "authenticated": notes.authenticated_at,
        "queued": notes.queued_at,
        "admitted": notes.admitted_at,
        "worker_called": notes.called_at,
        "first_token": record.first_token_at,
        "last_token": notes.last_token_at,
        "settled": now,
    }
    timings = {
        name: round((moment - notes.arrived_at) * 1000, 1) for name, moment in moments.items() if moment is not None
    }
    receipt: dict[str, Any] = {
        "id": record.request_id,
        "created": round(time.time() - (now - notes.arrived_at), 3),
        "endpoint": notes.endpoint,
        "background": notes.is_background,
        "stream": record.stream,
        # A client may have sent a secret instead of a model.
        "model": _short(record.model or "") if record.has_known_model else None,
        "alias": _short(notes.alias or ""),
        "outcome": outcome,
        "status": notes.status or record.status or (200 if outcome in _SERVED else None),
        "error": notes.error or record.error,
        "finish_reasons": notes.finish_reasons,
        "timings_ms": timings,
        "worker_ms": dict(notes.worker_ms),
        "usage": {
            "prompt_tokens": (produced.prompt if produced else None) or 0,
            "completion_tokens": produced.completion if produced else 0,
            "cached_tokens": produced.cached if produced else 0,
            "reasoning_tokens": produced.reasoning if produced else 0,
        },
        "worker": _short(notes.worker),
        "engine": _short(notes.engine),
        "engine_version": _short(notes.engine_version),
        "retries": max(0, notes.attempts - 1),
        "parameters": notes.parameters,
        "addresses": [_short(address) for address in notes.addresses],
    }
    if price is not None:
        receipt |= {
            "cost": price.cost(produced or Produced()),
            "currency": price.currency,
            "decimals": price.decimals,
        }
    text = orjson.dumps(receipt)
    for name in _SPARED:
        if len(text) <= MOST_BYTES:
            break
        receipt[name] = type(receipt[name])() if isinstance(receipt[name], (list, dict)) else None
        text = orjson.dumps(receipt)
    return text


def _short(text: str) -> str | None:
    if len(text) <= _ALWAYS_SHORT:
        return text or None
    text = text[:_MOST_TEXT_BYTES]
    while len(orjson.dumps(text)) - 2 > _MOST_TEXT_BYTES:
        text = text[:-1]
    return text or None
