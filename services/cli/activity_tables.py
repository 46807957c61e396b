"""Tables of the running requests and the models of a deployment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.table import Table

from services.cli.table import Column, make_table

_REQUESTS: Final = (
    Column("key"),
    Column("model"),
    Column("phase"),
    Column("age", justify="right"),
    Column("first token", rank=1, justify="right"),
    Column("prompt", rank=3, justify="right"),
    Column("tokens", justify="right"),
    Column("tok/s", justify="right"),
    Column("request", rank=4),
)
_MODELS: Final = (
    Column("model"),
    Column("state"),
    Column("workers", rank=2, justify="right"),
    Column("slots", justify="right"),
    Column("queue", justify="right"),
    Column("KV cache", rank=1, justify="right"),
    Column("tok/s", justify="right"),
)
_LONGEST_NAME: Final = 24


def requests_table(requests: Sequence[dict[str, Any]], *, width: int) -> Table:
    """Return a table of running requests."""
    rows = [
        (
            _short(one["key_name"]),
            _short(one["model"] or ""),
            one["phase"],
            f"{one['seconds']:.1f} s",
            "" if one["first_token_ms"] is None else f"{one['first_token_ms'] / 1000:.2f} s",
            "" if one["prompt_tokens"] is None else str(one["prompt_tokens"]),
            str(one["completion_tokens"] or ""),
            "" if one["tokens_per_second"] is None else f"{one['tokens_per_second']:.1f}",
            one["request_id"],
        )
        for one in requests
    ]
    return make_table(_REQUESTS, rows, width=width)


def models_table(models: Sequence[dict[str, Any]], *, width: int) -> Table:
    """Return a table of models, each with the sums over its workers."""
    return make_table(_MODELS, [_model(model) for model in models], width=width)


def _model(model: dict[str, Any]) -> tuple[str, ...]:
    engines = model["engines"]
    state = "ready" if model["available"] else "away"
    if not engines:
        return model["id"], state, "", "", "", "", ""
    running, slots = sum(one["running"] for one in engines), sum(one["slots"] for one in engines)
    # The fullest cache is the one that matters: requests are not moved between workers.
    cache = max(one["kv_cache_use"] for one in engines)
    rate = sum(one["tokens_per_second"] for one in engines)
    queued = sum(one["queued"] for one in engines)
    return model["id"], state, str(len(engines)), f"{running}/{slots}", str(queued), f"{cache:.0%}", f"{rate:.1f}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"
