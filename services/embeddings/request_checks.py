"""Checks of requests. Every violation is INVALID_ARGUMENT and names the field, the value and the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.embeddings.served_model import ServedModel
from services.embeddings.tokenization import Row
from services.runtime.failure import Failure, Reason, Violation, invalid

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
        kinds = "1 (query) or 2 (passage)"
        raise invalid("input_type", f"input_type is {request.input_type}; it must be {kinds}", value=request.input_type)
    tenant_bytes = len(request.tenant.encode())
    if tenant_bytes > MAX_TENANT_BYTES:
        message = f"tenant has {tenant_bytes} bytes; at most {MAX_TENANT_BYTES} are allowed"
        raise invalid("tenant", message, value=tenant_bytes, limit=MAX_TENANT_BYTES)


def check_rows(field: str, rows: Sequence[Row], model: ServedModel, limits: RequestLimits) -> None:
    """Check the tokenized texts, before any of them is embedded. Raises Failure."""
    limit = model.max_input_tokens()
    for index, row in enumerate(rows):
        if row.tokens > limit:
            message = (
                f"{field}[{index}] has {row.tokens} tokens (the model's prefix and special tokens included); "
                f"{model.id} takes at most {limit}. Shorten or split it, or set truncate to true"
            )
            violation = Violation(f"{field}[{index}]", message, str(row.tokens), str(limit))
            raise Failure(Reason.CONTEXT_LENGTH_EXCEEDED, message, violations=(violation,))
    total = sum(row.tokens for row in rows)
    if total > limits.max_request_tokens:
        most = limits.max_request_tokens
        message = f"{field} has {total} tokens in all; at most {most} are allowed in one request. Split it"
        raise invalid(field, message, value=total, limit=most)


def _check_inputs(request: pb.EmbedRequest, model: ServedModel, limits: RequestLimits) -> None:
    texts, ids = len(request.texts), len(request.token_ids)
    if texts and ids:
        raise invalid("token_ids", "texts and token_ids are both set; exactly one of them must be")
    field, count = ("token_ids", ids) if ids else ("texts", texts)
    if not 1 <= count <= limits.max_inputs:
        message = f"{field} has {count} entries; it must have 1 to {limits.max_inputs}"
        raise invalid(field, message, value=count, limit=limits.max_inputs)
    if ids and model.spec.token_input == "none":
        message = (
            f"token_ids are not taken by {model.id}, whose tokens are not those of another model; send texts. "
            "LangChain's OpenAIEmbeddings sends texts with check_embedding_ctx_length=False"
        )
        violation = Violation("token_ids", message)
        raise Failure(Reason.UNSUPPORTED_PARAMETER, message, violations=(violation,))
    for index, length in enumerate(
        map(len, request.texts) if texts else (len(entry.ids) for entry in request.token_ids)
    ):
        if not length:
            raise invalid(f"{field}[{index}]", f"{field}[{index}] is empty; every text must have something in it")
    size = request.ByteSize()
    if size > limits.max_request_bytes:
        most = limits.max_request_bytes
        raise invalid(field, f"{field} has {size} bytes in all; at most {most} are allowed", value=size, limit=most)


def _check_dimensions(request: pb.EmbedRequest, model: ServedModel) -> None:
    if not request.HasField("dimensions"):
        return
    asked, most = request.dimensions, model.spec.dimensions
    if not 1 <= asked <= most:
        message = f"dimensions is {asked}; the vectors of {model.id} have {most}, so it must be 1 to {most}"
        raise invalid("dimensions", message, value=asked, limit=most)
    if asked < most and not model.spec.shortens:
        message = f"dimensions is {asked}; the vectors of {model.id} cannot be shortened, so it must be {most}"
        violation = Violation("dimensions", message, str(asked), str(most))
        raise Failure(Reason.UNSUPPORTED_PARAMETER, message, violations=(violation,))
