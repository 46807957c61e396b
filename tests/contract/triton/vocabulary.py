"""The text of token ids, from a GGUF file's own vocabulary."""

from __future__ import annotations

import functools
from pathlib import Path

import gguf


def decode(path: Path, token_ids: list[int]) -> str:
    """Return the text of token ids, special tokens by name. Fails for missing or repeated bytes."""
    tokens, characters = _tokens(path), _characters()
    return bytes(byte for i in token_ids for byte in map(characters.__getitem__, tokens[i])).decode()


@functools.cache
def _tokens(path: Path) -> list[str]:
    return list(gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"].contents())


def _characters() -> dict[str, int]:
    """Return byte-level BPE's table of printable characters that stand for bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}
