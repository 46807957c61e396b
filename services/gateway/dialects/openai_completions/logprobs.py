"""The object `logprobs` of a choice of OpenAI's completions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vilix.inference.v1 import inference_service_pb2 as pb


class Logprobs:
    """Makes the objects of one choice, which have the offset of each token in the text."""

    def __init__(self, offset: int) -> None:
        """Begin at `offset`, the position of the first token in characters."""
        self._offset = offset

    def of(self, entries: Iterable[pb.TokenLogprob]) -> dict[str, Any]:
        """Return the object for the next tokens."""
        logprobs: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for entry in entries:
            logprobs["tokens"].append(entry.token)
            logprobs["token_logprobs"].append(entry.logprob)
            logprobs["top_logprobs"].append({top.token: top.logprob for top in entry.top})
            logprobs["text_offset"].append(self._offset)
            self._offset += len(entry.token)
        return logprobs
