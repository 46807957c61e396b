"""The object `logprobs` of a choice of OpenAI's completions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from vilix.inference.v1 import inference_service_pb2 as pb


class Logprobs:
    """Makes the objects of one choice, which have the offset of each token in the text."""

    def __init__(self, offset: int) -> None:
        """Begin at `offset`, the position of the first token in characters."""
        self._offset = offset

    def of(self, entries: Iterable[pb.TokenLogprob], prompt: Sequence[pb.TokenLogprob] = ()) -> dict[str, Any]:
        """Return the object for the next tokens, behind those of the `prompt`, of which the first has no value."""
        logprobs: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for place, entry in enumerate([*prompt, *entries]):
            has_value = place > 0 or not prompt
            logprobs["tokens"].append(entry.token)
            logprobs["token_logprobs"].append(entry.logprob if has_value else None)
            logprobs["top_logprobs"].append({top.token: top.logprob for top in entry.top} if has_value else None)
            logprobs["text_offset"].append(self._offset)
            self._offset += len(entry.token)
        return logprobs


def prompt_text(prompt: Iterable[pb.TokenLogprob]) -> str:
    """Return the text of a prompt's tokens."""
    return b"".join(entry.token_bytes for entry in prompt).decode(errors="replace")
