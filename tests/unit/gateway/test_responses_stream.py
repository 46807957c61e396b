"""OpenAI's stream helper accepts every sequence of events, whatever the model wrote and however the response ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import omit
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import ReadOptions, ResponseHead
from services.gateway.dialects.openai_responses import stream
from services.gateway.dialects.openai_responses.request import read_responses
from services.gateway.dialects.openai_responses.response import custom_input
from services.gateway.dialects.openai_responses.stream import KEEP_ALIVE, ResponseEncoder
from services.gateway.errors import unavailable
from services.gateway.images.limits import ImageLimits
from services.gateway.images.request_images import Images
from services.runtime.messages.message import Message

EVENT: Any = ResponseStreamEvent
TERMINAL = ("response.completed", "response.incomplete", "response.failed")
TOOLS = [
    {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False},
    {"type": "custom", "name": "g"},
    {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "h", "parameters": {}}]},
]
TEXTS_OF_CALLS = [
    ['{"input":"x"}'],
    ['{"in', 'put":', '"y"}'],
    ["{broken"],
    [""],
    ['{"input":"\\ud83d"}'],
    ['{"input":' + "[" * 10_000 + "]" * 10_000 + "}"],
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def content(text: str) -> pb.Event:
    return pb.Event(delta=pb.Delta(content=text, token_count=1))


def reasoning(text: str) -> pb.Event:
    return pb.Event(delta=pb.Delta(reasoning_content=text, token_count=1))


@st.composite
def calls(draw: st.DrawFn) -> list[pb.Event]:
    """A call of a tool, in one fragment or several."""
    name, index = draw(st.sampled_from(["f", "g", "n__h", "unknown"])), draw(st.integers(0, 5))
    parts = draw(st.sampled_from(TEXTS_OF_CALLS))
    first = pb.ToolCallFragment(index=index, id=f"call_{draw(st.uuids())}", name=name, arguments_json=parts[0])
    rest = [pb.ToolCallFragment(index=index, arguments_json=part) for part in parts[1:]]
    return [pb.Event(delta=pb.Delta(tool_call=fragment, token_count=1)) for fragment in [first, *rest]]


PARTS = st.one_of(
    st.lists(TEXTS.map(content), min_size=1, max_size=4),
    st.lists(TEXTS.map(reasoning), min_size=1, max_size=3),
    calls(),
    st.just([pb.Event(delta=pb.Delta(token_count=1))]),
)
ENDINGS = st.sampled_from(["stop", "length", "filter", "error", "cancel"])
REASONS = {
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
    "filter": pb.FINISH_REASON_CONTENT_FILTER,
}


def encode(
    parts: list[list[pb.Event]], ending: str, options: dict[str, Any], *, starts: bool, is_slow: bool = False
) -> list[dict[str, Any]]:
    """Return the bodies of all events of a response, with a keep-alive after each part if it is slow."""
    body = {"model": "m", "input": "a", "tools": TOOLS, **options}
    call = read_responses(body, ReadOptions(False, Images(ImageLimits())))
    encoder = ResponseEncoder(call, ResponseHead("resp_1", 1, "req", "fp_1"))
    encoder.seal = lambda text: f"sealed {len(text)}"
    frames: list[bytes] = []
    encoder.on_event = frames.append
    if starts or ending in REASONS:
        encoder.encode([pb.Event(started=pb.Started(prompt_tokens=1))])
        for part in parts:
            encoder.encode(part)
            if is_slow:
                encoder.keep_alive()
    if ending == "error":
        encoder.error(unavailable(Message("worker_lost")))
    elif ending == "cancel":
        encoder.cancel()
    else:
        usage = pb.Usage(prompt_tokens=1, completion_tokens=2)
        encoder.encode([pb.Event(finish=pb.Finish(reason=REASONS[ending])), pb.Event(usage=usage)])
    bodies = [orjson.loads(frame.split(b"\ndata: ", 1)[1]) for frame in frames]
    assert all(
        frame.startswith(f"event: {body['type']}\n".encode()) for frame, body in zip(frames, bodies, strict=True)
    )
    assert bodies[-1]["response"] == encoder.response
    return bodies


@pytest.fixture(scope="module")
def events_keep_alive() -> Iterator[None]:
    """Let every keep-alive be an event, as after a minute of silence."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "EVENT_SECONDS", 0.0)
        yield


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    parts=st.lists(PARTS, max_size=6),
    ending=ENDINGS,
    summary=st.booleans(),
    sealed=st.booleans(),
    most=st.none() | st.integers(1, 3),
    starts=st.booleans(),
    is_slow=st.booleans(),
)
@pytest.mark.usefixtures("events_keep_alive")
def test_openais_helper_accepts_every_sequence(
    parts: list[list[pb.Event]],
    ending: str,
    *,
    summary: bool,
    sealed: bool,
    most: int | None,
    starts: bool,
    is_slow: bool,
) -> None:
    options = {
        "reasoning": {"summary": "auto"} if summary else {},
        "include": ["reasoning.encrypted_content"] if sealed else [],
        "max_tool_calls": most,
    }
    bodies = encode(parts, ending, options, starts=starts, is_slow=is_slow)
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    for body in bodies:
        # It raises for a wrong order, for a wrong index or id, and for an item without an end.
        state.handle_event(construct_type(type_=EVENT, value=body))
    assert [body["sequence_number"] for body in bodies] == list(range(len(bodies)))
    assert [body["type"] in TERMINAL for body in bodies] == [False] * (len(bodies) - 1) + [True]
    final = bodies[-1]["response"]
    added = [body["item"]["id"] for body in bodies if body["type"] == "response.output_item.added"]
    done = [body["item"] for body in bodies if body["type"] == "response.output_item.done"]
    assert added == [item["id"] for item in done]
    assert len(set(added)) == len(added)
    assert final["output"] == done
    assert len([item for item in done if item["type"].endswith("_call")]) <= (most or 100)
    cut = [item for item in done if item["status"] != "completed"]
    assert cut in ([], done[-1:])
    written = "".join(event.delta.content for part in parts for event in part)
    if starts or ending in REASONS:
        texts = [item["content"][0]["text"] for item in done if item["type"] == "message"]
        assert "".join(texts) == written
    status = {"stop": "completed", "length": "incomplete", "filter": "incomplete", "error": "failed"}
    assert final["status"] == status.get(ending, "cancelled")


