"""The error that a request to a model ends with."""

from __future__ import annotations

import json

Parameter = str | int | float


class RequestError(Exception):
    """A request is rejected or has failed.

    The text of the exception is `REASON: JSON`, as Triton passes it on to the worker. JSON is an object with the
    `message_id` and the `parameters` of a message, to which the worker, which has the catalogue, gives a text.
    """

    def __init__(self, reason: str, message_id: str, /, **parameters: Parameter) -> None:
        """`reason` is one of those that the model's contract lists; the message is one of services.runtime.messages."""
        message = json.dumps({"message_id": message_id, "parameters": parameters}, ensure_ascii=False)
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message_id = message_id
        self.parameters = parameters
