"""The content of a request and its response, for the log of an operator who has switched that on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import json_format
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.collector import Choice, ResponseCollector


class Transcript:
    """Records the content of one request and its response, in the same form for every API."""

    def __init__(self, request: pb.GenerateRequest) -> None:
        """Record the messages or the prompt of `request`, without images."""
        prompts = [request.prompt, *(further.text for further in request.further_prompts)]
        self._messages: Final = [_message(message) for message in request.messages] or (
            prompts if request.further_prompts else request.prompt
        )
        self._response: Final = ResponseCollector(max(1, request.n) * (1 + len(request.further_prompts)))

    def add(self, events: Iterable[pb.Event]) -> None:
        """Record events of the worker."""
        self._response.add(events)

    def fields(self) -> dict[str, Any]:
        """Return fields of the request's log line: `messages`, or a prompt, and the `choices` generated so far."""
        return {"messages": self._messages, "choices": [_generated(choice) for choice in self._response.begun]}


def _message(message: pb.Message) -> dict[str, Any]:
    without_images = pb.Message()
    without_images.CopyFrom(message)
    for part in without_images.content:
        if part.HasField("image"):
            part.image.ClearField("data")
    return dict(json_format.MessageToDict(without_images, preserving_proto_field_name=True))


def _generated(choice: Choice) -> dict[str, Any]:
    """Return what was generated for a choice so far, with the worker's names of fields, as messages have them."""
    generated: dict[str, Any] = {"content": "".join(choice.content)}
    if choice.reasoning:
        generated["reasoning_content"] = "".join(choice.reasoning)
    if choice.tool_calls:
        generated["tool_calls"] = [
            {"id": call.id, "name": call.name, "arguments_json": call.arguments_json}
            for _, call in sorted(choice.tool_calls.items())
        ]
    return generated
