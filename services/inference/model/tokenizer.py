"""A model's tokenizer: text to ids, and ids to the exact bytes that they stand for."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from services.worker.triton_kit.checkpoint_file import read_object


def _byte_alphabet() -> dict[str, int]:
    """Return GPT-2's table of characters that stand for bytes: printable Latin-1 as itself, others above U+00FF."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES_OF_LETTERS: Final = _byte_alphabet()


SHORT: Final = 4096
"""Characters that are encoded so fast that others can wait."""
BATCH: Final = 512
"""Parts that are encoded together: as many as can be handed over and back before others have waited for long."""


class TooManyTokensError(Exception):
    """A text has more tokens than it may have: `count`."""

    def __init__(self, count: int) -> None:
        """Of so many tokens."""
        super().__init__(count)
        self.count = count


class ModelTokenizer:
    """The byte-level BPE tokenizer of a model directory. Calls may come from several threads."""

    def __init__(self, directory: Path) -> None:
        """Read tokenizer.json, tokenizer_config.json and generation_config.json.

        Raises FileNotFoundError, or ValueError for a tokenizer that is not byte-level BPE: for others, what bytes a
        token stands for depends on its neighbours.
        """
        self._tokenizer: Final = _load(directory / "tokenizer.json")
        added = self._tokenizer.get_added_tokens_decoder()
        self._bytes: Final = _bytes_by_id(
            self._tokenizer.get_vocab(with_added_tokens=True), {i: token.content for i, token in added.items()}
        )
        self._added_ids: Final = {token.content: token_id for token_id, token in added.items()}
        self.special_ids: Final = frozenset(token_id for token_id, token in added.items() if token.special)
        # Also those that are not marked as special: `</think>`, `<tool_call>` and their like are not, in many
        # checkpoints. Runs of spaces, which some tokenizers add too, are how the model reads indented text, and control
        # nothing.
        self.control_ids: Final = frozenset(i for i, token in added.items() if len(token.content.strip()) > 1)
        """Tokens that text can become as a whole, and that no caller's text does."""
        self._added_texts: Final = tuple(sorted(added[token_id].content for token_id in self.control_ids))
        self._longest_added: Final = max(map(len, self._added_texts), default=0)
        self._all_added: Final = "\n".join(self._added_texts)
        self._beginnings: Final = _parts(self._added_texts, lambda text, size: text[:size])
        self._endings: Final = _parts(self._added_texts, lambda text, size: text[-size:])
        self._outermost: Final = {letter for text in self._added_texts for letter in (text[0], text[-1])}
        # Digits only: templates may change the case of letters.
        self._guard: Final = f"\ufdd0{secrets.randbelow(10**18):018}"
        self._edge: Final = f"\ufdd1{secrets.randbelow(10**18):018}"
        self._escaped: Final = {json.dumps(mark)[1:-1]: mark for mark in (self._guard, self._edge)}
        self.end_ids: Final = self._end_ids(directory)

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are, added tokens included."""
        return len(self._bytes)

    def guard(self, text: str) -> str:
        """Mark what looks like an added token in a caller's text, so that `encode` takes it as mere text.

        All added tokens count, also those that the tokenizer does not call special, such as `</think>` or
        `<tool_call>`. Marked is also a text that becomes (a part of) one with what a template puts beside it; the space
        around a text is outside, since templates take it away.
        """
        inner = text.strip()
        is_part = 0 < len(inner) < self._longest_added and inner in self._all_added
        if not is_part and not any(letter in text for letter in self._outermost):
            return text
        # Not by a regular expression: one look through a long text would hold up the process's other threads.
        if places := {place + 1 for added in self._added_texts for place in _places(text, added)}:
            text = self._guard.join(text[start:end] for start, end in pairwise([0, *sorted(places), len(text)]))
        for end in sorted({len(text), len(text.rstrip())}, reverse=True):
            if text.endswith(self._beginnings, 0, end):
                text = text[:end] + self._edge + text[end:]
        for start in sorted({0, len(text) - len(text.lstrip())}, reverse=True):
            if text.startswith(self._endings, start):
                text = text[:start] + self._edge + text[start:]
        if is_part and self._edge not in text and self._guard not in text:
            # A template may put both sides of a token around it.
            text = text.replace(inner[0], inner[0] + self._edge, 1)
        return text

    def guard_values(self, value: Any, *, keep: Callable[[str], bool] = lambda _: False) -> Any:
        """The same for every text in a JSON value, the names of fields among them. Not for one nested very deeply.

        A text for which `keep` is true stays as it is: templates compare some with words of their own.
        """
        if isinstance(value, str):
            return value if keep(value) and value not in self._added_ids else self.guard(value)
        if isinstance(value, list):
            return [self.guard_values(entry, keep=keep) for entry in value]
        if isinstance(value, dict):
            return {
                self.guard_values(name, keep=keep): self.guard_values(inner, keep=keep) for name, inner in value.items()
            }
        return value

    def unguard(self, text: str) -> str:
        """Remove the marks that `guard` made."""
        return self._unescaped(text).replace(self._guard, "").replace(self._edge, "")

    def _unescaped(self, text: str) -> str:
        """The marks as they were, where a template wrote a text as JSON in ASCII."""
        for escaped, mark in self._escaped.items():
            text = text.replace(escaped, mark)
        return text

    def encode(self, text: str, *, most: int | None = None) -> list[int]:
        """The ids of a prompt. Added tokens in it are those tokens, except where `guard` marked them.

        Raises TooManyTokensError when a long text has more than `most`.
        """
        text = self._with_edges_guarded(self._unescaped(text))
        if len(text) <= SHORT and self._guard not in text:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        token_ids: list[int] = []
        count = 0
        # The mark stands inside the added token's text, which so comes apart.
        parts = text.split(self._guard)
        for start in range(0, len(parts), BATCH):
            # Unlike `encode`, this lets other threads run meanwhile.
            encodings = self._tokenizer.encode_batch_fast(parts[start : start + BATCH], add_special_tokens=False)
            count += sum(map(len, encodings))
            if most is None or count <= most:
                token_ids += [token_id for encoding in encodings for token_id in encoding.ids]
        if most is not None and count > most:
            raise TooManyTokensError(count)
        return token_ids

    def _with_edges_guarded(self, text: str) -> str:
        """A guard takes the place of each edge at which an added token would arise.

        The others go: a guard between two letters can change into which tokens they fall.
        """
        pieces = text.split(self._edge)
        if len(pieces) == 1:
            return text
        whole, place = self.unguard(text), 0
        guarded = pieces[:1]
        for before, piece in pairwise(pieces):
            place += len(self.unguard(before))
            arises = any(
                whole.find(added, max(0, place - len(added) + 1), place + len(added) - 1) >= 0
                for added in self._added_texts
            )
            guarded += [self._guard if arises else "", piece]
        return "".join(guarded)

    def bytes_of(self, token_id: int) -> bytes:
        """Return the bytes of one token; empty for an unknown id (some checkpoints pad the output layer)."""
        return self._bytes[token_id] if 0 <= token_id < len(self._bytes) else b""

    def added_id(self, text: str) -> int | None:
        """The id of a token that was added to the vocabulary as it stands, such as a tag; None when there is none."""
        return self._added_ids.get(text)

    def _end_ids(self, directory: Path) -> frozenset[int]:
        """The tokens that end an answer: generation_config.json's, or else tokenizer_config.json's eos_token."""
        named = read_object(directory / "generation_config.json", optional=True).get("eos_token_id")
        if named is not None:
            return frozenset([named] if isinstance(named, int) else named)
        eos = read_object(directory / "tokenizer_config.json", optional=True).get("eos_token")
        token_id = self._tokenizer.token_to_id(eos["content"] if isinstance(eos, dict) else eos) if eos else None
        return frozenset(() if token_id is None else (token_id,))


def _parts(texts: Iterable[str], part: Callable[[str, int], str]) -> tuple[str, ...]:
    """All parts of texts but the whole ones."""
    return tuple({part(text, size) for text in texts for size in range(1, len(text))})


def _places(text: str, part: str) -> Iterator[int]:
    """Where `part` begins in a text; where one overlaps another, too."""
    place = text.find(part)
    while place >= 0:
        yield place
        place = text.find(part, place + 1)


def _load(path: Path) -> Tokenizer:
    content = read_object(path)
    for part, known in (("model", "BPE"), ("decoder", "ByteLevel")):
        kind = (content.get(part) or {}).get("type")
        if kind != known:
            raise ValueError(f"{path} has the {part} {kind}; only {known} is known here")
    try:
        if content.get("normalizer") and any(token.get("normalized") for token in content.get("added_tokens") or ()):
            # Such a token is found in normalized text, where letters that only look alike can become it.
            content["added_tokens"] = [{**token, "normalized": False} for token in content["added_tokens"]]
            return Tokenizer.from_str(json.dumps(content))
        return Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001  # the library raises nothing more precise
        raise ValueError(f"{path} is no tokenizer: {error}") from None


def _bytes_by_id(vocabulary: Mapping[str, int], added: Mapping[int, str]) -> list[bytes]:
    table = [b""] * (max(vocabulary.values()) + 1)
    for letters, token_id in vocabulary.items():
        if token_id in added or not all(letter in BYTES_OF_LETTERS for letter in letters):
            table[token_id] = added.get(token_id, letters).encode()
        else:
            table[token_id] = bytes(BYTES_OF_LETTERS[letter] for letter in letters)
    return table
