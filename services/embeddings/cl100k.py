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
        """Return the text of `ids`.

        Raises:
            KeyError: An id is unknown; it is the exception's argument.
            UnicodeDecodeError: The ids begin or end in the middle of a character.
        """
        return b"".join(self._bytes[token_id] for token_id in ids).decode()
