"""The error that a request to a model ends with."""

from __future__ import annotations


class RequestError(Exception):
    """A request is rejected or has failed.

    The text of the exception is `REASON: message`, as Triton passes it on to the worker.
    """

    def __init__(self, reason: str, message: str) -> None:
        """`reason` is one of those that the model's contract lists; `message` is for the caller."""
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
