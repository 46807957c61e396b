"""Reads tokens and log probabilities from vLLM's outputs, each of which has what is new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Final

from services.inference.triton_backend.contract import Params, Tokens
from services.worker.triton_kit.request_error import RequestError

UNLIKELY: Final = -9999.0
"""OpenAI's log probability for an unlikely token whose probability is not known."""
_REASONS: Final = {"stop": "stop", "length": "length"}


def read(output: Any, params: Params, *, is_first: bool) -> Tokens:
    """Return the new tokens of a RequestOutput. The first ones of a request have what is known about its prompt."""
    completion = output.outputs[0]
    tokens = _with_logprobs(list(completion.token_ids), completion.logprobs, params.logprobs)
    if not is_first or not tokens.token_ids:
        return tokens
    cached = output.num_cached_tokens
    prompt = _prompt(output, params.prompt_logprobs) if params.prompt_logprobs is not None else None
    return replace(tokens, prompt=prompt, cached_tokens=None if cached is None else max(0, cached))


def finish_reason(output: Any) -> str:
    """Return the finish reason of the last RequestOutput. Raises RequestError if vLLM has ended the request early."""
    reason = output.outputs[0].finish_reason
    if reason not in _REASONS:
        problem = f"vLLM ended the answer early: {reason or 'without a reason'}"
        raise RequestError("ENGINE_FAILED", "engine_failed", reason=problem)
    return _REASONS[reason]


def joined(parts: Sequence[Tokens]) -> Tokens:
    """Return consecutive tokens of one request as one."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Tokens(
        list(chain.from_iterable(part.token_ids for part in parts)),
        None if first.logprobs is None else list(chain.from_iterable(part.logprobs or () for part in parts)),
        None if first.top is None else list(chain.from_iterable(part.top or () for part in parts)),
        prompt=first.prompt,
        cached_tokens=first.cached_tokens,
    )


def _prompt(output: Any, count: int) -> Tokens:
    """Return the prompt's tokens with log probabilities. The first token has none."""
    token_ids = list(output.prompt_token_ids)
    rows = list(output.prompt_logprobs or ())
    tokens = _with_logprobs(token_ids[1:], rows[1:], count)
    return Tokens(token_ids, [0.0, *(tokens.logprobs or ())], [[], *tokens.top] if tokens.top is not None else None)


def _with_logprobs(token_ids: list[int], rows: Sequence[Mapping[int, Any] | None] | None, count: int | None) -> Tokens:
    """Return tokens with log probabilities from `rows`: for each token a mapping from tokens, its own among them."""
    if count is None:
        return Tokens(token_ids)
    given = [*(rows or ())][: len(token_ids)]
    numbers: list[dict[int, float]] = [
        {token_id: float(entry.logprob) for token_id, entry in (row or {}).items()} for row in given
    ]
    numbers += [{}] * (len(token_ids) - len(numbers))
    own = [row.get(token_id, UNLIKELY) for token_id, row in zip(token_ids, numbers, strict=True)]
    if not count:
        return Tokens(token_ids, own)
    return Tokens(token_ids, own, [sorted(row.items(), key=lambda pair: -pair[1])[:count] for row in numbers])
