"""The object `logprobs` of a choice of OpenAI's completions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vilix.inference.v1 import inference_service_pb2 as pb


class Logprobs:
    """Makes the objects of one choice, which say of each token where it begins in the text."""

    def __init__(self, offset: int) -> None:
        """`offset` is where the first token begins, in characters."""
        self._offset = offset

    def of(self, entries: Iterable[pb.TokenLogprob]) -> dict[str, Any]:
        """Return the object for the next tokens."""
        found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for entry in entries:
            found["tokens"].append(entry.token)
            found["token_logprobs"].append(entry.logprob)
            found["top_logprobs"].append({top.token: top.logprob for top in entry.top})
            found["text_offset"].append(self._offset)
            self._offset += len(entry.token)
        return found
