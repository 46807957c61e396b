"""Bodies of Anthropic's Messages API, as the worker's request."""

from __future__ import annotations

from typing import Any, Final

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.anthropic_messages.call import MessagesCall
from services.gateway.dialects.anthropic_messages.dialect import AnthropicMessages, read_credential
from services.gateway.dialects.anthropic_messages.thinking import ThinkingSignatures
from services.gateway.dialects.dialect import ReadOptions
from services.gateway.errors import ApiError
from services.gateway.images.limits import ImageLimits
from services.gateway.images.request_images import Images
from services.gateway.key_ring import KeyRing
from services.runtime.messages.message import Message

DIALECT: Final = AnthropicMessages(ThinkingSignatures(KeyRing(), max_bytes=2**20))
USER: Final = [{"role": "user", "content": "hi"}]


def read(images: Images | None = None, **fields: Any) -> MessagesCall:
    body = {"model": "m", "max_tokens": 9, "messages": USER, **fields}
    return DIALECT.read(body, ReadOptions(strict=False, images=images or Images()))


def user(*blocks: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(blocks)}]


def texts(call: MessagesCall) -> list[str]:
    return ["".join(part.text for part in message.content) for message in call.generate.messages]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_AUTO)),
        ({"type": "any"}, pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED)),
        ({"type": "none"}, pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_NONE)),
        (
            {"type": "tool", "name": "f"},
            pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_FUNCTIONS, function_names=["f"], required=True),
        ),
    ],
)
def test_every_form_of_tool_choice_is_read(choice: dict[str, Any], expected: pb.ToolChoice) -> None:
    generate = read(tools=[{"name": "f", "input_schema": {}}], tool_choice=choice).generate
    assert generate.tool_choice == expected
    assert not generate.HasField("parallel_tool_calls")


@pytest.mark.parametrize(
    ("thinking", "last", "enabled"),
    [
        (None, USER, False),
        ({"type": "disabled"}, USER, False),
        ({"type": "adaptive"}, USER, True),
        ({"type": "enabled", "budget_tokens": 1024}, USER, True),
        ({"type": "between_tools"}, USER, False),
        ({"type": "between_tools"}, user({"type": "tool_result", "tool_use_id": "x"}), True),
    ],
)
def test_every_form_of_thinking_is_read(thinking: Any, last: list[dict[str, Any]], enabled: bool) -> None:
    call = read(thinking=thinking, messages=last, output_config={"effort": "low"})
    assert call.generate.reasoning.enabled is enabled
    assert call.generate.reasoning.if_supported
    assert ("output_config.effort" in call.ignored) is not enabled


def test_documents_and_search_results_become_text() -> None:
    plain = {"type": "document", "title": "Iran", "source": {"type": "text", "data": "Tehran is its capital."}}
    nested = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "more"}]}}
    found = {"type": "search_result", "title": "T", "source": "S", "content": [{"type": "text", "text": "C"}]}
    call = read(messages=user(plain, nested, found, {"type": "text", "text": "?"}))
    assert texts(call) == ["Iran\n\nTehran is its capital.\n\nmore\n\nT\nS\nC\n\n?"]


@pytest.mark.parametrize(
    ("system", "expected", "omitted"),
    [
        ([{"type": "text", "text": "x-anthropic-billing-header: a"}, {"type": "text", "text": "b"}], "b", "system[0]"),
        ([{"type": "text", "text": "b"}, {"type": "text", "text": "x-anthropic-billing-header: a"}], "b", ""),
        ("x-anthropic-billing-header: a", "x-anthropic-billing-header: a", ""),
    ],
)
def test_only_a_first_block_with_the_clients_version_is_left_out(system: Any, expected: str, omitted: str) -> None:
    call = read(system=system)
    assert texts(call)[0].startswith(expected)
    assert call.omitted == omitted
    assert ("x-omitted-blocks" in call.reports(None)) is bool(omitted)


