"""Turns a request into the rows that the engine embeds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.embeddings import persian
from services.embeddings.request_checks import RequestLimits, check, check_rows
from services.embeddings.served_model import TEXT_NORMALIZATIONS, ServedModel
from services.embeddings.tokenization import Row, UnknownTokenError
from services.runtime.failure import invalid
from services.runtime.messages.message import Message
from services.worker.offload import run_in_thread_if_large


async def prepare(request: pb.EmbedRequest, model: ServedModel, limits: RequestLimits) -> list[Row]:
    """Return the rows of a request, in its order. Raises Failure for a request that is not valid."""
    return await run_in_thread_if_large(request, partial(_prepare, request, model, limits))


def _prepare(request: pb.EmbedRequest, model: ServedModel, limits: RequestLimits) -> list[Row]:
    check(request, model, limits)
    rows = _rows(request, model)
    check_rows("texts" if request.texts else "token_ids", rows, model, limits)
    return rows


def _rows(request: pb.EmbedRequest, model: ServedModel) -> list[Row]:
    prefix = _prefix(request, model)
    cut_at = model.max_input_tokens() if request.truncate else None
    if request.texts:
        return model.tokenization.rows(prefix, _normalized(request.texts, request, model), cut_at=cut_at)
    ids = [entry.ids for entry in request.token_ids]
    if model.cl100k is not None and model.spec.token_input == "cl100k_base":
        return model.tokenization.rows(prefix, _normalized(_decoded(ids, model), request, model), cut_at=cut_at)
    try:
        return model.tokenization.rows_of_ids(prefix, ids, cut_at=cut_at)
    except UnknownTokenError as error:
        field = f"token_ids[{error.index}]"
        last = error.vocabulary_size - 1
        message = Message("token_id_unknown", field=field, value=error.token_id, model=model.id, limit=last)
        raise invalid(message) from None


def _prefix(request: pb.EmbedRequest, model: ServedModel) -> str:
    if request.input_type == pb.INPUT_TYPE_UNSPECIFIED:
        query = model.spec.default_input_type == "query"
    else:
        query = request.input_type == pb.INPUT_TYPE_QUERY
    return model.prompts.query if query else model.prompts.passage


def _normalized(texts: Sequence[str], request: pb.EmbedRequest, model: ServedModel) -> Sequence[str]:
    chosen = request.text_normalization or TEXT_NORMALIZATIONS[model.spec.text_normalization]
    if chosen == pb.TEXT_NORMALIZATION_NONE:
        return texts
    is_for_all = chosen == pb.TEXT_NORMALIZATION_PERSIAN
    return [persian.normalize(text) if is_for_all or persian.is_persian(text) else text for text in texts]


def _decoded(texts: Sequence[Sequence[int]], model: ServedModel) -> list[str]:
    assert model.cl100k is not None  # noqa: S101  # the only caller has checked it
    decoded = []
    for index, ids in enumerate(texts):
        field = f"token_ids[{index}]"
        try:
            decoded.append(model.cl100k.decode(ids))
        except KeyError as error:
            raise invalid(Message("cl100k_id_unknown", field=field, value=error.args[0])) from None
        except UnicodeDecodeError:
            raise invalid(Message("token_ids_split_character", field=field)) from None
    return decoded
