"""The API's document has the fields that requests are read for, and no others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import yaml

from services.gateway.dialects.json_fields import Fields
from services.gateway.dialects.openai_chat.request import read_chat
from services.gateway.dialects.openai_completions.request import read_completion
from services.gateway.errors import ApiError
from tests.unit.gateway.chat_bodies import options
from tests.unit.gateway.written_messages import SERVICES

DOCUMENT: Final[dict[str, Any]] = yaml.safe_load((SERVICES / "gateway/site/openapi.yaml").read_text())
SCHEMAS: Final[dict[str, Any]] = DOCUMENT["components"]["schemas"]
REJECTED: Final = {"audio", "functions", "function_call", "web_search_options", "suffix", "messages.audio"}
"""What is read in order to be refused."""
SILENT: Final = {"messages.tool_calls.index"}
"""What is read in order not to be reported."""
CALL: Final = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHAT: Final[dict[str, Any]] = {
    "model": "m",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "assistant", "function_call": CALL["function"]},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "stream": True,
    "stream_options": {},
}
SCHEMA: Final = {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}
IMAGE: Final = {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lGODlhAQABAAAAACw="}}
TEXT: Final[dict[str, Any]] = {"model": "m", "prompt": "a", "stream": True, "stream_options": {}}
REQUESTS: Final = {
    "ChatCompletionRequest": [
        CHAT,
        {**CHAT, "response_format": SCHEMA},
        {**CHAT, "structured_outputs": {}, "chat_template_kwargs": {}},
        {**CHAT, "messages": [{"role": "user", "content": [IMAGE]}]},
    ],
    "CompletionRequest": [TEXT, {**TEXT, "response_format": SCHEMA}, {**TEXT, "structured_outputs": {}}],
}
READ: Final[dict[str, Callable[..., Any]]] = {
    "ChatCompletionRequest": read_chat,
    "CompletionRequest": read_completion,
}


@pytest.fixture(params=REQUESTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def read(name: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The paths that are looked at, without the numbers of entries."""
    paths: set[str] = set()
    get = Fields.get

    def noting(fields: Fields, field: str) -> Any:
        paths.add(re.sub(r"\[\d+\]", "", fields.path(field)))
        return get(fields, field)

    monkeypatch.setattr(Fields, "get", noting)
    for body in REQUESTS[name]:
        try:
            READ[name](body, options())
        except ApiError as error:
            pytest.fail(error.message)
    return paths - REJECTED - SILENT


def documented(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """The paths of a schema's properties."""
    while "$ref" in schema or "items" in schema:
        schema = SCHEMAS[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema["items"]
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}{name}"
        yield from documented(inner, f"{path}{name}.")


def test_every_field_that_is_read_is_in_the_document(name: str, read: set[str]) -> None:
    assert read - set(documented(SCHEMAS[name])) == set()


def test_every_field_of_the_document_is_read(name: str, read: set[str]) -> None:
    assert set(documented(SCHEMAS[name])) - read == set()


def test_every_text_of_the_document_is_there_in_both_languages() -> None:
    def texts(node: Any) -> Iterator[dict[str, str]]:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            if key in ("description", "summary") and "type" not in value:
                yield value
            else:
                yield from texts(value)

    found = list(texts({**DOCUMENT, "info": {}}))
    assert len(found) > 100
    assert [text for text in found if text.keys() != {"en", "fa"}] == []
