"""A model's tokenizer: converts text to token ids, and token ids to their exact bytes."""

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


BYTES_OF_CHARACTERS: Final = _byte_alphabet()
SHORT: Final = 4096
"""The most characters that are encoded while the GIL is held, because it takes little time."""
BATCH: Final = 512
"""The parts that are encoded together: their conversion to and from the library holds the GIL."""


class TooManyTokensError(Exception):
    """A text has more tokens than it may have."""

    def __init__(self, count: int) -> None:
        """Make the error of a text with `count` tokens."""
        super().__init__(count)
        self.count = count


class ModelTokenizer:
    """The byte-level BPE tokenizer of a model directory. Methods may be called from several threads."""

    def __init__(self, directory: Path) -> None:
        """Read tokenizer.json, tokenizer_config.json and generation_config.json.

        Raises FileNotFoundError, or ValueError for a tokenizer that is not byte-level BPE: for others, the bytes of a
        token depend on its neighbours.
        """
        self._tokenizer: Final = _load(directory / "tokenizer.json")
        added = self._tokenizer.get_added_tokens_decoder()
        self._bytes: Final = _bytes_by_id(
            self._tokenizer.get_vocab(with_added_tokens=True), {i: token.content for i, token in added.items()}
        )
        self.whole_texts: Final[dict[int, str]] = {}
        """The texts of tokens of whole characters, as far as a detokenizer has met them."""
        self._added_ids: Final = {token.content: token_id for token_id, token in added.items()}
        self.special_ids: Final = frozenset(token_id for token_id, token in added.items() if token.special)
        # Added tokens count even if they are not marked as special: in many checkpoints, `</think>` and `<tool_call>`
        # are not. Runs of spaces, which some tokenizers add, are ordinary tokens of indented text.
        self.control_ids: Final = frozenset(i for i, token in added.items() if len(token.content.strip()) > 1)
        """Control tokens: their spelling in text becomes the token, except in text of callers."""
        self._added_texts: Final = tuple(sorted(added[token_id].content for token_id in self.control_ids))
        self._longest_added: Final = max(map(len, self._added_texts), default=0)
        self._all_added: Final = "\n".join(self._added_texts)
        self._beginnings: Final = _parts(self._added_texts, lambda text, size: text[:size])
        self._endings: Final = _parts(self._added_texts, lambda text, size: text[-size:])
        self._outermost: Final = {character for text in self._added_texts for character in (text[0], text[-1])}
        # Digits only, because templates may change the case of letters.
        self._guard: Final = f"\ufdd0{secrets.randbelow(10**18):018}"
        self._edge: Final = f"\ufdd1{secrets.randbelow(10**18):018}"
        self._escaped: Final = {json.dumps(mark)[1:-1]: mark for mark in (self._guard, self._edge)}
        self.end_ids: Final = self._end_ids(directory)

    @property
    def vocabulary_size(self) -> int:
        """The number of ids, those of added tokens included."""
        return len(self._bytes)

    def guard(self, text: str) -> str:
        """Mark spellings of control tokens in a caller's text, so that `encode` reads them as ordinary text.

        A text that may become a control token, or a part of one, together with text of the template around it is marked
        as well. The space around a text does not count as part of it, because templates strip it (docs/adr/0008).
        """
        inner = text.strip()
        is_part = 0 < len(inner) < self._longest_added and inner in self._all_added
        if not is_part and not any(character in text for character in self._outermost):
            return text
        # Not with a regular expression, whose search through a long text would block the process's other threads.
        if offsets := {offset + 1 for added in self._added_texts for offset in _offsets(text, added)}:
            text = self._guard.join(text[start:end] for start, end in pairwise([0, *sorted(offsets), len(text)]))
        for end in sorted({len(text), len(text.rstrip())}, reverse=True):
            if text.endswith(self._beginnings, 0, end):
                text = text[:end] + self._edge + text[end:]
        for start in sorted({0, len(text) - len(text.lstrip())}, reverse=True):
            if text.startswith(self._endings, start):
                text = text[:start] + self._edge + text[start:]
        if is_part and self._edge not in text and self._guard not in text:
            # The text may be the middle of a token, with text of the template on both sides.
            text = text.replace(inner[0], inner[0] + self._edge, 1)
        return text

    def guard_values(self, value: Any, *, keep: Callable[[str], bool] = lambda _: False) -> Any:
        """Return a JSON value with `guard` applied to all its texts, names of fields included.

        The value must not be nested very deeply. Texts for which `keep` returns True are left unchanged, because
        templates compare them with words of their own.
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
        """Remove the marks of `guard`."""
        return self._unescaped(text).replace(self._guard, "").replace(self._edge, "")

    def _unescaped(self, text: str) -> str:
        """Restore the marks where a template has escaped them in JSON."""
        for escaped, mark in self._escaped.items():
            text = text.replace(escaped, mark)
        return text

    def encode(self, text: str, *, most: int | None = None) -> list[int]:
        """Return the ids of a prompt, in which unmarked spellings of control tokens become those tokens.

        Raises TooManyTokensError if a long text has more than `most` tokens.
        """
        text = self._resolve_edges(self._unescaped(text))
        if len(text) <= SHORT and self._guard not in text:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        token_ids: list[int] = []
        count = 0
        # A mark is inside the spelling of a control token, which is split there.
        parts = text.split(self._guard)
        for start in range(0, len(parts), BATCH):
            # Unlike `encode`, this releases the GIL.
            encodings = self._tokenizer.encode_batch_fast(parts[start : start + BATCH], add_special_tokens=False)
            count += sum(map(len, encodings))
            if most is None or count <= most:
                token_ids += [token_id for encoding in encodings for token_id in encoding.ids]
        if most is not None and count > most:
            raise TooManyTokensError(count)
        return token_ids

    def _resolve_edges(self, text: str) -> str:
        """Replace each edge mark by a guard if a control token would arise there, and remove the other edge marks.

        They are removed because a guard between two characters can change their tokens.
        """
        sections = text.split(self._edge)
        if len(sections) == 1:
            return text
        whole, offset = self.unguard(text), 0
        guarded = sections[:1]
        for before, section in pairwise(sections):
            offset += len(self.unguard(before))
            arises = any(
                whole.find(added, max(0, offset - len(added) + 1), offset + len(added) - 1) >= 0
                for added in self._added_texts
            )
            guarded += [self._guard if arises else "", section]
        return "".join(guarded)

    def bytes_of(self, token_id: int) -> bytes:
        """Return the bytes of one token; empty for an unknown id (some checkpoints pad the output layer)."""
        return self._bytes[token_id] if 0 <= token_id < len(self._bytes) else b""

    def added_id(self, text: str) -> int | None:
        """Return the id of the added token with the spelling `text`, such as a tag, or None if there is none."""
        return self._added_ids.get(text)

    def _end_ids(self, directory: Path) -> frozenset[int]:
        """Return the ids of end tokens: those of generation_config.json, or else tokenizer_config.json's eos_token."""
        named = read_object(directory / "generation_config.json", optional=True).get("eos_token_id")
        if named is not None:
            return frozenset([named] if isinstance(named, int) else named)
        eos = read_object(directory / "tokenizer_config.json", optional=True).get("eos_token")
        token_id = self._tokenizer.token_to_id(eos["content"] if isinstance(eos, dict) else eos) if eos else None
        return frozenset(() if token_id is None else (token_id,))


