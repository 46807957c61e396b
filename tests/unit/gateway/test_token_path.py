"""The way of a token past the request's task: the same bytes and the same counts as its event causes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import ResponseHead
from services.gateway.dialects.openai_chat.request import ChatCall
from services.gateway.dialects.openai_chat.stream import ChunkEncoder
from services.gateway.limit_status import NO_LIMITS
from services.gateway.metered_generation import MeteredGeneration
from services.gateway.operations.token_path import TokenPath
from services.gateway.record import RequestRecord
from services.gateway.routing.event_sink import text_event
from services.gateway.tenancy.reservation import Reservation
from services.gateway.tenancy.token_estimate import TokenEstimate

HEAD = ResponseHead("chatcmpl-1", 7, "r", "fp_1")
DELTAS = st.lists(st.tuples(st.text(max_size=5), st.integers(0, 3), st.booleans()), max_size=8)


class Writer:
    """A client that keeps up until `is_slow` is set."""

    def __init__(self) -> None:
        self.is_slow = False
        self.written = b""

    @property
    def ready(self) -> bool:
        return not self.is_slow

    def write(self, data: bytes) -> bool:
        assert data, "an empty chunk would end the body"
        self.written += data
        return self.ready


def path_of(call: ChatCall, fields: list[str]) -> tuple[TokenPath, Writer, Reservation]:
    generation: Any = SimpleNamespace(model="m", has_begun=True, began_at=0.0)
    absent: Any = None
    limits = SimpleNamespace(daily_tokens=None, monthly_tokens=None)
    subject: Any = SimpleNamespace(limits=limits, model_limits=limits, price=None)
    estimate = TokenEstimate(model="m", prompt=1, output=100, max_output=100)
    reservation = Reservation(absent, subject, estimate, absent, NO_LIMITS)
    metered = MeteredGeneration(generation, reservation, RequestRecord("r", "POST"), choices=1)
    writer: Any = Writer()
    return TokenPath(ChunkEncoder(call, HEAD, reasoning_fields=fields), metered, writer, []), writer, reservation


@pytest.mark.parametrize("fields", [["reasoning_content"], ["reasoning_content", "reasoning"]])
@pytest.mark.parametrize(("usage", "continuous"), [(False, False), (True, False), (True, True)])
@given(deltas=DELTAS)
def test_text_is_sent_and_counted_like_its_event(
    fields: list[str], usage: bool, continuous: bool, deltas: list[tuple[str, int, bool]]
) -> None:
    call = ChatCall(
        generate=pb.GenerateRequest(model="m"), stream=True, include_usage=usage, continuous_usage=continuous
    )
    by_text, by_event = path_of(call, fields), path_of(call, fields)
    for text, tokens, is_reasoning in deltas:
        assert by_text[0].take_text(text, tokens, 1.0, is_reasoning)
        assert by_event[0].take([text_event(text, tokens, is_reasoning=is_reasoning)])
    by_text[0].flush()
    by_event[0].flush()
    assert by_text[1].written == by_event[1].written
    assert by_text[2].produced == by_event[2].produced


def test_a_client_that_falls_behind_leaves_its_text_to_the_task() -> None:
    path, writer, reservation = path_of(ChatCall(generate=pb.GenerateRequest(model="m"), stream=True), ["reasoning"])
    assert path.take_text("a", 1, 1.0, False)
    path.flush()
    assert path.take_text("b", 1, 1.0, False)
    writer.is_slow = True
    path.flush()
    assert not path.take_text("c", 1, 1.0, False)
    assert not path.take([text_event("c", 1, is_reasoning=False)])
    writer.is_slow = False
    assert path.take_text("c", 1, 1.0, False)
    path.flush()
    assert [text for text in "abc" if f'"content":"{text}"'.encode() in writer.written] == ["a", "b", "c"]
    assert reservation.produced.completion == 3
