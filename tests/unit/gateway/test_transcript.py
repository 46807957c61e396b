"""The content of a request and its response in the log, in the same form for every API."""

from __future__ import annotations

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.transcript import Transcript


def test_choices_have_their_content_reasoning_and_tool_calls() -> None:
    transcript = Transcript(pb.GenerateRequest(prompt="hi", n=2))
    transcript.add(
        [
            pb.Event(delta=pb.Delta(index=0, reasoning_content="I think")),
            pb.Event(delta=pb.Delta(index=0, content="Hel")),
            pb.Event(delta=pb.Delta(index=0, content="lo")),
            pb.Event(delta=pb.Delta(index=1, tool_call=pb.ToolCallFragment(id="c", name="f", arguments_json="{}"))),
        ]
    )
    assert transcript.fields() == {
        "messages": "hi",
        "choices": [
            {"content": "Hello", "reasoning_content": "I think"},
            {"content": "", "tool_calls": [{"id": "c", "name": "f", "arguments_json": "{}"}]},
        ],
    }
