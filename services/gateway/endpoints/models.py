"""GET /models and /models/{id}: the models that a key may use."""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from vilix.embeddings.v1 import embeddings_service_pb2 as embeddings_pb
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.credential import read_openai
from services.gateway.dialects.anthropic_messages.dialect import read_credential
from services.gateway.dialects.anthropic_messages.errors import REQUEST_ID_HEADER
from services.gateway.dialects.openai_fields import openai_names
from services.gateway.edge.error_format import is_anthropic
from services.gateway.endpoints.anthropic_models import model_object, page_of
from services.gateway.endpoints.request_record import record_of
from services.gateway.errors import ApiError, not_found
from services.gateway.routing.aliases import Aliases
from services.gateway.routing.fleet import Fleet
from services.gateway.tenancy.auth import authenticate
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.key_cache import KeyCache
from services.runtime.messages.message import Message

_CAPABILITIES: Final = [field.name for field in pb.Capabilities.DESCRIPTOR.fields]


class Models:
    """The endpoints that describe models."""

    def __init__(self, fleet: Fleet, aliases: Aliases, key_cache: KeyCache) -> None:
        """Describe the models of `fleet`, and their aliases, to the holders of keys."""
        self._fleet: Final = fleet
        self._aliases: Final = aliases
        self._key_cache: Final = key_cache

    async def list_models(self, request: Request) -> Response:
        """List the models that the key may use, and their aliases, in the format of the API that asks."""
        models = await self._usable(request)
        if is_anthropic(request.url.path, request.headers):
            return _json(request, page_of(list(models.values()), request))
        return _json(request, {"object": "list", "data": list(models.values())})

    async def retrieve_model(self, request: Request) -> Response:
        """Describe one model, or an alias."""
        model_id = request.path_params["model_id"]
        models = await self._usable(request)
        if model_id not in models:
            raise _unknown(model_id, ", ".join(models))
        model = models[model_id]
        return _json(request, model_object(model) if is_anthropic(request.url.path, request.headers) else model)

    async def _usable(self, request: Request) -> dict[str, dict[str, Any]]:
        """Return the models that the key of a request may use, and behind them their aliases, by id."""
        key = await _authenticate(request, self._key_cache)
        models = {model["id"]: model for model in describe_all(self._fleet)}
        for alias, target in self._aliases.by_name.items():
            if target in models:
                models[alias] = {**models[target], "id": alias, "alias_of": target}
        return {name: model for name, model in models.items() if key.may_use(model.get("alias_of", name))}


def describe_all(fleet: Fleet) -> list[dict[str, Any]]:
    """Describe every model that the gateway knows or expects."""
    return [_model(model_id, model) for model_id, model in fleet.models().items()]


async def _authenticate(request: Request, key_cache: KeyCache) -> Key:
    read = read_credential if is_anthropic(request.url.path, request.headers) else read_openai
    caller = await authenticate(read(request.headers), key_cache)
    record_of(request).key_id = caller.key.id
    return caller.key


def _json(request: Request, document: dict[str, Any]) -> Response:
    is_theirs = is_anthropic(request.url.path, request.headers)
    headers = {REQUEST_ID_HEADER: record_of(request).request_id} if is_theirs else {}
    return Response(orjson.dumps(document), headers=headers, media_type="application/json")


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
    normalization = embeddings_pb.TextNormalization.Name(model.default_text_normalization)
    return {
        "context_length": model.max_input_tokens,
        "capabilities": {"chat": False, "embeddings": True},
        "dimensions": model.dimensions,
        "supports_dimensions": model.supports_dimensions,
        "normalized": model.normalized,
        "default_input_type": input_type.removeprefix("INPUT_TYPE_").lower(),
        "token_input": token_input.removeprefix("TOKEN_INPUT_").lower(),
        "text_normalization": {
            "default": normalization.removeprefix("TEXT_NORMALIZATION_").lower(),
            "version": model.text_normalization_version,
        },
        "engine": {"name": model.engine},
    }
