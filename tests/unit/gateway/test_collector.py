"""The collection of a generation that is sent when it is complete."""

from __future__ import annotations

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.collector import ResponseCollector


def test_the_fragments_of_a_call_are_kept_until_its_end() -> None:
    collector, texts = ResponseCollector(1), ['{"city":', '"Tehran"', "}"]
    for text in texts:
        fragment = pb.ToolCallFragment(id="c", name="f", arguments_json=text)
        collector.add([pb.Event(delta=pb.Delta(tool_call=fragment))])
    call = collector.choices[0].tool_calls[0]
    # A text that grew with each fragment would be copied each time.
    assert call.fragments == texts
    assert call.arguments_json == '{"city":"Tehran"}'
