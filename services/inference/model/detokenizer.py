"""Converts token ids to text, while they stream, without ever splitting a character."""

from __future__ import annotations

import codecs

from services.inference.model.tokenizer import ModelTokenizer


class Detokenizer:
    """Detokenizes one choice. A character whose bytes are spread over tokens is returned with the last of them.

    A character that the end of the generation truncates is left out, although its tokens count. U+FFFD replaces only
    bytes of the model that are not UTF-8.
    """

    def __init__(self, tokenizer: ModelTokenizer, *, skip_special_tokens: bool = True) -> None:
        """Start a text. With `skip_special_tokens`, special tokens have no text."""
        self._tokenizer = tokenizer
        self.skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        """The tokens without text."""
        self._whole = tokenizer.whole_texts
        self._is_incomplete = False
        """Whether the last token has ended within a character."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> str:
        """Return the characters that a token completes."""
        if token_id in self.skipped:
            return ""
        if not self._is_incomplete:
            text = self._whole.get(token_id)
            if text is not None:
                return text
        token_bytes = self._tokenizer.bytes_of(token_id)
        text = self._decoder.decode(token_bytes)
        was_incomplete, self._is_incomplete = self._is_incomplete, bool(self._decoder.getstate()[0])
        if not was_incomplete and not self._is_incomplete:
            self._whole[token_id] = text
        return text
