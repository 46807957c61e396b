from __future__ import annotations

from typing import Any

import pytest
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.gateway.dialects.openai_embeddings.request import read_embeddings
from services.gateway.errors import ApiError
from services.runtime.messages.message import Message


def embed(**fields: Any) -> pb.EmbedRequest:
    return read_embeddings({"model": "m", **fields}, strict=False).embed


def test_every_form_of_input_is_translated() -> None:
    assert list(embed(input="سلام").texts) == ["سلام"]
    assert list(embed(input=["a", "b"]).texts) == ["a", "b"]
    assert [list(entry.ids) for entry in embed(input=[1, 2**32 - 1]).token_ids] == [[1, 2**32 - 1]]
    assert [list(entry.ids) for entry in embed(input=[[1, 2], [3]]).token_ids] == [[1, 2], [3]]


def test_every_field_is_translated() -> None:
    asked = read_embeddings(
        {
            "model": "m",
            "input": "a",
            "dimensions": 7,
            "encoding_format": "base64",
            "user": "u",
            "input_type": "passage",
            "truncate": True,
        },
        strict=True,
    )
    assert asked.in_base64
    assert asked.embed == pb.EmbedRequest(
        model="m", texts=["a"], dimensions=7, input_type=pb.INPUT_TYPE_PASSAGE, truncate=True
    )


def test_absent_fields_are_not_set_for_the_worker() -> None:
    asked = read_embeddings({"model": "m", "input": "a", "dimensions": None}, strict=True)
    assert not asked.in_base64
    assert asked.embed == pb.EmbedRequest(model="m", texts=["a"])


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({}, "input", Message("field_missing", field="input", expected="string | array")),
        ({"input": None}, "input", Message("field_missing", field="input", expected="string | array")),
        ({"input": 5}, "input", Message("wrong_type", field="input", value="5", expected="string | array")),
        ({"input": {}}, "input", Message("wrong_type", field="input", value="{}", expected="string | array")),
        ({"input": []}, "input", Message("list_empty", field="input")),
        (
            {"input": ["a", 1]},
            "input[1]",
            Message("not_like_first_entry", field="input[1]", value="1", expected="string"),
        ),
        (
            {"input": ["a", [1]]},
            "input[1]",
            Message("not_like_first_entry", field="input[1]", value="[1]", expected="string"),
        ),
        (
            {"input": [None]},
            "input[0]",
            Message("wrong_type", field="input[0]", value="null", expected="string | integer | array"),
        ),
        (
            {"input": [1, "a"]},
            "input[1]",
            Message("not_like_first_entry", field="input[1]", value='"a"', expected="integer"),
        ),
        (
            {"input": [1, True]},
            "input[1]",
            Message("wrong_type", field="input[1]", value="true", expected="string | integer | array"),
        ),
        ({"input": [1, -1]}, "input[1]", Message("out_of_range", field="input[1]", value=-1, least=0, most=4294967295)),
        (
            {"input": [1, 2**32]},
            "input[1]",
            Message("out_of_range", field="input[1]", value=4294967296, least=0, most=4294967295),
        ),
        (
            {"input": [1, 1.5]},
            "input[1]",
            Message("wrong_type", field="input[1]", value="1.5", expected="string | integer | array"),
        ),
        (
            {"input": [[1], "a"]},
            "input[1]",
            Message("not_like_first_entry", field="input[1]", value='"a"', expected="array"),
        ),
        (
            {"input": [[1], [2, "x"]]},
            "input[1][1]",
            Message("wrong_type", field="input[1][1]", value='"x"', expected="integer"),
        ),
        ({"input": "a", "model": 1}, "model", Message("wrong_type", field="model", value="1", expected="string")),
        (
            {"input": "a", "dimensions": 0},
            "dimensions",
            Message("out_of_range", field="dimensions", value=0, least=1, most=2147483647),
        ),
        (
            {"input": "a", "dimensions": "9"},
            "dimensions",
            Message("wrong_type", field="dimensions", value='"9"', expected="integer"),
        ),
        (
            {"input": "a", "encoding_format": "hex"},
            "encoding_format",
            Message("not_one_of", field="encoding_format", value='"hex"', choices="float, base64"),
        ),
        (
            {"input": "a", "input_type": "doc"},
            "input_type",
            Message("not_one_of", field="input_type", value='"doc"', choices="query, passage"),
        ),
        (
            {"input": "a", "truncate": 1},
            "truncate",
            Message("wrong_type", field="truncate", value="1", expected="boolean"),
        ),
    ],
)
def test_a_wrong_value_is_rejected_with_its_path(fields: dict[str, Any], param: str, message: Message) -> None:
    with pytest.raises(ApiError) as caught:
        embed(**fields)
    assert (caught.value.status, caught.value.field) == (400, param)
    assert caught.value.message == message


def test_fields_without_effect_are_listed_or_rejected() -> None:
    body = {"model": "m", "input": "a", "stream": True, "foo": 1}
    assert read_embeddings(body, strict=False).ignored == ["foo", "stream"]
    with pytest.raises(ApiError) as caught:
        read_embeddings(body, strict=True)
    assert caught.value.message == Message("ignored_fields_rejected", field="foo", names="foo, stream", count=2)