@pytest.mark.parametrize(
    ("content", "is_error", "expected"),
    [("no", True, "Error: no"), ("no", False, "no"), ("<error>no", True, "<error>no"), (None, True, "Error: ")],
)
def test_the_result_of_a_tool_that_failed_says_so(content: Any, is_error: bool, expected: str) -> None:
    block = {"type": "tool_result", "tool_use_id": "x", "content": content, "is_error": is_error}
    assert texts(read(messages=user(block))) == [expected]


def test_an_image_in_a_result_is_an_image() -> None:
    source = {"type": "url", "url": "https://example.com/a.png"}
    block = {"type": "tool_result", "tool_use_id": "x", "content": [{"type": "image", "source": source}]}
    images = Images(ImageLimits(hosts=frozenset({"example.com"})))
    call = read(images, messages=user(block))
    assert [remote.path for remote in images.remote] == ["messages[0].content[0].content[0].source.url"]
    assert call.field_name("messages[0].content[0].image") == "messages[0].content[0].content[0]"


@pytest.mark.parametrize("type_", ["server_tool_use", "web_search_tool_result", "tool_addition", "fallback"])
def test_blocks_about_other_servers_are_left_out_and_reported(type_: str) -> None:
    call = read(messages=user({"type": type_, "id": "x"}, {"type": "text", "text": "hi"}))
    assert texts(call) == ["hi"]
    assert call.ignored == ["messages[0].content[0]"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"messages": user({"type": "tool_use", "id": "x", "name": "f", "input": {}})},
            Message("block_in_wrong_message", field="messages[0].content[0]", author="assistant"),
        ),
        (
            {"messages": user({"type": "image", "source": {"type": "file", "file_id": "x"}})},
            Message(
                "not_one_of",
                field="messages[0].content[0].source.type",
                value='"file"',
                choices="base64, url",
            ),
        ),
        (
            {"messages": user({"type": "document", "source": {"type": "base64", "data": "x"}})},
            Message(
                "not_one_of",
                field="messages[0].content[0].source.type",
                value='"base64"',
                choices="text, content",
            ),
        ),
        (
            {"messages": user({"type": "image", "source": {"type": "url", "url": "data:,"}})},
            Message("image_url_not_https", field="messages[0].content[0].source.url"),
        ),
        ({"messages": []}, Message("list_empty", field="messages")),
        ({"messages": [{"role": "user", "content": []}]}, Message("conversation_empty", field="messages")),
        ({"messages": user({"type": "server_tool_use"})}, Message("conversation_empty", field="messages")),
        ({"tools": [{"name": "f"}]}, Message("field_missing", field="tools[0].input_schema", expected="object")),
        (
            {"tool_choice": {"type": "tool"}},
            Message("field_missing", field="tool_choice.name", expected="string"),
        ),
        (
            {
                "output_format": {"type": "json_schema", "schema": {}},
                "output_config": {"format": {"type": "json_schema", "schema": {}}},
            },
            Message("mutually_exclusive", field="output_format", other_field="output_config.format"),
        ),
    ],
)
def test_what_cannot_be_read_is_named(fields: dict[str, Any], message: Message) -> None:
    with pytest.raises(ApiError) as rejection:
        read(**fields)
    assert rejection.value.message == message


def test_an_unknown_block_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(ApiError) as rejection:
        read(messages=user({"type": "txet", "text": "hi"}))
    assert rejection.value.message.id == "not_one_of"
    assert rejection.value.field == "messages[0].content[0].type"


@pytest.mark.parametrize(
    ("headers", "secret", "header"),
    [
        ({"x-api-key": "vlx_a"}, "vlx_a", "x-api-key"),
        ({"authorization": "Bearer vlx_b"}, "vlx_b", "Authorization"),
        ({"x-api-key": "sk-ant-1", "authorization": "Bearer vlx_b"}, "vlx_b", "Authorization"),
        ({"x-api-key": "vlx_a", "authorization": "Bearer sk-ant-1"}, "vlx_a", "x-api-key"),
        ({}, "", "x-api-key"),
    ],
)
def test_the_key_is_taken_from_either_header(headers: dict[str, str], secret: str, header: str) -> None:
    credential = read_credential(headers)
    assert (credential.secret, credential.header.name) == (secret, header)
