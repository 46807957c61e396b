"""From a request to the `params` of the Triton contract."""

from __future__ import annotations

import re
from typing import Any

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.served_model import ServedModel


def engine_params(request: pb.GenerateRequest, model: ServedModel, *, room: int, choice: int) -> dict[str, Any]:
    """`params` for one choice of a checked request; the model's defaults stand where the request says nothing."""
    given = request.sampling
    params: dict[str, Any] = model.spec.sampling.model_dump(exclude_none=True)
    for descriptor, value in given.ListFields():
        if descriptor.name not in ("stop", "skip_special_tokens", "logit_bias", "stop_token_ids"):
            params[descriptor.name] = value
    if params.get("top_p") == 0:
        # Nothing but the most probable token remains, which engines want to be told in this way.
        del params["top_p"]
        params["temperature"] = 0.0
    if given.stop_token_ids:
        params["stop_token_ids"] = list(given.stop_token_ids)
    if given.logit_bias:
        params["logit_bias"] = {str(token_id): bias for token_id, bias in given.logit_bias.items()}
    if given.HasField("seed"):
        # Choices of one request would else be copies of one another.
        params["seed"] = given.seed + choice
    if request.HasField("logprobs"):
        params["logprobs"] = request.logprobs.top
    if (guide := _guide(request.response_format)) is not None:
        params["guide"] = guide
    if request.tenant:
        params["cache_salt"] = request.tenant
    if request.priority:
        params["priority"] = request.priority
    params.setdefault("max_tokens", room)
    return {name: value for name, value in params.items() if model.supports(name)}


def _guide(response_format: pb.ResponseFormat) -> dict[str, Any] | None:
    match response_format.WhichOneof("format"):
        case None:
            return None
        case "json_object":
            return {"json_object": True}
        case "json_schema":
            return {"json": response_format.json_schema.schema_json}
        case "choice":
            return {"regex": "|".join(re.escape(choice) for choice in response_format.choice.choices)}
        case "structural_tag_json":
            return {"structural_tag": response_format.structural_tag_json}
        case kind:
            return {kind: getattr(response_format, kind)}
