"""Reads an answer off the result that TensorRT-LLM yields again and again, always the same object with more in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from services.inference.triton_backend.contract import Params, Tokens
from services.worker.triton_kit.request_error import RequestError

UNLIKELY: Final = -9999.0
"""OpenAI's log probability for a token about which only that is known."""


class ResultReader:
    """How far one answer was read, and how it ended.

    `token_ids` and `logprobs` of a result are cumulative, and their own differences are stale where a response brought
    nothing new, so that it keeps a place of its own. Where the answer ends it sees for itself: TensorRT-LLM may leave
    out the token that ended it, gives no reason in some final results, and knows neither all end tokens nor
    `min_tokens` of stop tokens.
    """

    def __init__(self, params: Params, *, limit: int, end_ids: frozenset[int], eos_id: int | None) -> None:
        """Begin to read at most `limit` tokens. `end_ids` end them like stop tokens; `eos_id` is the tokenizer's."""
        self.taken = 0
        """How many tokens were read."""
        self.reason: str | None = None
        """stop or length, once it has ended."""
        self._params: Final = params
        self._limit: Final = limit
        self._ends: Final = params.stop_token_ids | (frozenset() if params.ignore_eos else end_ids)
        self._eos_id: Final = eos_id

    def take(self, output: Any, *, final: bool) -> Tokens:
        """The tokens that were not taken before; none are left after a `final` one.

        Raises RequestError when the engine gave the answer up.
        """
        first = self.taken
        # A stop token that was cut off leaves fewer ids than were taken already: the slice is empty then.
        token_ids = self._until_end(output.token_ids[first : self._limit])
        if final and self.reason is None:
            token_ids = [*token_ids, *self._close(output)]
        self.taken += len(token_ids)
        if self._params.logprobs is None:
            return Tokens(token_ids)
        return _with_logprobs(token_ids, (output.logprobs or ())[first:], self._params.logprobs)

    def _until_end(self, token_ids: Sequence[int]) -> list[int]:
        """What of new tokens belongs to the answer."""
        for count, token_id in enumerate(token_ids, 1):
            if token_id in self._ends and self.taken + count >= self._params.min_tokens:
                self.reason = "stop"
                return list(token_ids[:count])
        if self.taken + len(token_ids) >= self._limit:
            self.reason = "length"
        return list(token_ids)

    def _close(self, output: Any) -> list[int]:
        """Take over the engine's reason. Returns the token that ended the answer, where it was left out."""
        reason = output.finish_reason
        if reason not in ("stop", "length"):
            raise RequestError("ENGINE_FAILED", f"TensorRT-LLM ended the answer early: {reason or 'without a reason'}")
        self.reason = reason
        if reason == "length" or self._ends.intersection(output.token_ids[-1:]):
            return []
        ended_by = output.stop_reason if isinstance(output.stop_reason, int) else self._eos_id
        return [] if ended_by is None else [ended_by]


def _with_logprobs(token_ids: list[int], entries: Sequence[Any], count: int) -> Tokens:
    """`entries` has per token its log probability, or a mapping from tokens to theirs."""
    padded = [*entries[: len(token_ids)], *([{}] * (len(token_ids) - len(entries)))]
    rows: list[dict[int, float]] = [
        {i: _number(value) for i, value in entry.items()} if isinstance(entry, dict) else {token_id: _number(entry)}
        for token_id, entry in zip(token_ids, padded, strict=True)
    ]
    own = [row.get(token_id, UNLIKELY) for token_id, row in zip(token_ids, rows, strict=True)]
    if not count:
        return Tokens(token_ids, own)
    return Tokens(token_ids, own, [sorted(row.items(), key=lambda pair: -pair[1])[:count] for row in rows])


def _number(value: Any) -> float:
    return float(getattr(value, "logprob", value))
