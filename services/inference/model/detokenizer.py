"""Token ids to text, while they come, without ever splitting a character."""

from __future__ import annotations

import codecs

from services.inference.model.tokenizer import ModelTokenizer


class Detokenizer:
    """The text of one choice. A character whose bytes are spread over tokens appears with the last of them.

    A character that the answer's end cut off is left out: its tokens are counted, and a client never sees a piece of
    it. U+FFFD appears only where the model wrote bytes that are no UTF-8.
    """

    def __init__(self, tokenizer: ModelTokenizer, *, skip_special_tokens: bool = True) -> None:
        """With `skip_special_tokens`, special tokens have no text."""
        self._tokenizer = tokenizer
        self.skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        """The tokens that have no text."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> str:
        """The characters that this token completes."""
        if token_id in self.skipped:
            return ""
        return self._decoder.decode(self._tokenizer.bytes_of(token_id))
