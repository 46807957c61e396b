from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects import sse
from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.dialect import ResponseHead
from services.gateway.dialects.openai_chat.dialect import OpenAIChat
from services.gateway.dialects.openai_chat.request import ChatCall
from services.gateway.dialects.openai_chat.stream import ChunkEncoder
from services.gateway.errors import bad_request
from services.gateway.settings import ReasoningFields
from services.runtime.messages.message import Message

TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    'سلام\u200c\u200d\u064b👨‍👩‍👧🇮🇷\u2028\u2029\r\n\x00"\\', max_size=20
)


def encoder(
    *, n: int = 1, include_usage: bool = False, continuous_usage: bool = False, may_call: bool = False
) -> ChunkEncoder:
    generate = pb.GenerateRequest(model="m", n=n)
    call = ChatCall(
        generate=generate,
        stream=True,
        include_usage=include_usage,
        continuous_usage=continuous_usage,
        may_call=may_call,
    )
    return ChunkEncoder(call, ResponseHead("chatcmpl-1", 7, "r", "fp_1"), reasoning_fields=["reasoning_content"])


def read(data: bytes) -> list[dict[str, Any]]:
    """Parse a stream as a client does: events are separated by empty lines, and each is one `data: ` line."""
    events = data.decode().split("\n\n")
    assert events.pop() == ""
    assert all(event.startswith("data: ") and len(event.split("\n")) == 1 for event in events)
    return [json.loads(event.removeprefix("data: ")) for event in events]


@given(text=TEXT)
def test_any_text_arrives_unchanged(text: str) -> None:
    (chunk,) = read(encoder().encode([pb.Event(delta=pb.Delta(content=text))]))
    assert chunk["choices"][0]["delta"] == {"content": text}


def test_a_stream_has_the_order_and_the_format_of_openai() -> None:
    events = [
        pb.Event(started=pb.Started(prompt_tokens=3)),
        pb.Event(delta=pb.Delta(reasoning_content="hm", token_count=1)),
        pb.Event(delta=pb.Delta(content="yes", token_count=1)),
        pb.Event(delta=pb.Delta(token_count=1)),
        pb.Event(finish=pb.Finish(reason=pb.FINISH_REASON_STOP)),
        pb.Event(usage=pb.Usage(prompt_tokens=3, completion_tokens=3, cached_tokens=1)),
    ]
    chunks = read(encoder(include_usage=True).encode(events))
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:-1]] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"content": "yes"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None, None, None, "stop"]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 4
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 6
    assert chunks[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}
    assert {(c["id"], c["created"], c["model"], c["object"]) for c in chunks} == {
        ("chatcmpl-1", 7, "m", "chat.completion.chunk")
    }


def test_an_answer_that_may_be_a_call_begins_without_content() -> None:
    (chunk,) = read(encoder(may_call=True).encode([pb.Event(started=pb.Started())]))
    assert chunk["choices"][0]["delta"] == {"role": "assistant", "content": None}


def test_without_include_usage_no_chunk_has_usage() -> None:
    chunks = read(encoder().encode([pb.Event(started=pb.Started()), pb.Event(usage=pb.Usage())]))
    assert len(chunks) == 1
    assert "usage" not in chunks[0]


def test_every_choice_begins_and_ends_separately() -> None:
    events = [
        pb.Event(started=pb.Started()),
        pb.Event(delta=pb.Delta(index=1, content="b")),
        pb.Event(delta=pb.Delta(index=0, content="a")),
        pb.Event(finish=pb.Finish(index=1, reason=pb.FINISH_REASON_LENGTH)),
    ]
    chunks = read(encoder(n=2).encode(events))
    assert [(chunk["choices"][0]["index"], chunk["choices"][0]["finish_reason"]) for chunk in chunks] == [
        (0, None),
        (1, None),
        (1, None),
        (0, None),
        (1, "length"),
    ]


