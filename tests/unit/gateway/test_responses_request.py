"""The messages that are made of a request's input items: bounded in number, and joined in linear time."""

from __future__ import annotations

import time
from typing import Any

import pytest

from services.gateway.dialects.dialect import ReadOptions
from services.gateway.dialects.openai_responses.call import ResponsesCall
from services.gateway.dialects.openai_responses.conversation import MAX_REFERENCES
from services.gateway.dialects.openai_responses.request import read_responses
from services.gateway.errors import ApiError
from services.gateway.images.limits import ImageLimits
from services.gateway.images.request_images import Images


def read(items: list[dict[str, Any]], **fields: Any) -> ResponsesCall:
    body = {"model": "m", "input": items, **fields}
    return read_responses(body, ReadOptions(False, Images(ImageLimits())))


def reference(number: int) -> dict[str, Any]:
    return {"type": "item_reference", "id": f"msg_{number:032x}0000"}


def test_references_are_bounded_before_anything_is_read() -> None:
    references = [reference(number) for number in range(MAX_REFERENCES)]
    assert len(read(references).references) == MAX_REFERENCES
    with pytest.raises(ApiError) as raised:
        read([*references, reference(MAX_REFERENCES)])
    assert (raised.value.message.id, raised.value.field) == ("too_many_item_references", f"input[{MAX_REFERENCES}]")


@pytest.mark.parametrize(
    "items", [[{"type": "web_search_call"}], [{"type": "reasoning", "summary": []}], [{"type": "compaction"}]]
)
def test_an_input_without_a_message_is_rejected(items: list[dict[str, Any]]) -> None:
    with pytest.raises(ApiError) as raised:
        read(items)
    assert (raised.value.message.id, raised.value.field) == ("conversation_empty", "input")
    assert not read([reference(1)]).generate.messages, "it may refer to one"


def test_a_reference_is_not_repeated() -> None:
    with pytest.raises(ApiError) as raised:
        read([reference(1), reference(2), reference(1)])
    assert (raised.value.message.id, raised.value.field) == ("item_reference_repeated", "input[2].id")


def test_texts_of_several_items_are_joined() -> None:
    def thought(text: str) -> dict[str, Any]:
        return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}

    items = [
        {"role": "system", "content": "b"},
        {"role": "developer", "content": [{"type": "input_text", "text": "c"}]},
        {"role": "user", "content": "u"},
        thought("1"),
        thought("2"),
        {"role": "assistant", "content": "x"},
        {"role": "system", "content": "d"},
        thought("3"),
    ]
    system, _, first, later, second = read(items, instructions="a").generate.messages
    assert [part.text for part in system.content] == ["a\n\nb\n\nc"]
    assert (first.reasoning_content, first.content[0].text) == ("12", "x")
    assert [part.text for part in later.content] == ["d"]
    assert second.reasoning_content == "3"


@pytest.mark.parametrize(
    "item",
    [
        {"role": "system", "content": "a" * 1600},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "a" * 1600}]},
    ],
)
def test_joining_many_texts_takes_linear_time(item: dict[str, Any]) -> None:
    began = time.process_time()
    read([item] * 10_000)
    # Appending each to what was joined before would copy 80 GB.
    assert time.process_time() - began < 8
