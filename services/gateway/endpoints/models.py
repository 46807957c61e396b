"""GET /models and /models/{id}: the models that a key may use."""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from vilix.embeddings.v1 import embeddings_service_pb2 as embeddings_pb
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.credential import BEARER
from services.gateway.dialects.openai_fields import openai_names
from services.gateway.endpoints.request_record import record_of
from services.gateway.errors import ApiError, not_found
from services.gateway.routing.fleet import Fleet
from services.gateway.tenancy.auth import authenticate
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.key_cache import KeyCache
from services.runtime.messages.message import Message

_CAPABILITIES: Final = [field.name for field in pb.Capabilities.DESCRIPTOR.fields]


class Models:
    """The endpoints that describe models."""

    def __init__(self, fleet: Fleet, key_cache: KeyCache) -> None:
        """Describe the models of `fleet` to the holders of keys."""
        self._fleet: Final = fleet
        self._key_cache: Final = key_cache

    async def list_models(self, request: Request) -> Response:
        """List the models that the key may use."""
        key = await _authenticate(request, self._key_cache)
        data = [model for model in describe_all(self._fleet) if key.may_use(model["id"])]
        return Response(orjson.dumps({"object": "list", "data": data}), media_type="application/json")

    async def retrieve_model(self, request: Request) -> Response:
        """Describe one model."""
        model_id = request.path_params["model_id"]
        key = await _authenticate(request, self._key_cache)
        models = {name: model for name, model in self._fleet.models().items() if key.may_use(name)}
        if model_id not in models:
            raise _unknown(model_id, ", ".join(models))
        return Response(orjson.dumps(_model(model_id, models[model_id])), media_type="application/json")


def describe_all(fleet: Fleet) -> list[dict[str, Any]]:
    """Describe every model that the gateway knows or expects."""
    return [_model(model_id, model) for model_id, model in fleet.models().items()]


async def _authenticate(request: Request, key_cache: KeyCache) -> Key:
    caller = await authenticate(BEARER.read(request.headers), key_cache)
    record_of(request).key_id = caller.key.id
    return caller.key


def _unknown(model: str, known: str) -> ApiError:
    message = Message("model_not_found" if known else "no_models", field="model", model=repr(model[:128]), known=known)
    return not_found(message, code="model_not_found")


def _model(model_id: str, model: pb.Model | embeddings_pb.Model | None) -> dict[str, Any]:
    """Return OpenAI's object `model`, with additional fields about the model's capabilities and engine."""
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
