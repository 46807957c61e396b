"""Recordings that the engine replays, chosen by a word in the message."""

from __future__ import annotations

from typing import Any, Final

from services.inference.model.tokenizer import ModelTokenizer
from tests.support.models import smollm2

PREFILL, SLOW, LONG, STEADY, BURST, STALL = "PREFILL", "SLOW", "LONG", "STEADY", "BURST", "STALL"
"""Words in messages that cause half a minute of prefill, two seconds of prefill, an endless response, six seconds of
tokens, very many tokens, and an engine whose thread freezes after five tokens."""

FAILING: Final = "FAILING"
"""A word in messages that cause five tokens and a failure of the engine."""

PACED: Final = "PACED"
"""A word in messages that cause 200 tokens, two per second."""


def all_recordings() -> list[dict[str, Any]]:
    """Return the recordings: one for each word, and one for all other messages."""
    tokenizer = ModelTokenizer(smollm2())
    words = tokenizer.encode(" one two three four five six seven eight nine ten")

    def recording(name: str, count: int, **fields: Any) -> dict[str, Any]:
        ids = [words[i % len(words)] for i in range(count)]
        return {"name": name, "prompt_contains": tokenizer.encode(name), "token_ids": [*ids, 2], **fields}

    return [
        recording(PREFILL, 5, start_ms=30_000),
        recording(SLOW, 5, start_ms=2_000),
        recording(LONG, 60_000, interval_ms=20),
        recording(STEADY, 150, interval_ms=40),
        recording(BURST, 60_000, interval_ms=0.1, tokens_per_response=100),
        recording(PACED, 200, interval_ms=500),
        recording(STALL, 5, interval_ms=1, stall_s=600),
        recording(FAILING, 5, interval_ms=1, error="ENGINE_FAILED: out of luck"),
        {**recording("any", 5, interval_ms=1), "prompt_contains": []},
    ]
