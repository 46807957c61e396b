"""Converts a request to the `params` of the Triton contract."""

from __future__ import annotations

from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.served_model import ServedModel
from services.inference.request.structured_output.held_calls import calls_of, holds_calls
from services.inference.request.structured_output.response_format import structured_output
from services.inference.triton_backend.contract import LEAST_REPETITION_PENALTY, LEAST_TEMPERATURE, LEAST_TOP_P

_SPECIAL_FIELDS: Final = frozenset({"stop", "skip_special_tokens", "logit_bias", "stop_token_ids", "seed"})
"""Fields that the worker honours itself, or converts to another form."""


def engine_params(
    request: pb.GenerateRequest, model: ServedModel, *, remaining_tokens: int, choice: int
) -> dict[str, Any]:
    """Return `params` for one choice of a checked request, with the model's defaults for fields that are not set.

    `remaining_tokens` is the number of tokens that the context has left. Defaults and advisory fields that the engine
    does not support are left out; other unsupported fields were rejected before.
    """
    sampling = request.sampling
    params: dict[str, Any] = model.spec.sampling.model_dump(exclude_none=True)
    params |= {field.name: value for field, value in sampling.ListFields() if field.name not in _SPECIAL_FIELDS}
    if params.get("top_p", 1.0) < LEAST_TOP_P:
        # Only the most probable token remains, which engines express as temperature 0.
        del params["top_p"]
        params["temperature"] = 0.0
    if params.get("temperature", 1.0) < LEAST_TEMPERATURE:
        params["temperature"] = 0.0
    if params.get("repetition_penalty", 1.0) < LEAST_REPETITION_PENALTY:
        # The smallest allowed value, rounded to 32 bits.
        params["repetition_penalty"] = LEAST_REPETITION_PENALTY
    if sampling.stop_token_ids:
        params["stop_token_ids"] = list(sampling.stop_token_ids)
    if sampling.logit_bias:
        params["logit_bias"] = {str(token_id): bias for token_id, bias in sampling.logit_bias.items()}
    if sampling.HasField("seed"):
        params["seed"] = _seed_of_choice(sampling.seed, choice)
    params |= _logprobs(request.logprobs) if request.HasField("logprobs") else {}
    if output := structured_output(request):
        params["structured_output"] = output
    if holds_calls(request, model):
        params["calls"] = calls_of(request, model)
    if request.tenant:
        params["cache_salt"] = request.tenant
    if request.priority:
        params["priority"] = request.priority
    params.setdefault("max_tokens", remaining_tokens)
    limit = remaining_tokens if request.clamp_max_tokens else params["max_tokens"]
    params["max_tokens"] = min(params["max_tokens"], limit)
    if request.prefill_only:
        # Engines generate one token at least, which is not sent.
        params["max_tokens"] = 1
        params.pop("min_tokens", None)
    return {name: value for name, value in params.items() if model.supports(name)}


def _logprobs(options: pb.LogprobsOptions) -> dict[str, int]:
    return {"logprobs": options.top, **({"prompt_logprobs": options.top} if options.prompt else {})}


def _seed_of_choice(seed: int, choice: int) -> int:
    """Return a 64-bit seed that differs for each choice, since equal seeds would generate equal choices."""
    return (seed + choice + 2**63) % 2**64 - 2**63
