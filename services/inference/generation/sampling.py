"""From a request to the `params` of the Triton contract."""

from __future__ import annotations

from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.served_model import ServedModel
from services.inference.request.structured_output import structured_output
from services.inference.triton_backend.contract import LEAST_REPETITION_PENALTY, LEAST_TEMPERATURE, LEAST_TOP_P

_OTHERWISE: Final = frozenset({"stop", "skip_special_tokens", "logit_bias", "stop_token_ids", "seed"})
"""Fields that the worker honours itself, or that go in another form."""


def engine_params(request: pb.GenerateRequest, model: ServedModel, *, room: int, choice: int) -> dict[str, Any]:
    """`params` for one choice of a checked request; the model's defaults stand where the request says nothing.

    `room` is how many tokens the context has left. Defaults and advisory fields that the engine lacks are left out;
    what else it lacks was refused before.
    """
    given = request.sampling
    params: dict[str, Any] = model.spec.sampling.model_dump(exclude_none=True)
    params |= {field.name: value for field, value in given.ListFields() if field.name not in _OTHERWISE}
    if params.get("top_p", 1.0) < LEAST_TOP_P:
        # Nothing but the most probable token remains, which engines want to be told in this way.
        del params["top_p"]
        params["temperature"] = 0.0
    if params.get("temperature", 1.0) < LEAST_TEMPERATURE:
        params["temperature"] = 0.0
    if params.get("repetition_penalty", 1.0) < LEAST_REPETITION_PENALTY:
        # The smallest that is allowed, as a number of 32 bits.
        params["repetition_penalty"] = LEAST_REPETITION_PENALTY
    if given.stop_token_ids:
        params["stop_token_ids"] = list(given.stop_token_ids)
    if given.logit_bias:
        params["logit_bias"] = {str(token_id): bias for token_id, bias in given.logit_bias.items()}
    if given.HasField("seed"):
        params["seed"] = _seed_of_choice(given.seed, choice)
    if request.HasField("logprobs"):
        params["logprobs"] = request.logprobs.top
    if form := structured_output(request):
        params["structured_output"] = form
    if request.tenant:
        params["cache_salt"] = request.tenant
    if request.priority:
        params["priority"] = request.priority
    params.setdefault("max_tokens", room)
    return {name: value for name, value in params.items() if model.supports(name)}


def _seed_of_choice(seed: int, choice: int) -> int:
    """Choices of one request would else be copies of one another. A 64-bit integer, as the seed is."""
    return (seed + choice + 2**63) % 2**64 - 2**63
