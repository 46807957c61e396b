"""Reads the token ids of OpenAI's table cl100k_base back into text, for clients that send nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Final


class Cl100kTable:
    """The table, from the file that tiktoken downloads: a line per token, its bytes in base64 and its id."""

    def __init__(self, path: Path) -> None:
        """Raises OSError or ValueError that says what is wrong with the file."""
        try:
            pairs = (line.split() for line in path.read_bytes().splitlines() if line)
            self._bytes: Final = {int(token_id): base64.b64decode(token, validate=True) for token, token_id in pairs}
        except ValueError as error:
            raise ValueError(f"{path} is no table of tiktoken's: {error}") from None

    def decode(self, ids: Sequence[int]) -> str:
        """The text. Raises ValueError for an id that the table lacks, and for bytes that are no UTF-8."""
        try:
            return b"".join(self._bytes[token_id] for token_id in ids).decode()
        except KeyError as error:
            raise ValueError(f"{error.args[0]} is no id of cl100k_base") from None
        except UnicodeDecodeError:
            raise ValueError("the ids begin or end in the middle of a character") from None
