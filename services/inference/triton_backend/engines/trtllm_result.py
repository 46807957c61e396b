"""Reads new tokens from a result of TensorRT-LLM, which yields the same object repeatedly, with more content."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from services.inference.triton_backend.contract import Params, Tokens
from services.worker.triton_kit.request_error import RequestError

_log: Final = logging.getLogger(__name__)
UNLIKELY: Final = -9999.0
"""OpenAI's log probability for an unlikely token whose probability is not known."""


class ResultReader:
    """Reads one result, and detects its end.

    `token_ids` and `logprobs` of a result are cumulative. TensorRT-LLM's own differences are stale if a response has
    nothing new, so that the reader counts tokens itself. It also detects the end itself: TensorRT-LLM may leave out the
    token that ended the generation, gives no reason in some final results, and knows neither all end tokens nor
    `min_tokens` for stop tokens.
    """

    def __init__(self, params: Params, *, limit: int, end_ids: frozenset[int], eos_id: int | None) -> None:
        """Begin to read at most `limit` tokens. `end_ids` end them like stop tokens; `eos_id` is the tokenizer's."""
        self.taken = 0
        """The number of tokens that were read."""
        self.reason: str | None = None
        """`stop` or `length` at the end."""
        self._params: Final = params
        self._limit: Final = limit
        self._ends: Final = params.stop_token_ids | (frozenset() if params.ignore_eos else end_ids)
        self._eos_id: Final = eos_id

    def take(self, output: Any, *, final: bool) -> Tokens:
        """Return the tokens since the last call. A `final` output is the last one.

        Raises RequestError if the engine has ended the request early.
        """
        first = self.taken
        # Fewer ids than were taken are left if a stop token was removed: the slice is empty then.
        token_ids = self._until_end(output.token_ids[first : self._limit])
        if final and self.reason is None:
            token_ids = [*token_ids, *self._close(output)]
        self.taken += len(token_ids)
        if self._params.logprobs is None:
            return Tokens(token_ids)
        return _with_logprobs(token_ids, (output.logprobs or ())[first:], self._params.logprobs)

    def _until_end(self, token_ids: Sequence[int]) -> list[int]:
        """Return the new tokens up to the end of the generation."""
        for count, token_id in enumerate(token_ids, 1):
            if token_id in self._ends and self.taken + count >= self._params.min_tokens:
                self.reason = "stop"
                return list(token_ids[:count])
        if self.taken + len(token_ids) >= self._limit:
            self.reason = "length"
        return list(token_ids)

    def _close(self, output: Any) -> list[int]:
        """Use the engine's finish reason. Return the token that ended the generation, if it was left out."""
        reason = output.finish_reason
        if reason not in ("stop", "length"):
            problem = f"TensorRT-LLM ended the answer early: {reason or 'without a reason'}"
            raise RequestError("ENGINE_FAILED", "engine_failed", reason=problem)
        self.reason = reason
        if reason == "stop" and len(output.token_ids) < self._params.min_tokens:
            _log.warning("TensorRT-LLM ended an answer before min_tokens, after %d tokens", len(output.token_ids))
        if reason == "length" or self._ends.intersection(output.token_ids[-1:]):
            return []
        ended_by = output.stop_reason if isinstance(output.stop_reason, int) else self._eos_id
        return [] if ended_by is None else [ended_by]


def _with_logprobs(token_ids: list[int], entries: Sequence[Any], count: int) -> Tokens:
    """Return tokens with log probabilities from `entries`: for each token a number, or a mapping by token."""
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
