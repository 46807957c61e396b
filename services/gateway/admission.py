"""Lets a request in: its key must be allowed to use the model, and have room for what the request needs."""

from __future__ import annotations

from fastapi import Request
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.demand import demand_of
from services.gateway.dependencies import dependencies
from services.gateway.errors import ApiError
from services.gateway.keys import Key
from services.gateway.lease import Lease


async def admit(request: Request, generate: pb.GenerateRequest, key: Key) -> Lease:
    """The lease of a request. Raises ApiError: 403 for a model that the key may not use, 429, 503."""
    check_model(key, generate.model)
    gateway = dependencies(request)
    subject = gateway.tiers.subject(key, generate.model)
    demand = demand_of(generate, reserve_output=gateway.settings.reserve_output)
    return await gateway.leases.admit(subject, demand, request_id=request.state.request_id)


def check_model(key: Key, model: str) -> None:
    """Raises ApiError (403) for a model that is not on the key's list."""
    if not key.may_use(model):
        allowed = ", ".join(sorted(key.models or ())) or "none"
        raise ApiError(
            403,
            f"This API key may not use the model {model[:128]!r}. It may use: {allowed}.",
            type="permission_error",
            param="model",
            code="model_not_allowed",
        )
