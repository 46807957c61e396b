"""Log probabilities of generated tokens, which travel with the text that their tokens complete."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.tokenizer import ModelTokenizer
from services.triton_client import EngineOutput


class TokenLogprobs:
    """The log probabilities of one choice that wait for their text.

    They must not run ahead of it: tokens that spell a stop string, or a part of one, are not shown in this way either.
    """

    def __init__(self, tokenizer: ModelTokenizer) -> None:
        """Empty."""
        self._tokenizer: Final = tokenizer
        self._waiting: deque[tuple[int, pb.TokenLogprob]] = deque()
        self._incomplete: list[pb.TokenLogprob] = []
        self._length = 0

    def note(self, output: EngineOutput, texts: Sequence[str]) -> None:
        """Take those of the tokens with these `texts`, the first ones of `output`, if it has any."""
        if output.logprobs is None:
            return
        for place, (text, logprob) in enumerate(zip(texts, output.logprobs, strict=False)):
            self._length += len(text)
            self._incomplete.append(self._entry(output, place, logprob))
            if text:
                # A token that completes no character is shown with the one that does.
                self._waiting.extend((self._length, entry) for entry in self._incomplete)
                self._incomplete.clear()

    def released(self, length: int) -> list[pb.TokenLogprob]:
        """Those of the text's first `length` characters that were not released before."""
        released = []
        while self._waiting and self._waiting[0][0] <= length:
            released.append(self._waiting.popleft()[1])
        return released

    def rest(self) -> list[pb.TokenLogprob]:
        """All others, for a text that has been shown to its end."""
        rest = [entry for _, entry in self._waiting] + self._incomplete
        self._waiting.clear()
        self._incomplete.clear()
        return rest

    def _entry(self, output: EngineOutput, place: int, logprob: float) -> pb.TokenLogprob:
        token_id = output.token_ids[place]
        token, token_bytes = self._spelled(token_id)
        entry = pb.TokenLogprob(token_id=token_id, token=token, token_bytes=token_bytes, logprob=logprob)
        if output.top_token_ids is not None and output.top_logprobs is not None:
            for top_id, top_logprob in zip(output.top_token_ids[place], output.top_logprobs[place], strict=True):
                token, token_bytes = self._spelled(top_id)
                entry.top.add(token_id=top_id, token=token, token_bytes=token_bytes, logprob=top_logprob)
        return entry

    def _spelled(self, token_id: int) -> tuple[str, bytes]:
        token_bytes = self._tokenizer.bytes_of(token_id)
        return token_bytes.decode(errors="replace"), token_bytes
