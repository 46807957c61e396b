"""Checks of requests. Every violation is INVALID_ARGUMENT and names the field, the value and the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.embeddings.served_model import ServedModel
from services.embeddings.tokenization import Row
from services.runtime.failure import Failure, Reason, invalid, unsupported
from services.runtime.messages.message import Message

MAX_TENANT_BYTES: Final = 256


@dataclass(frozen=True)
class RequestLimits:
    """Limits of a request to any model."""

    max_inputs: int = 2048
    max_request_tokens: int = 300_000
    max_request_bytes: int = 8 * 2**20


def check(request: pb.EmbedRequest, model: ServedModel, limits: RequestLimits) -> None:
    """Check everything that needs no tokenizer. Raises Failure."""
    _check_inputs(request, model, limits)
    _check_dimensions(request, model)
    if request.input_type not in pb.InputType.values():
        raise invalid(Message("value_unknown", field="input_type", value=request.input_type))
    tenant_bytes = len(request.tenant.encode())
    if tenant_bytes > MAX_TENANT_BYTES:
        raise invalid(Message("too_many_bytes", field="tenant", value=tenant_bytes, limit=MAX_TENANT_BYTES))


def check_rows(field: str, rows: Sequence[Row], model: ServedModel, limits: RequestLimits) -> None:
    """Check the tokenized texts, before any of them is embedded. Raises Failure."""
    limit = model.max_input_tokens()
    for index, row in enumerate(rows):
        if row.tokens > limit:
            message = Message(
                "text_over_context",
                field=f"{field}[{index}]",
                other_field="truncate",
                value=row.tokens,
                model=model.id,
                limit=limit,
            )
            raise Failure(Reason.CONTEXT_LENGTH_EXCEEDED, message)
    total = sum(row.tokens for row in rows)
    if total > limits.max_request_tokens:
        most = limits.max_request_tokens
        raise invalid(Message("too_many_tokens", field=field, value=total, limit=most))


def _check_inputs(request: pb.EmbedRequest, model: ServedModel, limits: RequestLimits) -> None:
    texts, ids = len(request.texts), len(request.token_ids)
    if texts and ids:
        raise invalid(Message("texts_and_token_ids", field="token_ids", other_field="texts"))
    field, count = ("token_ids", ids) if ids else ("texts", texts)
    if not 1 <= count <= limits.max_inputs:
        raise invalid(Message("entries_out_of_range", field=field, value=count, least=1, most=limits.max_inputs))
    if ids and model.spec.token_input == "none":
        raise unsupported(Message("token_ids_not_supported", field="token_ids", model=model.id))
    for index, length in enumerate(
        map(len, request.texts) if texts else (len(entry.ids) for entry in request.token_ids)
    ):
        if not length:
            raise invalid(Message("text_empty", field=f"{field}[{index}]"))
    size = request.ByteSize()
    if size > limits.max_request_bytes:
        most = limits.max_request_bytes
        raise invalid(Message("too_many_bytes", field=field, value=size, limit=most))


def _check_dimensions(request: pb.EmbedRequest, model: ServedModel) -> None:
    if not request.HasField("dimensions"):
        return
    requested, most = request.dimensions, model.spec.dimensions
    if not 1 <= requested <= most:
        raise invalid(
            Message("dimensions_out_of_range", field="dimensions", value=requested, model=model.id, limit=most)
        )
    if requested < most and not model.spec.shortens:
        raise unsupported(Message("dimensions_fixed", field="dimensions", value=requested, model=model.id, limit=most))