def _parts(texts: Iterable[str], part: Callable[[str, int], str]) -> tuple[str, ...]:
    """Return the parts of all sizes of `texts`, without the whole texts."""
    return tuple({part(text, size) for text in texts for size in range(1, len(text))})


def _offsets(text: str, part: str) -> Iterator[int]:
    """Yield the offsets of `part` in a text, overlapping occurrences included."""
    offset = text.find(part)
    while offset >= 0:
        yield offset
        offset = text.find(part, offset + 1)


def _load(path: Path) -> Tokenizer:
    content = read_object(path)
    for part, known in (("model", "BPE"), ("decoder", "ByteLevel")):
        kind = (content.get(part) or {}).get("type")
        if kind != known:
            raise ValueError(f"{path} has the {part} {kind}; only {known} is known here")
    try:
        if content.get("normalizer") and any(token.get("normalized") for token in content.get("added_tokens") or ()):
            # Such a token is matched in normalized text, where other characters that only look similar can become it.
            content["added_tokens"] = [{**token, "normalized": False} for token in content["added_tokens"]]
            return Tokenizer.from_str(json.dumps(content))
        return Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001  # the library raises nothing more precise
        raise ValueError(f"{path} is no tokenizer: {error}") from None


def _bytes_by_id(vocabulary: Mapping[str, int], added: Mapping[int, str]) -> list[bytes]:
    table = [b""] * (max(vocabulary.values()) + 1)
    for characters, token_id in vocabulary.items():
        if token_id in added or not all(character in BYTES_OF_CHARACTERS for character in characters):
            table[token_id] = added.get(token_id, characters).encode()
        else:
            table[token_id] = bytes(BYTES_OF_CHARACTERS[character] for character in characters)
    return table