def test_continuous_usage_increases_with_every_chunk() -> None:
    events = [
        pb.Event(started=pb.Started(prompt_tokens=4)),
        pb.Event(delta=pb.Delta(content="a", token_count=2)),
        pb.Event(delta=pb.Delta(content="b", token_count=1)),
    ]
    chunks = read(encoder(continuous_usage=True).encode(events))
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [0, 2, 3]
    assert {chunk["usage"]["prompt_tokens"] for chunk in chunks} == {4}


def test_only_the_first_fragment_of_a_tool_call_has_its_id_and_name() -> None:
    fragments = [
        pb.ToolCallFragment(index=0, id="call_1", name="weather", arguments_json=""),
        pb.ToolCallFragment(index=0, arguments_json='{"city":'),
        pb.ToolCallFragment(index=0, arguments_json='"تهران"}'),
    ]
    chunks = read(encoder().encode([pb.Event(delta=pb.Delta(tool_call=fragment)) for fragment in fragments]))
    calls = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks]
    assert calls[0] == {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": ""},
    }
    assert [call.keys() for call in calls[1:]] == [{"index", "function"}] * 2
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city":"تهران"}'


def test_log_probabilities_are_sent_with_their_text() -> None:
    entry = pb.TokenLogprob(token="س", token_bytes="س".encode(), logprob=-0.5)
    entry.top.add(token="س", token_bytes="س".encode(), logprob=-0.5)
    (chunk,) = read(encoder().encode([pb.Event(delta=pb.Delta(content="س", logprobs=[entry]))]))
    token = {"token": "س", "logprob": -0.5, "bytes": [216, 179]}
    assert chunk["choices"][0]["logprobs"] == {"content": [{**token, "top_logprobs": [token]}], "refusal": None}


def test_an_error_is_one_event_after_a_comment_with_its_message_id() -> None:
    error = bad_request(Message("out_of_range", field="top_k", value=-7, least=-1, most=9))
    comment, _, sent = encoder().error(error).partition(b"\n\n")
    assert comment == b": x-error-message-id out_of_range"
    (event,) = read(sent)
    assert event["error"] == {
        "message": str(error),
        "type": "invalid_request_error",
        "param": "top_k",
        "code": "integer_below_min_value",
    }


def test_a_stream_ends_with_done() -> None:
    assert encoder().end() == b"data: [DONE]\n\n"


def test_an_event_may_have_a_name() -> None:
    assert sse.event(b"{}", name="ping") == b"event: ping\ndata: {}\n\n"


def test_no_memory_is_allocated_per_choice_before_a_worker_has_checked_their_number() -> None:
    generous = encoder(n=2**31 - 1)
    assert generous.keep_alive()
    assert generous.queued(1) == b": queued 1\n\n"


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        (ReasoningFields.BOTH, ["reasoning_content", "reasoning"]),
        (ReasoningFields.REASONING_CONTENT, ["reasoning_content"]),
        (ReasoningFields.REASONING, ["reasoning"]),
    ],
)
def test_reasoning_is_in_the_fields_of_the_setting(setting: ReasoningFields, names: list[str]) -> None:
    dialect = OpenAIChat(reasoning_fields=setting.names())
    call = ChatCall(generate=pb.GenerateRequest(model="m"))
    head = ResponseHead("chatcmpl-1", 7, "r", "fp_1")
    delta = pb.Event(delta=pb.Delta(reasoning_content="فکر"))
    (chunk,) = read(dialect.encoder(call, head).encode([delta]))
    assert chunk["choices"][0]["delta"] == dict.fromkeys(names, "فکر")
    collected = ResponseCollector(1)
    collected.add([delta, pb.Event(finish=pb.Finish(reason=pb.FINISH_REASON_STOP))])
    message = json.loads(dialect.response(call, head, collected))["choices"][0]["message"]
    assert {name: message[name] for name in message.keys() & {"reasoning", "reasoning_content"}} == dict.fromkeys(
        names, "فکر"
    )
