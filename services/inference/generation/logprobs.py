"""Log probabilities of generated tokens, which are sent with the text that the tokens complete."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence, Set
from typing import Final, NamedTuple

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.tokenizer import ModelTokenizer
from services.worker.triton_messages import EngineOutput


class _Token(NamedTuple):
    begin: int
    """The offset in the text of the characters that the token completes."""
    end: int
    entry: pb.TokenLogprob


class TokenLogprobs:
    """Holds the log probabilities of one choice until it is decided whether their text is part of the answer.

    Only tokens of the answer are reported, as in OpenAI's `logprobs.content`: no tokens of the reasoning, of a call and
    its notation, of a stop string, and no special tokens. Their joined bytes are the answer; a token that spells a part
    of the answer and a part of something else is left out.
    """

    def __init__(self, tokenizer: ModelTokenizer, skipped: Set[int] = frozenset()) -> None:
        """Start without tokens. `skipped` are tokens without text."""
        self._tokenizer: Final = tokenizer
        self._skipped: Final = skipped
        self._waiting: deque[_Token] = deque()
        self._incomplete: list[pb.TokenLogprob] = []
        self._length = 0
        self._run_start = 0
        """The offset at which the current uninterrupted part of the answer begins."""
        self._taken_to = 0

    def note(self, output: EngineOutput, texts: Sequence[str]) -> None:
        """Add the log probabilities, if any, of the first tokens of `output`, whose texts are `texts`."""
        if output.logprobs is None:
            return
        noted = entries(
            self._tokenizer, output.token_ids[: len(texts)], output.logprobs, output.top_token_ids, output.top_logprobs
        )
        for text, entry in zip(texts, noted, strict=False):
            if entry.token_id not in self._skipped:
                self._incomplete.append(entry)
            if text:
                # A token that completes no character is reported with the next one that does.
                begin, self._length = self._length, self._length + len(text)
                self._waiting.extend(_Token(begin, self._length, entry) for entry in self._incomplete)
                self._incomplete.clear()

    def take(self, start: int, end: int) -> list[pb.TokenLogprob]:
        """Return the entries of the text's characters from `start` to `end`, which are the next ones of the answer."""
        if start != self._taken_to:
            self._run_start = start
        self._taken_to = end
        return [token.entry for token in self._pop(end) if token.begin >= self._run_start]

    def forget(self, end: int) -> None:
        """Drop the entries of the text's first `end` characters, which are decided; those of the answer were taken."""
        self._pop(end)

    def _pop(self, end: int) -> list[_Token]:
        tokens = []
        while self._waiting and self._waiting[0].end <= end:
            tokens.append(self._waiting.popleft())
        return tokens


def entries(
    tokenizer: ModelTokenizer,
    token_ids: Sequence[int],
    logprobs: Sequence[float],
    top_token_ids: Sequence[Sequence[int]] | None,
    top_logprobs: Sequence[Sequence[float]] | None,
) -> list[pb.TokenLogprob]:
    """Return the entries of tokens with their log probabilities and those of the most probable ones at their places."""
    result = []
    for position, (token_id, logprob) in enumerate(zip(token_ids, logprobs, strict=False)):
        token, token_bytes = _text_and_bytes(tokenizer, token_id)
        entry = pb.TokenLogprob(token_id=token_id, token=token, token_bytes=token_bytes, logprob=logprob)
        if top_token_ids is not None and top_logprobs is not None:
            for top_id, top_logprob in zip(top_token_ids[position], top_logprobs[position], strict=True):
                token, token_bytes = _text_and_bytes(tokenizer, top_id)
                entry.top.add(token_id=top_id, token=token, token_bytes=token_bytes, logprob=top_logprob)
        result.append(entry)
    return result


def _text_and_bytes(tokenizer: ModelTokenizer, token_id: int) -> tuple[str, bytes]:
    token_bytes = tokenizer.bytes_of(token_id)
    return token_bytes.decode(errors="replace"), token_bytes
