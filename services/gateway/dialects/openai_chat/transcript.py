"""What a request said and what it was answered, for the log of an operator who switched that on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import json_format
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.openai_chat.chat_objects import WholeAnswer
from services.gateway.dialects.openai_chat.chat_request import ChatRequest


class Transcript:
    """Takes down one answer."""

    def __init__(self, request: ChatRequest) -> None:
        """Of a request that is about to be answered."""
        asked = request.generate
        self._messages: Final = [_message(message) for message in asked.messages] or asked.prompt
        self._answer: Final = WholeAnswer(request, answer_id="", created=0)

    def add(self, events: Iterable[pb.Event]) -> None:
        """Take note of what the worker produced."""
        for event in events:
            self._answer.add(event)

    def fields(self) -> dict[str, Any]:
        """Fields of the request's log line: `messages`, or a prompt, and `answers` as far as they came, without images."""
        answers = [choice["message"] for choice in self._answer.to_object()["choices"]]
        return {"messages": self._messages, "answers": answers}


def _message(message: pb.Message) -> dict[str, Any]:
    shown = pb.Message()
    shown.CopyFrom(message)
    for part in shown.content:
        if part.HasField("image"):
            part.image.ClearField("data")
    return dict(json_format.MessageToDict(shown, preserving_proto_field_name=True))
