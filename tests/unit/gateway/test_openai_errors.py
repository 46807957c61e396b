"""Errors in OpenAI's format."""

from __future__ import annotations

import json

import pytest

from services.gateway.dialects import openai_errors
from services.gateway.errors import ApiError, ErrorKind, bad_request
from services.runtime.messages.message import Message

OPENAIS_TYPES = {
    "invalid_request_error", "authentication_error", "permission_error", "rate_limit_error", "insufficient_quota",
    "server_error", "service_unavailable_error",
}  # fmt: skip


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_kind_of_error_has_a_type_of_openais_and_a_code(kind: ErrorKind) -> None:
    error = json.loads(openai_errors.render(ApiError(400, kind, Message("prompt_empty"))).body)["error"]
    assert error["type"] in OPENAIS_TYPES
    assert error["code"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Message("field_missing", field="model", expected="string"), "missing_required_parameter"),
        (Message("wrong_type", field="n", value="{}", expected="integer"), "invalid_type"),
        (Message("out_of_range", field="temperature", value=2.5, least=0, most=2), "decimal_above_max_value"),
        (Message("out_of_range", field="max_tokens", value=0, least=1, most=9), "integer_below_min_value"),
        (Message("out_of_range", field="x", value="nan", least=1, most=9), "invalid_value"),
        (Message("list_empty", field="messages"), "empty_array"),
        (Message("not_one_of", field="role", value="x", choices="user"), "invalid_value"),
        (Message("prompt_empty"), "invalid_request"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.id,
)
def test_a_wrong_request_has_openais_code_for_it(message: Message, code: str) -> None:
    assert json.loads(openai_errors.render(bad_request(message)).body)["error"]["code"] == code


@pytest.mark.parametrize("language", ["en", "fa"])
@pytest.mark.parametrize(
    "message",
    [
        Message("context_exceeded", field="messages", model="m", prompt=9, requested=2, value=11, limit=10),
        Message("context_full", field="messages", model="m", value=11, limit=10),
        Message("engine_context_exceeded", prompt=9, requested=2, value=11, limit=10, most=1),
        Message("engine_context_full", value=11, limit=10),
        Message("text_over_context", field="input", other_field="truncate", value=11, model="m", limit=10),
    ],
    ids=lambda message: message.id,
)
def test_clients_recognise_a_context_overflow_by_its_words(message: Message, language: str) -> None:
    # LiteLLM looks for OpenAI's first words, and LangChain for the code within the text.
    text = message.text(language)
    assert language == "fa" or text.startswith("This model's maximum context length is 10 tokens")
    assert "context_length_exceeded" in text
