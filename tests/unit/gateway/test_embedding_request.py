from __future__ import annotations

from typing import Any

import pytest
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.gateway.dialects.openai_embeddings.request import read_embeddings
from services.gateway.errors import ApiError


def embed(**fields: Any) -> pb.EmbedRequest:
    return read_embeddings({"model": "m", **fields}).embed


def test_every_form_of_input() -> None:
    assert list(embed(input="سلام").texts) == ["سلام"]
    assert list(embed(input=["a", "b"]).texts) == ["a", "b"]
    assert [list(entry.ids) for entry in embed(input=[1, 2**32 - 1]).token_ids] == [[1, 2**32 - 1]]
    assert [list(entry.ids) for entry in embed(input=[[1, 2], [3]]).token_ids] == [[1, 2], [3]]


def test_every_field() -> None:
    asked = read_embeddings(
        {
            "model": "m",
            "input": "a",
            "dimensions": 7,
            "encoding_format": "base64",
            "user": "u",
            "input_type": "passage",
            "truncate": True,
        }
    )
    assert asked.in_base64
    assert asked.embed == pb.EmbedRequest(
        model="m", texts=["a"], dimensions=7, input_type=pb.INPUT_TYPE_PASSAGE, truncate=True
    )


def test_what_is_left_out_is_left_to_the_worker() -> None:
    asked = read_embeddings({"model": "m", "input": "a", "dimensions": None})
    assert not asked.in_base64
    assert asked.embed == pb.EmbedRequest(model="m", texts=["a"])


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({}, "input", "input is missing"),
        ({"input": None}, "input", "input is missing"),
        ({"input": 5}, "input", "a string or a list, got an integer"),
        ({"input": {}}, "input", "got an object"),
        ({"input": []}, "input", "empty list"),
        ({"input": ["a", 1]}, "input[1]", "a string, as the first entry is"),
        ({"input": ["a", [1]]}, "input[1]", "a string, as the first entry is"),
        ({"input": [None]}, "input[0]", "got null"),
        ({"input": [1, "a"]}, "input[1]", "a token id"),
        ({"input": [1, True]}, "input[1]", "got true or false"),
        ({"input": [1, -1]}, "input[1]", "0 to 4294967295"),
        ({"input": [1, 2**32]}, "input[1]", "0 to 4294967295"),
        ({"input": [1, 1.5]}, "input[1]", "got a number: 1.5"),
        ({"input": [[1], "a"]}, "input[1]", "a list of token ids, as the first entry is"),
        ({"input": [[1], [2, "x"]]}, "input[1][1]", "an integer, got a string"),
        ({"input": "a", "model": 1}, "model", "must be a string"),
        ({"input": "a", "dimensions": 0}, "dimensions", "must be 1 to"),
        ({"input": "a", "dimensions": "9"}, "dimensions", "an integer"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "float, base64"),
        ({"input": "a", "input_type": "doc"}, "input_type", "query, passage"),
        ({"input": "a", "truncate": 1}, "truncate", "true or false"),
        ({"input": "a", "stream": True}, "stream", "Unknown field: stream"),
    ],
)
def test_what_does_not_fit_is_rejected_by_its_path(fields: dict[str, Any], param: str, said: str) -> None:
    with pytest.raises(ApiError) as caught:
        embed(**fields)
    assert (caught.value.status, caught.value.field) == (400, param)
    assert said in str(caught.value)
