"""GET /models: what there is to choose from."""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from vilix.embeddings.v1 import embeddings_service_pb2 as embeddings_pb
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dependencies import Dependencies, dependencies
from services.gateway.dialects.field_names import openai_names
from services.gateway.errors import JSON, ApiError
from services.gateway.tenancy.auth import authenticate

_CAPABILITIES: Final = [field.name for field in pb.Capabilities.DESCRIPTOR.fields]


async def list_models(request: Request) -> Response:
    """List the models."""
    gateway = dependencies(request)
    key = await authenticate(request, gateway.keyring)
    data = [model for model in describe_all(gateway) if key.may_use(model["id"])]
    return Response(orjson.dumps({"object": "list", "data": data}), media_type=JSON)


async def retrieve_model(request: Request) -> Response:
    """Describe one model."""
    model_id = request.path_params["model_id"]
    gateway = dependencies(request)
    key = await authenticate(request, gateway.keyring)
    models = {name: model for name, model in _known(gateway).items() if key.may_use(name)}
    if model_id not in models:
        known = ", ".join(models) or "none at the moment"
        message = f"The model {model_id[:128]!r} does not exist. There are: {known}."
        raise ApiError(404, message, param="model", code="model_not_found")
    return Response(orjson.dumps(_model(model_id, models[model_id])), media_type=JSON)


def describe_all(gateway: Dependencies) -> list[dict[str, Any]]:
    """Every model that the gateway knows or expects."""
    return [_model(model_id, model) for model_id, model in _known(gateway).items()]


def _known(gateway: Dependencies) -> dict[str, pb.Model | embeddings_pb.Model | None]:
    return dict(sorted({**gateway.workers.models(), **gateway.embedders.models()}.items()))


def _model(model_id: str, model: pb.Model | embeddings_pb.Model | None) -> dict[str, Any]:
    """OpenAI's object `model`, and what clients of open models like to know."""
    if model is None:
        return {"id": model_id, "object": "model", "created": 0, "owned_by": "vilix", "available": False}
    return {
        "id": model_id,
        "object": "model",
        "created": model.created.seconds,
        "owned_by": model.owned_by,
        "available": True,
        **(_chat_model(model) if isinstance(model, pb.Model) else _embedding_model(model)),
        "checkpoint": model.checkpoint,
        "descriptions": dict(model.descriptions),
    }


def _chat_model(model: pb.Model) -> dict[str, Any]:
    capabilities = {name: getattr(model.capabilities, name) for name in _CAPABILITIES}
    return {
        "context_length": model.context_length,
        "capabilities": {**capabilities, "embeddings": False},
        "supported_parameters": openai_names(model.supported_parameters),
        "engine": {"name": model.engine.name, "version": model.engine.version},
    }


def _embedding_model(model: embeddings_pb.Model) -> dict[str, Any]:
    input_type = embeddings_pb.InputType.Name(model.default_input_type)
    token_input = embeddings_pb.TokenInput.Name(model.token_input)
    return {
        "context_length": model.max_input_tokens,
        "capabilities": {"chat": False, "embeddings": True},
        "dimensions": model.dimensions,
        "supports_dimensions": model.supports_dimensions,
        "normalized": model.normalized,
        "default_input_type": input_type.removeprefix("INPUT_TYPE_").lower(),
        "token_input": token_input.removeprefix("TOKEN_INPUT_").lower(),
        "engine": {"name": model.engine},
    }
