"""The API's document is what its declarations say, and they have what requests are read for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import msgspec
import pytest

from services.gateway import app, openapi
from services.gateway.credential import BEARER, KeyHeader
from services.gateway.dialects import ignored_fields
from services.gateway.dialects.anthropic_messages.dialect import AnthropicMessages, CountTokens
from services.gateway.dialects.anthropic_messages.request_model import MessagesRequest
from services.gateway.dialects.anthropic_messages.thinking import ThinkingSignatures
from services.gateway.dialects.json_model import RequestModel, ResponseModel
from services.gateway.dialects.openai_chat.dialect import OpenAIChat
from services.gateway.dialects.openai_chat.request_model import ChatCompletionRequest
from services.gateway.dialects.openai_chat.tokenize import Tokenize
from services.gateway.dialects.openai_completions.dialect import OpenAICompletions
from services.gateway.dialects.openai_completions.request_model import CompletionRequest
from services.gateway.dialects.openai_embeddings.dialect import OpenAIEmbeddings
from services.gateway.dialects.openai_responses.dialect import OpenAIResponses
from services.gateway.dialects.openai_responses.request_model import ResponsesRequest
from services.gateway.dialects.operation_document import (
    ContentDocument,
    ErrorDocument,
    LocalizedText,
    OperationDocument,
    ResponseDocument,
)
from services.gateway.errors import ApiError
from services.gateway.key_ring import KeyRing
from tests.support.api_document import check
from tests.support.unconnected_gateway import unconnected
from tests.unit.gateway.chat_bodies import options

DOCUMENT: Final = openapi.document()
SCHEMAS: Final[dict[str, Any]] = DOCUMENT["components"]["schemas"]
SIGNATURES: Final = ThinkingSignatures(KeyRing(), max_bytes=2**20)
READ: Final[dict[str, Callable[[Any], Any]]] = {
    "/chat/completions": lambda body: OpenAIChat().read(body, options(strict=True)),
    "/completions": lambda body: OpenAICompletions().read(body, options(strict=True)),
    "/embeddings": lambda body: OpenAIEmbeddings().read(body, strict=True),
    "/responses": lambda body: OpenAIResponses().read(body, options(strict=True)),
    "/responses/input_tokens": lambda body: OpenAIResponses().read(body, options(strict=True)),
    "/messages": lambda body: AnthropicMessages(SIGNATURES).read(body, options(strict=True)),
    "/messages/count_tokens": lambda body: CountTokens(SIGNATURES).read(body, options(strict=True)),
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
        ("get", path.replace("{model_id:path}", "{id}").replace("{request_id}", "{id}"))
        for path in app.get_endpoints(gateway)
    }
    paths = {path.replace("{response_id}", "{id}"): each for path, each in app.stored_responses(gateway).items()}
    routes |= {(method.lower(), path) for path, each in paths.items() for method in each.methods}
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
    operations = [
        an_operation("/one", model),
        an_operation("/two", model, key_header=KeyHeader("x-api-key"), other_key_header=BEARER),
    ]
    document = openapi.document_of(operations)
    assert document["components"]["securitySchemes"] == {
        "key": {"type": "http", "scheme": "bearer"},
        "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
        "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    assert document["paths"]["/two"]["post"]["security"] == [{"x-api-key": []}, {"key": []}]
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
RESPONSE_IMAGE: Final = {"type": "input_image", "image_url": IMAGE["image_url"]["url"]}  # type: ignore[index]
RESPONSE_ITEMS: Final = [
    {"role": "user", "content": [{"type": "input_text", "text": "a"}, RESPONSE_IMAGE]},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}], "content": []},
    {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "a"}], "encrypted_content": "a"},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "a"}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "a"},
    {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": "a"},
    {"type": "custom_tool_call_output", "call_id": "d", "output": "a"},
    {"type": "item_reference", "id": "a"},
    {"type": "additional_tools", "tools": []},
]
RESPONSE_TOOLS: Final = [
    {"type": "function", "name": "f", "parameters": {}},
    {"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": "lark", "definition": "a"}},
    {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]},
]
TEXT: Final[dict[str, Any]] = {"model": "m", "prompt": "a", "stream": True, "stream_options": {}}
MESSAGES: Final[dict[str, Any]] = {
    "model": "m",
    "max_tokens": 1,
    "messages": [{"role": "user", "content": "x"}],
    "system": [{"type": "text", "text": "x"}],
    "tools": [{"name": "f", "input_schema": {}}, {"name": "bash", "type": "bash_20250124"}],
    "tool_choice": {"type": "tool", "name": "f"},
    "thinking": {"type": "enabled"},
}
FORMAT: Final = {"type": "json_schema", "schema": {}}
DATA: Final = "R0lGODlhAQABAAAAACw="
UNTYPED: Final = {"text": "x"}
SEARCH_RESULT: Final = {"type": "search_result", "source": "x", "title": "x"}
USER_BLOCKS: Final[list[dict[str, Any]]] = [
    {"type": "image", "source": {"type": "base64", "data": DATA}},
    {"type": "document", "source": {"type": "text", "data": "x"}},
    {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
    {**SEARCH_RESULT, "content": [{"type": "text", "text": "x"}]},
    {"type": "tool_result", "tool_use_id": "x"},
]
ASSISTANT_BLOCKS: Final[list[dict[str, Any]]] = [
    {"type": "thinking", "thinking": "x"},
    {"type": "redacted_thinking"},
    {"type": "tool_use", "id": "x", "name": "f", "input": {}},
]
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
    ResponsesRequest: (
        "/responses",
        [
            {
                "model": "m",
                "input": RESPONSE_ITEMS,
                "tools": RESPONSE_TOOLS,
                "stream_options": {},
                "reasoning": {"effort": "low"},
                "metadata": {"a": "b"},
                "include": ["reasoning.encrypted_content"],
                "text": {"format": {"type": "json_schema", "name": "s", "schema": {}}},
                "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
            },
        ],
    ),
    CompletionRequest: (
        "/completions",
        [TEXT, {**TEXT, "response_format": SCHEMA}, {**TEXT, "structured_outputs": {}}],
    ),
    MessagesRequest: (
        "/messages",
        [
            MESSAGES,
            {**MESSAGES, "output_format": FORMAT},
            {**MESSAGES, "output_config": {"format": FORMAT, "effort": "low"}, "thinking": {"type": "adaptive"}},
            *({**MESSAGES, "messages": [{"role": "user", "content": [block]}]} for block in USER_BLOCKS),
            *({**MESSAGES, "messages": [{"role": "assistant", "content": [block]}]} for block in ASSISTANT_BLOCKS),
        ],
    ),
}
UNREAD: Final = {
    # They have no effect, and have one value or are checked by their type alone.
    *("user", "safety_identifier", "prompt_cache_key", "type", "index"),
    # Other values than the default are reported by `unread_paths`.
    # Accepted, because prompts are cached without it, and there is one service tier.
    *("cache_control", "metadata", "media_type", "data", "caller", "eager_input_streaming"),
    *("store", "service_tier", "verbosity", "prompt_cache_retention", "include_obfuscation"),
}

UNREAD_OF_RESPONSES: Final = {
    *("annotations", "client_metadata", "defer_loading", "id", "logprobs", "phase", "role", "status"),
    # Its only field is reported if it asks for anything.
    "stream_options",
    # Of a namespace, which the model is not shown.
    "description",
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
    unread = {f"{cls.__name__}.{name}" for cls, name in declared - read if name not in UNREAD}
    # Items and tools of the Responses API are read one by one, and have fields of the client's own.
    assert {
        name for name in unread if name.rpartition(".")[2] not in UNREAD_OF_RESPONSES or model is not ResponsesRequest
    } == set()


HELLO: Final = [{"role": "user", "content": "hi"}]
WRONG_ITEMS: Final[list[dict[str, Any]]] = [
    {},
    {"type": "unheard_of"},
    {"type": []},
    {"role": "king", "content": "a"},
    {"role": "user"},
    {"role": "user", "content": [{"type": "input_file", "file_id": "a"}]},
    {"role": "user", "content": [{"type": "input_text"}]},
    {"role": "user", "content": [{"type": "input_image"}]},
    {"role": "system", "content": [RESPONSE_IMAGE]},
    {"type": "reasoning", "summary": [{"type": "summary_text"}]},
    {"type": "reasoning", "content": "a"},
    {"type": "function_call", "name": "f", "arguments": "{}"},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": {}},
    {"type": "function_call_output", "call_id": "c"},
    {"type": "function_call_output", "call_id": "c", "output": [{"type": "text", "text": 1}]},
    {"type": "custom_tool_call", "call_id": "c", "name": "f"},
    {"type": "item_reference"},
    {"type": "additional_tools", "tools": [{"type": "function"}]},
]
WRONG_TOOLS: Final[list[dict[str, Any]]] = [
    {},
    {"type": 1},
    {"type": "function"},
    {"type": "function", "name": "f", "parameters": []},
    {"type": "function", "name": "f", "description": 1},
    {"type": "custom", "name": "f", "format": {"type": "xml"}},
    {"type": "custom", "name": "f", "format": {"type": "grammar", "syntax": "lark"}},
    {"type": "namespace", "name": "n"},
    {"type": "namespace", "name": "n", "tools": [{"type": "function"}]},
]
WRONG_CHOICES: Final[list[Any]] = [
    "any",
    {},
    {"type": "function"},
    {"type": "unheard_of", "name": "f"},
    {"type": "allowed_tools", "tools": []},
    {"type": "allowed_tools", "mode": "none", "tools": []},
    {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function"}]},
]
REJECTED: Final[list[tuple[str, dict[str, Any]]]] = [
    ("/chat/completions", {"messages": []}),
    ("/chat/completions", {"messages": [{"role": "user"}]}),
    ("/chat/completions", {"messages": [{"role": "tool", "content": None}]}),
    ("/chat/completions", {"messages": HELLO, "stream_options": {"include_usage": True}}),
    ("/chat/completions", {"messages": HELLO, "top_logprobs": 2}),
    ("/chat/completions", {"messages": HELLO, "logit_bias": {"a": 1}}),
    ("/chat/completions", {"messages": HELLO, "metadata": {"a" * 65: "b"}}),
    ("/chat/completions", {"messages": HELLO, "modalities": ["audio"]}),
    ("/chat/completions", {"messages": HELLO, "structured_outputs": {"json": {}, "regex": "a"}}),
    ("/chat/completions", {"messages": HELLO, "guided_regex": "a", "guided_choice": ["a"]}),
    ("/messages", {"max_tokens": 1, "messages": HELLO, "output_format": FORMAT, "output_config": {"format": FORMAT}}),
    ("/completions", {"prompt": ""}),
    ("/chat/completions", {"messages": HELLO, "tool_choice": {}}),
    ("/chat/completions", {"messages": HELLO, "tool_choice": {"type": "function", "allowed_tools": {}}}),
    (
        "/chat/completions",
        {"messages": HELLO, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [{}]}}},
    ),
    ("/chat/completions", {"messages": HELLO, "tool_choice": {"name": "f", "allowed_tools": {"tools": [{}]}}}),
    ("/chat/completions", {"messages": HELLO, "guided_json": [1]}),
    ("/chat/completions", {"messages": HELLO, "structured_outputs": {"structural_tag": 1}}),
    (
        "/chat/completions",
        {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": "b"}}},
    ),
    ("/chat/completions", {"messages": HELLO, "store": "yes"}),
    ("/chat/completions", {"messages": HELLO, "service_tier": 1}),
    ("/chat/completions", {"messages": HELLO, "verbosity": []}),
    ("/chat/completions", {"messages": HELLO, "prompt_cache_retention": {}}),
    ("/chat/completions", {"messages": HELLO, "add_generation_prompt": 1}),
    ("/chat/completions", {"messages": HELLO, "stream": True, "stream_options": {"include_obfuscation": "a"}}),
    ("/chat/completions", {"messages": HELLO, "response_format": {"type": "json_object"}, "guided_regex": "a"}),
    ("/responses", {}),
    ("/responses", {"input": []}),
    *(("/responses", {"input": [item]}) for item in WRONG_ITEMS),
    *(("/responses", {"input": "a", "tools": [tool]}) for tool in WRONG_TOOLS),
    *(("/responses", {"input": "a", "tool_choice": choice}) for choice in WRONG_CHOICES),
    ("/responses", {"input": "a", "service_tier": 1}),
    ("/responses", {"input": "a", "text": {"verbosity": 1}}),
    ("/responses", {"input": "a", "top_logprobs": 21}),
    ("/responses", {"input": "a", "metadata": {"a" * 65: "b"}}),
    ("/responses", {"input": "a", "background": True, "store": False}),
    ("/messages", {"max_tokens": 1, "messages": []}),
    ("/messages", {"max_tokens": 1, "messages": [{"role": "user", "content": ASSISTANT_BLOCKS}]}),
    ("/messages", {"max_tokens": 1, "messages": [{"role": "system", "content": USER_BLOCKS}]}),
    (
        "/messages",
        {"max_tokens": 1, "messages": [{"role": "user", "content": [{**SEARCH_RESULT, "content": [UNTYPED]}]}]},
    ),
    ("/messages", {"max_tokens": 1, "messages": HELLO, "system": [UNTYPED]}),
    ("/messages", {"max_tokens": 1, "messages": HELLO, "system": [{"type": "image", "text": "x"}]}),
    ("/messages", {"max_tokens": 1, "messages": HELLO, "tools": [{"name": "f"}]}),
    ("/messages", {"max_tokens": 1, "messages": HELLO, "tools": [{"name": "", "input_schema": {}}]}),
    ("/messages", {"max_tokens": 1, "messages": HELLO, "tool_choice": {"type": "tool"}}),
    ("/completions", {"prompt": []}),
    ("/completions", {"prompt": [""]}),
    ("/completions", {"prompt": [[]]}),
    ("/completions", {"prompt": [1, "a"]}),
    ("/completions", {"prompt": [1], "echo": True}),
    ("/completions", {"prompt": ["a", [1]], "echo": True}),
    ("/completions", {"prompt": "a", "best_of": 2, "stream": True}),
    ("/completions", {"prompt": "a", "stream": False, "stream_options": {}}),
    ("/tokenize", {"prompt": ""}),
    ("/tokenize", {"prompt": "a", "messages": []}),
    ("/embeddings", {"input": []}),
    ("/embeddings", {"input": ["a", 1]}),
]
ACCEPTED: Final[list[tuple[str, dict[str, Any]]]] = [
    ("/chat/completions", {"messages": [*HELLO, {"role": "assistant", "content": None}]}),
    ("/chat/completions", {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}),
    ("/chat/completions", {"messages": HELLO, "logprobs": True, "top_logprobs": 2}),
    ("/messages", {"max_tokens": 1, "messages": HELLO, "output_format": FORMAT, "output_config": {}}),
    ("/responses", {"previous_response_id": "resp_a"}),
    *(("/responses", {"input": [item, *HELLO]}) for item in RESPONSE_ITEMS),
    *(("/responses", {"input": "a", "tools": [tool]}) for tool in RESPONSE_TOOLS),
    ("/responses", {"input": "a", "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}),
    ("/completions", {"prompt": [1], "echo": True, "logprobs": 1}),
    ("/completions", {"prompt": "a", "max_tokens": 0}),
    ("/completions", {"prompt": "a", "best_of": 1, "stream": True}),
    *(("/messages", {"max_tokens": 1, "messages": [{"role": "user", "content": [each]}]}) for each in USER_BLOCKS),
    (
        "/messages",
        {"max_tokens": 1, "messages": [{"role": "assistant", "content": ASSISTANT_BLOCKS}]},
    ),
    ("/tokenize", {"messages": HELLO}),
    ("/embeddings", {"input": [[1, 2], [3]]}),
    # JSON Schema's integers may be written with a point.
    ("/embeddings", {"input": [float(number) for number in range(100)]}),
    ("/completions", {"prompt": [[1.0, 2.0]]}),
    ("/completions", {"prompt": "a", "max_tokens": 0, "echo": True}),
    ("/embeddings", {"input": "a"}),
]


@pytest.mark.parametrize(
    ("path", "fields", "accepted"),
    [*((*each, True) for each in ACCEPTED), *((*each, False) for each in REJECTED)],
)
def test_the_document_promises_what_is_accepted(path: str, fields: dict[str, Any], accepted: bool) -> None:
    body = {"model": "m", **fields}
    schema = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert is_valid(body, schema) is accepted
    try:
        READ[path](body)
    except ApiError:
        assert not accepted
    else:
        assert accepted
