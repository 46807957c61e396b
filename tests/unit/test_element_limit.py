"""The elements of a message are counted before it is parsed."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st
from vilix.embeddings.v1 import embeddings_service_pb2 as embeddings_pb
from vilix.inference.v1 import inference_service_pb2 as pb

from services.runtime.element_limit import MAX_ELEMENTS, TooManyElementsError, check_elements


def conversation(messages: int, parts: int) -> pb.GenerateRequest:
    """Return a request with 2 elements per message, and 2 more per part."""
    message = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="hello")] * parts)
    return pb.GenerateRequest(messages=[message] * messages)


CROWDED = {
    "parts": (conversation(2000, 100), "messages"),
    "parts in a call of a stream": (
        pb.GenerateManyRequest(call=1, start=pb.StartCall(request=conversation(2000, 100))),
        "start",
    ),
    "empty messages": (pb.GenerateRequest(messages=[pb.Message()] * 40_000), "messages"),
    "texts": (embeddings_pb.EmbedRequest(model="m", texts=["a"] * 40_000), "texts"),
    "lists of ids": (embeddings_pb.EmbedRequest(token_ids=[embeddings_pb.TokenIds(ids=[1])] * 40_000), "token_ids"),
    "ids": (pb.GenerateRequest(prompt_token_ids=[70_000] * 2_000_000), "prompt_token_ids"),
    "stop strings": (pb.GenerateRequest(sampling=pb.SamplingParams(stop=["a"] * 40_000)), "sampling"),
    "biases": (
        pb.GenerateRequest(sampling=pb.SamplingParams(logit_bias=dict.fromkeys(range(40_000), 1.0))),
        "sampling",
    ),
}


@pytest.mark.parametrize(("message", "field"), CROWDED.values(), ids=CROWDED)
def test_a_message_with_too_many_elements_is_rejected(message: Message, field: str) -> None:
    with pytest.raises(TooManyElementsError, match=f"{field} has too many elements") as caught:
        check_elements(message.SerializeToString(), message.DESCRIPTOR)
    assert caught.value.message.field == field


@pytest.mark.parametrize(
    "message",
    [
        conversation(2048, 3),
        pb.GenerateRequest(prompt_token_ids=[200_000] * 1_000_000),
        embeddings_pb.EmbedRequest(texts=["a long text " * 300] * 2048),
        embeddings_pb.EmbedRequest(token_ids=[embeddings_pb.TokenIds(ids=[200_000] * 146)] * 2048),
        pb.GenerateRequest(messages=[pb.Message(content=[pb.ContentPart(image=pb.Image(data=b"\x0a" * 20_000_000))])]),
    ],
    ids=["messages", "ids", "texts", "lists of ids", "an image"],
)
def test_the_largest_valid_requests_are_accepted(message: Message) -> None:
    check_elements(message.SerializeToString(), message.DESCRIPTOR)


def test_the_limit_is_exact() -> None:
    def texts(count: int) -> bytes:
        return embeddings_pb.EmbedRequest(texts=["text"] * count).SerializeToString()

    kind = embeddings_pb.EmbedRequest.DESCRIPTOR
    check_elements(texts(MAX_ELEMENTS), kind)
    with pytest.raises(TooManyElementsError):
        check_elements(texts(MAX_ELEMENTS + 1), kind)


def test_repeating_a_single_field_is_counted() -> None:
    with pytest.raises(TooManyElementsError):
        check_elements(pb.GenerateRequest(model="m").SerializeToString() * 40_000, pb.GenerateRequest.DESCRIPTOR)


@pytest.mark.parametrize("data", [b"\xff" * 10**6, b"\x12\x00" * 10_000 + b"\x12\xff\xff\xff\x7f" + b"a" * 50_000])
def test_a_malformed_message_is_rejected_as_the_parser_does(data: bytes) -> None:
    for read in (pb.GenerateRequest.FromString, lambda data: check_elements(data, pb.GenerateRequest.DESCRIPTOR)):
        with pytest.raises(DecodeError):
            read(data)


@pytest.mark.parametrize("inside", [b"\x12\x0b" + b"\xff" * 11, b"\x12\x02\x0a\x7f", b"\x12\x00", b""])
@pytest.mark.parametrize("wrapped", [False, True])
def test_elements_behind_an_unknown_group_are_counted(inside: bytes, wrapped: bool) -> None:
    """A parser skips the content of an unknown group, valid or not."""
    data = b"\xc3\x3e" + inside + b"\xc4\x3e" + b"\x12\x00" * 40_000
    if wrapped:
        data = pb.GenerateManyRequest(
            start=pb.StartCall(request=pb.GenerateRequest.FromString(data))
        ).SerializeToString()
    kind = pb.GenerateManyRequest if wrapped else pb.GenerateRequest
    kind.FromString(data)
    with pytest.raises(TooManyElementsError):
        check_elements(data, kind.DESCRIPTOR)


@given(st.binary(max_size=200), st.integers(min_value=1, max_value=3))
def test_arbitrary_bytes_have_no_more_elements_than_allowed_or_are_rejected(data: bytes, times: int) -> None:
    """The check ends for all input, and an accepted message has no more elements than it has counted."""
    for kind in (pb.GenerateManyRequest, embeddings_pb.EmbedRequest):
        try:
            check_elements(data * times, kind.DESCRIPTOR, most=20)
        except (TooManyElementsError, DecodeError):
            continue
        try:
            message = kind.FromString(data * times)
        except DecodeError:
            continue
        assert elements(message) <= 20


def elements(message: Message) -> int:
    """Return the least number of elements from which a message can have been parsed."""
    count = 0
    for field, value in message.ListFields():
        several = field.is_repeated
        values = list(value) if several and field.message_type is not None else [value]
        count += len(values)
        if field.message_type is not None and not (several and field.message_type.GetOptions().map_entry):
            count += sum(elements(one) for one in values)
    return count