@pytest.mark.parametrize("ending", ["error", "cancel"])
def test_a_response_that_never_began_has_a_beginning_and_an_end(ending: str) -> None:
    kinds = [body["type"] for body in encode([], ending, {}, starts=False)]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] in TERMINAL


def test_a_long_silence_is_broken_by_an_event_because_codex_does_not_count_comments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = read_responses({"model": "m", "input": "a"}, ReadOptions(False, Images(ImageLimits())))
    encoder = ResponseEncoder(call, ResponseHead("resp_1", 1, "req", "fp_1"))
    monkeypatch.setattr(stream, "EVENT_SECONDS", 0.0)
    assert encoder.keep_alive() == KEEP_ALIVE, "the first event is response.created"
    encoder.encode([pb.Event(started=pb.Started(prompt_tokens=1))])
    kept = [encoder.keep_alive() for _ in range(2)]
    bodies = [orjson.loads(frame.split(b"\ndata: ", 1)[1]) for frame in kept]
    assert [(body["type"], body["sequence_number"]) for body in bodies] == [
        ("response.in_progress", 2),
        ("response.in_progress", 3),
    ]
    monkeypatch.setattr(stream, "EVENT_SECONDS", 3600.0)
    assert encoder.keep_alive() == KEEP_ALIVE, "comments break shorter silences"
    usage = pb.Usage(prompt_tokens=1, completion_tokens=2)
    encoder.encode([pb.Event(finish=pb.Finish(reason=pb.FINISH_REASON_STOP)), pb.Event(usage=usage)])
    monkeypatch.setattr(stream, "EVENT_SECONDS", 0.0)
    assert encoder.keep_alive() == KEEP_ALIVE, "nothing follows the last event"


@pytest.mark.parametrize("arguments", TEXTS_OF_CALLS)
def test_every_input_of_a_custom_tool_can_be_sent(arguments: list[str]) -> None:
    assert orjson.dumps(custom_input("".join(arguments)))
