"""Reads the sampling parameters and stop conditions of OpenAI's requests, and those that vLLM adds."""

from __future__ import annotations

from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.json_fields import Fields, wrong_type
from services.gateway.errors import bad_request
from services.gateway.quoting import shown

_NUMBERS: Final = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")


def add_sampling(fields: Fields, sampling: pb.SamplingParams) -> None:
    """Read the fields that are present into `sampling`. Raises ApiError (400)."""
    for name in _NUMBERS:
        if (number := fields.number(name)) is not None:
            setattr(sampling, name, number)
    for name in ("top_k", "min_tokens"):
        # Some clients send -1 for "all tokens".
        if (integer := fields.integer(name, least=-1 if name == "top_k" else 0)) is not None:
            setattr(sampling, name, max(integer, 0))
    if (seed := fields.integer("seed", least=-(2**63), most=2**63 - 1)) is not None:
        sampling.seed = seed
    _add_limit(fields, sampling)
    for name in ("ignore_eos", "skip_special_tokens"):
        if (flag := fields.boolean(name)) is not None:
            setattr(sampling, name, flag)
    stop = fields.get("stop")
    sampling.stop.extend([stop] if isinstance(stop, str) else fields.strings("stop") or ())
    for index, token_id in enumerate(fields.array("stop_token_ids") or ()):
        sampling.stop_token_ids.append(read_token_id(f"stop_token_ids[{index}]", token_id))
    bias = fields.get("logit_bias")
    if bias is not None:
        biases = Fields(bias, "logit_bias")
        for token in bias:
            # Parsing very long numbers is slow, and Python rejects those of more than 4,300 digits.
            if not token.isdecimal() or len(token) > 10:
                raise bad_request("logit_bias", f"logit_bias has the key {shown(token)}; keys must be token ids")
            sampling.logit_bias[read_token_id("logit_bias", int(token))] = biases.number(token) or 0.0


def _add_limit(fields: Fields, sampling: pb.SamplingParams) -> None:
    newer, older = fields.integer("max_completion_tokens", least=1), fields.integer("max_tokens", least=1)
    limit = older if newer is None else newer
    if limit is None:
        return
    sampling.max_tokens = limit
    if older not in (None, limit):
        fields.overruled("max_tokens")


def read_token_id(path: str, value: Any) -> int:
    """Return `value` if it is a token id. Raises ApiError (400)."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise wrong_type(path, "a token id", value)
    return value
