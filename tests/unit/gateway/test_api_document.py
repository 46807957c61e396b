"""The API's document is what its declarations say, and they have what requests are read for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import msgspec
import pytest

from services.gateway import app, openapi
from services.gateway.credential import KeyHeader
from services.gateway.dialects import ignored_fields
from services.gateway.dialects.json_model import RequestModel, ResponseModel
from services.gateway.dialects.openai_chat.dialect import OpenAIChat
from services.gateway.dialects.openai_chat.request_model import ChatCompletionRequest
from services.gateway.dialects.openai_chat.tokenize import Tokenize
from services.gateway.dialects.openai_completions.dialect import OpenAICompletions
from services.gateway.dialects.openai_completions.request_model import CompletionRequest
from services.gateway.dialects.openai_embeddings.dialect import OpenAIEmbeddings
from services.gateway.dialects.operation_document import (
    ContentDocument,
    ErrorDocument,
    LocalizedText,
    OperationDocument,
    ResponseDocument,
)
from tests.support.api_document import check
from tests.support.unconnected_gateway import unconnected
from tests.unit.gateway.chat_bodies import options

DOCUMENT: Final = openapi.document()
SCHEMAS: Final[dict[str, Any]] = DOCUMENT["components"]["schemas"]
READ: Final[dict[str, Callable[[Any], Any]]] = {
    "/chat/completions": lambda body: OpenAIChat().read(body, options(strict=True)),
    "/completions": lambda body: OpenAICompletions().read(body, options(strict=True)),
    "/embeddings": OpenAIEmbeddings().read,
    "/tokenize": lambda body: Tokenize().read(body, options(strict=True)),
}
REQUESTS: Final = {operation.path: operation for operation in openapi.OPERATIONS if operation.request is not None}
RESPONSES: Final = [
    pytest.param(operation, content, id=f"{operation.id} {content.media_type}")
    for operation in openapi.OPERATIONS
    for content in operation.response.contents
]


def is_valid(value: Any, schema: dict[str, Any]) -> bool:
    components = {"schemas": {name: english(schema) for name, schema in SCHEMAS.items()}}
    return jsonschema_rs.Draft202012Validator({**english(schema), "components": components}).is_valid(value)


def english(node: Any) -> Any:
    if isinstance(node, dict):
        return node["en"] if node.keys() == {"en", "fa"} else {key: english(value) for key, value in node.items()}
    return [english(item) for item in node] if isinstance(node, list) else node


def documented(content: ContentDocument, operation: OperationDocument) -> dict[str, Any]:
    """The content in the document."""
    parts = DOCUMENT["paths"][operation.path][operation.method]
    contents = parts["requestBody"] if content is operation.request else parts["responses"]["200"]
    found: dict[str, Any] = contents["content"][content.media_type]
    return found


def test_the_file_is_up_to_date() -> None:
    assert openapi.PATH.read_text("utf-8") == openapi.rendered()


def test_every_route_is_documented() -> None:
    gateway = unconnected()
    routes = {("post", path) for path in app.post_endpoints(gateway)} | {
        ("get", path.replace("{model_id:path}", "{id}")) for path in app.get_endpoints(gateway)
    }
    assert {(operation.method, operation.path) for operation in openapi.OPERATIONS} == routes


def test_the_command_writes_the_file_and_reports_one_that_is_not_up_to_date(tmp_path: Path) -> None:
    file = tmp_path / "openapi.json"
    for content in (None, "{}"):
        if content is not None:
            file.write_text(content)
        with pytest.raises(SystemExit, match="is not up to date; run make openapi"):
            openapi.main(["--check", "--output", str(file)])
    openapi.main(["--output", str(file)])
    openapi.main(["--check", "--output", str(file)])
    assert file.read_text("utf-8") == openapi.rendered()


def an_operation(path: str, response: type[ResponseModel], **parts: Any) -> OperationDocument:
    """An operation of an API of its own."""
    text = LocalizedText("a", "ب")
    contents = (ContentDocument(models=(response,), examples={}),)
    return OperationDocument(
        method="post",
        path=path,
        id=path,
        summary=text,
        response=ResponseDocument(description=text, contents=contents),
        **{"errors": {}, **parts},
    )


def a_model(module: str, field: str, kind: Any) -> Any:
    return msgspec.defstruct("Usage", [(field, kind)], bases=(ResponseModel,), kw_only=True, module=module)


def test_models_of_two_apis_may_have_the_same_name() -> None:
    first, second = a_model("dialects.one_api.response", "a", int), a_model("dialects.two_api.response", "b", str)
    outer = msgspec.defstruct("Outer", [("usage", second)], bases=(ResponseModel,), kw_only=True)
    operations = [an_operation("/one", first), an_operation("/two", second), an_operation("/three", outer)]
    document = openapi.document_of(operations)
    found = document["components"]["schemas"]
    assert list(found["Usage"]["properties"]) == ["a"]
    assert list(found["TwoApiUsage"]["properties"]) == ["b"]
    assert found["Outer"]["properties"]["usage"] == {"$ref": "#/components/schemas/TwoApiUsage"}
    response = document["paths"]["/two"]["post"]["responses"]["200"]["content"]["application/json"]
    assert response["schema"] == {"$ref": "#/components/schemas/TwoApiUsage"}


def test_an_api_may_expect_its_key_in_another_header() -> None:
    model = a_model("dialects.one_api.response", "a", int)
    operations = [an_operation("/one", model), an_operation("/two", model, key_header=KeyHeader("x-api-key"))]
    document = openapi.document_of(operations)
    assert document["components"]["securitySchemes"] == {
        "key": {"type": "http", "scheme": "bearer"},
        "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    assert document["paths"]["/two"]["post"]["security"] == [{"x-api-key": []}]
    assert "security" not in document["paths"]["/one"]["post"]


def test_two_components_must_not_have_the_same_name() -> None:
    model, text = a_model("dialects.one_api.response", "a", int), LocalizedText("a", "ب")
    errors = [ErrorDocument(component="Error", description=text, contents=()) for _ in range(2)]
    operations = [an_operation(f"/{number}", model, errors={"4XX": error}) for number, error in enumerate(errors)]
    with pytest.raises(ValueError, match="two components have the name Error"):
        openapi.document_of(operations)


def test_every_text_exists_in_both_languages() -> None:
    def texts(node: Any) -> Iterator[dict[str, str]]:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            if key in ("description", "summary") and "type" not in value:
                yield value
            elif key not in ("examples", "example"):
                yield from texts(value)

    found = list(texts(DOCUMENT))
    assert len(found) > 200
    assert [text for text in found if text.keys() != {"en", "fa"} or not all(text.values())] == []


def test_every_field_has_a_description_and_a_type() -> None:
    fields = [(name, field, schema) for name, model in SCHEMAS.items() for field, schema in model["properties"].items()]
    # The tag field of a union is msgspec's, and has only one value.
    undescribed = [(name, field) for name, field, schema in fields if not {"description", "enum"} & schema.keys()]
    assert undescribed == []
    untyped = [(name, field) for name, field, schema in fields if not {"type", "anyOf", "$ref"} & schema.keys()]
    assert untyped == []
    assert "x-" not in "".join(key for _, _, schema in fields for key in schema)


def test_the_example_of_every_field_is_valid() -> None:
    wrong = [
        (name, field)
        for name, model in SCHEMAS.items()
        for field, schema in model["properties"].items()
        for example in schema.get("examples", ())
        if not is_valid(example, schema)
    ]
    assert wrong == []


@pytest.mark.parametrize("path", REQUESTS)
def test_every_example_of_a_request_is_valid_and_read_without_ignored_fields(path: str) -> None:
    operation, request = REQUESTS[path], REQUESTS[path].request
    assert request is not None
    assert request.examples
    for value in request.examples.values():
        assert is_valid(value, documented(request, operation)["schema"])
        READ[path](value)


@pytest.mark.parametrize(("operation", "content"), RESPONSES)
def test_every_example_of_a_response_is_valid(operation: OperationDocument, content: ContentDocument) -> None:
    assert content.examples
    for value in content.examples.values():
        check(value, content)
        assert is_valid(value, documented(content, operation)["schema"])


def test_every_example_of_an_error_is_valid() -> None:
    for error in {id(error): error for operation in openapi.OPERATIONS for error in operation.errors.values()}.values():
        for content in error.contents:
            assert content.examples
            for value in content.examples.values():
                check(value, content)


def test_invalid_bodies_are_recognised() -> None:
    schema = {"$ref": "#/components/schemas/ChatCompletionRequest"}
    message = {"role": "user", "content": "a"}
    assert is_valid({"model": "m", "messages": [message]}, schema)
    for wrong in ({"n": 0}, {"stop": 5}, {"temperature": 3}, {"tool_choice": "x"}, {"messages": [{"role": "king"}]}):
        assert not is_valid({"model": "m", "messages": [message], **wrong}, schema), wrong


def test_integers_have_both_bounds_and_dictionaries_any_values() -> None:
    """Only then msgspec states the exact path of every error."""

    def nodes(node: Any) -> Iterator[msgspec.inspect.Type]:
        yield node
        inner = [getattr(node, name, None) for name in ("type", "item_type")]
        for each in [*inner, *getattr(node, "types", ())]:
            if isinstance(each, msgspec.inspect.Type):
                yield from nodes(each)

    for model in models():
        info = msgspec.inspect.type_info(model)
        assert isinstance(info, msgspec.inspect.StructType)
        for field in info.fields:
            for node in nodes(field.type):
                if isinstance(node, msgspec.inspect.IntType):
                    assert None not in (node.ge, node.le), (model, field.name)
                if isinstance(node, msgspec.inspect.DictType):
                    assert isinstance(node.value_type, msgspec.inspect.AnyType), (model, field.name)


def models() -> Iterator[type[RequestModel]]:
    waiting = [RequestModel]
    while waiting:
        model = waiting.pop()
        if model.__module__.startswith("services."):
            yield model
            waiting += model.__subclasses__()


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
ALLOWED: Final = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}, {"name": "f"}]}
TEXT: Final[dict[str, Any]] = {"model": "m", "prompt": "a", "stream": True, "stream_options": {}}
BODIES: Final[dict[type[RequestModel], tuple[str, list[dict[str, Any]]]]] = {
    ChatCompletionRequest: (
        "/chat/completions",
        [
            CHAT,
            {**CHAT, "response_format": SCHEMA},
            {**CHAT, "structured_outputs": {}, "chat_template_kwargs": {}},
            {**CHAT, "messages": [{"role": "user", "content": [IMAGE]}]},
            {**CHAT, "tool_choice": {"type": "function", "function": {"name": "f"}}},
            {**CHAT, "tool_choice": {"type": "allowed_tools", "allowed_tools": ALLOWED}},
        ],
    ),
    CompletionRequest: (
        "/completions",
        [TEXT, {**TEXT, "response_format": SCHEMA}, {**TEXT, "structured_outputs": {}}],
    ),
}
UNREAD: Final = {
    # They have no effect, and have one value or are checked by their type alone.
    *("user", "safety_identifier", "prompt_cache_key", "type", "index"),
    # Other values than the default are reported by `unread_paths`.
    *("store", "service_tier", "verbosity", "prompt_cache_retention", "include_obfuscation"),
}


@pytest.mark.parametrize("model", BODIES)
def test_every_declared_field_is_read(model: type[RequestModel], monkeypatch: pytest.MonkeyPatch) -> None:
    """A field that is declared and not read would be ignored without a word."""
    read: set[tuple[type, str]] = set()
    seen: set[type] = set()

    def noting(self: Any, name: str) -> Any:
        if not name.startswith("_"):
            seen.add(type(self))
            read.add((type(self), name))
        return object.__getattribute__(self, name)

    monkeypatch.setattr(ignored_fields, "unread_paths", lambda request, body: [])
    monkeypatch.setattr(RequestModel, "__getattribute__", noting)
    path, bodies = BODIES[model]
    for body in bodies:
        READ[path](body)
    assert model in seen
    declared = {(cls, name) for cls in seen for name in cls.__struct_fields__}  # type: ignore[attr-defined]
    assert {f"{cls.__name__}.{name}" for cls, name in declared - read if name not in UNREAD} == set()
