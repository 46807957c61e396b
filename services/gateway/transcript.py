"""What a request said and what it was answered, for the log of an operator who has switched that on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import json_format
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.openai_chat.whole import message_object


class Transcript:
    """Takes down one answer. Whatever API it is given by, it is logged in the house's form."""

    def __init__(self, request: pb.GenerateRequest) -> None:
        """Take down what is asked, without images."""
        self._messages: Final = [_message(message) for message in request.messages] or request.prompt
        self._answer: Final = ResponseCollector(max(1, request.n))

    def add(self, events: Iterable[pb.Event]) -> None:
        """Take down what the worker generated."""
        self._answer.add(events)

    def fields(self) -> dict[str, Any]:
        """Return fields of the request's log line: `messages`, or a prompt, and `answers` as far as they came."""
        return {"messages": self._messages, "answers": [message_object(choice) for choice in self._answer.begun]}


def _message(message: pb.Message) -> dict[str, Any]:
    shown = pb.Message()
    shown.CopyFrom(message)
    for part in shown.content:
        if part.HasField("image"):
            part.image.ClearField("data")
    return dict(json_format.MessageToDict(shown, preserving_proto_field_name=True))
