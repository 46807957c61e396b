"""A model's tokenizer: text to ids, and ids to the exact bytes that they stand for."""

from __future__ import annotations

import json
import secrets
from functools import cached_property
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer


def _byte_alphabet() -> dict[str, int]:
    """The letters in which byte-level BPE writes bytes (GPT-2's table): printable Latin-1 as itself, the rest above it."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES_OF_LETTERS: Final = _byte_alphabet()


class ModelTokenizer:
    """The byte-level BPE tokenizer of a model directory. Calls may come from several threads."""

    def __init__(self, directory: Path) -> None:
        """Read tokenizer.json and generation_config.json.

        Raises FileNotFoundError, or ValueError for a tokenizer that is not byte-level BPE: for others, what bytes a token
        stands for depends on its neighbours.
        """
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; a model directory needs it")
        self._tokenizer: Final = Tokenizer.from_file(str(path))
        decoder = json.loads(path.read_text())["decoder"] or {}
        if decoder.get("type") != "ByteLevel":
            raise ValueError(f"{path} has the decoder {decoder.get('type')}; only ByteLevel is known here")
        added = self._tokenizer.get_added_tokens_decoder()
        self._added: Final = {token_id: token.content for token_id, token in added.items()}
        self.special_ids: Final = frozenset(token_id for token_id, token in added.items() if token.special)
        self._special_texts: Final = tuple(added[token_id].content for token_id in self.special_ids)
        self._guard: Final = f"\ufdd0{secrets.token_hex(8)}"
        self.end_ids: Final = _end_ids(directory)

    @cached_property
    def vocabulary_size(self) -> int:
        """How many ids there are, added tokens included."""
        return max(self._tokenizer.get_vocab().values()) + 1

    def guard(self, text: str) -> str:
        """Mark what looks like a special token in a user's text, so that `encode` takes it as mere text."""
        for special in self._special_texts:
            if special in text:
                text = text.replace(special, special[0] + self._guard + special[1:])
        return text

    def unguard(self, text: str) -> str:
        """Remove the marks that `guard` made."""
        return text.replace(self._guard, "")

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt. Special tokens in it are those tokens, except where `guard` marked them."""
        if self._guard not in text:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        # The mark stands inside the special token's name, which so comes apart.
        parts = self._tokenizer.encode_batch(text.split(self._guard), add_special_tokens=False)
        return [token_id for part in parts for token_id in part.ids]

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes of one token; none for an id that the vocabulary lacks (some checkpoints pad their output layer)."""
        content = self._added.get(token_id)
        if content is not None:
            return content.encode()
        letters = self._tokenizer.id_to_token(token_id)
        return b"" if letters is None else bytes(BYTES_OF_LETTERS[letter] for letter in letters)


def _end_ids(directory: Path) -> frozenset[int]:
    path = directory / "generation_config.json"
    ends = json.loads(path.read_text()).get("eos_token_id", []) if path.is_file() else []
    return frozenset([ends] if isinstance(ends, int) else ends)
