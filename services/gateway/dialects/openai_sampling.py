"""Translates sampling parameters and stop conditions."""

from __future__ import annotations

from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.json_model import wrong_type
from services.gateway.dialects.openai_request import OpenAIRequest
from services.gateway.errors import bad_request
from services.gateway.quoting import shown
from services.runtime.messages.message import Message

_SAME_NAMES: Final = (
    *("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty"),
    *("min_tokens", "seed", "ignore_eos", "skip_special_tokens"),
)
_MOST_TOKEN_ID: Final = 2**31 - 1
_MOST_DIGITS: Final = 10


def add_sampling(request: OpenAIRequest, sampling: pb.SamplingParams, overruled_fields: list[str]) -> None:
    """Set the parameters that are present; add fields without effect to `overruled_fields`. Raises ApiError."""
    sampling.SetInParent()
    for name in _SAME_NAMES:
        if (value := getattr(request, name)) is not None:
            setattr(sampling, name, value)
    if request.top_k is not None:
        sampling.top_k = max(request.top_k, 0)
    _add_limit(request, sampling, overruled_fields)
    if request.stop is not None:
        sampling.stop.extend([request.stop] if isinstance(request.stop, str) else request.stop)
    if request.stop_token_ids is not None:
        sampling.stop_token_ids.extend(request.stop_token_ids)
    for token, bias in (request.logit_bias or {}).items():
        sampling.logit_bias[_read_token(token)] = _read_bias(f"logit_bias.{token}", bias)


def _add_limit(request: OpenAIRequest, sampling: pb.SamplingParams, overruled_fields: list[str]) -> None:
    newer, older = request.max_completion_tokens, request.max_tokens
    limit = older if newer is None else newer
    if limit is None:
        return
    sampling.max_tokens = limit
    if older not in (None, limit):
        overruled_fields.append("max_tokens")


def _read_token(token: str) -> int:
    # Parsing very many digits takes long.
    if not token.isdecimal() or len(token) > _MOST_DIGITS:
        raise bad_request(Message("key_is_no_token_id", field="logit_bias", value=shown(token)))
    if int(token) > _MOST_TOKEN_ID:
        raise bad_request(Message("out_of_range", field="logit_bias", value=int(token), least=0, most=_MOST_TOKEN_ID))
    return int(token)


def _read_bias(path: str, bias: Any) -> float:
    if bias is None:
        return 0.0
    if not isinstance(bias, int | float) or isinstance(bias, bool):
        raise wrong_type(path, "number", bias)
    return float(bias)
