"""Hooks of the command `schemathesis run`, which loads this module: the models of requests, and three of the checks.

The checks are those of schemathesis, but for what a document states in words, and for what JSON Schema cannot say.
"""

from __future__ import annotations

from typing import Any, Final

import jsonschema_rs
import schemathesis
from schemathesis import CheckContext, HookContext, Response
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
    use_after_free,
)

from tests.faults.chat_stream import MODEL
from tests.support.triton_servers import EMBEDDING_MODEL

_MODELS: Final = {
    **dict.fromkeys(("/chat/completions", "/completions", "/tokenize", "/messages", "/messages/count_tokens"), MODEL),
    **dict.fromkeys(("/responses", "/responses/input_tokens"), MODEL),
    "/embeddings": EMBEDDING_MODEL,
}
_COUNTERS: Final = ("/tokenize", "/messages/count_tokens", "/responses/input_tokens")
"""They read requests of other paths for their prompt, and check no values that have no influence on it."""
_INEXPRESSIBLE: Final = frozenset(
    {
        # What is in base64 or behind a URL is not an image, or operators have not allowed its host.
        *("base64_not_valid", "image_format_unknown", "images_not_fetched"),
        # A name or an id that must occur elsewhere in the request, or only once.
        *("item_reference_repeated", "tool_name_repeated", "tool_unknown"),
        *("alias_of_alias", "several_prompts_in_one_field"),
        # A conversation of nothing but items that are passed over.
        "conversation_empty",
        # A time that has passed, and names that could be taken for others.
        *("key_expires_in_past", "key_name_is_secret", "key_name_like_id"),
        *("key_name_not_for_urls", "key_name_with_spaces"),
    }
)
"""Errors of requests that match the document: what several values say together, or what a string holds."""


@schemathesis.hook
def before_call(context: HookContext, case: Any, kwargs: dict[str, Any]) -> None:
    """Name an existing model where a wrong promise of the document would show as an answer.

    Other requests name a model that does not exist: the gateway reads them, and no worker checks what values mean.
    """
    model = _MODELS.get(case.operation.path)
    if model and isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        is_read_alone = case.meta.generation.mode.is_positive and case.meta.phase.name != "stateful"
        case.body["model"] = "no-such-model" if is_read_alone else model


@schemathesis.check
def what_matches_the_document_is_read(ctx: CheckContext, response: Response, case: Any) -> None:
    """Fail for a request that matches the document, and is rejected."""
    (message_id, *_) = response.headers.get("x-error-message-id", [""])
    reaches_a_worker = case.meta is not None and case.meta.phase.name == "stateful"
    if message_id not in _INEXPRESSIBLE and not reaches_a_worker:
        positive_data_acceptance(ctx, response, case)


@schemathesis.check
def what_does_not_match_the_document_is_rejected(ctx: CheckContext, response: Response, case: Any) -> None:
    """Fail for a request that does not match the document, and is answered."""
    if case.operation.path not in _COUNTERS and not _matches_without_null(case):
        negative_data_rejection(ctx, response, case)


@schemathesis.check
def what_is_answered_matches_the_document(ctx: CheckContext, response: Response, case: Any) -> None:
    """Fail for a response that does not match the document, which describes the data of events and not their frames."""
    (media_type, *_) = response.headers.get("content-type", [""])
    if not media_type.startswith("text/event-stream"):
        response_schema_conformance(ctx, response, case)


@schemathesis.check
def what_was_deleted_is_gone(ctx: CheckContext, response: Response, case: Any) -> None:
    """Fail for a thing that is still there after it was deleted. A revoked key is found by its id, as revoked."""
    is_key = case.operation.path.startswith("/admin/v1/keys/") and response.status_code == 200
    if not (is_key and (response.json() or {}).get("revoked")):
        use_after_free(ctx, response, case)


def _matches_without_null(case: Any) -> bool:
    """Return whether only null for optional fields is at fault, of which the document says that they are absent."""
    document = case.operation.schema.raw_schema
    request = document["paths"][case.operation.path].get(case.operation.method, {}).get("requestBody")
    body = None if case.meta is None else case.meta.components.get(ParameterLocation.BODY)
    if request is None or body is None or not body.mode.is_negative or not isinstance(case.body, dict):
        return False
    schema = {**request["content"]["application/json"]["schema"], "components": document["components"]}
    return jsonschema_rs.Draft202012Validator(schema).is_valid(_without_null(case.body))


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(each) for name, each in value.items() if each is not None}
    return [_without_null(each) for each in value] if isinstance(value, list) else value
