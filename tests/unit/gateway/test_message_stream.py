"""Anthropic's SDK reads every sequence of a worker's events as the same message, streamed or whole."""

from __future__ import annotations

import json
from typing import Any, Final

from anthropic import Anthropic
from anthropic.lib.streaming._messages import accumulate_event  # what `messages.stream` does
from anthropic.types import RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.anthropic_messages.dialect import AnthropicMessages
from services.gateway.dialects.anthropic_messages.thinking import ThinkingSignatures
from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.dialect import ResponseHead, without_prompt
from services.gateway.errors import unavailable
from services.gateway.key_ring import KeyRing
from services.runtime.messages.message import Message
from tests.unit.gateway.chat_bodies import options

SIGNATURES: Final = ThinkingSignatures(KeyRing(), max_bytes=2**20)
DIALECT: Final = AnthropicMessages(SIGNATURES)
EXAMPLES: Final = 200
HEAD: Final = ResponseHead("msg_1", 1, "req-1", "fp_1")
EVENT: Final = TypeAdapter[Any](RawMessageStreamEvent)
TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
INPUTS: Final = st.dictionaries(TEXTS, TEXTS, max_size=2)
ENDS: Final = st.sampled_from([pb.FINISH_REASON_STOP, pb.FINISH_REASON_LENGTH, pb.FINISH_REASON_TOOL_CALLS])


def deltas(thinking: list[str], texts: list[str], inputs: list[dict[str, str]], cut: int) -> list[pb.Event]:
    found = [pb.Delta(reasoning_content=text, token_count=1) for text in thinking]
    found += [pb.Delta(token_count=1)]
    found += [pb.Delta(content=text, token_count=1) for text in texts]
    for index, value in enumerate(inputs):
        arguments = json.dumps(value, ensure_ascii=False)
        first = pb.ToolCallFragment(index=index, id=f"call_{index}", name="f", arguments_json=arguments[:cut])
        found.append(pb.Delta(tool_call=first))
        found.append(pb.Delta(tool_call=pb.ToolCallFragment(index=index, arguments_json=arguments[cut:])))
    return [pb.Event(delta=delta) for delta in found]


@settings(max_examples=EXAMPLES)
@given(
    st.lists(TEXTS, max_size=3),
    st.lists(TEXTS, max_size=3),
    st.lists(INPUTS, max_size=2),
    st.integers(0, 5),
    ENDS,
    st.sampled_from(["", "###"]),
    st.booleans(),
    st.integers(1, 4),
)
def test_a_stream_is_the_whole_message(  # noqa: PLR0917  # one per strategy
    thinking: list[str],
    texts: list[str],
    inputs: list[dict[str, str]],
    cut: int,
    end: pb.FinishReason.ValueType,
    stop: str,
    hides: bool,
    group: int,
) -> None:
    wanted = {"type": "adaptive", "display": "omitted"} if hides else {"type": "adaptive"}
    body = {"model": "m", "max_tokens": 9, "thinking": wanted, "messages": [{"role": "user", "content": "x"}]}
    call = without_prompt(DIALECT.read(body, options()))
    usage = pb.Usage(prompt_tokens=9, cached_tokens=4, completion_tokens=3)
    events = [
        pb.Event(started=pb.Started(prompt_tokens=9, cached_tokens=4)),
        *deltas(thinking, texts, inputs, cut),
        pb.Event(finish=pb.Finish(reason=end, stop_string=stop)),
        pb.Event(usage=usage),
    ]
    encoder, collected = DIALECT.encoder(call, HEAD), ResponseCollector(1)
    groups = [events[start : start + group] for start in range(0, len(events), group)]
    data = b"".join(encoder.encode(each) for each in groups) + encoder.end()
    for each in groups:
        collected.add(each)
    streamed = accumulated(data)
    whole = json.loads(DIALECT.response(call, HEAD, collected))
    signatures = [(each["content"] or [{}])[0].pop("signature", "") for each in (streamed, whole)]
    assert streamed == whole
    for signature in signatures:
        shown = "" if hides else "".join(thinking)
        assert SIGNATURES.reader("", "m").read(shown, signature, field="") == "".join(thinking)
        assert not SIGNATURES.reader("", "another").read(shown, signature, field="")


def accumulated(data: bytes) -> dict[str, Any]:
    """Return what the SDK makes of a stream, after checks of the order of events."""
    snapshot: Any = None
    is_open, index, names = False, -1, []
    buffers: dict[int, bytes] = {}
    for part in data.decode().split("\n\n")[:-1]:
        name, line = part.split("\n")
        event = json.loads(line.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        names.append(event["type"])
        if event["type"].startswith("content_block"):
            assert is_open is (event["type"] != "content_block_start")
            is_open = event["type"] != "content_block_stop"
            index += event["type"] == "content_block_start"
            assert event["index"] == index
        parsed = EVENT.validate_python(event)
        snapshot = accumulate_event(event=parsed, current_snapshot=snapshot, json_bufs=buffers)
    assert (names[0], names[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert snapshot is not None
    message: dict[str, Any] = snapshot.to_dict()
    for block in message["content"]:
        block.pop("parsed_output", None)
    return message


@settings(max_examples=EXAMPLES)
@given(
    st.lists(TEXTS, max_size=3),
    st.lists(TEXTS, max_size=3),
    st.lists(INPUTS, max_size=2),
    st.integers(0, 5),
    st.integers(0, 12),
    st.booleans(),
)
def test_a_stream_that_fails_ends_with_one_error_and_never_looks_finished(  # noqa: PLR0917  # one per strategy
    thinking: list[str], texts: list[str], inputs: list[dict[str, str]], cut: int, last: int, hides: bool
) -> None:
    wanted = {"type": "adaptive", "display": "omitted"} if hides else {"type": "adaptive"}
    body = {"model": "m", "max_tokens": 9, "thinking": wanted, "messages": [{"role": "user", "content": "x"}]}
    encoder = DIALECT.encoder(without_prompt(DIALECT.read(body, options())), HEAD)
    events = [pb.Event(started=pb.Started(prompt_tokens=9)), *deltas(thinking, texts, inputs, cut)][:last]
    data = encoder.encode(events) + encoder.error(unavailable(Message("worker_lost")))
    frames = [part for part in data.decode().split("\n\n")[:-1] if not part.startswith(":")]
    bodies = [json.loads(frame.split("\ndata: ")[1]) for frame in frames]
    names = [body["type"] for body in bodies]
    assert names.index("error") == len(names) - 1
    assert bodies[-1]["error"]["type"] == "overloaded_error"
    assert not {"message_delta", "message_stop"}.intersection(names)
    assert names[:1] == (["message_start"] if events else ["error"])
    begun, closed = (names.count(f"content_block_{kind}") for kind in ("start", "stop"))
    assert begun - closed == (begun > 0), "the block that was open stays open"


def test_the_sdk_is_the_live_version() -> None:
    assert Anthropic(api_key="x").default_headers["anthropic-version"] == "2026-10-21"
