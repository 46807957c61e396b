"""GET /models: what there is to choose from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fastapi import APIRouter, Request
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.auth import authenticate
from services.gateway.dependencies import dependencies
from services.gateway.errors import ApiError

router: Final = APIRouter()
_OPENAI_NAMES: Final = {
    "sampling.max_tokens": ("max_tokens", "max_completion_tokens"),
    "logprobs": ("logprobs", "top_logprobs"),
    # Fields of the gRPC API alone.
    **dict.fromkeys(("prompt", "prompt_token_ids", "tenant", "priority"), ()),
}
_CAPABILITIES: Final = [field.name for field in pb.Capabilities.DESCRIPTOR.fields]


@router.get("/models")
async def list_models(request: Request) -> Any:
    """List the models."""
    gateway = dependencies(request)
    key = await authenticate(request, gateway.keyring)
    models = gateway.workers.models().items()
    data = [_model(model_id, model) for model_id, model in models if key.may_use(model_id)]
    return {"object": "list", "data": data}


@router.get("/models/{model_id:path}")
async def retrieve_model(request: Request, model_id: str) -> Any:
    """Describe one model."""
    gateway = dependencies(request)
    key = await authenticate(request, gateway.keyring)
    models = {name: model for name, model in gateway.workers.models().items() if key.may_use(name)}
    if model_id not in models:
        known = ", ".join(models) or "none at the moment"
        message = f"The model {model_id[:128]!r} does not exist. There are: {known}."
        raise ApiError(404, message, param="model", code="model_not_found")
    return _model(model_id, models[model_id])


def _model(model_id: str, model: pb.Model | None) -> dict[str, Any]:
    """OpenAI's object `model`, and what clients of open models like to know."""
    if model is None:
        return {"id": model_id, "object": "model", "created": 0, "owned_by": "vilix", "available": False}
    return {
        "id": model_id,
        "object": "model",
        "created": model.created.seconds,
        "owned_by": model.owned_by,
        "available": True,
        "context_length": model.context_length,
        "capabilities": {name: getattr(model.capabilities, name) for name in _CAPABILITIES},
        "supported_parameters": _openai_names(model.supported_parameters),
        "checkpoint": model.checkpoint,
        "engine": {"name": model.engine.name, "version": model.engine.version},
        "descriptions": dict(model.descriptions),
    }


def _openai_names(fields: Iterable[str]) -> list[str]:
    """Names of the chat API for field paths of GenerateRequest."""
    return sorted(name for path in fields for name in _OPENAI_NAMES.get(path, (path.removeprefix("sampling."),)))
