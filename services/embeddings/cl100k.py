"""Decodes token ids of OpenAI's vocabulary cl100k_base to text, for clients that send only token ids."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Final


class Cl100kTable:
    """The vocabulary, from the file that tiktoken downloads: a line per token, with its bytes in base64 and its id."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises OSError or ValueError, whose message says what is wrong with it."""
        try:
            pairs = (line.split() for line in path.read_bytes().splitlines() if line)
            self._bytes: Final = {int(token_id): base64.b64decode(token, validate=True) for token, token_id in pairs}
        except ValueError as error:
            raise ValueError(f"{path} is no table of tiktoken's: {error}") from None

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`. Raises ValueError for an unknown id, and for bytes that are not UTF-8."""
        try:
            return b"".join(self._bytes[token_id] for token_id in ids).decode()
        except KeyError as error:
            raise ValueError(f"{error.args[0]} is no id of cl100k_base") from None
        except UnicodeDecodeError:
            raise ValueError("the ids begin or end in the middle of a character") from None
