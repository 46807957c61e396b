"""Log probabilities of generated tokens, which travel with the text that their tokens complete."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence, Set
from typing import Final, NamedTuple

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.tokenizer import ModelTokenizer
from services.worker.triton_client import EngineOutput


class _Token(NamedTuple):
    begin: int
    """Where the characters that it completes begin in the text."""
    end: int
    entry: pb.TokenLogprob


class TokenLogprobs:
    """The log probabilities of one choice that wait until it is clear what their text is.

    Only tokens of the answer are shown, as OpenAI's `logprobs.content` describes the tokens of `content`: not those of
    a thought, shown or hidden, of a call and its notation, of a stop string or of special tokens. Their bytes, joined,
    are the answer; a token that spells a part of it and a part of something else is left out.
    """

    def __init__(self, tokenizer: ModelTokenizer, skipped: Set[int] = frozenset()) -> None:
        """`skipped` are tokens that have no text."""
        self._tokenizer: Final = tokenizer
        self._skipped: Final = skipped
        self._waiting: deque[_Token] = deque()
        self._incomplete: list[pb.TokenLogprob] = []
        self._length = 0
        self._shown_from = 0
        self._shown_to = 0

    def note(self, output: EngineOutput, texts: Sequence[str]) -> None:
        """Take those of the tokens with these `texts`, the first ones of `output`, if it has any."""
        if output.logprobs is None:
            return
        for place, (text, logprob) in enumerate(zip(texts, output.logprobs, strict=False)):
            if output.token_ids[place] not in self._skipped:
                self._incomplete.append(self._entry(output, place, logprob))
            if text:
                # A token that completes no character is shown with the one that does.
                begin, self._length = self._length, self._length + len(text)
                self._waiting.extend(_Token(begin, self._length, entry) for entry in self._incomplete)
                self._incomplete.clear()

    def shown(self, start: int, end: int) -> list[pb.TokenLogprob]:
        """Those that the text's characters from `start` to `end` complete, which are the answer's next ones."""
        if start != self._shown_to:
            self._shown_from = start
        self._shown_to = end
        return [token.entry for token in self._take(end) if token.begin >= self._shown_from]

    def forget(self, end: int) -> None:
        """Drop those of the text's first `end` characters: it is clear what they are, and the answer's were shown."""
        self._take(end)

    def _take(self, end: int) -> list[_Token]:
        taken = []
        while self._waiting and self._waiting[0].end <= end:
            taken.append(self._waiting.popleft())
        return taken

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
