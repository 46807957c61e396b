"""What a request said and what it was answered, for the log of an operator who switched that on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import json_format
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.chat_objects import WholeAnswer


class Transcript:
    """Takes down one answer."""

    def __init__(self, request: pb.GenerateRequest) -> None:
        """Of a request that is about to be answered."""
        self._messages: Final = [_message(message) for message in request.messages]
        self._answer: Final = WholeAnswer(
            answer_id="", created=0, model=request.model, choices=max(1, request.n), with_logprobs=False
        )

    def add(self, events: Iterable[pb.Event]) -> None:
        """Take note of what the worker produced."""
        for event in events:
            self._answer.add(event)

    def fields(self) -> dict[str, Any]:
        """Fields of the request's log line: `messages`, and `answers` as far as they came. Images are left out."""
        answers = [choice["message"] for choice in self._answer.to_object()["choices"]]
        return {"messages": self._messages, "answers": answers}


def _message(message: pb.Message) -> dict[str, Any]:
    shown = pb.Message()
    shown.CopyFrom(message)
    for part in shown.content:
        if part.HasField("image"):
            part.image.ClearField("data")
    return dict(json_format.MessageToDict(shown, preserving_proto_field_name=True))
